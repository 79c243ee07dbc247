"""Plain colour transfer: the baselines that a style method has to beat, and the start of some.

Each maps the content's colours by one affine map, so no brush stroke goes over, and every edge stays.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

import torch
from torch import Tensor

from regraft.style.base import OnStep, Styler, compose, methods
from regraft.style.losses import Moments, matrix_root, mix, moments

#: RGB → LMS cone responses, and their logarithms → the decorrelated lαβ (Reinhard et al. 2001, eq. 4 and 6).
_RGB_TO_LMS: Final = ((0.3811, 0.5783, 0.0402), (0.1967, 0.7244, 0.0782), (0.0241, 0.1288, 0.8444))
_LMS_TO_LAB: Final = (
    (3**-0.5, 3**-0.5, 3**-0.5), (6**-0.5, 6**-0.5, -2 * 6**-0.5), (2**-0.5, -(2**-0.5), 0.0),
)  # fmt: skip
_DARKEST: Final = 1 / 255


def to_lab(picture: Tensor) -> Tensor:
    """(3, H, W) in [0, 1] → lαβ, logarithms to base 10 (Ruderman, Cronin & Chiao 1998); values below 1/255 count as
    that."""
    lms = _apply(_RGB_TO_LMS, picture).clamp(min=_DARKEST)
    return _apply(_LMS_TO_LAB, lms.log10())


def from_lab(lab: Tensor) -> Tensor:
    """The inverse of `to_lab`, not cut to [0, 1]."""
    back = torch.linalg.inv(_matrix(_LMS_TO_LAB, lab))
    lms = 10 ** torch.einsum("ij,jhw->ihw", back, lab)
    return torch.einsum("ij,jhw->ihw", torch.linalg.inv(_matrix(_RGB_TO_LMS, lab)), lms)


def reinhard(content: Tensor, style: Tensor) -> Tensor:
    """Each lαβ channel gets the style's mean and deviation.

    Reinhard, Ashikhmin, Gooch & Shirley 2001, "Color Transfer between Images", eq. 10-11. Pictures (3, H, W) in
    [0, 1]; the result is cut to [0, 1].
    """
    a, b = to_lab(content), to_lab(style)
    mean_a, mean_b = a.mean(dim=(1, 2), keepdim=True), b.mean(dim=(1, 2), keepdim=True)
    ratio = b.std(dim=(1, 2), keepdim=True) / a.std(dim=(1, 2), keepdim=True).clamp(min=1e-6)
    return from_lab((a - mean_a) * ratio + mean_b).clamp(0, 1)


def monge_kantorovich(content: Tensor, style: Tensor) -> Tensor:
    """The affine map of RGB colours that moves least and gives the style's mean and covariance.

    Pitié & Kokaram 2007, "The linear Monge-Kantorovitch linear colour mapping for example-based colour transfer",
    eq. 19: T = Σ_u^-½ (Σ_u^½ Σ_v Σ_u^½)^½ Σ_u^-½. Pictures (3, H, W) in [0, 1]; the result is cut to [0, 1]. A content
    of one colour alone gets the style's mean.
    """
    return monge_kantorovich_to(content, moments(style))


def monge_kantorovich_to(content: Tensor, target: Moments) -> Tensor:
    """The same, to the moments of a style's colours."""
    a, b = moments(content), target
    root = matrix_root(a.covariance)
    inverse = torch.linalg.pinv(root.double(), rtol=1e-4, hermitian=True).to(root.dtype)
    linear = inverse @ matrix_root(root @ b.covariance @ root) @ inverse
    moved = linear @ (content.flatten(1) - a.mean[:, None]) + b.mean[:, None]
    recoloured: Tensor = moved.view_as(content).clamp(0, 1)
    return recoloured


@methods.register("reinhard")
class Reinhard(Styler):
    """Mean and deviation per channel of lαβ; several styles: the mean of the results."""

    summary = "colours alone: mean and deviation of each decorrelated channel"
    paper = "Reinhard et al. 2001"

    def blend(
        self, content: Tensor, styles: Sequence[Tensor], shares: Sequence[float],
        regions: Sequence[Tensor] | None, on_step: OnStep | None,
    ) -> Tensor:  # fmt: skip
        return compose(content, [reinhard(content, style) for style in styles], shares, None)


@methods.register("colour")
class MongeKantorovich(Styler):
    """The optimal affine map of colours; several styles: the map to the mixture of their colours."""

    summary = "colours alone: the affine map that moves them least"
    paper = "Pitié & Kokaram 2007"

    def blend(
        self, content: Tensor, styles: Sequence[Tensor], shares: Sequence[float],
        regions: Sequence[Tensor] | None, on_step: OnStep | None,
    ) -> Tensor:  # fmt: skip
        mixture = mix([moments(style) for style in styles], shares)
        return monge_kantorovich_to(content, mixture)


def _matrix(rows: Sequence[Sequence[float]], like: Tensor) -> Tensor:
    return torch.tensor(rows, dtype=like.dtype, device=like.device)


def _apply(rows: Sequence[Sequence[float]], picture: Tensor) -> Tensor:
    return torch.einsum("ij,jhw->ihw", _matrix(rows, picture), picture)
