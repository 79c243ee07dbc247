"""Feed-forward networks of fixed styles: a teacher with instance norm, and a student that runs in milliseconds.

Both look at the picture in cells of 2 × 2 pixels, work at a quarter of its size (the student mostly at an eighth) and
add what they paint to it, the teacher after giving it the style's colours.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

import torch
from torch import Tensor, nn
from torch.nn import functional as F

#: Sides of what a network gets are made multiples of this by repeating the edge.
MULTIPLE_PX: Final = 4
STUDENT_MULTIPLE_PX: Final = 8
#: A student looks for colours at every so many pixels both ways; the least variance that it divides by.
SEEN_EVERY: Final = 8
LEAST_VARIANCE: Final = 1e-3
#: The side of a student's canvas and its channels, at a quarter of the size.
CANVAS_PX: Final = 192
CANVAS_CHANNELS: Final = 4
#: Smooths over cells of two: what alternates between them is gone.
_EVEN: Final = torch.tensor([0.25, 0.5, 0.25])
#: A student's channels at half size, at a quarter and at an eighth.
STUDENT_WIDTHS: Final = (8, 16, 64)


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
        styled: Tensor = self.norm(x) * (shares @ self.scale)[..., None, None] + (shares @ self.shift)[..., None, None]
        return styled


class _Convolution(nn.Module):
    def __init__(self, inputs: int, outputs: int, styles: int, stride: int = 1) -> None:
        super().__init__()
        self.convolution = nn.Conv2d(inputs, outputs, 3, stride, padding=1, padding_mode="reflect", bias=False)
        self.norm = ConditionalNorm(outputs, styles)

    def forward(self, x: Tensor, shares: Tensor) -> Tensor:
        normed: Tensor = self.norm(self.convolution(x), shares)
        return normed


class _Residual(nn.Module):
    def __init__(self, width: int, styles: int) -> None:
        super().__init__()
        self.first = _Convolution(width, width, styles)
        self.second = _Convolution(width, width, styles)

    def forward(self, x: Tensor, shares: Tensor) -> Tensor:
        out: Tensor = x + self.second(F.relu(self.first(x, shares)), shares)
        return out


class TeacherNet(nn.Module):
    """pictures (N, 3, H, W) in [0, 1], shares (N, styles) → pictures, not cut to [0, 1].

    Johnson et al. 2016 (arXiv:1603.08155) with instance norm (Ulyanov et al. 2016, arXiv:1607.08022), several styles by
    one network. Differs from the paper in the first and last layer, which see cells of 2 × 2 pixels, and in adding what
    is painted to the picture in the style's colours. (To the picture as it is, colours could never be the style's: what
    comes after an instance norm does not know the picture's own.)
    """

    def __init__(self, styles: int, width: int = 88, blocks: int = 4) -> None:
        super().__init__()
        half = width // 2
        self.styles, self.width = styles, width
        self.enter = _Convolution(12, half, styles)
        self.down = _Convolution(half, width, styles, stride=2)
        self.blocks = nn.ModuleList([_Residual(width, styles) for _ in range(blocks)])
        self.up = _Convolution(width, half, styles)
        self.smooth = _Convolution(half, half, styles)
        self.paint = nn.Conv2d(half, 12, 3, padding=1, padding_mode="reflect")
        nn.init.zeros_(self.paint.weight)
        #: The picture itself, whose colours get the style's mean and spread.
        self.recoloured = ConditionalNorm(3, styles)
        nn.init.constant_(self.recoloured.scale, 0.25)
        nn.init.constant_(self.recoloured.shift, 0.5)

    @torch.no_grad()
    def begin_with_colours(self, styles: Sequence[Tensor]) -> None:
        """Begin at each style's mean and deviation of colours; styles: pictures (3, h, w) in [0, 1], in order."""
        for index, style in enumerate(styles):
            self.recoloured.scale[index] = style.flatten(1).std(dim=1)
            self.recoloured.shift[index] = style.flatten(1).mean(dim=1)

    def forward(self, pictures: Tensor, shares: Tensor) -> Tensor:
        padded, size = _padded(pictures, MULTIPLE_PX)
        x = F.relu(self.enter(F.pixel_unshuffle(padded, 2), shares))
        x = F.relu(self.down(x, shares))
        for block in self.blocks:
            x = block(x, shares)
        # Enlarged and then convolved: a convolution that is shuffled into place paints a grid (Odena et al. 2016).
        x = F.relu(self.up(F.interpolate(x, scale_factor=2, mode="nearest"), shares))
        x = F.relu(self.smooth(x, shares))
        painted = smoothed(F.pixel_shuffle(self.paint(x), 2))
        whole: Tensor = self.recoloured(pictures, shares) + painted[..., : size[0], : size[1]]
        return whole


class DepthwiseBlock(nn.Module):
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

    The picture's colours get the style's mean and deviation per channel, found on every SEEN_EVERY-th pixel, so that
    what follows always sees the same colours. From there on it is batch norm, which folds into the convolutions and
    needs no statistics of the picture: integer arithmetic is possible, and tiles that are told the whole picture's
    colours are exact. The blocks work at an eighth of the size, where a processor is not held up by memory. Nothing in
    them tells strokes where to begin in a plain sky, so a learned canvas of CANVAS_PX, repeated over the picture, is
    laid under what is seen; it is the same whatever noise the picture has.
    What is shuffled into cells is smoothed over them, so that no finer grid can be painted (Odena et al. 2016). widths:
    channels at half size, at a quarter and at an eighth; inner: of each block, which pruning may make smaller.
    """

    def __init__(
        self, widths: tuple[int, int, int] = STUDENT_WIDTHS, inner: tuple[int, ...] = (64, 64, 64, 64)
    ) -> None:
        super().__init__()
        half, quarter, eighth = widths
        self.widths, self.inner = widths, tuple(inner)
        self.enter = _normalised(12, quarter, 3, stride=2)
        self.canvas = nn.Parameter(0.5 * torch.randn(CANVAS_CHANNELS, CANVAS_PX // 4, CANVAS_PX // 4))
        self.lay = nn.Conv2d(CANVAS_CHANNELS, quarter, 1, bias=False)
        self._origin_px = (0, 0)
        self._whole: tuple[Tensor, Tensor] | None = None
        #: The style's mean and deviation of colours.
        self.colour_mean = nn.Parameter(torch.full((3,), 0.5))
        self.colour_std = nn.Parameter(torch.full((3,), 0.25))
        self.down = _normalised(quarter, eighth, 3, stride=2)
        self.blocks = nn.Sequential(*(DepthwiseBlock(eighth, width) for width in inner))
        self.up = _normalised(eighth, 4 * quarter, 1)
        self.widen = _normalised(quarter, 4 * half, 1)
        for layer in (self.up, self.widen):
            _alike_in_cells(layer[0])
        self.paint = nn.Conv2d(half, 3, 3, padding=1)
        nn.init.zeros_(self.paint.weight)
        self.register_buffer("even", _EVEN.view(1, 1, 3, 1) * _EVEN.expand(quarter, 1, 1, 3), persistent=False)
        self.register_buffer("enlarged", enlarging_kernel(), persistent=False)
        self.even: Tensor
        self.enlarged: Tensor

    def forward(self, pictures: Tensor) -> Tensor:
        padded, size = _padded(self._recoloured(pictures), STUDENT_MULTIPLE_PX)
        cells = F.pixel_unshuffle(padded, 2)
        entered = F.relu(self.enter(cells))
        entered = entered + self._laid(entered.shape[-2:])
        x = self.up(self.blocks(F.relu(self.down(entered))))
        x = F.conv2d(F.pixel_shuffle(x, 2), self.even, padding=1, groups=self.widths[1])
        x = F.pixel_shuffle(F.relu(self.widen(F.relu(x + entered))), 2)
        painted = F.pad(self.paint(x), (2, 2, 2, 2), mode="replicate")
        # Added to the cells, not to the picture: the same sum with one pass less over the whole picture.
        cells = cells + F.conv2d(painted, self.enlarged, groups=3)
        return F.pixel_shuffle(cells, 2)[..., : size[0], : size[1]]

    @torch.no_grad()
    def begin_with_colours(self, style: Tensor) -> None:
        """Begin at the colours of a style, a picture (3, h, w) in [0, 1]."""
        self.colour_std.copy_(style.flatten(1).std(dim=1))
        self.colour_mean.copy_(style.flatten(1).mean(dim=1))

    def begin(self, whole: Tensor | None) -> None:
        """Say of which picture (3, H, W) the next ones are parts; None: of none, each is a picture."""
        self._origin_px = (0, 0)
        self._whole = None if whole is None else colours_of(whole[None].to(self.colour_mean.device))

    def place(self, row_px: int, column_px: int) -> None:
        """Say where in the whole picture the next parts begin (multiples of 8), so that the canvas goes on there."""
        self._origin_px = (row_px, column_px)

    def _recoloured(self, pictures: Tensor) -> Tensor:
        mean, std = (part.to(pictures.dtype) for part in (self._whole or colours_of(pictures)))
        scale = self.colour_std[:, None, None] / std
        return (pictures * scale + (self.colour_mean[:, None, None] - mean * scale)).clamp(0, 1)

    def _laid(self, size: Sequence[int]) -> Tensor:
        """The canvas over (height, width) at a quarter of the size; in training begun anywhere."""
        period = CANVAS_PX // 4
        starts = [px // 4 % period for px in self._origin_px]
        if self.training:
            starts = torch.randint(0, period, (2,)).tolist()
        laid = self.lay(self.canvas[None]).roll((-starts[0], -starts[1]), dims=(2, 3))
        repeats = [-(-int(side) // period) for side in size]
        covering: Tensor = laid.repeat(1, 1, *repeats)[..., : size[0], : size[1]]
        return covering


def colours_of(pictures: Tensor) -> tuple[Tensor, Tensor]:
    """Mean and deviation (N, 3, 1, 1) of colours over every SEEN_EVERY-th pixel of (N, 3, H, W), uint8 or float."""
    seen = pictures[..., ::SEEN_EVERY, ::SEEN_EVERY]
    seen = seen.float() / 255 if seen.dtype == torch.uint8 else seen
    mean = seen.mean(dim=(2, 3), keepdim=True)
    return mean, (seen.square().mean(dim=(2, 3), keepdim=True) - mean.square()).clamp(min=LEAST_VARIANCE).sqrt()


def enlarging_kernel() -> Tensor:
    """(12, 1, 5, 5): colours at half size → cells of 2 × 2 px, one group per colour. Smoothed by [1 2 1] / 4, which
    takes away what alternates, and then enlarged linearly."""
    first = torch.tensor([1.0, 5.0, 7.0, 3.0, 0.0]) / 16  # of a cell's first pixel; the second's is its mirror image
    lines = torch.stack([first, first.flip(0)])
    kernel = torch.einsum("ri,cj->rcij", lines, lines).reshape(4, 1, 5, 5)
    return kernel.repeat(3, 1, 1, 1)


@torch.no_grad()
def _alike_in_cells(layer: nn.Module) -> None:
    """The four channels of each cell begin alike, so that no grid is there to begin with (Aitken et al. 2017,
    arXiv:1707.02937)."""
    assert isinstance(layer, nn.Conv2d)
    layer.weight.copy_(layer.weight[::4].repeat_interleave(4, dim=0))


def _normalised(inputs: int, outputs: int, kernel: int, stride: int = 1) -> nn.Sequential:
    return nn.Sequential(
        nn.Conv2d(inputs, outputs, kernel, stride, padding=kernel // 2, bias=False), nn.BatchNorm2d(outputs)
    )


def smoothed(painted: Tensor) -> Tensor:
    """(N, C, H, W) filtered by [1 2 1] / 4 both ways, which takes away what changes from pixel to pixel.

    Cells of 2 × 2 pixels would otherwise leave their grid in what is painted. The picture's own detail is added after.
    """
    x = F.pad(painted, (1, 1, 1, 1), mode="replicate")
    # By sums of shifted pictures: a convolution of one channel at a time takes several times as long.
    x = 0.25 * (x[..., :-2] + x[..., 2:]) + 0.5 * x[..., 1:-1]
    return 0.25 * (x[..., :-2, :] + x[..., 2:, :]) + 0.5 * x[..., 1:-1, :]


def _padded(pictures: Tensor, multiple_px: int) -> tuple[Tensor, tuple[int, int]]:
    height, width = int(pictures.shape[-2]), int(pictures.shape[-1])
    if height % multiple_px or width % multiple_px:
        pictures = F.pad(pictures, (0, -width % multiple_px, 0, -height % multiple_px), mode="replicate")
    return pictures, (height, width)
