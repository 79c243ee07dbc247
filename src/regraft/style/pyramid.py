"""A large picture stylised at low resolution, its middle bands from half the size, its edges from the photo.

Burt & Adelson 1983, "The Laplacian Pyramid as a Compact Image Code": a picture is a small one and, per octave, what
enlarging loses. Here halving and doubling are bicubic, halving with antialiasing, on centred pixels.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Final

import torch
from torch import Tensor
from torch.nn import functional as F

from regraft.core.errors import UsageError

#: The longer side of the lowest level is at most this.
LOW_PX: Final = 1024
#: Side of the window in which the bands of photo and result are compared, in px of the compared level.
WINDOW_PX: Final = 9
#: A band weaker than this deviation carries no edge that could be measured; values in [0, 1].
FAINT: Final = 1 / 255
#: The most by which an edge is strengthened, or turned round.
MOST_GAIN: Final = 3.0
#: Rows that are put together at a time, and how far the filters of an octave reach.
_STRIP_ROWS: Final = 256
_REACH_PX: Final = 16

Run = Callable[[Tensor], Tensor]


def octaves(size_px: Sequence[int], low_px: int = LOW_PX) -> int:
    """How often a picture (height, width) is halved until its longer side is low_px or less."""
    count = 0
    while max(size_px) > low_px * 2**count:
        count += 1
    return count


def stylize_by_pyramid(run: Run, content: Tensor, *, low_px: int = LOW_PX, middle: bool = True) -> Tensor:
    """The stylised content (3, H, W): run at low resolution and, with `middle`, at half the size; edges transferred.

    content: (3, H, W) in [0, 1]. run: (3, h, w) → (3, h, w). The low level decides the look at large: what the run at
    half the size has below its octaves is replaced by it. A picture of low_px or less is run as it is.
    """
    count = octaves(content.shape[-2:], low_px)
    if count == 0:
        return run(content)
    whole = padded(content, count)
    levels = [whole]
    for _ in range(count):
        levels.append(halved(levels[-1]))
    low = run(levels[-1])
    if not middle or count == 1:
        return _cropped(_raised(low, levels), content)
    half = run(levels[1])
    look = half
    for _ in range(count - 1):
        look = halved(look)
    look = low - look
    for _ in range(count - 1):
        look = doubled(look)
    return _cropped(_raised(half + look, levels[:2]), content)


def transfer(content: Tensor, stylised: Tensor) -> Tensor:
    """A stylised low level at the content's size: enlarged, with the content's edges.

    content: (3, H, W); stylised: (3, h, w) of its lowest level, as `lowest` gives it. Raises UsageError for another.
    """
    count = 0
    while lowest_size(content.shape[-2:], count)[0] > stylised.shape[-2]:
        count += 1
    if lowest_size(content.shape[-2:], count) != tuple(stylised.shape[-2:]):
        raise UsageError(
            f"A stylised picture of {tuple(stylised.shape[-2:])} px is not the halved one of a content of "
            f"{tuple(content.shape[-2:])} px: halve it with pyramid.lowest."
        )
    if count == 0:
        return stylised
    levels = [padded(content, count)]
    for _ in range(count):
        levels.append(halved(levels[-1]))
    return _cropped(_raised(stylised, levels), content)


def lowest(content: Tensor, low_px: int = LOW_PX) -> Tensor:
    """The content (3, H, W) halved until its longer side is low_px or less; odd ends are repeated to be even."""
    count = octaves(content.shape[-2:], low_px)
    level = padded(content, count)
    for _ in range(count):
        level = halved(level)
    return level


def lowest_size(size_px: Sequence[int], count: int) -> tuple[int, int]:
    return -(-int(size_px[0]) // 2**count), -(-int(size_px[1]) // 2**count)


def padded(picture: Tensor, count: int) -> Tensor:
    """With its last row and column repeated until both sides can be halved `count` times."""
    below, right = (-side % 2**count for side in picture.shape[-2:])
    return F.pad(picture[None], (0, right, 0, below), mode="replicate")[0] if below or right else picture


def halved(picture: Tensor) -> Tensor:
    """(C, H, W) of even sides → (C, H/2, W/2)."""
    size = picture.shape[-2] // 2, picture.shape[-1] // 2
    return F.interpolate(picture[None], size, mode="bicubic", antialias=True, align_corners=False)[0]


def doubled(picture: Tensor) -> Tensor:
    """(C, h, w) → (C, 2h, 2w)."""
    size = 2 * picture.shape[-2], 2 * picture.shape[-1]
    return F.interpolate(picture[None], size, mode="bicubic", align_corners=False)[0]


def gains(content: Tensor, stylised: Tensor) -> Tensor:
    """By how much each channel's edges differ around each place, (3, h, w), from pictures (3, h, w) of even sides.

    The least-squares slope of the stylised band on the content's band in a window: the ratio of their local contrasts,
    times how far the two go together, so that strokes that follow no edge do not strengthen any. Differs from a plain
    ratio of contrasts in that factor.
    """
    a, b = (picture - doubled(halved(picture)) for picture in (content, stylised))
    mean_a, mean_b, mean_aa, mean_ab = (_local_mean(x) for x in (a, b, a * a, a * b))
    slope = (mean_ab - mean_a * mean_b) / ((mean_aa - mean_a * mean_a).clamp(min=0) + FAINT**2)
    return _local_mean(slope.clamp(-MOST_GAIN, MOST_GAIN))


def _local_mean(picture: Tensor) -> Tensor:
    half = WINDOW_PX // 2
    return F.avg_pool2d(picture[None], WINDOW_PX, stride=1, padding=half, count_include_pad=False)[0]


def _raised(stylised: Tensor, levels: Sequence[Tensor]) -> Tensor:
    """From the last level's size to the first one's, each octave with the content's band times the gains found at the
    last level."""
    last = levels[-1]
    at = padded(last, 1)
    found = gains(at, padded(stylised, 1))[:, : last.shape[-2], : last.shape[-1]]
    for content in reversed(levels[:-1]):
        stylised = _octave(content, stylised, found)
        if content is not levels[0]:
            found = doubled(found)
    return stylised


def _octave(content: Tensor, stylised: Tensor, found: Tensor) -> Tensor:
    """doubled(stylised) + doubled(gains) · (content − doubled(halved(content))), strip by strip into one tensor."""
    height = content.shape[-2]
    out = torch.empty_like(content)
    for top in range(0, height, _STRIP_ROWS):
        bottom = min(height, top + _STRIP_ROWS)
        first, last = max(0, top - _REACH_PX), min(height, bottom + _REACH_PX)
        own = content[:, first:last]
        band = own - doubled(halved(own))
        strip = doubled(stylised[:, first // 2 : last // 2])
        strip += doubled(found[:, first // 2 : last // 2]) * band
        out[:, top:bottom] = strip[:, top - first : bottom - first]
    return out


def _cropped(picture: Tensor, content: Tensor) -> Tensor:
    return picture[:, : content.shape[-2], : content.shape[-1]]
