"""How figures of a report are drawn, and those of every job: matplotlib without pyplot's global state, as inline SVG
in the page's own colours.

A figure is drawn in placeholder colours; in the SVG each is replaced by the CSS variable of the page, so one
drawing serves the light and the dark page. Text stays text, in the page's typeface.
"""

from __future__ import annotations

import io
import re
from collections.abc import Mapping, Sequence
from html import escape
from typing import Any

import matplotlib
import numpy as np
from matplotlib.axes import Axes
from matplotlib.backends.backend_svg import FigureCanvasSVG
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

#: Placeholder → CSS variable. Any colours will do that no figure uses otherwise.
COLOURS = {
    "#010101": "var(--ink)",
    "#010102": "var(--muted)",
    "#010103": "var(--rule)",
    "#010104": "var(--accent)",
    "#010105": "var(--bad)",
    "#010106": "var(--card)",
}
INK, MUTED, RULE, ACCENT, BAD, CARD = COLOURS

#: Matplotlib's settings for every figure.
STYLE: Any = {
    "svg.fonttype": "none",
    "text.parse_math": False,  # a class may be called "$x"
    "font.size": 9.5,
    "axes.edgecolor": RULE,
    "axes.labelcolor": MUTED,
    "axes.labelsize": 9.5,
    "axes.titlesize": 10.5,
    "axes.titlecolor": INK,
    "axes.titlelocation": "left",
    "axes.titlepad": 10,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.axisbelow": True,
    "axes.grid": True,
    "grid.color": RULE,
    "grid.linewidth": 0.7,
    "xtick.color": RULE,
    "ytick.color": RULE,
    "xtick.labelcolor": MUTED,
    "ytick.labelcolor": MUTED,
    "xtick.major.size": 0,
    "ytick.major.size": 0,
    "legend.frameon": False,
    "legend.labelcolor": MUTED,
    "legend.fontsize": 9,
    "lines.linewidth": 1.8,
    "lines.solid_capstyle": "round",
    "text.color": INK,
}
#: Points per line in the page; more are not visible at its width.
POINTS = 400


def learning_curves(
    lines: Sequence[Mapping[str, Any]], candidate: str, metric_label: str, percent: bool = True
) -> str | None:
    """Training and validation loss, and the validation metric, of one candidate; None where nothing was
    recorded.

    lines: of metrics.jsonl, with any of epoch, step, train_loss, val_loss, val_metric, or of the adaptation's
    source_loss and alignment; one pale line per round where there are several.
    """
    own = [line for line in lines if line.get("candidate") == candidate]
    axis = "epoch" if sum("epoch" in line for line in own) > 0 else "step"
    rounds = sorted({line.get("round") or 0 for line in own})
    groups = (("train_loss", "val_loss"), ("val_metric",), ("source_loss",), ("alignment",))
    has = {key: any(number_of(line.get(key)) is not None for line in own) for keys in groups for key in keys}
    panels = [keys for keys in groups if any(has[key] for key in keys)]
    if not panels:
        return None
    looks = {
        "train_loss": (MUTED, "training"),
        "val_loss": (ACCENT, "validation"),
        "val_metric": (ACCENT, "validation"),
        "source_loss": (MUTED, "source"),
        "alignment": (ACCENT, "target"),
    }
    titles = {
        "train_loss": "Loss",
        "val_metric": f"Validation {metric_label}{', %' if percent else ''}",
        "source_loss": "Loss on the source",
        "alignment": "Alignment term, with the target",
    }
    with matplotlib.rc_context(STYLE):
        figure = Figure(figsize=(8.6 if len(panels) == 2 else 4.4, 2.7), layout="constrained")
        for position, keys in enumerate(panels):
            axes = figure.add_subplot(1, len(panels), position + 1)
            for key in keys:
                colour, label = looks[key]
                for index, number in enumerate(rounds):
                    points = points_of([line for line in own if (line.get("round") or 0) == number], axis, key)
                    if key == "val_metric" and percent:
                        points = points * [1, 100]
                    if len(points):
                        draw_curve(axes, points, colour, label if index == 0 else "_", pale=len(rounds) > 1)
            axes.set_title(titles[keys[0]])
            axes.set_xlabel(axis)
            axes.xaxis.set_major_locator(MaxNLocator(6, integer=True))
            axes.margins(x=0.02)
            if has["train_loss"] and has["val_loss"] and "val_loss" in keys:
                axes.legend(loc="best")
        return svg(figure, f"Learning curves of {candidate}: loss and validation {metric_label} over {axis}s")


def candidates(rows: Sequence[Mapping[str, Any]], metric_label: str, percent: bool = True) -> str | None:
    """Each candidate's test figure as a dot with its interval; the chosen one in the accent colour."""
    rows = [row for row in rows if number_of(row.get("value")) is not None]
    if not rows:
        return None
    scale = 100 if percent else 1
    with matplotlib.rc_context(STYLE):
        figure = Figure(figsize=(8.6, 0.75 + 0.42 * len(rows)), layout="constrained")
        axes = figure.add_subplot()
        for place, row in enumerate(reversed(rows)):
            colour = ACCENT if row.get("chosen") else MUTED
            low, high = row.get("interval") or (None, None)
            if low is not None and high is not None:
                axes.plot([scale * low, scale * high], [place, place], color=colour, linewidth=2.4, alpha=0.55)
            axes.plot([scale * row["value"]], [place], "o", color=colour, markersize=8)
        axes.set_yticks(range(len(rows)), [short(str(row["name"]), 28) for row in reversed(rows)])
        axes.tick_params(axis="y", labelcolor=INK, labelsize=10)
        axes.set_ylim(-0.6, len(rows) - 0.4)
        axes.grid(False, axis="y")
        axes.spines["left"].set_visible(False)
        axes.set_xlabel(f"{metric_label} on the test, {'%, ' if percent else ''}with 95 % interval")
        return svg(figure, f"{metric_label} of each candidate with its interval")


def points_of(lines: Sequence[Mapping[str, Any]], axis: str, key: str) -> np.ndarray:
    """(M, 2) of the lines that have both, in the order of the axis; a step logged twice (after a resume)
    counts once."""
    found = {
        x: y
        for line in lines
        if (x := number_of(line.get(axis))) is not None and (y := number_of(line.get(key))) is not None
    }
    return np.asarray(sorted(found.items()), dtype=np.float64)


def draw_curve(axes: Axes, points: np.ndarray, colour: str, label: str, *, pale: bool) -> None:
    noisy = len(points) > 80
    shown = points[np.unique(np.linspace(0, len(points) - 1, POINTS).astype(int))]
    axes.plot(
        shown[:, 0],
        shown[:, 1],
        color=colour,
        label="_" if noisy else label,
        alpha=0.25 if noisy else 0.5 if pale else 1.0,
        linewidth=1.0 if noisy or pale else 1.8,
        marker="o" if len(points) < 25 and not pale else None,
        markersize=3.5,
    )
    if noisy:
        width = max(3, len(points) // 25)
        total = np.cumsum(np.insert(points[:, 1], 0, 0.0))
        ends = np.unique(np.linspace(1, len(points), POINTS).astype(int))
        starts = np.maximum(ends - width, 0)
        axes.plot(points[ends - 1, 0], (total[ends] - total[starts]) / (ends - starts), color=colour, label=label)


def number_of(value: Any) -> float | None:
    ok = isinstance(value, int | float) and not isinstance(value, bool) and np.isfinite(value)
    return float(value) if ok else None


def short(text: str, length: int) -> str:
    text = "".join(letter for letter in text if letter.isprintable())
    return text if len(text) <= length else text[: length - 1] + "…"


def svg(figure: Figure, label: str) -> str:
    """The drawing as an `<svg>` element with a text alternative, in CSS variables, without anything outside
    itself."""
    out = io.StringIO()
    FigureCanvasSVG(figure)
    with matplotlib.rc_context({"svg.hashsalt": label}):  # ids differ between the figures of one page
        figure.savefig(out, format="svg", transparent=True, metadata={"Date": None})
    text = out.getvalue()
    text = text[text.index("<svg") :]
    text = re.sub(r"<metadata>.*?</metadata>|<style[^>]*>.*?</style>", "", text, flags=re.S)
    text = re.sub(r'<g id="[^"]*"', "<g", text)
    text = text.replace("xlink:href", "href")
    text = re.sub(r'style="[^"]*"', lambda found: _restyled(found.group()), text)
    width, height = (72 * inches for inches in figure.get_size_inches())
    head = (
        f'<svg class="figure" role="img" aria-label="{escape(label, quote=True)}" '
        f'viewBox="0 0 {width:g} {height:g}" style="max-width:{width * 4 / 3:.0f}px">'
    )
    return head + text[text.index(">") + 1 :].strip()


def _restyled(style: str) -> str:
    """A style attribute in the page's typeface and colours. Only attributes are touched, never the text of a
    label."""
    style = re.sub(r"font: (?:[\w ]*? )?([\d.]+)px [^;\"]*", r"font-size: \1px", style)
    style = re.sub(r"font-family: [^;\"]*;?", "", style)
    for placeholder, variable in COLOURS.items():
        style = style.replace(placeholder, variable)
    return style
