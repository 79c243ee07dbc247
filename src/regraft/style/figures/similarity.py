"""Structural similarity as a differentiable function, for methods that must keep some of it, and for searches.

Figures that are reported come from torchmetrics (`evaluation.py`); a test holds both equal.
"""

from __future__ import annotations

from typing import Final

import torch
from torch import Tensor
from torch.nn import functional as F

#: What both this file and the evaluation use: a Gaussian window's deviation and width, K1 and K2; values in [0, 1].
SSIM_SIGMA_PX: Final = 1.5
SSIM_KERNEL_PX: Final = 11
SSIM_K1: Final = 0.01
SSIM_K2: Final = 0.03
#: The same for people, printed beside every figure.
SSIM_SETTINGS: Final = {
    "kernel": "gaussian", "sigma_px": SSIM_SIGMA_PX, "kernel_size_px": SSIM_KERNEL_PX, "k1": SSIM_K1, "k2": SSIM_K2,
    "data_range": 1.0, "channels": "mean of R, G, B",
}  # fmt: skip


def ssim(a: Tensor, b: Tensor) -> Tensor:
    """Mean SSIM of pictures (3, H, W) in [0, 1], a scalar with gradient.

    Wang, Bovik, Sheikh & Simoncelli 2004, "Image quality assessment: from error visibility to structural similarity",
    eq. 13, over all positions, the edges mirrored as torchmetrics does it, so that a method cannot leave them to the
    style. Both sides must have 6 px or more.
    """
    reach = SSIM_KERNEL_PX // 2
    at = torch.arange(-reach, reach + 1, dtype=a.dtype, device=a.device)
    line = torch.exp(-at.square() / (2 * SSIM_SIGMA_PX**2))
    line = line / line.sum()
    a, b = (F.pad(picture[None], [reach] * 4, mode="reflect")[0] for picture in (a, b))
    stack = torch.stack((a, b, a * a, b * b, a * b)).flatten(0, 1)[:, None]
    blurred = F.conv2d(F.conv2d(stack, line.view(1, 1, -1, 1)), line.view(1, 1, 1, -1))
    mean_a, mean_b, square_a, square_b, cross = blurred.view(5, 3, *blurred.shape[-2:])
    variance_a, variance_b = (square_a - mean_a**2).clamp(min=0), (square_b - mean_b**2).clamp(min=0)
    covariance = cross - mean_a * mean_b
    c1, c2 = SSIM_K1**2, SSIM_K2**2
    luminance = (2 * mean_a * mean_b + c1) / (mean_a**2 + mean_b**2 + c1)
    structure = (2 * covariance + c2) / (variance_a + variance_b + c2)
    similarity: Tensor = (luminance * structure).mean()
    return similarity
