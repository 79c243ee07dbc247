"""One page per stylised picture: content, style and result side by side, a slider to compare, zoom, and the figures."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import matplotlib
from markupsafe import Markup
from matplotlib.figure import Figure
from torch import Tensor

from regraft.core.files import replacing
from regraft.report.environment import environment
from regraft.report.figures import ACCENT, BAD, INK, MUTED, STYLE, svg
from regraft.style.figures.dial import FrontPoint
from regraft.style.figures.inline import data_uri as _uri

#: Pictures inside a page are at most this long; the file that was written keeps its own size.
_SHOWN_PX = 1600
_STYLE_PX = 640


@dataclass(frozen=True)
class StylePage:
    """What a page shows. figures: as `regraft style evaluate --json` prints them. styles: (name, weight, picture).

    A fixed style has no picture.
    """

    content: Tensor
    result: Tensor
    styles: Sequence[tuple[str, float, Tensor | None]]
    figures: Mapping[str, Any]
    method: str
    name: str
    front: Sequence[FrontPoint] = ()
    asked_ssim: float | None = None
    notes: Sequence[str] = field(default_factory=tuple)


def render_style(path: Path, page: StylePage) -> Path:
    """Write the page, self-contained, whole or not at all; returns its path. Names are escaped."""
    baselines = page.figures["baselines"]
    html = (
        environment([__package__])
        .get_template(f"{__package__}:page.html")
        .render(
            page=page,
            figures=page.figures,
            rows=[("this picture", page.figures), *baselines.items()],
            content=_uri(page.content, _SHOWN_PX),
            result=_uri(page.result, _SHOWN_PX),
            styles=[
                (name, weight, None if picture is None else _uri(picture, _STYLE_PX))
                for name, weight, picture in page.styles
            ],
            size=(int(page.result.shape[-1]), int(page.result.shape[-2])),
            latency=_latency(page.figures),
            memory=_memory(page.figures["peak_memory_bytes"]),
            front=_front(page),
        )
    )
    with replacing(path) as temporary:
        temporary.write_bytes(html.encode("utf-8", "replace"))
    return path


def style_front(
    points: Sequence[tuple[float, float]], marks: Sequence[tuple[str, float, float]], asked_ssim: float | None
) -> str:
    """SSIM against Gram cosine: the line of (SSIM, Gram cosine) from no strength to all of it, and named marks."""
    with matplotlib.rc_context(STYLE):
        figure = Figure(figsize=(5.6, 3.7), layout="constrained")
        axes = figure.add_subplot()
        axes.plot([x for x, _ in points], [y for _, y in points], color=ACCENT, marker=".")
        for index, (name, x, y) in enumerate(marks):
            axes.plot([x], [y], "o", color=ACCENT if index == 0 else MUTED, markersize=8 if index == 0 else 6)
            axes.annotate(
                name, (x, y), (8, 5), textcoords="offset points", color=INK if index == 0 else MUTED, fontsize=9
            )
        if asked_ssim is not None:
            axes.axvline(asked_ssim, color=BAD, linewidth=1, linestyle=":")
        axes.margins(x=0.16, y=0.12)
        axes.set(title="Fidelity against style", xlabel="SSIM to the content", ylabel="Gram cosine to the style")
        return svg(figure, "SSIM to the content against Gram cosine to the style, over the strength")


def _front(page: StylePage) -> Markup | None:
    """The plot of the front with this picture and both baselines; SVG whose labels are escaped."""
    if not page.front or page.figures["gram_cosine"] is None:
        return None
    named = {"this picture": page.figures, **page.figures["baselines"]}
    marks = [(name, found["ssim"], found["gram_cosine"]) for name, found in named.items()]
    return Markup(style_front([(at.ssim, at.gram_cosine) for at in page.front], marks, page.asked_ssim))


def _latency(figures: Mapping[str, Any]) -> str:
    p50, p95 = figures["latency_ms"]["p50"], figures["latency_ms"]["p95"]
    if p50 is None:
        return "–"
    if p50 >= 10_000:
        return f"{p50 / 1000:.0f} s"
    return f"{p50:.0f} ms" if figures["runs"] < 2 else f"{p50:.0f} ms, p95 {p95:.0f} ms"


def _memory(size_bytes: int | None) -> str:
    return "–" if size_bytes is None else f"{size_bytes / 2**20:.0f} MiB"
