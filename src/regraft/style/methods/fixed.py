"""Fixed styles: a student network per style, milliseconds a picture."""

from __future__ import annotations

import copy
from collections.abc import Sequence
from typing import Final

import torch
from torch import Tensor

from regraft.style.base import OnStep, Styler, StyleStep, compose, methods
from regraft.style.large.canvas import stylize_large
from regraft.style.large.footprint import Footprint, measure_footprint
from regraft.style.networks.model_file import StyleModel
from regraft.style.networks.transfer_net import STUDENT_MULTIPLE_PX, STUDENT_WIDTHS, StudentNet

#: Pictures up to this are run whole where no bound is given.
WHOLE_PIXELS: Final = 4_000_000
#: What a student of the usual widths holds at most; a test compares it with what is measured.
_STUDENT_BYTES: Final = 8192
_STUDENT_BYTES_PER_PX: Final = 94.0


@methods.register("fixed")
class Fixed(Styler):
    """Feed-forward networks of one style each (Johnson et al. 2016, arXiv:1603.08155), distilled into students.

    Styles are models instead of pictures. Several: the mean of the results by shares, or by regions. Pictures above
    WHOLE_PIXELS, and all where memory is bounded, are run in tiles, which give what the whole gives.
    """

    summary = "a style that was trained before, by its name: milliseconds"
    paper = "Johnson et al. 2016, arXiv:1603.08155"
    takes = StyleModel
    heeded = frozenset({"max_memory_bytes", "prepare"})

    @torch.no_grad()
    def blend(
        self, content: Tensor, styles: Sequence[StyleModel], shares: Sequence[float],
        regions: Sequence[Tensor] | None, on_step: OnStep | None,
    ) -> Tensor:  # fmt: skip
        parts = []
        for number, style in enumerate(styles, start=1):
            parts.append(self._run(style, content).clamp(0, 1))
            if on_step is not None:
                on_step(StyleStep(number, len(styles), max(content.shape[-2:]), 0.0, {}, parts[-1]))
        return compose(content, parts, shares, None)

    def _run(self, style: StyleModel, content: Tensor) -> Tensor:
        if self.settings.prepare is not None:
            return self.settings.prepare(style)(content)
        assert isinstance(style.net, StudentNet)
        net = style.net.to(content.device).eval()
        bound = self.settings.max_memory_bytes
        if bound is None and content.shape[-2] * content.shape[-1] <= WHOLE_PIXELS:
            painted: Tensor = net(content[None])[0]
            return painted
        return stylize_large(net, content, max_memory_bytes=bound, footprint=student_footprint(net))


def student_footprint(net: StudentNet) -> Footprint:
    """As `measure_footprint` but for the canvas and the colours, which tiles are told.

    Without a pass where the widths are the usual ones: every block of 3 × 3 twice at an eighth of the size looks 16 px
    further, and the most is held while the last layer's cells are put together.
    """
    if net.widths != STUDENT_WIDTHS or max(net.inner, default=0) > STUDENT_WIDTHS[-1]:
        plain = copy.deepcopy(net)
        torch.nn.init.zeros_(plain.canvas)
        plain.begin(torch.rand(3, 64, 64, generator=torch.Generator().manual_seed(0)))
        return measure_footprint(plain)
    return Footprint(24 + 16 * len(net.inner), STUDENT_MULTIPLE_PX, True, _STUDENT_BYTES, _STUDENT_BYTES_PER_PX)
