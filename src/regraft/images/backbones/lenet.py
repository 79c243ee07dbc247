"""LeNet for digits, trained from scratch: two convolutions and one layer of 256 features.

LeCun et al., "Gradient-based learning applied to document recognition", Proc. IEEE 1998; in the widths that domain
adaptation on digits is published with (20 and 50 maps: Ganin et al. 2016, arXiv:1505.07818; 256 features after a batch
norm: Liang et al. 2020, arXiv:2002.08546). There are no pretrained weights.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from torch import Tensor, nn

from regraft.core.errors import UsageError, unknown_name
from regraft.core.types import Features
from regraft.images.backbones.base import ImageBackbone, families, groups_by_prefix
from regraft.images.spec import ImageSpec

WIDTH = 256
SIDE_PX = 28


class LeNet(ImageBackbone):
    """Pictures (N, 3, 28, 28), read as grey → pooled (N, 256), maps (N, 20, 12, 12) and (N, 50, 4, 4)."""

    licence = "Apache-2.0"

    def __init__(self) -> None:
        half = (0.5, 0.5, 0.5)
        super().__init__(ImageSpec((3, SIDE_PX, SIDE_PX), mean=half, std=half, crop_pct=1.0), WIDTH)
        self._build()

    def _build(self) -> None:
        self.conv1 = nn.Sequential(nn.Conv2d(1, 20, 5), nn.BatchNorm2d(20), nn.MaxPool2d(2), nn.ReLU())
        self.conv2 = nn.Sequential(nn.Conv2d(20, 50, 5), nn.BatchNorm2d(50), nn.MaxPool2d(2), nn.ReLU())
        self.features = nn.Sequential(nn.Flatten(), nn.Dropout(0.5), nn.Linear(800, WIDTH), nn.BatchNorm1d(WIDTH))

    def extract(self, x: Tensor) -> Features:
        first = self.conv1(x.mean(dim=1, keepdim=True))
        second = self.conv2(first)
        return Features(self.features(second), (first, second))

    def layer_groups(self) -> dict[str, list[str]]:
        return groups_by_prefix([name for name, _ in self.named_parameters()], ["conv1", "conv2", "features"])

    def reset_parameters(self) -> None:
        self._build()


@families.register("small")
def build(model: str, options: Mapping[str, Any], pretrained: bool) -> ImageBackbone:
    """`lenet`, always with random weights; it has no options."""
    if model != "lenet":
        raise unknown_name("small backbone", model, ["lenet"])
    if options:
        raise UsageError(f"lenet has no option {', '.join(sorted(options))}.")
    return LeNet()
