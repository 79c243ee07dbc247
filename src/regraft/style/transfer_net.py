"""Feed-forward networks of fixed styles: a teacher with instance norm, and a student that runs in milliseconds.

Both look at the picture in cells of 2 × 2 pixels, work at a quarter of its size and add what they paint to the picture.
"""

from __future__ import annotations

from typing import Final

import torch
from torch import Tensor, nn
from torch.nn import functional as F

#: Sides of what a network gets are made multiples of this by repeating the edge.
MULTIPLE_PX: Final = 4


class ConditionalNorm(nn.Module):
    """Instance norm whose scale and shift belong to the style (Dumoulin et al. 2017, arXiv:1610.07629, eq. 5).

    shares: (N, styles), summing to 1: a mixture's scale is the mixture of scales.
    """

    def __init__(self, channels: int, styles: int) -> None:
        super().__init__()
        self.norm = nn.InstanceNorm2d(channels)
        self.scale = nn.Parameter(torch.ones(styles, channels))
        self.shift = nn.Parameter(torch.zeros(styles, channels))

    def forward(self, x: Tensor, shares: Tensor) -> Tensor:
        return self.norm(x) * (shares @ self.scale)[..., None, None] + (shares @ self.shift)[..., None, None]


class _Convolution(nn.Module):
    def __init__(self, inputs: int, outputs: int, styles: int, stride: int = 1) -> None:
        super().__init__()
        self.convolution = nn.Conv2d(inputs, outputs, 3, stride, padding=1, padding_mode="reflect", bias=False)
        self.norm = ConditionalNorm(outputs, styles)

    def forward(self, x: Tensor, shares: Tensor) -> Tensor:
        return self.norm(self.convolution(x), shares)


class _Residual(nn.Module):
    def __init__(self, width: int, styles: int) -> None:
        super().__init__()
        self.first = _Convolution(width, width, styles)
        self.second = _Convolution(width, width, styles)

    def forward(self, x: Tensor, shares: Tensor) -> Tensor:
        return x + self.second(F.relu(self.first(x, shares)), shares)


class TeacherNet(nn.Module):
    """pictures (N, 3, H, W) in [0, 1], shares (N, styles) → pictures, not cut to [0, 1].

    Johnson et al. 2016 (arXiv:1603.08155) with instance norm (Ulyanov et al. 2016, arXiv:1607.08022), several styles by
    one network. Differs from the paper in the first and last layer, which see cells of 2 × 2 pixels, and in adding to
    the picture instead of painting it anew.
    """

    def __init__(self, styles: int, width: int = 96, blocks: int = 4) -> None:
        super().__init__()
        half = width // 2
        self.styles = styles
        self.enter = _Convolution(12, half, styles)
        self.down = _Convolution(half, width, styles, stride=2)
        self.blocks = nn.ModuleList([_Residual(width, styles) for _ in range(blocks)])
        self.up = _Convolution(width, 4 * half, styles)
        self.smooth = _Convolution(half, half, styles)
        self.paint = nn.Conv2d(half, 12, 3, padding=1, padding_mode="reflect")
        nn.init.zeros_(self.paint.weight)

    def forward(self, pictures: Tensor, shares: Tensor) -> Tensor:
        padded, size = _padded(pictures)
        x = F.relu(self.enter(F.pixel_unshuffle(padded, 2), shares))
        x = F.relu(self.down(x, shares))
        for block in self.blocks:
            x = block(x, shares)
        x = F.relu(F.pixel_shuffle(self.up(x, shares), 2))
        x = F.relu(self.smooth(x, shares))
        painted = F.pixel_shuffle(self.paint(x), 2)
        return pictures + painted[..., : size[0], : size[1]]


class _Depthwise(nn.Module):
    """Residual pair of depthwise 3 × 3 and 1 × 1, each with batch norm (Howard et al. 2017, arXiv:1704.04861)."""

    def __init__(self, width: int, inner: int) -> None:
        super().__init__()
        self.body = nn.Sequential(
            nn.Conv2d(width, width, 3, padding=1, groups=width, bias=False),
            nn.BatchNorm2d(width),
            nn.Conv2d(width, inner, 1, bias=False),
            nn.BatchNorm2d(inner),
            nn.ReLU(),
            nn.Conv2d(inner, inner, 3, padding=1, groups=inner, bias=False),
            nn.BatchNorm2d(inner),
            nn.Conv2d(inner, width, 1, bias=False),
            nn.BatchNorm2d(width),
        )

    def forward(self, x: Tensor) -> Tensor:
        return F.relu(x + self.body(x))


class StudentNet(nn.Module):
    """pictures (N, 3, H, W) in [0, 1] → pictures of one style, not cut to [0, 1].

    Batch norm folds into the convolutions and needs no statistics of the picture, so that tiles are exact and integer
    arithmetic is possible. widths: channels at half size and at a quarter; inner: of each block, which pruning may
    make smaller.
    """

    def __init__(self, widths: tuple[int, int] = (24, 64), inner: tuple[int, ...] = (64, 64, 64, 64)) -> None:
        super().__init__()
        half, quarter = widths
        self.widths, self.inner = widths, inner
        self.enter = nn.Sequential(nn.Conv2d(12, half, 3, padding=1, bias=False), nn.BatchNorm2d(half), nn.ReLU())
        self.down = nn.Sequential(
            nn.Conv2d(half, quarter, 3, stride=2, padding=1, bias=False), nn.BatchNorm2d(quarter), nn.ReLU()
        )
        self.blocks = nn.Sequential(*(_Depthwise(quarter, width) for width in inner))
        self.up = nn.Sequential(nn.Conv2d(quarter, 4 * half, 1, bias=False), nn.BatchNorm2d(4 * half), nn.ReLU())
        self.paint = nn.Conv2d(half, 12, 3, padding=1)
        nn.init.zeros_(self.paint.weight)

    def forward(self, pictures: Tensor) -> Tensor:
        padded, size = _padded(pictures)
        x = self.blocks(self.down(self.enter(F.pixel_unshuffle(padded, 2))))
        painted = F.pixel_shuffle(self.paint(F.pixel_shuffle(self.up(x), 2)), 2)
        return pictures + painted[..., : size[0], : size[1]]


def _padded(pictures: Tensor) -> tuple[Tensor, tuple[int, int]]:
    height, width = int(pictures.shape[-2]), int(pictures.shape[-1])
    if height % MULTIPLE_PX or width % MULTIPLE_PX:
        pictures = F.pad(pictures, (0, -width % MULTIPLE_PX, 0, -height % MULTIPLE_PX), mode="replicate")
    return pictures, (height, width)
