"""Noise of a photo: how much there is, and the photo without it, so that a painting is not made of grain.

The level is estimated from the finest diagonal wavelet coefficients (Donoho & Johnstone 1994, "Ideal spatial adaptation
by wavelet shrinkage", eq. 30), the noise taken away by thresholding sliding discrete cosine transforms of decorrelated
colours (Yu & Sapiro 2011, "DCT image denoising: a simple and effective image denoising algorithm", IPOL 1).
"""

from __future__ import annotations

import math
from typing import Final

import torch
from torch import Tensor
from torch.nn import functional as F

#: Deviation, of values in [0, 1], from which a photo counts as noisy. Below it grain is not seen.
NOISY: Final = 4 / 255
#: Side of the transformed patches and the step from one to the next, px.
PATCH_PX: Final = 4
STRIDE_PX: Final = 2
#: Coefficients below this multiple of the noise's deviation are taken for noise.
THRESHOLD: Final = 2.7
#: The median of |x| for a standard normal x.
_MEDIAN: Final = 0.6745


def noise_level(pictures: Tensor) -> Tensor:
    """(N,): the deviation of white noise in pictures (N, C, H, W), H and W ≥ 2, of whatever range these have."""
    rows, columns = (side // 2 * 2 for side in pictures.shape[-2:])
    upper, lower = pictures[..., 0:rows:2, :columns], pictures[..., 1:rows:2, :columns]
    diagonal = (upper[..., 0::2] - upper[..., 1::2] - lower[..., 0::2] + lower[..., 1::2]) / 2
    return diagonal.abs().flatten(1).median(dim=1).values / _MEDIAN


def denoised(pictures: Tensor, level: Tensor) -> Tensor:
    """Pictures (N, 3, H, W) in [0, 1], H and W ≥ 4, without noise of deviation level (N,)."""
    n, _, height, width = pictures.shape
    colours = _COLOURS.to(pictures)
    planes = torch.einsum("dc,nchw->ndhw", colours, pictures).reshape(n * 3, 1, height, width)
    less = PATCH_PX - STRIDE_PX
    more = [less + (-side) % STRIDE_PX for side in (width, height)]
    patches = _patches().to(pictures)
    found = F.conv2d(F.pad(planes, (less, more[0], less, more[1]), mode="reflect"), patches, stride=STRIDE_PX)
    limit = (THRESHOLD * level).repeat_interleave(3)[:, None, None, None]
    # The first coefficient is the patch's mean.
    kept = torch.cat([found[:, :1], found[:, 1:] * (found[:, 1:].abs() > limit)], dim=1)
    again = F.conv_transpose2d(kept, patches, stride=STRIDE_PX)[..., less : less + height, less : less + width]
    planes = (again * (STRIDE_PX / PATCH_PX) ** 2).view(n, 3, height, width)
    return torch.einsum("dc,ndhw->nchw", colours, planes).clamp(0, 1)


def calm(pictures: Tensor) -> Tensor:
    """Pictures (N, 3, H, W) in [0, 1], those of them `denoised` that are NOISY."""
    if min(pictures.shape[-2:]) < PATCH_PX:
        return pictures
    level = noise_level(pictures)
    noisy = level > NOISY
    if not bool(noisy.any()):
        return pictures
    return torch.where(noisy[:, None, None, None], denoised(pictures, level), pictures)


def _orthonormal(rows: list[list[float]]) -> Tensor:
    matrix = torch.tensor(rows)
    unit: Tensor = matrix / matrix.norm(dim=1, keepdim=True)
    return unit


#: Brightness and two differences of colours.
_COLOURS: Final = _orthonormal([[1.0, 1.0, 1.0], [1.0, 0.0, -1.0], [1.0, -2.0, 1.0]])


def _patches() -> Tensor:
    """(P², 1, P, P): the orthonormal cosines of a patch."""
    at = torch.arange(PATCH_PX) + 0.5
    waves = torch.cos(math.pi / PATCH_PX * torch.arange(PATCH_PX)[:, None] * at) * math.sqrt(2 / PATCH_PX)
    waves[0] /= math.sqrt(2)
    return torch.einsum("ai,bj->abij", waves, waves).reshape(PATCH_PX**2, 1, PATCH_PX, PATCH_PX)
