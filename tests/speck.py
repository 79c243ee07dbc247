"""The smallest backbone there is, for artifacts that must be small: 8 features, always the same weights."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

from regraft.core.types import Features
from regraft.images.backbones.base import ImageBackbone, families, groups_by_prefix
from regraft.images.spec import ImageSpec

SIDE_PX = 32


class Speck(ImageBackbone):
    """Pictures (N, 3, 32, 32) → pooled (N, 8)."""

    licence = "Apache-2.0"

    def __init__(self) -> None:
        spec = ImageSpec((3, SIDE_PX, SIDE_PX), (0.5,) * 3, (0.5,) * 3, "bilinear", 1.0)
        super().__init__(spec, 8)
        self._build()

    def _build(self) -> None:
        self.conv1 = nn.Sequential(nn.Conv2d(3, 4, 3, stride=2), nn.BatchNorm2d(4), nn.ReLU())
        self.conv2 = nn.Sequential(nn.Conv2d(4, 8, 3, stride=2), nn.BatchNorm2d(8), nn.ReLU())

    def extract(self, x: Tensor) -> Features:
        first = self.conv1(x)
        second = self.conv2(first)
        return Features(second.mean(dim=(2, 3)), (first, second))

    def layer_groups(self) -> dict[str, list[str]]:
        return groups_by_prefix([name for name, _ in self.named_parameters()], ["conv1", "conv2"])

    def reset_parameters(self) -> None:
        self._build()


@families.register("speck")
def build(model: str, options: Mapping[str, Any], pretrained: bool) -> ImageBackbone:
    """`speck/speck`, its "pretrained" weights drawn from a fixed seed."""
    torch.manual_seed(0)
    backbone = Speck()
    backbone.provenance = {"source": "made for tests", "licence": "Apache-2.0"} if pretrained else {}
    return backbone
