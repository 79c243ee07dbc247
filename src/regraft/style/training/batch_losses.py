"""Style and content losses over batches in which every picture has a style of its own: what networks are trained by.

The formulas are those of `losses.py`; here the leading dimension is the batch and each loss is one number per picture.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Final, NamedTuple

import torch
from torch import Tensor

from regraft.style.figures.similarity import ssim
from regraft.style.networks.perceptual import PerceptualNetwork

_TINY = 1e-12
#: The period of the deepest layer's grid.
GRID_PX: Final = 8


class BatchMoments(NamedTuple):
    """mean (N, C), second (N, C, C): as `losses.Moments`, for each picture."""

    mean: Tensor
    second: Tensor

    @property
    def std(self) -> Tensor:
        """(N, C)."""
        variance = self.second.diagonal(dim1=1, dim2=2) - self.mean.square()
        return (variance.clamp(min=0) + 1e-8).sqrt()


def batch_moments(features: Tensor) -> BatchMoments:
    """Moments of features (N, C, H, W) over positions, in float32: a deviation is a difference of large numbers."""
    with torch.autocast(features.device.type, enabled=False):
        flat = features.flatten(2).float()
        return BatchMoments(flat.mean(dim=2), flat @ flat.mT / flat.shape[2])


def gram_losses(found: BatchMoments, target: BatchMoments) -> Tensor:
    """(N,): ‖G − A‖²_F / ‖A‖²_F, as `losses.gram_loss`. target may have a batch of one for all."""
    return (found.second - target.second).square().sum((1, 2)) / target.second.square().sum((1, 2)).clamp(min=_TINY)


def moment_losses(found: BatchMoments, target: BatchMoments) -> Tensor:
    """(N,): ‖μ − μ_s‖² + ‖σ − σ_s‖² (Huang & Belongie 2017, arXiv:1703.06868, eq. 13), over ‖μ_s‖² + ‖σ_s‖²."""
    gap = (found.mean - target.mean).square().sum(1) + (found.std - target.std).square().sum(1)
    return gap / (target.mean.square().sum(1) + target.std.square().sum(1)).clamp(min=_TINY)


def content_losses(found: Tensor, target: Tensor) -> Tensor:
    """(N,): squared difference of features (N, C, H, W), over the target's square, as `losses.content_loss`."""
    return (found - target).float().square().sum((1, 2, 3)) / target.float().square().sum((1, 2, 3)).clamp(min=_TINY)


def variation_losses(pictures: Tensor) -> Tensor:
    """(N,): total variation of (N, C, H, W), as `losses.total_variation`."""
    down = (pictures[:, :, 1:] - pictures[:, :, :-1]).square().mean((1, 2, 3))
    across = (pictures[:, :, :, 1:] - pictures[:, :, :, :-1]).square().mean((1, 2, 3))
    return down + across


def ssim_each(pictures: Tensor, others: Tensor) -> Tensor:
    """(N,): SSIM of each pair, as `similarity.ssim`."""
    with torch.autocast(pictures.device.type, enabled=False):
        return torch.stack([ssim(a, b) for a, b in zip(pictures.float(), others.float(), strict=True)])


class StyleTerms:
    """result, content (N, 3, H, W) and the styles' moments → style, content and variation, each (N,).

    network: frozen. The style term is the weighted mean over layers of Gram and moment losses. shift: rows and columns
    that are cut off above and on the left before the network sees result and content. Its strides have a grid, on which
    a network that is always seen in one place paints a pattern of dots.
    """

    def __init__(self, network: PerceptualNetwork) -> None:
        self.network = network

    @torch.no_grad()
    def targets(self, styles: Tensor) -> dict[str, BatchMoments]:
        """Moments of styles (N, 3, h, w) per style layer."""
        return self.moments(self.network.to(styles.device)(styles, self.network.style_layers))

    def moments(self, features: Mapping[str, Tensor]) -> dict[str, BatchMoments]:
        return {name: batch_moments(features[name]) for name in self.network.style_layers}

    @torch.no_grad()
    def content(self, pictures: Tensor) -> dict[str, Tensor]:
        features: dict[str, Tensor] = self.network.to(pictures.device)(pictures, self.network.content_layers)
        return features

    def __call__(
        self, result: Tensor, content: Tensor, targets: Mapping[str, BatchMoments], shift: tuple[int, int] = (0, 0),
        *, moved: bool = False,
    ) -> dict[str, Tensor]:  # fmt: skip
        network = self.network
        result, content = (x[..., shift[0] :, shift[1] :] for x in (result, content))
        features = network.to(result.device)(result, (*network.style_layers, *network.content_layers))
        kept = self.content(content)
        if moved:
            kept = {name: to_moments(found, targets[name]) for name, found in kept.items()}
        return {
            "style": self.style(self.moments(features), targets),
            "content": _weighted(network.content_layers,
                                 {n: content_losses(features[n], kept[n]) for n in network.content_layers}),
            "variation": variation_losses(result),
        }  # fmt: skip

    def style(self, found: Mapping[str, BatchMoments], targets: Mapping[str, BatchMoments]) -> Tensor:
        """(N,): the style term alone."""
        each = {
            name: gram_losses(found[name], targets[name]) + moment_losses(found[name], targets[name])
            for name in self.network.style_layers
        }
        return _weighted(self.network.style_layers, each)


def to_moments(features: Tensor, target: BatchMoments) -> Tensor:
    """Features (N, C, H, W) with each channel's mean and deviation moved to the target's (arXiv:1703.06868, eq. 8)."""
    own = batch_moments(features)
    scale, mean = (target.std / own.std)[..., None, None], own.mean[..., None, None]
    return (features - mean) * scale + target.mean[..., None, None]


def drawn_shift() -> tuple[int, int]:
    """Rows and columns of one period of the deepest layer's grid, by chance."""
    rows, columns = torch.randint(0, GRID_PX, (2,)).tolist()
    return rows, columns


def outside(pictures: Tensor) -> Tensor:
    """(N,): mean squared distance of values to [0, 1], for networks that do not cut what they paint."""
    return (pictures - pictures.clamp(0, 1)).square().mean((1, 2, 3))


def select(targets: Mapping[str, BatchMoments], shares: Tensor) -> dict[str, BatchMoments]:
    """Moments of mixtures: targets of K styles and shares (N, K) → of N mixtures."""
    return {
        name: BatchMoments(
            shares @ target.mean.to(shares), torch.einsum("nk,kij->nij", shares, target.second.to(shares))
        )
        for name, target in targets.items()
    }


def _weighted(weights: Mapping[str, float], values: Mapping[str, Tensor]) -> Tensor:
    total = sum(weights.values())
    return _sum(weight / total * values[name] for name, weight in weights.items())


def _sum(values: Iterable[Tensor]) -> Tensor:
    return torch.stack(list(values)).sum(dim=0)
