"""`sprig`: the slim perceptual network that comes with the package, so that styles are compared and trained offline.

Fire modules (Iandola et al. 2016, arXiv:1602.07360, section 3.1) up to an eighth of the picture's size. How it was
trained and what it reaches is in `regraft/weights/sprig.card.md`.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

import torch
from torch import Tensor, nn

#: Stage → channels of its output and how many pixels of the picture one position stands for, shallow → deep.
STAGES: Final[Mapping[str, tuple[int, int]]] = {
    "edges": (64, 2), "textures": (128, 4), "patterns": (256, 8), "parts": (256, 8),
}  # fmt: skip


class Fire(nn.Module):
    """Squeeze by 1 × 1, then expand half by 1 × 1 and half by 3 × 3, each followed by ReLU."""

    def __init__(self, inputs: int, squeezed: int, outputs: int) -> None:
        super().__init__()
        self.squeeze = nn.Conv2d(inputs, squeezed, 1)
        self.points = nn.Conv2d(squeezed, outputs // 2, 1)
        self.around = nn.Conv2d(squeezed, outputs // 2, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        x = self.squeeze(x).relu_()
        return torch.cat([self.points(x), self.around(x)], dim=1).relu_()


class Sprig(nn.Module):
    """Normalised pictures (N, 3, H, W) → features of every stage, each (N, C, H/s, W/s).

    Every stage takes the last one's output alone, so that a prefix of the network is a network. Sides are
    multiples of 8, or a stage may be a row shorter.
    """

    def __init__(self) -> None:
        super().__init__()
        pool = nn.MaxPool2d(3, 2, ceil_mode=True)
        self.edges = nn.Sequential(nn.Conv2d(3, 64, 3, stride=2, padding=1, padding_mode="reflect"), nn.ReLU())
        self.textures = nn.Sequential(pool, Fire(64, 32, 128), Fire(128, 32, 128))
        self.patterns = nn.Sequential(pool, Fire(128, 64, 256))
        self.parts = nn.Sequential(Fire(256, 64, 256))
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.kaiming_normal_(module.weight, nonlinearity="relu")
                assert module.bias is not None
                nn.init.zeros_(module.bias)

    def stages(self) -> dict[str, nn.Module]:
        """Name → module, in order."""
        return {name: getattr(self, name) for name in STAGES}

    def forward(self, x: Tensor) -> dict[str, Tensor]:
        found = {}
        for name, stage in self.stages().items():
            found[name] = x = stage(x)
        return found
