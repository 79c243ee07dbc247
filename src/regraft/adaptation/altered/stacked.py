"""Deep stacked transformations: pictures altered by chance in every way that another camera or scanner may alter them.

Zhang et al., "Generalizing Deep Learning for Medical Image Segmentation to Unseen Domains via Deep Stacked
Transformation" (BigAug), IEEE TMI 2020, arXiv:1906.03347: quality, appearance and space, one after the other, each with
a strength of its own. Nothing of the target is needed.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Final

import torch
from torch import Tensor
from torch.nn import functional as F

from regraft.adaptation.altered.views import as_float

#: What is drawn for each picture, evenly between 0 (or −) and this: the share of the sides that is cut off, log γ, how
#: much darker white and lighter black become, σ of the blur as a share of the shorter side, σ of the noise.
CUT: Final = 0.2
LOG_GAMMA: Final = 0.7
FADED: Final = 0.2
BLUR: Final = 2 / 224
NOISE: Final = 16 / 255
#: The chance that a picture becomes its negative, and that it loses its colour.
NEGATIVE: Final = 0.2
GREY: Final = 0.2


def altered_by_chance(x: Tensor) -> Tensor:
    """Pictures (N, 3, H, W), uint8 or float in [0, 1] → float in [0, 1], each altered by draws of its own.

    In this order: a part of it enlarged, colour taken away, negative, gamma, faded, blurred, noisy. Differs from the
    paper: no elastic deformation, no sharpening; negatives, since scanners disagree on what is bright.
    """
    x = as_float(x)
    n = len(x)

    def draw(low: float, high: float) -> Tensor:
        return torch.empty(n, 1, 1, 1, device=x.device, dtype=x.dtype).uniform_(low, high)

    x = _enlarged(x, draw)
    x = torch.where(draw(0, 1) < GREY, x.mean(dim=1, keepdim=True), x)
    x = torch.where(draw(0, 1) < NEGATIVE, 1 - x, x)
    x = x.clamp(1e-6, 1) ** draw(-LOG_GAMMA, LOG_GAMMA).exp()
    black, white = draw(0, FADED), 1 - draw(0, FADED)
    x = blurred(black + (white - black) * x, draw(0, BLUR).flatten() * min(x.shape[-2:]))
    return (x + draw(0, NOISE) * torch.randn_like(x[:, :1])).clamp(0, 1)


def blurred(x: Tensor, sigma_px: Tensor) -> Tensor:
    """Each picture of (N, C, H, W) under a Gaussian of its own width, sigma_px (N,) ≥ 0; mirrored at its edges."""
    n, channels, height, width = x.shape
    radius = min(math.ceil(3 * float(sigma_px.max())), height - 1, width - 1)
    if radius < 1:
        return x
    places = torch.arange(-radius, radius + 1, device=x.device, dtype=x.dtype)
    kernel = (-0.5 * (places / sigma_px.clamp(min=1e-3)[:, None]) ** 2).exp()
    kernel = (kernel / kernel.sum(dim=1, keepdim=True)).repeat_interleave(channels, 0)[:, None]
    flat = F.pad(x, (radius,) * 4, mode="reflect").reshape(1, n * channels, height + 2 * radius, width + 2 * radius)
    flat = F.conv2d(F.conv2d(flat, kernel[:, :, None], groups=n * channels), kernel[..., None], groups=n * channels)
    return flat.reshape(x.shape)


def _enlarged(x: Tensor, draw: Callable[[float, float], Tensor]) -> Tensor:
    """A part of each picture, of the same shape, brought to the size of the whole."""
    kept = 1 - draw(0, CUT).flatten()
    matrix = torch.zeros(len(x), 2, 3, device=x.device, dtype=x.dtype)
    for axis in (0, 1):
        matrix[:, axis, axis] = kept
        matrix[:, axis, 2] = (1 - kept) * draw(-1, 1).flatten()
    grid = F.affine_grid(matrix, list(x.shape), align_corners=False)
    return F.grid_sample(x, grid, padding_mode="border", align_corners=False)
