"""A stylised picture brought to twice its size, in the way that is learnt where the answer is known.

A network that was run at two neighbouring sizes shows what the finer of them has that the enlarged coarser one lacks,
and how that follows from the content. The same rule then takes the finer one to a size that the network was not run at.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from typing import Final

import torch
from torch import Tensor
from torch.nn import functional as F

from regraft.style.large.pyramid import REACH_PX, doubled, strips

#: Windows in px that part the enlarged picture into a smooth, a middle and a fine band.
BAND_PX: Final = (5, 17)
#: The side of the neighbourhood of content pixels that a pixel follows from.
TAPS_PX: Final = 5
#: Rows and strips that the rule is learnt from.
_ROWS: Final = 16
_MOST_STRIPS: Final = 48
_RIDGE: Final = 1e-6


class Raising:
    """stylised (3, h, w) and content (3, 2h, 2w) → stylised (3, 2h, 2w), linear in both.

    Each pixel is a linear function of three bands of the enlarged stylised picture and of the content's 5 × 5 px around
    it, by weights that are the same everywhere: those of least squares. What cannot be predicted is left out rather
    than guessed, so texture that the two sizes do not share comes out fainter than the network would paint it.
    """

    def __init__(self, coarse: Tensor, content: Tensor, fine: Tensor) -> None:
        """coarse: (3, h, w), fine and content: (3, 2h, 2w)."""
        gram, product, count = None, None, 0
        places = list(strips(content.shape[-2], _ROWS))
        for top, bottom in places[:: max(1, len(places) // _MOST_STRIPS)]:
            bands, near = _seen(coarse, content, top, bottom)
            taps = F.unfold(near[None], TAPS_PX)[0]
            rows = torch.cat((bands.flatten(1), taps, torch.ones_like(taps[:1]))).double()
            target = fine[:, top:bottom].flatten(1).double()
            more, also = rows @ rows.T, rows @ target.T
            gram, product = (more, also) if gram is None or product is None else (gram + more, product + also)
            count += rows.shape[1]
        assert gram is not None and product is not None
        ridge = _RIDGE * count * torch.eye(len(gram), dtype=gram.dtype, device=gram.device)
        solved = torch.linalg.solve(gram + ridge, product).T.to(content.dtype)
        n_bands = 3 * (len(BAND_PX) + 1)
        self.bands = solved[:, :n_bands].reshape(3, n_bands, 1, 1)
        self.taps = solved[:, n_bands:-1].reshape(3, 3, TAPS_PX, TAPS_PX)
        self.constant = solved[:, -1]

    def __call__(self, coarse: Tensor, content: Tensor) -> Tensor:
        """Strip by strip into one tensor."""
        out = torch.empty_like(content)
        for top, bottom in strips(content.shape[-2]):
            bands, near = _seen(coarse, content, top, bottom)
            strip = F.conv2d(near[None], self.taps, self.constant)
            strip += F.conv2d(bands[None], self.bands)
            out[:, top:bottom] = strip[0]
        return out


def _seen(coarse: Tensor, content: Tensor, top: int, bottom: int) -> tuple[Tensor, Tensor]:
    """Of rows top … bottom: the bands (9, rows, 2w), and the content with the margin of the taps, edges repeated."""
    first, last = max(0, top - REACH_PX), min(content.shape[-2], bottom + REACH_PX)
    enlarged = doubled(coarse[:, first // 2 : last // 2])
    smoother = [enlarged, *_smoothed(enlarged)]
    bands = [finer - wider for finer, wider in itertools.pairwise(smoother)] + [smoother[-1]]
    own = torch.cat(bands)[:, top - first : bottom - first]
    half = TAPS_PX // 2
    first, last = max(0, top - half), min(content.shape[-2], bottom + half)
    margins = (half, half, half - (top - first), half - (last - bottom))
    return own, F.pad(content[None, :, first:last], margins, mode="replicate")[0]


def _smoothed(picture: Tensor) -> Iterator[Tensor]:
    for side in BAND_PX:
        yield F.avg_pool2d(picture[None], side, stride=1, padding=side // 2, count_include_pad=False)[0]
