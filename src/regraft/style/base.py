"""The contract of a style method, its registry, and the two ways of joining what several styles made.

A method turns a content picture and weighted styles into one picture. Files, colour preservation, the dial and the
evaluation work with any of them: `style/mine.py` with `@methods.register("mine")` is all that a new one needs.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, fields
from typing import Any, ClassVar

import torch
from torch import Tensor
from torch.nn import functional as F

from regraft.core.errors import UsageError
from regraft.core.registry import Registry
from regraft.style.networks.perceptual import PerceptualNetwork


@dataclass(frozen=True)
class StyleStep:
    """Where a run stands. step counts from 1 over all scales; image: (3, h, w) in [0, 1], of scale_px's size."""

    step: int
    total: int
    scale_px: int
    loss: float
    terms: Mapping[str, float]
    image: Tensor


OnStep = Callable[[StyleStep], None]


@dataclass(frozen=True)
class StyleSettings:
    """What a method can be told; None leaves it to the method. `heeded` says which of them a method uses.

    steps: optimisation steps over all scales. optimizer: "lbfgs" or "adam". style_loss: names of
    `objective.STYLE_LOSSES`, joined by +. content_weight, tv_weight, edge_weight: multiples of the style term. start:
    "content", "colour" or "noise". ssim: the least SSIM to the content that the method should aim at while it works.
    kept: (1, h, w) in [0, 1], where the content's edges stay, by kept_weight.
    keep: how much of the content a one-pass network holds, in [0, 1]; passes: how often it goes over it; refine: steps
    of optimisation after.
    network: another network than the method's own.
    max_memory_bytes: the most that a method which runs a network over the picture may hold (`large.stylize_large`).
    prepare: gives for a fixed style what runs it, pictures (3, H, W) → (3, H, W), where that is not PyTorch.
    """

    perceptual: PerceptualNetwork | None = None
    steps: int | None = None
    optimizer: str | None = None
    style_loss: str | None = None
    content_weight: float | None = None
    tv_weight: float | None = None
    edge_weight: float | None = None
    start: str | None = None
    ssim: float | None = None
    seed: int | None = None
    keep: float | None = None
    passes: int | None = None
    refine: int | None = None
    kept: Tensor | None = None
    kept_weight: float | None = None
    network: Any = None
    max_memory_bytes: int | None = None
    prepare: Callable[[Any], Callable[[Tensor], Tensor]] | None = None

    def given(self) -> set[str]:
        """Names of the settings that are not left to the method."""
        return {field.name for field in fields(self) if getattr(self, field.name) is not None}


class Styler:
    """One way of giving a picture a style.

    Subclasses define `blend`, and name the settings they use. Pictures are (3, H, W) float sRGB in [0, 1]; styles may
    have other sizes than the content.
    """

    #: One line for `--help` and documents.
    summary: ClassVar[str] = ""
    #: Where the method is from: authors, year, arXiv id or venue.
    paper: ClassVar[str] = ""
    #: Names of the fields of StyleSettings that this method uses; others are refused when given.
    heeded: ClassVar[frozenset[str]] = frozenset()
    #: The longer side in px that a picture is brought to when the user names none; None = the picture's own.
    default_long_px: ClassVar[int | None] = None
    #: Whether `blend` takes masks itself; else the result is composed of one per style.
    knows_masks: ClassVar[bool] = False
    #: What a style is for this method: a picture, or what else its `blend` takes.
    takes: ClassVar[type] = Tensor

    def __init__(self, settings: StyleSettings | None = None) -> None:
        self.settings = settings or StyleSettings()
        idle = self.settings.given() - self.heeded
        if idle:
            raise UsageError(
                f"The style method {type(self).__name__} does not use {', '.join(sorted(idle))}; "
                f"it uses {', '.join(sorted(self.heeded)) or 'no such setting'}."
            )

    def stylize(
        self,
        content: Tensor,
        styles: Sequence[tuple[Any, float]],
        *,
        masks: Sequence[Tensor | None] | None = None,
        on_step: OnStep | None = None,
    ) -> Tensor:
        """The stylised content (3, H, W) in [0, 1].

        masks: per style the region (1, h, w) in [0, 1] of the content where it goes, any size; None = where no mask
        is. Raises UsageError for pictures or weights that cannot be used.
        """
        shares = checked_shares(content, styles, self.takes)
        pictures = [picture for picture, _ in styles]
        regions = None if masks is None else resolve_masks(masks, content.shape[-2:])
        if regions is None or self.knows_masks:
            found = self.blend(content, pictures, shares, regions, on_step)
            if regions is not None:  # where no style goes the content stays
                found = torch.lerp(content, found, torch.stack(regions).sum(dim=0).clamp(0, 1))
        else:
            parts = [self.blend(content, [picture], [1.0], None, on_step) for picture in pictures]
            found = compose(content, parts, shares, regions)
        return found.clamp(0, 1)

    def blend(
        self,
        content: Tensor,
        styles: Sequence[Any],
        shares: Sequence[float],
        regions: Sequence[Tensor] | None,
        on_step: OnStep | None,
    ) -> Tensor:
        """The result for checked input: shares sum to 1; regions (1, H, W) come only where `knows_masks`."""
        raise TypeError(f"{type(self).__name__} does not define blend")


#: name → class
methods: Registry[type[Styler]] = Registry("style method")


def checked_shares(content: Tensor, styles: Sequence[tuple[Any, float]], takes: type = Tensor) -> list[float]:
    """The styles' weights as shares of 1. Raises UsageError, also for styles that are not what the method takes."""
    if not styles:
        raise UsageError("Give at least one style picture.")
    for style, _ in styles:
        if not isinstance(style, takes):
            raise UsageError(f"This method takes styles of type {takes.__name__}; {type(style).__name__} came.")
    pictures = [picture for picture, _ in styles] if takes is Tensor else []
    for what, picture in [("content", content), *(("style", picture) for picture in pictures)]:
        if picture.ndim != 3 or picture.shape[0] != 3 or not picture.is_floating_point() or 0 in picture.shape:
            raise UsageError(
                f"A {what} picture of {picture.dtype} {tuple(picture.shape)} came; accepted is float (3, H, W)."
            )
    weights = [float(weight) for _, weight in styles]
    if not all(0 <= weight < float("inf") for weight in weights) or sum(weights) <= 0:
        raise UsageError(f"Style weights are numbers of 0 or more, not all 0; {weights} came.")
    return [weight / sum(weights) for weight in weights]


def resolve_masks(masks: Sequence[Tensor | None], size_px: Sequence[int]) -> list[Tensor] | None:
    """One region (1, H, W) per style; None where no style has a mask.

    A style without a mask takes what the others leave. Overlaps are shared; a place that nobody takes keeps the
    content (regions sum to at most 1 everywhere). Raises UsageError for a mask of another form.
    """
    if all(mask is None for mask in masks):
        return None
    for mask in masks:
        if mask is not None and (mask.ndim != 3 or mask.shape[0] != 1):
            raise UsageError(f"A mask of shape {tuple(mask.shape)} came; accepted is (1, H, W) in [0, 1].")
    sized = [None if mask is None else resize(mask, size_px).clamp(0, 1) for mask in masks]
    given = [mask for mask in sized if mask is not None]
    total = torch.stack(given).sum(dim=0)
    rest = (1 - total).clamp(0, 1)
    return [rest if mask is None else mask / total.clamp(min=1) for mask in sized]


def compose(
    content: Tensor, parts: Sequence[Tensor], shares: Sequence[float], regions: Sequence[Tensor] | None
) -> Tensor:
    """One picture of what each style made: the mean by shares, or by regions where there are some."""
    if regions is None:
        return torch.stack([share * part for share, part in zip(shares, parts, strict=True)]).sum(dim=0)
    placed = torch.stack([region * part for region, part in zip(regions, parts, strict=True)]).sum(dim=0)
    return placed + (1 - torch.stack(list(regions)).sum(dim=0)) * content


def resize(picture: Tensor, size_px: Sequence[int]) -> Tensor:
    """(C, H, W) → (C, *size_px), bicubic with antialiasing; the picture itself where it has that size."""
    height, width = int(size_px[0]), int(size_px[1])
    if picture.shape[-2:] == (height, width):
        return picture
    found = F.interpolate(picture[None], (height, width), mode="bicubic", antialias=True, align_corners=False)[0]
    return found.clamp(0, 1)


def fit_short_side(size_px: Sequence[int], short_px: int) -> tuple[int, int]:
    """Height and width of the same shape whose shorter side is short_px."""
    scale = short_px / min(size_px)
    return max(1, round(size_px[0] * scale)), max(1, round(size_px[1] * scale))


def fit_long_side(size_px: Sequence[int], long_px: int) -> tuple[int, int]:
    """Height and width of the same shape whose longer side is long_px."""
    scale = long_px / max(size_px)
    return max(1, round(size_px[0] * scale)), max(1, round(size_px[1] * scale))
