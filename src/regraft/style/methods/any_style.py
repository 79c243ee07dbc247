"""Any painting, by one network in a pass or a few: the arbitrary network behind the contract of a style method.

A method has a name where the package holds its weights; with a network of one's own (`StyleSettings.network`) the
classes work without.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any, ClassVar, Final

import torch
from torch import Tensor

from regraft.core.hardware import best_precision
from regraft.style.base import (
    OnStep,
    Styler,
    StyleSettings,
    StyleStep,
    compose,
    fit_long_side,
    fit_short_side,
    methods,
    resize,
)
from regraft.style.figures.dial import MARGIN
from regraft.style.figures.similarity import ssim
from regraft.style.methods.gatys import Gatys
from regraft.style.methods.noise import calm
from regraft.style.networks.arbitrary_net import ArbitraryNet, StyleCode, mix_codes
from regraft.style.networks.shipped import is_packaged, packaged_net

#: The style's shorter side in px when it is looked at: about what the network saw in its training.
STYLE_SHORT_PX: Final = 256
#: How often the network goes over a picture unless told: most strokes come with the second and third time. Once where
#: an SSIM is asked for, since a search and steps of optimisation follow there.
USUAL_PASSES: Final = 3
#: Steps of optimisation where an SSIM is asked for, which takes seconds anyway; none else.
DIAL_STEPS: Final = 20
#: How many paintings a method remembers.
_MOST_CODES: Final = 16
#: Steps of the search for the least keep that has an asked SSIM.
_HALVINGS: Final = 6


class OnePass(Styler):
    """Both arbitrary methods; they differ in the weights and in what the deepest level does."""

    #: The file of weights in the package.
    packaged: ClassVar[str] = ""
    heeded = frozenset({"keep", "passes", "refine", "ssim", "network"})
    knows_masks = True
    default_long_px = 1024

    def __init__(self, settings: Any = None) -> None:
        super().__init__(settings)
        self.net: ArbitraryNet = (
            self.settings.network if self.settings.network is not None else packaged_net(self.packaged)
        )
        self.keep = 0.0 if self.settings.keep is None else self.settings.keep
        #: What is known of the paintings seen last, for the photos to come.
        self._codes: list[tuple[Tensor, StyleCode]] = []

    @torch.no_grad()
    def blend(
        self, content: Tensor, styles: Sequence[Tensor], shares: Sequence[float],
        regions: Sequence[Tensor] | None, on_step: OnStep | None,
    ) -> Tensor:  # fmt: skip
        net = self.net.to(content.device).eval()
        codes = [self._code(net, style) for style in styles]
        seen = calm(content[None])
        apart = regions is not None or (net.attentive is not None and len(codes) > 1)
        with _quick(content.device):
            looks = [net.look(seen, code) for code in (codes if apart else [mix_codes(codes, shares)])]

        least_ssim = self.settings.ssim
        passes = self.settings.passes or (USUAL_PASSES if least_ssim is None else 1)
        refine = self.settings.refine
        if refine is None:
            refine = 0 if least_ssim is None else DIAL_STEPS
        runs = 1 if least_ssim is None else _HALVINGS + 1
        long_px = max(content.shape[-2:])

        def run(keep: float) -> Tensor:
            asked = torch.tensor([keep], dtype=content.dtype, device=content.device)
            with _quick(content.device):
                parts = [net.again(look, asked, passes=passes)[0].to(content.dtype) for look in looks]
            return (compose(content, parts, shares, regions) if apart else parts[0]).clamp(0, 1)

        done = 0

        def shown(keep: float) -> Tensor:
            nonlocal done
            found = run(keep)
            done += 1
            if on_step is not None:
                on_step(StyleStep(min(done, runs), runs + refine, long_px, 0.0, {"keep": keep}, found))
            return found

        found = shown(self.keep) if least_ssim is None else _least_keep(shown, content, least_ssim)
        if not refine:
            return found
        optimiser = Gatys(StyleSettings(steps=refine, ssim=least_ssim))

        def further(step: StyleStep) -> None:
            assert on_step is not None
            on_step(replace(step, step=runs + step.step, total=runs + refine))

        with torch.enable_grad():
            return optimiser.polish(
                found, content, styles, shares, regions, None if on_step is None else further
            )  # fmt: skip

    def _code(self, net: ArbitraryNet, style: Tensor) -> StyleCode:
        for known, code in self._codes:
            if known is style:
                return code
        code = net.code(_looked_at(style)[None])
        self._codes = [*self._codes[1 - _MOST_CODES :], (style, code)]
        return code


def _quick(device: torch.device) -> torch.autocast:
    """bf16 where the device computes it natively: a third less time, and no difference that is seen.

    Not fp16, in which the gradients that guide the network would be 0.
    """
    return torch.autocast(device.type, torch.bfloat16, enabled=best_precision(device.type) == "bf16")


def _least_keep(run: Any, content: Tensor, least_ssim: float) -> Tensor:
    """The result of the least keep whose SSIM is at least that, by bisection; of keep 1 where none is.

    Blending with the content, which the dial does after, gives what is still missing.
    """
    low, high = 0.0, 1.0
    best: Tensor = run(high)
    if float(ssim(best, content)) < least_ssim:
        return best
    for _ in range(_HALVINGS):
        middle = (low + high) / 2
        tried = run(middle)
        if float(ssim((tried * 255).round() / 255, content)) >= least_ssim + MARGIN:
            high, best = middle, tried
        else:
            low = middle
    return best


def _looked_at(style: Tensor) -> Tensor:
    """The style at STYLE_SHORT_PX, both sides multiples of 8, no longer than four times as wide."""
    height, width = fit_short_side(style.shape[-2:], STYLE_SHORT_PX)
    if max(height, width) > 4 * STYLE_SHORT_PX:
        height, width = fit_long_side((height, width), 4 * STYLE_SHORT_PX)
    return resize(style, (max(16, height // 8 * 8), max(16, width // 8 * 8)))


class AdaIN(OnePass):
    """Features get the style's mean and deviation, a decoder paints them.

    Huang & Belongie 2017, arXiv:1703.06868. Differs from the paper in three depths instead of one, in a decoder that
    sees the picture and its colour transfer, and in a learned attention that says where the result is used.
    """

    summary = "any painting in seconds"
    paper = "Huang & Belongie 2017, arXiv:1703.06868"
    packaged = "adain"


class AdaAttN(OnePass):
    """As `adain`, but each place gets the statistics of the style's places that are like it.

    Liu et al. 2021, arXiv:2108.03647. Differs from the paper as `AttentiveNorm` says.
    """

    summary = "any painting in seconds, each place styled after the painting's places like it"
    paper = "Liu et al. 2021, arXiv:2108.03647"
    packaged = "adaattn"


for _kind in (AdaIN, AdaAttN):
    if is_packaged(_kind.packaged):
        methods.register(_kind.packaged)(_kind)
