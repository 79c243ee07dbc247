"""A picture optimised until its features have the content's structure and the style's statistics, coarse → fine."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

import torch
from torch import Tensor
from torch.autograd import Function
from torch.nn import functional as F

from regraft.core.errors import DivergedError, UsageError, unknown_name
from regraft.style.base import OnStep, Styler, StyleStep, fit_long_side, fit_short_side, methods, resize
from regraft.style.colour import monge_kantorovich_to
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
from regraft.style.perceptual import PerceptualNetwork, perceptual
from regraft.style.similarity import ssim

#: Terms of the style loss; several are joined by "+".
STYLE_LOSSES: Final = ("gram", "wasserstein", "histogram")
OPTIMIZERS: Final = ("lbfgs", "adam")
STARTS: Final = ("content", "colour", "noise")
#: The longer side of the coarsest scale, and how much finer the next one is.
COARSEST_PX: Final = 128
FINER: Final = 2.0
DEFAULT_STEPS: Final = 200
#: The weight of a missing SSIM, squared, and how much more than asked is aimed at, so that little is left to the dial.
SSIM_WEIGHT: Final = 50.0
SSIM_SPARE: Final = 0.005


class BoundedPixels(Function):
    """Cut to [0, 1]; backward, the gradient that would push a pixel further out is dropped, the rest passes.

    So a pixel at a bound can come back, which the plain cut does not let it.
    """

    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        ctx.save_for_backward(x)
        return x.clamp(0, 1)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> Tensor:
        (x,) = ctx.saved_tensors
        outwards = ((x < 0) & (gradients[0] > 0)) | ((x > 1) & (gradients[0] < 0))
        return gradients[0].masked_fill(outwards, 0)


@dataclass(frozen=True)
class LayerTarget:
    """One style layer of one region: what the picture's statistics there are compared with."""

    weight: float
    region: Tensor | None
    moments: Moments
    root: Tensor | None
    channels: tuple[tuple[Tensor, float], ...]


@methods.register("gatys")
class Gatys(Styler):
    """Gatys, Ecker & Bethge 2016, "Image Style Transfer Using Convolutional Neural Networks", arXiv:1508.06576, eq. 7.

    Differs from the paper: scales from coarse to fine (Gatys et al. 2017, arXiv:1611.07865, section 6), losses that are
    relative to their targets, a start from the content with the style's colours, pixels that stay in [0, 1], and
    optional terms for total variation, edges (arXiv:1707.01253) and a least SSIM. Several styles without masks mix
    their statistics; with masks each has its own (arXiv:1611.07865, eq. 4).
    Raises DivergedError where the loss is no number.
    """

    summary = "optimises the picture itself: slow, finest"
    paper = "Gatys et al. 2016, arXiv:1508.06576"
    heeded = frozenset(
        {"perceptual", "steps", "optimizer", "style_loss", "content_weight", "tv_weight", "edge_weight", "start",
         "ssim", "seed"}
    )  # fmt: skip
    knows_masks = True
    default_long_px = 512

    def __init__(self, settings: Any = None) -> None:
        super().__init__(settings)
        chosen = self.settings
        self.steps = DEFAULT_STEPS if chosen.steps is None else chosen.steps
        self.optimizer = _one_of("optimizer", chosen.optimizer or "adam", OPTIMIZERS)
        named = (chosen.style_loss or "wasserstein+histogram").split("+")
        self.style_losses = frozenset(_one_of("style loss", name, STYLE_LOSSES) for name in named)
        self.start = _one_of("start", chosen.start or "colour", STARTS)
        # A least SSIM keeps the content better than features do: with one, all the rest is for the style.
        free = 0.05 if chosen.ssim is None else 0.0
        self.content_weight = free if chosen.content_weight is None else chosen.content_weight
        self.tv_weight = 1.0 if chosen.tv_weight is None else chosen.tv_weight
        self.edge_weight = 0.0 if chosen.edge_weight is None else chosen.edge_weight
        if self.steps < 1 or min(self.content_weight, self.tv_weight, self.edge_weight) < 0:
            raise UsageError("gatys takes 1 step or more, and weights of 0 or more.")
        self.network = chosen.perceptual or perceptual("scion")

    def blend(
        self, content: Tensor, styles: Sequence[Tensor], shares: Sequence[float],
        regions: Sequence[Tensor] | None, on_step: OnStep | None,
    ) -> Tensor:  # fmt: skip
        self.network.to(content.device)
        sizes = pyramid(content.shape[-2:], max(COARSEST_PX, self.network.min_side_px))
        budget = split_steps(self.steps, sizes)
        image = self._first(resize(content, sizes[0]), styles, shares)
        done = 0
        for size, steps in zip(sizes, budget, strict=True):
            image = resize(image.contiguous(), size)
            image = self._optimise(image, resize(content, size), styles, shares, regions, steps, done, on_step)
            done += steps
        return image

    def _first(self, content: Tensor, styles: Sequence[Tensor], shares: Sequence[float]) -> Tensor:
        if self.start == "noise":
            draw = torch.Generator().manual_seed(self.settings.seed or 0)
            return torch.rand(content.shape, generator=draw).to(content)
        if self.start == "content":
            return content.clone()
        return monge_kantorovich_to(content, mix([moments(style) for style in styles], shares))

    def _optimise(
        self, image: Tensor, content: Tensor, styles: Sequence[Tensor], shares: Sequence[float],
        regions: Sequence[Tensor] | None, steps: int, done: int, on_step: OnStep | None,
    ) -> Tensor:  # fmt: skip
        """One scale: `steps` updates of the image (3, h, w) towards targets of that scale."""
        loss_of = self._objective(content, styles, shares, regions)
        pixels = image.detach().clone().contiguous().requires_grad_(True)
        optimizer: torch.optim.Optimizer
        if self.optimizer == "adam":
            optimizer = torch.optim.Adam([pixels], lr=0.02, betas=(0.9, 0.99))
        else:
            # One step a call, so that each can be shown; history is kept between calls.
            optimizer = torch.optim.LBFGS([pixels], lr=1.0, max_iter=1, history_size=20, tolerance_grad=0)
        terms: dict[str, Tensor] = {}

        def closure() -> Tensor:
            optimizer.zero_grad()
            terms.clear()
            terms.update(loss_of(BoundedPixels.apply(pixels)))
            loss = torch.stack(list(terms.values())).sum()
            loss.backward()
            return loss

        for step in range(1, steps + 1):
            loss = float(optimizer.step(closure).detach())
            if not math.isfinite(loss) or not bool(torch.isfinite(pixels).all()):
                raise DivergedError(
                    f"The optimisation gave a loss that is no number at step {done + step}: take --optimizer adam."
                )
            if on_step is not None:
                shown = {name: float(value.detach()) for name, value in terms.items()}
                now = pixels.detach().clamp(0, 1)
                on_step(StyleStep(done + step, self.steps, max(image.shape[-2:]), loss, shown, now))
        return pixels.detach().clamp(0, 1)

    def _objective(
        self, content: Tensor, styles: Sequence[Tensor], shares: Sequence[float], regions: Sequence[Tensor] | None
    ) -> Callable[[Tensor], dict[str, Tensor]]:
        """The weighted terms as a function of the picture (3, h, w)."""
        network, wanted = self.network, (*self.network.style_layers, *self.network.content_layers)
        with torch.no_grad():
            targets = self._targets(content, styles, shares, regions)
            kept = _features(network, content, network.content_layers)

        def terms(picture: Tensor) -> dict[str, Tensor]:
            found = _features(network, picture, wanted)
            parts = {"style": sum_of([self._style_term(found[layer], target) for layer, target in targets])}
            if self.content_weight:
                total = sum(network.content_layers.values())
                losses = [w / total * content_loss(found[n], kept[n]) for n, w in network.content_layers.items()]
                parts["content"] = self.content_weight * sum_of(losses)
            if self.tv_weight:
                parts["total variation"] = self.tv_weight * total_variation(picture)
            if self.edge_weight:
                parts["edges"] = self.edge_weight * laplacian_loss(picture, content)
            if self.settings.ssim is not None:
                short = self.settings.ssim + SSIM_SPARE - ssim(picture, content)
                parts["ssim"] = SSIM_WEIGHT * F.relu(short).square()
            return parts

        return terms

    def _targets(
        self, content: Tensor, styles: Sequence[Tensor], shares: Sequence[float], regions: Sequence[Tensor] | None
    ) -> list[tuple[str, LayerTarget]]:
        """Per layer: one target of mixed styles, or one per region."""
        network = self.network
        least = network.min_side_px
        total = sum(network.style_layers.values())
        maps = []
        for style in styles:
            # Its shorter side is the content's: a stroke takes the share of the picture that it takes of the painting.
            sized = resize(style, fit_short_side(style.shape[-2:], max(least, min(content.shape[-2:]))))
            maps.append(_features(network, sized, network.style_layers))
        found = []
        # Sorting costs more than the network: beside another loss, the shallowest and the deepest layer are enough, as
        # in arXiv:1701.08893, section 4.4.
        names = list(network.style_layers)
        sorts = names if self.style_losses == {"histogram"} else [names[0], names[-1]]
        histograms = sorts if "histogram" in self.style_losses else []
        for layer, weight in network.style_layers.items():
            each = [moments(features[layer]) for features in maps]
            sort = [sorted_channels(features[layer]) for features in maps] if layer in histograms else []
            groups: list[tuple[list[int], list[float], Tensor | None, float]]
            if regions is None:
                groups = [(list(range(len(styles))), list(shares), None, 1.0)]
            else:
                covered = [float(region.mean()) for region in regions]
                groups = [([i], [1.0], r, c) for i, (r, c) in enumerate(zip(regions, covered, strict=True)) if c > 0]
            for members, mixture, region, area in groups:
                mixed = mix([each[i] for i in members], mixture)
                root = matrix_root(mixed.covariance) if "wasserstein" in self.style_losses else None
                channels = tuple((sort[i], share) for i, share in zip(members, mixture, strict=True)) if sort else ()
                found.append((layer, LayerTarget(area * weight / total, region, mixed, root, channels)))
        return found

    def _style_term(self, features: Tensor, target: LayerTarget) -> Tensor:
        region = target.region
        if region is not None:
            region = F.interpolate(region[None], features.shape[-2:], mode="area")[0]
        parts = []
        statistics = moments(features, region)
        if "wasserstein" in self.style_losses:
            parts.append(wasserstein_loss(statistics, target.moments, target.root))
        if "gram" in self.style_losses:
            parts.append(gram_loss(statistics, target.moments))
        for channels, share in target.channels:
            parts.append(share * histogram_loss(features, channels, region))
        return target.weight * sum_of(parts)


def pyramid(size_px: Sequence[int], coarsest_px: int) -> list[tuple[int, int]]:
    """Sizes (height, width) from coarse to the picture's own; the longer side grows by about 2 each time."""
    long_px = max(size_px)
    levels = max(0, math.floor(math.log(long_px / coarsest_px, FINER) + 1e-9)) if long_px > coarsest_px else 0
    coarser = [fit_long_side(size_px, max(coarsest_px, round(long_px / FINER**k))) for k in range(levels, 0, -1)]
    return [*coarser, (int(size_px[0]), int(size_px[1]))]


def split_steps(steps: int, sizes: Sequence[Any]) -> list[int]:
    """Steps per scale, summing to `steps`: coarse scales are cheap and decide the layout, so all get as many, the
    finest the remainder. With fewer steps than scales the coarsest get none."""
    each = steps // len(sizes)
    return [each] * (len(sizes) - 1) + [steps - each * (len(sizes) - 1)]


def _features(network: PerceptualNetwork, picture: Tensor, layers: Any) -> Mapping[str, Tensor]:
    return {name: found[0] for name, found in network(picture[None], layers).items()}


def sum_of(values: Sequence[Tensor]) -> Tensor:
    """The sum of scalars, a tensor also of one."""
    return torch.stack(list(values)).sum()


def _one_of(what: str, name: str, known: Sequence[str]) -> str:
    if name not in known:
        raise unknown_name(what, name, known)
    return name
