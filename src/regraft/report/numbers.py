"""The page's part on predicted numbers: predicted against true, residuals, the worst mistakes, the interval."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import matplotlib
import numpy as np
from markupsafe import Markup
from matplotlib.figure import Figure

from regraft.measure import NUMBER_METRICS, format_number, format_value
from regraft.report.figures import _STYLE, ACCENT, BAD, MUTED, _short, _svg
from regraft.report.gathering import MISTAKE_SIDE_PX, MISTAKES, locate, table
from regraft.report.pictures import thumbnail
from regraft.report.schema import Report

#: Points of each figure; more lie on top of each other.
_POINTS = 2000


@dataclass(frozen=True)
class Numbers:
    """Answers of the chosen candidate on the test: paths, true and predicted numbers (N,); one row per picture."""

    paths: list[str]
    true: np.ndarray
    predicted: np.ndarray


def numbers(run: Path, report: Report) -> dict[str, Any]:
    """What the section on numbers shows; empty for a report on classes."""
    if report.number is None or report.why:  # an adaptation has sections of its own
        return {}
    found = test_numbers(run, report)
    name = report.number or "number"
    interval = report.prediction_interval or {}
    rows = [("test", report.summary or {}), ("validation", report.validation_summary or {})]
    return {
        "name": name,
        "metrics": {key: metric.label for key, metric in NUMBER_METRICS.items()},
        "rows": [
            (
                where,
                {key: None if values.get(key) is None else format_value(key, values[key]) for key in NUMBER_METRICS},
            )
            for where, values in rows
            if values
        ],
        "interval": _sentence(interval),
        "versus": _markup(found, lambda one: versus(one, name, interval.get("half_width"))),
        "residuals": _markup(found, lambda one: residuals(one, name)),
        "mistakes": [] if found is None else mistakes(found, report, run),
        "n": 0 if found is None else len(found.paths),
    }


def test_numbers(run: Path, report: Report) -> Numbers | None:
    """The chosen candidate's answers on the test; where a picture was scored in several rounds, their mean."""
    answers: dict[str, list[float]] = defaultdict(list)
    true: dict[str, float] = {}
    for row in table(run / "predictions.parquet"):
        own = row.get("split") == "test" and row.get("candidate") in (None, report.chosen)
        if own and row.get("number") is not None and row.get("predicted") is not None:
            answers[str(row["path"])].append(float(row["predicted"]))
            true[str(row["path"])] = float(row["number"])
    if not answers:
        return None
    means = np.asarray([np.mean(found) for found in answers.values()])
    return Numbers(list(answers), np.asarray([true[path] for path in answers]), means)


def mistakes(found: Numbers, report: Report, run: Path) -> list[dict[str, Any]]:
    """The pictures whose number is furthest off, at most 24, the worst first."""
    off = found.predicted - found.true
    out = []
    for index in np.argsort(-np.abs(off), kind="stable")[:MISTAKES]:
        path = found.paths[index]
        out.append(
            {
                "file": Path(path).name,
                "true": format_number(float(found.true[index])),
                "predicted": format_number(float(found.predicted[index])),
                "off": f"{format_number(abs(float(off[index])))} too {'high' if off[index] > 0 else 'low'}",
                "picture": thumbnail(locate(path, report, run), MISTAKE_SIDE_PX, quality=72, square=False),
            }
        )
    return out


def versus(found: Numbers, name: str, half_width: float | None) -> str:
    """Predicted over true, the line on which both are the same, and the interval as a band about it."""
    some = _some(found)
    ends = np.asarray([min(found.true.min(), found.predicted.min()), max(found.true.max(), found.predicted.max())])
    ends = ends + np.asarray([-1, 1]) * 0.04 * max(float(np.ptp(ends)), 1e-9)
    with matplotlib.rc_context(_STYLE):
        figure = Figure(figsize=(4.3, 4.3), layout="constrained")
        axes = figure.add_subplot()
        if half_width is not None:
            axes.fill_between(ends, ends - half_width, ends + half_width, color=MUTED, alpha=0.14, linewidth=0)
        axes.plot(ends, ends, color=MUTED, linewidth=1, dashes=(4, 3))
        axes.scatter(found.true[some], found.predicted[some], s=16, color=ACCENT, alpha=0.65, linewidths=0)
        axes.set(xlim=ends, ylim=ends, aspect="equal", title="Predicted against true")
        axes.set_xlabel(f"true {_short(name, 28)}")
        axes.set_ylabel(f"predicted {_short(name, 28)}")
        return _svg(figure, f"Predicted against true numbers of {len(found.paths)} test pictures")


def residuals(found: Numbers, name: str) -> str:
    """Predicted − true over predicted, with the mean of each fifth: a slope or a bow is a systematic error."""
    some = _some(found)
    off = found.predicted - found.true
    with matplotlib.rc_context(_STYLE):
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
        axes.set_xlabel(f"predicted {_short(name, 28)}")
        return _svg(figure, "Residuals: predicted minus true number, over the predicted number")


def _sentence(interval: Mapping[str, Any]) -> str:
    width, coverage, tested = (interval.get(key) for key in ("half_width", "coverage", "tested_coverage"))
    if width is None:
        return "There were too few held-out pictures for an interval around a predicted number."
    text = (
        f"A predicted number is given as ± {format_number(width)}, which should hold for {coverage:.0%} of new pictures"
    )
    return text + ("." if tested is None else f"; on the test it held for {tested:.0%}.")


def _some(found: Numbers) -> np.ndarray:
    return np.unique(np.linspace(0, len(found.paths) - 1, _POINTS).astype(int))


def _markup(found: Numbers | None, draw: Any) -> Markup | None:
    """SVG in which every label has been escaped already."""
    return None if found is None else Markup(draw(found))
