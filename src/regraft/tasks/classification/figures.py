"""Figures of classes: the confusion matrix, reliability, and risk against coverage."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import matplotlib
import numpy as np
from matplotlib.collections import PatchCollection
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle
from matplotlib.ticker import MaxNLocator

from regraft.report.figures import ACCENT, BAD, CARD, INK, MUTED, POINTS, STYLE, short, svg


def confusion(matrix: Sequence[Sequence[int]], classes: Sequence[str]) -> str | None:
    """Rows true, columns predicted, shaded by the row's share: right in the accent colour, wrong in the
    warning one."""
    counts = np.asarray(matrix, dtype=np.float64)
    k = len(classes)
    if counts.shape != (k, k) or k == 0 or counts.sum() == 0:
        return None
    share = counts / np.maximum(counts.sum(axis=1, keepdims=True), 1)
    labels = [short(str(name), 18) for name in classes]
    small = 10 if k <= 8 else 8.5 if k <= 20 else 6.5 if k <= 45 else 5.5
    cell = 0.82 if k <= 4 else 0.62 if k <= 8 else 0.40 if k <= 20 else 0.165
    side = max(1.6, cell * k)
    with matplotlib.rc_context(STYLE):
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
        return svg(figure, f"Confusion matrix of {k} classes: {right} of {total} on the diagonal")


def reliability(before: Sequence[Mapping[str, Any]] | None, after: Sequence[Mapping[str, Any]] | None) -> str | None:
    """Accuracy against confidence per bin, before and after temperature scaling, with how many samples each
    bin holds."""
    panels = [(name, bins) for name, bins in (("Before temperature", before), ("After temperature", after)) if bins]
    if not panels:
        return None
    if len(panels) == 1:
        panels = [("Reliability", panels[0][1])]
    with matplotlib.rc_context(STYLE):
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
        return svg(figure, "Reliability: accuracy against confidence, before and after temperature scaling")


def risk_coverage(coverage: np.ndarray, risk: np.ndarray, answered: float | None = None) -> str | None:
    """Error rate of the surest samples against how many those are; `answered` marks the coverage at the
    threshold."""
    if len(coverage) == 0:
        return None
    keep = np.unique(np.linspace(0, len(coverage) - 1, POINTS).astype(int))
    with matplotlib.rc_context(STYLE):
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
        return svg(figure, "Risk against coverage: error rate when only the surest samples are answered")
