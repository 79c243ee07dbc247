"""A large picture from a stylised small one and the photo: every octave's edges are those of the photo.

Burt & Adelson 1983, "The Laplacian Pyramid as a Compact Image Code": a picture is a small one and, per octave, what
enlarging loses. Here halving and doubling are bicubic, halving with antialiasing, on centred pixels.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
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
#: How far the filters of an octave reach; even, so that halving keeps its grid.
REACH_PX: Final = 16


def octaves(size_px: Sequence[int], low_px: int = LOW_PX) -> int:
    """How often a picture (height, width) is halved until its longer side is low_px or less."""
    count = 0
    while max(size_px) > low_px * 2**count:
        count += 1
    return count


def transfer(content: Tensor, stylised: Tensor) -> Tensor:
    """A stylised small picture at the content's size: enlarged, with the content's edges scaled by `gains`.

    content: (3, H, W); stylised: (3, h, w) of the size of one of the content's levels. Raises UsageError for another.
    """
    sizes: list[tuple[int, ...]] = [
        level_size(content.shape[-2:], count) for count in range(octaves(content.shape[-2:], 1) + 1)
    ]
    if tuple(stylised.shape[-2:]) not in sizes:
        raise UsageError(
            f"A stylised picture of {stylised.shape[-1]} × {stylised.shape[-2]} px is not a content of "
            f"{content.shape[-1]} × {content.shape[-2]} px halved some times: halve it with pyramid.levels."
        )
    *finer, last = levels(content, sizes.index(tuple(stylised.shape[-2:])))
    found = gains(padded(last, 1), padded(stylised, 1))[:, : last.shape[-2], : last.shape[-1]]
    for number, level in enumerate(reversed(finer)):
        found = doubled(found) if number else found
        stylised = _octave(level, stylised, found)
    return stylised[:, : content.shape[-2], : content.shape[-1]]


def levels(content: Tensor, count: int) -> list[Tensor]:
    """The content (3, H, W) and, `count` times, its half; ends are repeated so that every half is whole."""
    found = [padded(content, count)]
    for _ in range(count):
        found.append(halved(found[-1]))
    return found


def level_size(size_px: Sequence[int], count: int) -> tuple[int, int]:
    """Height and width after `count` halvings."""
    return -(-int(size_px[0]) // 2**count), -(-int(size_px[1]) // 2**count)


def strips(height: int, rows: int = 256) -> Iterator[tuple[int, int]]:
    """(top, bottom) of strips that cover the height, in order; rows is even."""
    return ((top, min(height, top + rows)) for top in range(0, height, rows))


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


def _octave(content: Tensor, stylised: Tensor, found: Tensor) -> Tensor:
    """doubled(stylised) + doubled(gains) · (content − doubled(halved(content))), strip by strip into one tensor."""
    out = torch.empty_like(content)
    for top, bottom in strips(content.shape[-2]):
        first, last = max(0, top - REACH_PX), min(content.shape[-2], bottom + REACH_PX)
        own = content[:, first:last]
        band = own - doubled(halved(own))
        strip = doubled(stylised[:, first // 2 : last // 2])
        strip += doubled(found[:, first // 2 : last // 2]) * band
        out[:, top:bottom] = strip[:, top - first : bottom - first]
    return out
