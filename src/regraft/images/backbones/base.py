"""The contract of a picture backbone, and the registry of families.

A family is a class with `build(model, options, pretrained)`. A file in this package with `@families.register("name")`
is all that a new one needs; `catalogue.create` and the contract tests find it.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Protocol

import torch
from torch import Tensor

from regraft.core.errors import UsageError
from regraft.core.registry import Registry
from regraft.core.types import Backbone, Features, PretrainedHead
from regraft.images.spec import ImageSpec

__all__ = ["Family", "ImageBackbone", "PretrainedHead", "families", "groups_by_prefix", "picture_backbone"]


class ImageBackbone(Backbone):
    """A picture network without its head.

    Subclasses set `input_spec` and `feature_dim`, and define `extract` and `layer_groups`. Calling it takes uint8
    (N, 3, H, W) in 0…255 or float in [0, 1], and normalises with the statistics of `input_spec`.
    """

    input_spec: ImageSpec
    #: The memory order that its convolutions run fastest in; a task with this backbone asks for it.
    memory_format = torch.channels_last

    def __init__(self, input_spec: ImageSpec, feature_dim: int) -> None:
        super().__init__(input_spec, feature_dim)
        for name in ("mean", "std"):
            values = torch.tensor(getattr(input_spec, name), dtype=torch.float32).view(1, -1, 1, 1)
            self.register_buffer(f"input_{name}", values, persistent=False)
        self.input_mean: Tensor
        self.input_std: Tensor

    def forward(self, x: Tensor) -> Features:
        return self.extract(self.normalise(x))

    def normalise(self, x: Tensor) -> Tensor:
        """uint8 in 0…255 or float in [0, 1] → float with the pretraining's mean and deviation."""
        if x.dtype == torch.uint8:
            x = x.to(self.input_mean.dtype) / 255
        return (x - self.input_mean) / self.input_std

    def extract(self, x: Tensor) -> Features:
        """Features of normalised pictures (N, 3, H, W)."""
        raise TypeError(f"{type(self).__name__} does not define extract")

    def take_spec(self, spec: ImageSpec) -> None:
        """Expect pictures by another spec, its mean and deviation included."""
        self.input_spec = spec
        for name in ("mean", "std"):
            values = self.input_mean.new_tensor(getattr(spec, name)).view(1, -1, 1, 1)
            getattr(self, f"input_{name}").copy_(values)


def picture_backbone(backbone: Backbone) -> ImageBackbone:
    """The same network, known to be one for pictures. Raises UsageError for one that is not."""
    if not isinstance(backbone, ImageBackbone):
        raise UsageError(f"{type(backbone).__name__} is no network for pictures, which this command is for.")
    return backbone


class Family(Protocol):
    """What a family registers."""

    def __call__(self, model: str, options: Mapping[str, Any], pretrained: bool) -> ImageBackbone: ...


families: Registry[Family] = Registry("backbone family")


def groups_by_prefix(parameters: list[str], prefixes: list[str]) -> dict[str, list[str]]:
    """Assign each parameter name to the group whose prefix it starts with; unmatched ones go to the shallowest.

    Groups without parameters are dropped; the order of `prefixes` is kept.
    """
    groups: dict[str, list[str]] = {prefix: [] for prefix in prefixes}
    for name in parameters:
        home = next((p for p in prefixes if name == p or name.startswith(p + ".")), prefixes[0])
        groups[home].append(name)
    return {prefix: names for prefix, names in groups.items() if names}
