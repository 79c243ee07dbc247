"""What an optimised picture is judged by at one scale: the weighted terms, with their targets computed once."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Final

import torch
from torch import Tensor
from torch.nn import functional as F

from regraft.core.errors import UsageError, unknown_name
from regraft.style.base import fit_short_side, resize
from regraft.style.figures.similarity import ssim
from regraft.style.losses import (
    Moments,
    content_loss,
    gram_loss,
    histogram_loss,
    laplacian_loss,
    matrix_root,
    mix,
    moments,
    sorted_channels,
    total_variation,
    wasserstein_loss,
)
from regraft.style.networks.perceptual import PerceptualNetwork

#: Terms of the style loss; they add up.
STYLE_LOSSES: Final = ("gram", "wasserstein", "histogram")
#: Cells in px whose edges are compared where the content is to be kept: its finest lines and its shapes.
KEPT_POOLS: Final = (1, 2, 4)


@dataclass(frozen=True)
class Weights:
    """Which style losses, and the other terms as multiples of them; 0 leaves a term out. Raises UsageError."""

    style_losses: frozenset[str]
    content: float = 0.0
    tv: float = 0.0
    edges: float = 0.0
    kept: float = 0.0

    def __post_init__(self) -> None:
        for name in sorted(self.style_losses - set(STYLE_LOSSES)):
            raise unknown_name("style loss", name, STYLE_LOSSES)
        if min(self.content, self.tv, self.edges, self.kept) < 0:
            raise UsageError("The weights of content, total variation, edges and what is kept are 0 or more.")


class LeastSSIM:
    """Keeps SSIM to the content at `least` or more: an augmented Lagrangian (Hestenes 1969, Powell 1969).

    The term is (max(0, λ + ρ s)² − λ²) / 2ρ with s = least + spare − SSIM. After each step λ grows where SSIM is too
    low and shrinks where it is not needed. A plain penalty needs a weight so large that the style no longer moves.
    """

    #: How much more than asked is aimed at, so that nothing is left to blending; ρ; the rate of λ.
    SPARE: Final = 0.002
    RHO: Final = 20.0
    RATE: Final = 5.0
    #: A larger lack counts as this: far from the bound λ must not grow beyond what holds the picture near it.
    MOST: Final = 0.02

    def __init__(self, least: float) -> None:
        self.least = least
        self.multiplier = 0.0
        self._short = 0.0

    def __call__(self, picture: Tensor, content: Tensor) -> Tensor:
        short = self.least + self.SPARE - ssim(picture, content)
        self._short = float(short.detach())
        return (F.relu(self.multiplier + self.RHO * short).square() - self.multiplier**2) / (2 * self.RHO)

    def after_step(self) -> None:
        self.multiplier = max(0.0, self.multiplier + self.RATE * max(-self.MOST, min(self.MOST, self._short)))


@dataclass(frozen=True)
class LayerTarget:
    """One style layer of one region: what the picture's statistics there are compared with."""

    weight: float
    region: Tensor | None
    moments: Moments
    root: Tensor | None
    channels: tuple[tuple[Tensor, float], ...]


class Objective:
    """picture (3, h, w) → its weighted terms by name, scalars with gradient.

    content (3, h, w) of this scale; styles of any size; shares sum to 1; regions (1, H, W) as `base.resolve_masks`
    gives them, or None, where styles mix their statistics.

    kept (1, H, W) in [0, 1]: where the content's edges must stay, so that strokes do not run over it; the term is the
    Laplacian loss there (arXiv:1707.01253, eq. 4) over that of a picture without edges.

    shift: px by which picture and targets are moved down and right before the network sees them, by mirroring. Pooling
    has a grid of its own, which a picture that is always seen in one place takes on as a pattern.
    """

    def __init__(
        self, network: PerceptualNetwork, weights: Weights, content: Tensor, styles: Sequence[Tensor],
        shares: Sequence[float], regions: Sequence[Tensor] | None, constraint: LeastSSIM | None = None,
        kept: Tensor | None = None,
    ) -> None:  # fmt: skip
        self.network, self.weights, self.content, self.constraint = network, weights, content, constraint
        self.content_layers = network.content_layers if weights.content else {}
        self.kept = None if kept is None or not weights.kept else resize(kept, content.shape[-2:])
        self._kept: dict[tuple[int, int], Mapping[str, Tensor]] = {}
        self._energy: Tensor | None = None
        self.shift = (0, 0)
        self.targets = self._targets(styles, shares, regions)

    def __call__(self, picture: Tensor) -> dict[str, Tensor]:
        weights = self.weights
        moved = _moved(picture, self.shift)
        found = _features(self.network, moved, (*self.network.style_layers, *self.content_layers))
        terms = {"style": _sum([self._style_term(found[layer], target) for layer, target in self.targets])}
        if weights.content:
            total = sum(self.content_layers.values())
            kept = self._content_features()
            losses = [w / total * content_loss(found[n], kept[n]) for n, w in self.content_layers.items()]
            terms["content"] = weights.content * _sum(losses)
        if weights.tv:
            terms["total variation"] = weights.tv * total_variation(picture)
        if weights.edges:
            terms["edges"] = weights.edges * laplacian_loss(picture, self.content)
        if self.kept is not None:
            lost = laplacian_loss(picture, self.content, KEPT_POOLS, self.kept)
            terms["kept"] = weights.kept * lost / self._kept_energy()
        if self.constraint is not None:
            terms["ssim"] = self.constraint(picture, self.content)
        return terms

    def _kept_energy(self) -> Tensor:
        """What the loss of what is kept is relative to: the same loss of a picture without edges."""
        if self._energy is None:
            flat = self.content.mean(dim=(1, 2), keepdim=True).expand_as(self.content)
            self._energy = laplacian_loss(flat, self.content, KEPT_POOLS, self.kept).clamp(min=1e-6)
        return self._energy

    def _content_features(self) -> Mapping[str, Tensor]:
        """Those of the content at this shift, computed once for each."""
        if self.shift not in self._kept:
            with torch.no_grad():
                moved = _moved(self.content, self.shift)
                self._kept[self.shift] = _features(self.network, moved, self.content_layers)
        return self._kept[self.shift]

    def _targets(
        self, styles: Sequence[Tensor], shares: Sequence[float], regions: Sequence[Tensor] | None
    ) -> list[tuple[str, LayerTarget]]:
        """Per layer: one target of mixed styles, or one per region."""
        network, chosen = self.network, self.weights.style_losses
        total = sum(network.style_layers.values())
        # A style is as large as the content by its shorter side: a stroke has the same share of both pictures.
        short_px = max(network.min_side_px, min(self.content.shape[-2:]))
        maps = [
            _features(network, resize(style, fit_short_side(style.shape[-2:], short_px)), network.style_layers)
            for style in styles
        ]
        # Sorting costs more than the network: beside another loss, the shallowest and the deepest layer are enough, as
        # in arXiv:1701.08893, section 4.4.
        names = list(network.style_layers)
        sorts = names if chosen == {"histogram"} else [names[0], names[-1]]
        sorts = sorts if "histogram" in chosen else []
        groups: list[tuple[list[int], list[float], Tensor | None, float]]
        if regions is None:
            groups = [(list(range(len(styles))), list(shares), None, 1.0)]
        else:
            regions = [resize(region, self.content.shape[-2:]) for region in regions]
            covered = [float(region.mean()) for region in regions]
            groups = [([i], [1.0], r, c) for i, (r, c) in enumerate(zip(regions, covered, strict=True)) if c > 0]
        found = []
        for layer, weight in network.style_layers.items():
            each = [moments(features[layer]) for features in maps]
            ordered = [sorted_channels(features[layer]) for features in maps] if layer in sorts else []
            for members, mixture, region, area in groups:
                mixed = mix([each[i] for i in members], mixture)
                root = matrix_root(mixed.covariance) if "wasserstein" in chosen else None
                pairs = zip(members, mixture, strict=True) if ordered else ()
                channels = tuple((ordered[i], share) for i, share in pairs)
                found.append((layer, LayerTarget(area * weight / total, region, mixed, root, channels)))
        return found

    def _style_term(self, features: Tensor, target: LayerTarget) -> Tensor:
        region = target.region
        if region is not None:
            region = F.interpolate(_moved(region, self.shift)[None], features.shape[-2:], mode="area")[0]
        statistics = moments(features, region)
        parts = [share * histogram_loss(features, channels, region) for channels, share in target.channels]
        if "wasserstein" in self.weights.style_losses:
            parts.append(wasserstein_loss(statistics, target.moments, target.root))
        if "gram" in self.weights.style_losses:
            parts.append(gram_loss(statistics, target.moments))
        return target.weight * _sum(parts) if parts else statistics.mean.sum() * 0


def _moved(picture: Tensor, shift: tuple[int, int]) -> Tensor:
    """(C, H, W) with mirrored rows above and columns on the left."""
    return picture if shift == (0, 0) else F.pad(picture[None], (shift[1], 0, shift[0], 0), mode="reflect")[0]


def _features(network: PerceptualNetwork, picture: Tensor, layers: Iterable[str]) -> Mapping[str, Tensor]:
    return {name: found[0] for name, found in network(picture[None], layers).items()}


def _sum(values: Sequence[Tensor]) -> Tensor:
    """The sum of scalars, a tensor also of one."""
    return torch.stack(list(values)).sum()
