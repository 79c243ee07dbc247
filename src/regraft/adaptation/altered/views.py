"""Pictures altered as tensors: a strong view for consistency, and source pictures in the target's style."""

from __future__ import annotations

import math
from typing import Final

import torch
from torch import Tensor
from torch.nn import functional as F

#: What a strong view is moved by, drawn evenly from − to +: radians, logarithms of the scale and of width over height,
#: the slant, and a share of the sides.
TURN_RAD: Final = 0.3
LOG_SCALE: Final = math.log(1.3)
LOG_STRETCH: Final = math.log(1.3)
SLANT: Final = 0.2
SHIFT: Final = 0.1


def as_float(x: Tensor) -> Tensor:
    """uint8 in 0…255 or float in [0, 1] → float in [0, 1]."""
    return x.float() / 255 if x.dtype == torch.uint8 else x


def strengthen(x: Tensor) -> Tensor:
    """A heavily altered view of pictures (N, 3, H, W), each moved, and with its own light, contrast, colour and a hole.

    In the spirit of RandAugment with Cutout (arXiv:1909.13719, arXiv:1708.04552) as FixMatch uses them, on the device
    and without a loop over pictures. Each is turned by up to 0.3 rad, scaled and stretched by up to 1.3, slanted by up
    to 0.2 and shifted by up to a tenth of a side. Half of the pictures lose their colour to some degree. Float in
    [0, 1]. Vectors (N, D) lose three tenths of their coordinates.
    """
    if x.dim() == 2:
        return F.dropout(x, 0.3)
    x = moved(as_float(x))
    n, _, height, width = x.shape

    def draw(low: float, high: float) -> Tensor:
        return torch.empty(n, 1, 1, 1, device=x.device).uniform_(low, high)

    grey = x.mean(dim=1, keepdim=True)
    keep = draw(-1.0, 1.0).clamp(min=0)  # 0 for half of the pictures: no colour is taken from them
    x = x * (1 - keep) + grey * keep
    centre = x.mean(dim=(1, 2, 3), keepdim=True)
    x = (x - centre) * draw(0.5, 1.5) + centre * draw(0.6, 1.4)
    x = x.clamp(0, 1)
    side = 0.5 * torch.rand(n, device=x.device)  # of the picture's side
    cy, cx = torch.rand(n, device=x.device), torch.rand(n, device=x.device)
    rows = (torch.arange(height, device=x.device) + 0.5) / height
    columns = (torch.arange(width, device=x.device) + 0.5) / width
    inside_y = (rows[None] - cy[:, None]).abs() < side[:, None] / 2
    inside_x = (columns[None] - cx[:, None]).abs() < side[:, None] / 2
    hole = (inside_y[:, None, :, None] & inside_x[:, None, None, :]).to(x.dtype)
    return x * (1 - hole) + 0.5 * hole


def moved(x: Tensor) -> Tensor:
    """Pictures (N, 3, H, W), each under an affine map of its own about the middle; their edge goes on outside."""
    n, _, height, width = x.shape

    def draw(most: float) -> Tensor:
        return torch.empty(n, device=x.device).uniform_(-most, most)

    turn, slant = draw(TURN_RAD), draw(SLANT)
    size, side = draw(LOG_SCALE).exp(), (draw(LOG_STRETCH) / 2).exp()
    cos, sin = turn.cos() / size, turn.sin() / size
    # From places of the result to places of the picture, about the middles: in px, and as shares of half the sides.
    aspect = width / height
    columns = torch.stack([cos / side, (slant * cos - sin) * side / aspect], dim=1)
    rows = torch.stack([sin / side * aspect, (cos + slant * sin) * side], dim=1)
    linear = torch.stack([columns, rows], dim=1)
    shift = 2 * torch.stack([draw(SHIFT), draw(SHIFT)], dim=1)[..., None]
    matrix = torch.cat([linear, linear @ shift], dim=2)
    grid = F.affine_grid(matrix.to(x.dtype), list(x.shape), align_corners=False)
    return F.grid_sample(x, grid, padding_mode="border", align_corners=False)


def fourier_restyle(source: Tensor, target: Tensor, share: float, extent: float = 0.05) -> Tensor:
    """Source pictures with the low-frequency amplitudes of target pictures: their colours and light, own contents.

    Paper: Yang & Soatto, "FDA: Fourier Domain Adaptation", CVPR 2020, arXiv:2004.05498, eq. 3. source (N, 3, H, W) and
    target (M, 3, H, W), uint8 or float; a `share` of the source, drawn by chance, is altered, each with one target
    picture. extent: half the side of the exchanged square, as a share of the picture's sides. Float in [0, 1].
    """
    x, y = as_float(source), as_float(target)
    n, _, height, width = x.shape
    partner = y[torch.randint(len(y), (n,), device=y.device)]
    spectrum, style = torch.fft.fft2(x.float()), torch.fft.fft2(partner.float())
    amplitude = spectrum.abs()
    high, wide = max(1, int(extent * height)), max(1, int(extent * width))
    rows = torch.zeros(height, dtype=torch.bool, device=x.device)
    columns = torch.zeros(width, dtype=torch.bool, device=x.device)
    rows[: high + 1] = rows[height - high :] = True
    columns[: wide + 1] = columns[width - wide :] = True
    low = (rows[:, None] & columns[None, :]).to(amplitude.dtype)
    mixed = amplitude * (1 - low) + style.abs() * low
    restyled = torch.fft.ifft2(torch.polar(mixed, spectrum.angle())).real.clamp(0, 1)
    altered = (torch.rand(n, 1, 1, 1, device=x.device) < share).to(x.dtype)
    mixture: Tensor = x * (1 - altered) + restyled.to(x.dtype) * altered
    return mixture
