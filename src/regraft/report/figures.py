"""The figures of a report: matplotlib, drawn without pyplot's global state, as inline SVG in the page's own
colours.

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
from matplotlib.collections import PatchCollection
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle
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

_STYLE: Any = {
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
#: Colours of classes that are seen on light and dark paper alike.
_CLASS_COLOURS = (
    "#2f8f83", "#c9722e", "#7a6fc0", "#c24d7e", "#6d9a2c", "#c79a1e", "#96702f", "#6b7785", "#3f86c2", "#b0504a",
)  # fmt: skip
#: Points per line in the page; more are not visible at its width.
_POINTS = 400


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
    has = {key: any(_number(line.get(key)) is not None for line in own) for keys in groups for key in keys}
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
    with matplotlib.rc_context(_STYLE):
        figure = Figure(figsize=(8.6 if len(panels) == 2 else 4.4, 2.7), layout="constrained")
        for position, keys in enumerate(panels):
            axes = figure.add_subplot(1, len(panels), position + 1)
            for key in keys:
                colour, label = looks[key]
                for index, number in enumerate(rounds):
                    points = _points([line for line in own if (line.get("round") or 0) == number], axis, key)
                    if key == "val_metric" and percent:
                        points = points * [1, 100]
                    if len(points):
                        _curve(axes, points, colour, label if index == 0 else "_", pale=len(rounds) > 1)
            axes.set_title(titles[keys[0]])
            axes.set_xlabel(axis)
            axes.xaxis.set_major_locator(MaxNLocator(6, integer=True))
            axes.margins(x=0.02)
            if has["train_loss"] and has["val_loss"] and "val_loss" in keys:
                axes.legend(loc="best")
        return _svg(figure, f"Learning curves of {candidate}: loss and validation {metric_label} over {axis}s")


def candidates(rows: Sequence[Mapping[str, Any]], metric_label: str, percent: bool = True) -> str | None:
    """Each candidate's test figure as a dot with its interval; the chosen one in the accent colour."""
    rows = [row for row in rows if _number(row.get("value")) is not None]
    if not rows:
        return None
    scale = 100 if percent else 1
    with matplotlib.rc_context(_STYLE):
        figure = Figure(figsize=(8.6, 0.75 + 0.42 * len(rows)), layout="constrained")
        axes = figure.add_subplot()
        for place, row in enumerate(reversed(rows)):
            colour = ACCENT if row.get("chosen") else MUTED
            low, high = row.get("interval") or (None, None)
            if low is not None and high is not None:
                axes.plot([scale * low, scale * high], [place, place], color=colour, linewidth=2.4, alpha=0.55)
            axes.plot([scale * row["value"]], [place], "o", color=colour, markersize=8)
        axes.set_yticks(range(len(rows)), [_short(str(row["name"]), 28) for row in reversed(rows)])
        axes.tick_params(axis="y", labelcolor=INK, labelsize=10)
        axes.set_ylim(-0.6, len(rows) - 0.4)
        axes.grid(False, axis="y")
        axes.spines["left"].set_visible(False)
        axes.set_xlabel(f"{metric_label} on the test, {'%, ' if percent else ''}with 95 % interval")
        return _svg(figure, f"{metric_label} of each candidate with its interval")


def confusion(matrix: Sequence[Sequence[int]], classes: Sequence[str]) -> str | None:
    """Rows true, columns predicted, shaded by the row's share: right in the accent colour, wrong in the
    warning one."""
    counts = np.asarray(matrix, dtype=np.float64)
    k = len(classes)
    if counts.shape != (k, k) or k == 0 or counts.sum() == 0:
        return None
    share = counts / np.maximum(counts.sum(axis=1, keepdims=True), 1)
    labels = [_short(str(name), 18) for name in classes]
    small = 10 if k <= 8 else 8.5 if k <= 20 else 6.5 if k <= 45 else 5.5
    cell = 0.82 if k <= 4 else 0.62 if k <= 8 else 0.40 if k <= 20 else 0.165
    side = max(1.6, cell * k)
    with matplotlib.rc_context(_STYLE):
        figure = Figure(figsize=(min(side + 1.9, 10.5), min(side + 1.5, 10.1)), layout="constrained")
        axes = figure.add_subplot()
        axes.set(xlim=(-0.5, k - 0.5), ylim=(k - 0.5, -0.5), aspect="equal")
        cells: dict[str, list[tuple[Rectangle, float]]] = {ACCENT: [], BAD: []}
        for i, j in zip(*np.nonzero(counts), strict=True):
            colour = ACCENT if i == j else BAD
            strength = 0.10 + 0.80 * share[i, j]
            cells[colour].append((Rectangle((j - 0.48, i - 0.48), 0.96, 0.96), strength))
            if k <= 20:
                ink = CARD if strength > 0.6 else INK
                axes.text(j, i, f"{int(counts[i, j])}", ha="center", va="center", color=ink, fontsize=small)
        for colour, drawn in cells.items():
            if drawn:
                shapes, strengths = zip(*drawn, strict=True)
                axes.add_collection(PatchCollection(shapes, facecolor=colour, alpha=list(strengths), linewidth=0))
        turned = k > 4 or max(map(len, labels)) * k > 34
        axes.set_xticks(range(k), labels, rotation=90 if turned else 0, fontsize=small)
        axes.set_yticks(range(k), labels, fontsize=small)
        axes.set_xlabel("predicted")
        axes.set_ylabel("true")
        axes.grid(False)
        for spine in axes.spines.values():
            spine.set_visible(False)
        right, total = int(np.trace(counts)), int(counts.sum())
        return _svg(figure, f"Confusion matrix of {k} classes: {right} of {total} on the diagonal")


def reliability(before: Sequence[Mapping[str, Any]] | None, after: Sequence[Mapping[str, Any]] | None) -> str | None:
    """Accuracy against confidence per bin, before and after temperature scaling, with how many samples each
    bin holds."""
    panels = [(name, bins) for name, bins in (("Before temperature", before), ("After temperature", after)) if bins]
    if not panels:
        return None
    if len(panels) == 1:
        panels = [("Reliability", panels[0][1])]
    with matplotlib.rc_context(_STYLE):
        figure = Figure(figsize=(3.1 * len(panels), 3.7), layout="constrained")
        grid = figure.add_gridspec(2, len(panels), height_ratios=(4, 1))
        for column, (title, bins) in enumerate(panels):
            axes = figure.add_subplot(grid[0, column])
            counts = figure.add_subplot(grid[1, column], sharex=axes)
            axes.plot([0, 100], [0, 100], color=MUTED, linewidth=1, dashes=(4, 3))
            for row in bins:
                width, middle = 100 * (row["high"] - row["low"]), 50 * (row["low"] + row["high"])
                if row["n"]:
                    right, gap = 100 * row["accuracy"], 100 * (row["confidence"] - row["accuracy"])
                    axes.bar(middle, right, 0.86 * width, color=ACCENT, alpha=0.75, linewidth=0)
                    if gap > 0:  # more sure than right
                        axes.bar(middle, gap, 0.86 * width, right, color=BAD, alpha=0.35, linewidth=0)
                counts.bar(middle, row["n"], 0.86 * width, color=MUTED, alpha=0.6, linewidth=0)
            axes.set(xlim=(0, 100), ylim=(0, 101), title=title, ylabel="right, %" if column == 0 else "")
            axes.set_xticks([0, 25, 50, 75, 100])
            axes.tick_params(axis="x", labelbottom=False)
            counts.set(xlabel="confidence, %", ylabel="samples" if column == 0 else "")
            counts.yaxis.set_major_locator(MaxNLocator(2, integer=True))
        return _svg(figure, "Reliability: accuracy against confidence, before and after temperature scaling")


def risk_coverage(coverage: np.ndarray, risk: np.ndarray, answered: float | None = None) -> str | None:
    """Error rate of the surest samples against how many those are; `answered` marks the coverage at the
    threshold."""
    if len(coverage) == 0:
        return None
    keep = np.unique(np.linspace(0, len(coverage) - 1, _POINTS).astype(int))
    with matplotlib.rc_context(_STYLE):
        figure = Figure(figsize=(3.6, 3.7), layout="constrained")
        axes = figure.add_subplot()
        axes.plot(100 * coverage[keep], 100 * risk[keep], color=ACCENT)
        if answered is not None and 0 < answered <= 1:
            there = 100 * float(np.interp(answered, coverage, risk))
            axes.plot([100 * answered], [there], "o", color=ACCENT, markersize=8)
            axes.annotate(
                "threshold",
                (100 * answered, there),
                (-8, 6),
                textcoords="offset points",
                ha="right",
                color=MUTED,
                fontsize=9,
            )
        axes.set(xlim=(0, 101), ylim=(0, max(2.0, 118 * float(risk[keep].max()))))
        axes.yaxis.set_major_locator(MaxNLocator(5))
        axes.set(title="Errors among the answered", xlabel="answered, %", ylabel="wrong, %")
        return _svg(figure, "Risk against coverage: error rate when only the surest samples are answered")


def domain_maps(rows: Sequence[Mapping[str, Any]], classes: Sequence[str]) -> str | None:
    """Four maps: before and after, coloured by domain above and by class below; source dots, target crosses.

    rows: of domains.parquet, with stage ("before", "after"), domain, label, x, y. None where there are none.
    """
    stages = [stage for stage in ("before", "after") if any(row.get("stage") == stage for row in rows)]
    if not stages:
        return None
    with matplotlib.rc_context(_STYLE):
        figure = Figure(figsize=(8.6, 7.4), layout="constrained")
        grid = figure.subplots(2, len(stages), squeeze=False)
        for column, stage in enumerate(stages):
            own = [row for row in rows if row.get("stage") == stage]
            for line, by in enumerate(("domain", "class")):
                axes = grid[line][column]
                for domain, marker in (("source", "o"), ("target", "x")):
                    part = [row for row in own if row.get("domain") == domain]
                    colours: Any = ACCENT if domain == "source" else BAD
                    if by == "class":
                        colours = [_CLASS_COLOURS[int(row["label"]) % len(_CLASS_COLOURS)] for row in part]
                    axes.scatter(
                        [row["x"] for row in part], [row["y"] for row in part], s=13, c=colours, marker=marker,
                        linewidths=0.9 if marker == "x" else 0, alpha=0.75, label=domain,
                    )  # fmt: skip
                axes.set_title(f"{stage}, by {by}")
                axes.set_xticks([])
                axes.set_yticks([])
                axes.grid(False)
        grid[0][0].legend(loc="best")
        if len(classes) <= len(_CLASS_COLOURS):
            handles = [Rectangle((0, 0), 1, 1, color=_CLASS_COLOURS[i]) for i in range(len(classes))]
            names = [_short(name, 18) for name in classes]
            figure.legend(handles, names, loc="outside lower center", ncols=min(7, len(names)))
        return _svg(figure, "Maps of both domains before and after adaptation")


def style_front(
    points: Sequence[tuple[float, float]], marks: Sequence[tuple[str, float, float]], asked_ssim: float | None
) -> str:
    """SSIM against Gram cosine: the line of (SSIM, Gram cosine) from no strength to all of it, and named marks."""
    with matplotlib.rc_context(_STYLE):
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
        return _svg(figure, "SSIM to the content against Gram cosine to the style, over the strength")


def _points(lines: Sequence[Mapping[str, Any]], axis: str, key: str) -> np.ndarray:
    """(M, 2) of the lines that have both, in the order of the axis; a step logged twice (after a resume)
    counts once."""
    found = {
        x: y
        for line in lines
        if (x := _number(line.get(axis))) is not None and (y := _number(line.get(key))) is not None
    }
    return np.asarray(sorted(found.items()), dtype=np.float64)


def _curve(axes: Axes, points: np.ndarray, colour: str, label: str, *, pale: bool) -> None:
    noisy = len(points) > 80
    shown = points[np.unique(np.linspace(0, len(points) - 1, _POINTS).astype(int))]
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
        ends = np.unique(np.linspace(1, len(points), _POINTS).astype(int))
        starts = np.maximum(ends - width, 0)
        axes.plot(points[ends - 1, 0], (total[ends] - total[starts]) / (ends - starts), color=colour, label=label)


def _number(value: Any) -> float | None:
    ok = isinstance(value, int | float) and not isinstance(value, bool) and np.isfinite(value)
    return float(value) if ok else None


def _short(text: str, length: int) -> str:
    text = "".join(letter for letter in text if letter.isprintable())
    return text if len(text) <= length else text[: length - 1] + "…"


def _svg(figure: Figure, label: str) -> str:
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
