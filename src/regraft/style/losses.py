"""Small losses between a picture and a style or a content: each a function of tensors, all of them composable.

Style losses compare statistics of one layer's features (C, H, W), taken over positions with weights (1, H, W), so that
a region has statistics of its own. `Moments` of several styles mix linearly: the mixture of two styles is a style.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn import functional as F

_TINY = 1e-12


class Moments(NamedTuple):
    """mean (C,) and raw second moment E[f fᵀ] (C, C) of features over positions. The latter is the Gram matrix of
    Gatys et al. (2016, arXiv:1508.06576, eq. 3) over the number of positions."""

    mean: Tensor
    second: Tensor

    @property
    def covariance(self) -> Tensor:
        """(C, C), biased."""
        return self.second - torch.outer(self.mean, self.mean)


def moments(features: Tensor, weight: Tensor | None = None) -> Moments:
    """Moments of features (C, H, W) over positions; weight (1, H, W) ≥ 0 says how much each counts (Gatys et al. 2017,
    arXiv:1611.07865, eq. 4: guided Gram matrices)."""
    flat = features.flatten(1).float()
    if weight is None:
        return Moments(flat.mean(dim=1), flat @ flat.T / flat.shape[1])
    share = weight.flatten().float()
    share = share / share.sum().clamp(min=_TINY)
    return Moments(flat @ share, (flat * share) @ flat.T)


def mix(targets: Sequence[Moments], shares: Sequence[float]) -> Moments:
    """The moments of a mixture of distributions, of which each has a share; shares sum to 1."""
    pairs = list(zip(targets, shares, strict=True))
    mean = torch.stack([share * target.mean for target, share in pairs]).sum(dim=0)
    return Moments(mean, torch.stack([share * target.second for target, share in pairs]).sum(dim=0))


def gram_loss(found: Moments, target: Moments) -> Tensor:
    """‖G − A‖²_F / ‖A‖²_F: squared distance of Gram matrices (Gatys et al. 2016, eq. 4).

    Differs from the paper in the scale: over the target's own norm instead of 4 N² M², so that layers and networks
    count alike. Returns a scalar.
    """
    return (found.second - target.second).square().sum() / target.second.square().sum().clamp(min=_TINY)


def wasserstein_loss(found: Moments, target: Moments, root: Tensor | None = None) -> Tensor:
    """Squared 2-Wasserstein distance of two Gaussians, over the target's mean square.

    ‖μ₁ − μ₂‖² + tr(Σ₁ + Σ₂ − 2 (Σ₂^½ Σ₁ Σ₂^½)^½): Dowson & Landau 1982, "The Fréchet distance between multivariate
    normal distributions", eq. 4. As a style loss on features with means and covariances. root: Σ₂^½, where it is known.
    Eigenvalues of the product get 1e-8 of the squared mean variance, which keeps the gradient of the root bounded.
    """
    root = matrix_root(target.covariance) if root is None else root
    scale = target.second.diagonal().sum().clamp(min=_TINY)
    product = root @ found.covariance @ root
    floor = 1e-8 * (scale / target.mean.numel()) ** 2
    # Small pictures have fewer positions than channels; single precision then does not always converge.
    symmetric = ((product + product.T) / 2).double()
    cross = (torch.linalg.eigvalsh(symmetric).clamp(min=0) + floor).sqrt().sum().to(scale.dtype)
    trace = found.covariance.diagonal().sum() + target.covariance.diagonal().sum()
    distance: Tensor = ((found.mean - target.mean).square().sum() + trace - 2 * cross) / scale
    return distance


def matrix_root(covariance: Tensor) -> Tensor:
    """The symmetric positive root (C, C) of a covariance; negative eigenvalues of rounding count as 0."""
    values, vectors = torch.linalg.eigh(covariance.double())
    root: Tensor = ((vectors * values.clamp(min=0).sqrt()) @ vectors.T).to(covariance.dtype)
    return root


def sorted_channels(features: Tensor, weight: Tensor | None = None) -> Tensor:
    """Each channel's values in ascending order (C, P): its histogram without bins. weight > 0.5 picks the positions."""
    flat = features.flatten(1).float()
    if weight is not None:
        inside = weight.flatten() > 0.5
        flat = flat[:, inside] if bool(inside.any()) else flat
    return flat.sort(dim=1).values


def histogram_loss(features: Tensor, target_sorted: Tensor, weight: Tensor | None = None) -> Tensor:
    """Σ ‖F − R(F)‖² / Σ ‖R(F)‖², R(F) being F with each channel's histogram replaced by the target's.

    Risser, Wilmot & Barnes 2017, arXiv:1701.08893, eq. 6. Histograms are matched exactly, by rank, where the paper
    uses 256 bins; R(F) carries no gradient, as there. features (C, H, W); target_sorted (C, P) of `sorted_channels`,
    any P: its quantiles are interpolated.
    """
    found = sorted_channels(features, weight)
    count = found.shape[1]
    target = target_sorted
    if target.shape[1] != count:
        target = F.interpolate(target[None], count, mode="linear", align_corners=True)[0]
    return (found - target).square().sum() / target.square().sum().clamp(min=_TINY)


def content_loss(features: Tensor, target: Tensor, weight: Tensor | None = None) -> Tensor:
    """Mean squared difference of features (C, H, W), over the target's mean square (Gatys et al. 2016, eq. 1)."""
    gap, energy = (features - target).float().square(), target.float().square()
    if weight is not None:
        gap, energy = gap * weight, energy * weight
    return gap.sum() / energy.sum().clamp(min=_TINY)


def total_variation(picture: Tensor) -> Tensor:
    """Mean squared difference of neighbours, both directions, of (C, H, W) (Johnson et al. 2016, arXiv:1603.08155)."""
    down = (picture[:, 1:] - picture[:, :-1]).square().mean()
    across = (picture[:, :, 1:] - picture[:, :, :-1]).square().mean()
    return down + across


def laplacian(picture: Tensor, pool: int) -> Tensor:
    """(3, H, W) → (1, H // pool, W // pool): averaged over pool × pool, filtered by [0 −1 0; −1 4 −1; 0 −1 0], summed
    over channels (Li et al. 2017, arXiv:1707.01253, section 3.2). Edges repeat the last pixel."""
    small = F.avg_pool2d(picture[None], pool) if pool > 1 else picture[None]
    padded = F.pad(small.sum(dim=1, keepdim=True), (1, 1, 1, 1), mode="replicate")
    centre = padded[..., 1:-1, 1:-1]
    around = padded[..., :-2, 1:-1] + padded[..., 2:, 1:-1] + padded[..., 1:-1, :-2] + padded[..., 1:-1, 2:]
    return (4 * centre - around)[0]


def laplacian_loss(
    picture: Tensor, content: Tensor, pools: Sequence[int] = (4,), weight: Tensor | None = None
) -> Tensor:
    """Mean squared difference of Laplacians, summed over pool sizes: edges stay where the content has them.

    Li, Xu, Nie & Liu 2017, "Laplacian-Steered Neural Style Transfer", arXiv:1707.01253, eq. 4. picture and content
    (3, H, W); weight (1, H, W) keeps the loss inside a region. Differs from the paper in taking the mean over positions
    for the sum, so that its weight does not depend on the size.
    """
    total = picture.new_zeros(())
    for pool in pools:
        gap = (laplacian(picture, pool) - laplacian(content, pool)).square()
        if weight is None:
            total = total + gap.mean()
        else:
            share = F.interpolate(weight[None], gap.shape[-2:], mode="area")[0]
            total = total + (gap * share).sum() / share.sum().clamp(min=_TINY)
    return total
