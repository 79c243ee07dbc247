"""A picture optimised until its features have the content's structure and the style's statistics, coarse → fine."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final

import torch
from torch import Tensor
from torch.autograd import Function

from regraft.core.errors import DivergedError, UsageError, unknown_name
from regraft.style.base import OnStep, Styler, StyleStep, fit_long_side, methods, resize
from regraft.style.large.pyramid import levels, octaves, transfer
from regraft.style.losses import mix, moments
from regraft.style.methods.colour import monge_kantorovich_to
from regraft.style.methods.objective import LeastSSIM, Objective, Weights
from regraft.style.networks.perceptual import perceptual

OPTIMIZERS: Final = ("lbfgs", "adam")
STARTS: Final = ("content", "colour", "noise")
#: The longer side of the coarsest scale, and how much finer the next one is.
COARSEST_PX: Final = 128
FINER: Final = 2.0
DEFAULT_STEPS: Final = 200
#: How much a kept region's edges count beside the style.
KEPT_WEIGHT: Final = 1.0
#: A longer side above this is optimised at its lowest pyramid level: the gradient needs every layer's features at once.
LARGEST_PX: Final = 1536
#: Where the networks see the picture, in turn; 16 px is the coarsest grid of any of them.
SHIFTS: Final = tuple((5 * k % 16, 11 * k % 16) for k in range(8))


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
class Aim:
    """What a picture is optimised towards. regions: a mask (1, h, w) per style, or None; constraint: a least SSIM."""

    styles: Sequence[Tensor]
    shares: Sequence[float]
    regions: Sequence[Tensor] | None
    constraint: LeastSSIM | None
    on_step: OnStep | None


@dataclass(frozen=True)
class Stretch:
    """That many steps at one scale, after `done` at coarser ones."""

    steps: int
    done: int = 0


@methods.register("gatys")
class Gatys(Styler):
    """Gatys, Ecker & Bethge 2016, "Image Style Transfer Using Convolutional Neural Networks", arXiv:1508.06576, eq. 7.

    Differs from the paper: scales from coarse to fine (Gatys et al. 2017, arXiv:1611.07865, section 6), losses that are
    relative to their targets, a start from the content with the style's colours, pixels that stay in [0, 1], and
    optional terms for total variation, edges (arXiv:1707.01253) and a least SSIM. Several styles without masks mix
    their statistics; with masks each has its own (arXiv:1611.07865, eq. 4). A picture above LARGEST_PX is halved until
    it is at most 1024 px, optimised there, and brought back to its size with the content's edges (`pyramid.py`).
    Raises DivergedError where the loss is no number.
    """

    summary = "optimises the picture itself: slow, finest"
    paper = "Gatys et al. 2016, arXiv:1508.06576"
    heeded = frozenset(
        {"perceptual", "steps", "optimizer", "style_loss", "content_weight", "tv_weight", "edge_weight", "start",
         "ssim", "seed", "kept", "kept_weight"}
    )  # fmt: skip
    knows_masks = True
    default_long_px = 512

    def __init__(self, settings: Any = None) -> None:
        super().__init__(settings)
        chosen = self.settings
        self.steps = DEFAULT_STEPS if chosen.steps is None else chosen.steps
        self.optimizer = _one_of("optimizer", chosen.optimizer or "adam", OPTIMIZERS)
        self.start = _one_of("start", chosen.start or "colour", STARTS)
        # Histograms look best where the picture is free; under a bound Gram matrices come nearer to the style.
        usual = "wasserstein+histogram" if chosen.ssim is None else "gram+wasserstein"
        # A least SSIM keeps the content better than features do: with one, all the rest is for the style.
        content, smooth = (0.05, 2.0) if chosen.ssim is None else (0.0, 0.0)
        self.weights = Weights(
            style_losses=frozenset((chosen.style_loss or usual).split("+")),
            content=content if chosen.content_weight is None else chosen.content_weight,
            tv=smooth if chosen.tv_weight is None else chosen.tv_weight,
            edges=chosen.edge_weight or 0.0,
            kept=KEPT_WEIGHT if chosen.kept_weight is None else chosen.kept_weight,
        )
        if self.steps < 1:
            raise UsageError(f"gatys takes 1 step or more; {self.steps} came.")
        self.network = chosen.perceptual or perceptual("sprig")

    def blend(
        self, content: Tensor, styles: Sequence[Tensor], shares: Sequence[float],
        regions: Sequence[Tensor] | None, on_step: OnStep | None,
    ) -> Tensor:  # fmt: skip
        self.network.to(content.device)
        if max(content.shape[-2:]) > LARGEST_PX:
            low = levels(content, octaves(content.shape[-2:]))[-1].clamp(0, 1)
            return transfer(content, self._coarse_to_fine(low, styles, shares, regions, on_step))
        return self._coarse_to_fine(content, styles, shares, regions, on_step)

    def polish(
        self, image: Tensor, content: Tensor, styles: Sequence[Tensor], shares: Sequence[float],
        regions: Sequence[Tensor] | None = None, on_step: OnStep | None = None,
    ) -> Tensor:  # fmt: skip
        """An image (3, h, w) that another method made of the content, optimised for `steps` steps at its own size.

        Above LARGEST_PX it is its lowest pyramid level that is optimised, and what changed there is added.
        """
        self.network.to(content.device)
        aim = self._aim(styles, shares, regions, on_step)
        if max(content.shape[-2:]) <= LARGEST_PX:
            return self._optimise(image, content, aim, Stretch(self.steps))
        low, below = (levels(picture, octaves(picture.shape[-2:]))[-1].clamp(0, 1) for picture in (image, content))
        better = self._optimise(low, below, aim, Stretch(self.steps))
        return (image + resize(better - low, image.shape[-2:])).clamp(0, 1)

    def _coarse_to_fine(
        self, content: Tensor, styles: Sequence[Tensor], shares: Sequence[float],
        regions: Sequence[Tensor] | None, on_step: OnStep | None,
    ) -> Tensor:  # fmt: skip
        sizes = pyramid(content.shape[-2:], max(COARSEST_PX, self.network.min_side_px))
        budget = split_steps(self.steps, sizes)
        image = self._first(resize(content, sizes[0]), styles, shares)
        done = 0
        aim = self._aim(styles, shares, regions, on_step)
        for size, steps in zip(sizes, budget, strict=True):
            image, small = resize(image.contiguous(), size), resize(content, size)
            image = self._optimise(image, small, aim, Stretch(steps, done))
            done += steps
        return image

    def _first(self, content: Tensor, styles: Sequence[Tensor], shares: Sequence[float]) -> Tensor:
        if self.start == "noise":
            draw = torch.Generator().manual_seed(self.settings.seed or 0)
            return torch.rand(content.shape, generator=draw).to(content)
        if self.start == "content":
            return content.clone()
        return monge_kantorovich_to(content, mix([moments(style) for style in styles], shares))

    def _aim(
        self, styles: Sequence[Tensor], shares: Sequence[float], regions: Sequence[Tensor] | None,
        on_step: OnStep | None,
    ) -> Aim:  # fmt: skip
        constraint = None if self.settings.ssim is None else LeastSSIM(self.settings.ssim)
        return Aim(styles, shares, regions, constraint, on_step)

    def _optimise(self, image: Tensor, content: Tensor, aim: Aim, stretch: Stretch) -> Tensor:
        """One scale: updates of the image (3, h, w) towards targets of that scale."""
        constraint, on_step, done = aim.constraint, aim.on_step, stretch.done
        with torch.no_grad():
            kept = None if self.settings.kept is None else self.settings.kept.to(content)
            loss_of = Objective(
                self.network, self.weights, content, aim.styles, aim.shares, aim.regions, constraint, kept
            )
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
            loss.backward()  # type: ignore[no-untyped-call]
            return loss

        for step in range(1, stretch.steps + 1):
            if self.optimizer == "adam":  # L-BFGS needs a function that stays the same
                loss_of.shift = SHIFTS[step % len(SHIFTS)]
            loss = float(optimizer.step(closure).detach())  # type: ignore[no-untyped-call]
            if not math.isfinite(loss) or not bool(torch.isfinite(pixels).all()):
                raise DivergedError(
                    f"The optimisation gave a loss that is no number at step {done + step}: take --optimizer adam."
                )
            if constraint is not None:
                constraint.after_step()
            if on_step is not None:
                shown = {name: float(value.detach()) for name, value in terms.items()}
                now = pixels.detach().clamp(0, 1)
                on_step(StyleStep(done + step, self.steps, max(image.shape[-2:]), loss, shown, now))
        return pixels.detach().clamp(0, 1)


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


def _one_of(what: str, name: str, known: Sequence[str]) -> str:
    if name not in known:
        raise unknown_name(what, name, known)
    return name
