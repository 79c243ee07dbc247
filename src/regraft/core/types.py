"""The nouns that every part of Regraft plugs into.

Pictures travel as uint8 (N, 3, H, W) in 0…255 or as float in [0, 1], sRGB; a backbone normalises with its own
statistics. So nothing outside a backbone needs to know a mean or a standard deviation.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple, Protocol, runtime_checkable

import torch
from torch import Tensor, nn

from regraft.core import nested


@dataclass(frozen=True)
class InputSpec:
    """What the pretrained weights expect. It travels inside every artifact; each modality has its own subclass.

    modality: "image", "text", "audio" or "video"; the set is open.
    """

    modality: str

    def to_json(self) -> dict[str, Any]:
        """Plain values, "modality" among them, by which a reader finds the subclass."""
        return {"modality": self.modality}

    @classmethod
    def from_json(cls, value: Mapping[str, Any]) -> InputSpec:
        """The spec that `to_json` wrote. Raises KeyError, TypeError or ValueError for anything else."""
        return cls(str(value["modality"]))


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


class PretrainedHead(NamedTuple):
    """The classifier that came with the weights: weight (S, D) and bias (S,) over pooled features; S source classes."""

    weight: Tensor
    bias: Tensor


class Backbone(nn.Module):
    """A network without its head, of any modality. Calling it takes what the modality collates and gives `Features`.

    A class and no protocol, since a task holds it as a part that is moved, copied and saved with it.
    """

    licence: str = "unknown"
    #: Whether the weights came from a pretraining; without one there is nothing to transfer.
    pretrained: bool = False
    #: The memory order that the network computes fastest in; None: any.
    memory_format: torch.memory_format | None = None

    def __init__(self, input_spec: InputSpec, feature_dim: int) -> None:
        super().__init__()
        self.input_spec = input_spec
        self.feature_dim = feature_dim
        #: How the modality builds this network again, without its weights; written into artifacts.
        self.recipe: dict[str, Any] = {}
        #: Where the weights came from, for the record: source, licence, hash.
        self.provenance: dict[str, Any] = {}
        #: What the weights can tell already, where they came with a linear classifier. No part of the network.
        self.pretrained_head: PretrainedHead | None = None

    def forward(self, x: Any) -> Features:
        raise TypeError(f"{type(self).__name__} does not define forward")

    def layer_groups(self) -> dict[str, list[str]]:
        """Parameter names by layer group, ordered shallow → deep, total and disjoint."""
        raise TypeError(f"{type(self).__name__} does not define layer_groups")

    def reset_parameters(self) -> None:
        """Give every layer fresh random weights, as its library initialises it: the from-scratch control."""
        raise TypeError(f"{type(self).__name__} does not define reset_parameters")

    def companions(self) -> dict[str, bytes]:
        """Small files by name that an artifact needs beside the weights, such as a tokenizer; none for most."""
        return {}


@runtime_checkable
class Layered(Protocol):
    """A backbone whose features are those of all layers, by a scale that it takes from the data."""

    def scale_by(self, raw: Any) -> Any:
        """Set the scale from raw features (N, D); returns them scaled."""
        ...


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
