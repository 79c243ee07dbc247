"""The nouns that every part of Regraft plugs into.

Pictures travel as uint8 (N, 3, H, W) in 0…255 or as float in [0, 1], sRGB; a backbone normalises with its own
statistics. So nothing outside a backbone needs to know a mean or a standard deviation.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple, Protocol, runtime_checkable

import torch
from torch import Tensor, nn

from regraft.core import nested


@dataclass(frozen=True)
class InputSpec:
    """What the pretrained weights expect. It travels inside every artifact.

    modality: "image", "text", "audio" or "video"; the set is open.
    shape: image (C, H, W) in px; audio (samples,); text (tokens,).
    options: image: mean, std (per channel, of values in [0, 1]), interpolation ("bilinear", "bicubic"), crop_pct (the
    crop's share of the resized short side); audio: sample_rate_hz; text: tokenizer.
    """

    modality: str
    shape: tuple[int, ...]
    options: Mapping[str, Any] = field(default_factory=dict)

    def to_json(self) -> dict[str, Any]:
        return {"modality": self.modality, "shape": list(self.shape), "options": dict(self.options)}

    @classmethod
    def from_json(cls, value: Mapping[str, Any]) -> InputSpec:
        options = {k: tuple(v) if isinstance(v, list) else v for k, v in value["options"].items()}
        return cls(str(value["modality"]), tuple(int(n) for n in value["shape"]), options)


@dataclass(frozen=True)
class Batch:
    """x: N samples as a tensor, a dict of tensors, or a list with one entry for each, as `core.nested` divides them.

    y: what the kind of labels says, divided in the same way: class indices (N,), numbers to predict (N,) in floating
    point, a dict or a list; or None where labels are withheld: an unlabelled target carries neither labels nor −1.
    weight: (N,), 0 marks padding, so that sharded evaluation counts every sample exactly once.
    domain: int64 (N,), which of several labelled domains each sample is from, or None where there is one.
    """

    x: Any
    y: Any = None
    weight: Tensor | None = None
    domain: Tensor | None = None

    def to(self, device: Any) -> Batch:
        return Batch(*(nested.move(part, device) for part in (self.x, self.y, self.weight, self.domain)))

    def cut(self, parts: int) -> list[Batch]:
        """This batch in `parts` pieces of nearly equal length."""
        pieces = (nested.cut(part, parts) for part in (self.x, self.y, self.weight, self.domain))
        return [Batch(*piece) for piece in zip(*pieces, strict=True)]


class Features(NamedTuple):
    """pooled: (N, D). maps: shallow → deep, each (N, C, H, W) or (N, T, D)."""

    pooled: Tensor
    maps: tuple[Tensor, ...] = ()


@dataclass(frozen=True)
class DomainView:
    """What a domain-adaptation loss or a validator may look at: features (N, D), logits (N, K), the source's labels.

    `labels` is None for the target, always. strong: logits of a second, heavily altered view of the same samples;
    teacher: logits of a running average of the network on the first view; each only where a method asks for it.
    class_weights: (K,) in 0…1, how much each of the source's classes is taken to be in the target; None: all alike.
    domains: int64 (N,), which of several source domains each sample is from; None for the target and for one source.
    """

    features: Tensor
    logits: Tensor | None = None
    labels: Tensor | None = None
    strong: Tensor | None = None
    teacher: Tensor | None = None
    class_weights: Tensor | None = None
    domains: Tensor | None = None


@runtime_checkable
class Backbone(Protocol):
    """A network without its head. `layer_groups` names its parameters, ordered shallow → deep, total and disjoint."""

    input_spec: InputSpec
    feature_dim: int

    def __call__(self, x: Any) -> Features: ...

    def layer_groups(self) -> dict[str, list[str]]: ...


class Rule(NamedTuple):
    """Who trains, when, at which rate. The first rule that matches a parameter decides.

    pattern: "group:<name>" for a layer group, else a regular expression searched in the parameter's name.
    lr: multiple of the base rate; None = frozen. from_progress: thaws at this fraction of training, in [0, 1].
    """

    pattern: str
    lr: float | None
    from_progress: float = 0.0


class StepOutput(NamedTuple):
    """loss: a scalar with gradient. logs: what to show beside it, plain numbers or detached scalars."""

    loss: Tensor
    logs: Mapping[str, float | Tensor] = {}


class Task(nn.Module):
    """The one module that the engine wraps for mixed precision and several processes."""

    #: Names of the alternating steps of one iteration; most tasks have one.
    phases: tuple[str, ...] = ("step",)
    #: The memory order that weights and inputs with as many dimensions are brought to; None leaves them as they are.
    memory_format: torch.memory_format | None = None
    #: A scalar with gradient that the loop adds to the loss once per phase, whatever the batch is cut into: what keeps
    #: weights where they were, as L2-SP does. It is given the task. Set on an instance, not in a class body.
    penalty: Callable[[Task], Tensor] | None = None

    def forward(self, batches: Mapping[str, Batch], progress: float, phase: str = "step") -> StepOutput:
        """The loss on one batch per stream. progress: how much of training is done, in [0, 1]."""
        raise TypeError(f"{type(self).__name__} does not define forward")

    def predict(self, x: Any) -> Any:
        """The task's answer for inputs x, N samples as `core.nested` divides them: the same in train and eval mode."""
        raise TypeError(f"{type(self).__name__} does not define predict")

    def layer_groups(self) -> dict[str, list[str]]:
        """Parameter names by group, ordered shallow → deep, total and disjoint."""
        raise TypeError(f"{type(self).__name__} does not define layer_groups")

    def reset_parameters(self) -> None:
        """Fresh random weights, the head's too, as each layer's library initialises it: the control from scratch."""
        raise TypeError(f"{type(self).__name__} does not define reset_parameters")


class Stream(Protocol):
    """A named source of batches. The same (epoch, start) always gives the same batches, so that runs resume."""

    def __len__(self) -> int: ...

    def epoch(self, index: int, start: int = 0) -> Iterator[Batch]:
        """Batches `start`, `start + 1`, … of epoch `index`."""
        ...


class AlignmentLoss(nn.Module):
    """Domain adaptation as one extra term over feature tensors."""

    def forward(self, source: DomainView, target: DomainView, progress: float) -> Tensor:
        raise TypeError(f"{type(self).__name__} does not define forward")


class Validator(Protocol):
    """Scores a checkpoint (higher is better) and says whether it looked at target labels."""

    uses_target_labels: bool

    def score(self, source: DomainView, target: DomainView) -> float: ...


class StyleMethod(Protocol):
    """Images (3, H, W), float sRGB in [0, 1]; styles with their weights."""

    def stylize(
        self,
        content: Tensor,
        styles: Sequence[tuple[Tensor, float]],
        *,
        on_step: Callable[[Any], None] | None = None,
    ) -> Tensor: ...
