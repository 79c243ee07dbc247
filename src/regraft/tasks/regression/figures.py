"""Figures of numbers: predicted against true, and the residuals."""

from __future__ import annotations

from dataclasses import dataclass

import matplotlib
import numpy as np
from matplotlib.figure import Figure

from regraft.report.figures import ACCENT, BAD, MUTED, STYLE, short, svg

#: Points of each figure; more lie on top of each other.
_POINTS = 2000


@dataclass(frozen=True)
class Numbers:
    """Answers of the chosen candidate on the test: paths, true and predicted numbers (N,); one row per picture."""

    paths: list[str]
    true: np.ndarray
    predicted: np.ndarray


def versus(found: Numbers, name: str, half_width: float | None) -> str:
    """Predicted over true, the line on which both are the same, and the interval as a band about it."""
    some = _some(found)
    ends = np.asarray([min(found.true.min(), found.predicted.min()), max(found.true.max(), found.predicted.max())])
    ends = ends + np.asarray([-1, 1]) * 0.04 * max(float(np.ptp(ends)), 1e-9)
    with matplotlib.rc_context(STYLE):
        figure = Figure(figsize=(4.3, 4.3), layout="constrained")
        axes = figure.add_subplot()
        if half_width is not None:
            axes.fill_between(ends, ends - half_width, ends + half_width, color=MUTED, alpha=0.14, linewidth=0)
        axes.plot(ends, ends, color=MUTED, linewidth=1, dashes=(4, 3))
        axes.scatter(found.true[some], found.predicted[some], s=16, color=ACCENT, alpha=0.65, linewidths=0)
        axes.set(xlim=ends, ylim=ends, aspect="equal", title="Predicted against true")
        axes.set_xlabel(f"true {short(name, 28)}")
        axes.set_ylabel(f"predicted {short(name, 28)}")
        return svg(figure, f"Predicted against true numbers of {len(found.paths)} test pictures")


def residuals(found: Numbers, name: str) -> str:
    """Predicted − true over predicted, with the mean of each fifth: a slope or a bow is a systematic error."""
    some = _some(found)
    off = found.predicted - found.true
    with matplotlib.rc_context(STYLE):
        figure = Figure(figsize=(4.3, 4.3), layout="constrained")
        axes = figure.add_subplot()
        axes.axhline(0, color=MUTED, linewidth=1, dashes=(4, 3))
        axes.scatter(found.predicted[some], off[some], s=16, color=ACCENT, alpha=0.65, linewidths=0)
        parts = np.array_split(np.argsort(found.predicted, kind="stable"), 5)
        if min(map(len, parts)) >= 3:
            middle = [(float(found.predicted[part].mean()), float(off[part].mean())) for part in parts]
            axes.plot(*zip(*middle, strict=True), color=BAD, marker="o", markersize=4, label="mean of each fifth")
            axes.legend(loc="best")
        axes.set(title="Residuals", ylabel="predicted − true")
        axes.set_xlabel(f"predicted {short(name, 28)}")
        return svg(figure, "Residuals: predicted minus true number, over the predicted number")


def _some(found: Numbers) -> np.ndarray:
    return np.unique(np.linspace(0, len(found.paths) - 1, _POINTS).astype(int))
