"""What a report says of numbers: predicted against true, residuals, the interval, and the worst mistakes."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from markupsafe import Markup
from pydantic import Field

from regraft.measure import NUMBER_METRICS, format_number, format_value
from regraft.report.frame import Part
from regraft.report.gathering import MISTAKES, table
from regraft.report.sections import Page, Section, sections

if TYPE_CHECKING:
    from regraft.tasks.regression.figures import Numbers


class NumberFields(Part):
    """The fields that reports on numbers have."""

    number: str | None = Field(None, description="the name of the number")
    prediction_interval: dict[str, Any] | None = Field(
        None,
        description="half_width around a predicted number, in its unit, from n held-out residuals; the coverage that "
        "it is for, and tested_coverage, the share of test samples that it held for",
    )
    intervals: dict[str, Any] | None = Field(
        None, description="evaluate: further metrics by name, each with value and 95 % interval"
    )


def context(page: Page) -> Mapping[str, Any]:
    """What `section.html` is drawn from; `told` is false where there is nothing to say, as after an adaptation."""
    report: Any = page.report
    if report.prediction_interval is None:
        return {"told": False}
    from regraft.tasks.regression import figures  # matplotlib is wanted for pages only

    found = test_numbers(page)
    name, interval = report.number or "number", report.prediction_interval
    rows = [("test", report.summary or {}), ("validation", report.validation_summary or {})]
    return {
        "told": True,
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
        "versus": _markup(found, lambda one: figures.versus(one, name, interval.get("half_width"))),
        "residuals": _markup(found, lambda one: figures.residuals(one, name)),
        "mistakes": [] if found is None else mistakes(found, page),
        "n": 0 if found is None else len(found.paths),
    }


def test_numbers(page: Page) -> Numbers | None:
    """The chosen candidate's answers on the test; where a sample was scored in several rounds, their mean."""
    from regraft.tasks.regression.figures import Numbers

    answers: dict[str, list[float]] = defaultdict(list)
    true: dict[str, float] = {}
    for row in table(page.run / "predictions.parquet"):
        own = row.get("split") == "test" and row.get("candidate") in (None, page.report.chosen)
        if own and row.get("number") is not None and row.get("predicted") is not None:
            answers[str(row["path"])].append(float(row["predicted"]))
            true[str(row["path"])] = float(row["number"])
    if not answers:
        return None
    means = np.asarray([np.mean(found) for found in answers.values()])
    return Numbers(list(answers), np.asarray([true[path] for path in answers]), means)


def mistakes(found: Numbers, page: Page) -> list[dict[str, Any]]:
    """The samples whose number is furthest off, at most 24, the worst first."""
    off = found.predicted - found.true
    out = []
    for index in np.argsort(-np.abs(off), kind="stable")[:MISTAKES]:
        path = found.paths[index]
        true, predicted = (format_number(float(part[index])) for part in (found.true, found.predicted))
        out.append(
            {
                "file": Path(path).name,
                "true": true,
                "predicted": predicted,
                "off": f"{format_number(abs(float(off[index])))} too {'high' if off[index] > 0 else 'low'}",
                "shown": page.shown(page.locate(path), alt=f"{true}, predicted {predicted}") or "",
            }
        )
    return out


def _sentence(interval: Mapping[str, Any]) -> str:
    width, coverage, tested = (interval.get(key) for key in ("half_width", "coverage", "tested_coverage"))
    if width is None:
        return "There were too few held-out pictures for an interval around a predicted number."
    text = (
        f"A predicted number is given as ± {format_number(width)}, which should hold for {coverage:.0%} of new pictures"
    )
    return text + ("." if tested is None else f"; on the test it held for {tested:.0%}.")


def _markup(found: Numbers | None, draw: Callable[[Numbers], str]) -> Markup | None:
    """SVG in which every label has been escaped already."""
    return None if found is None else Markup(draw(found))


#: The section of numbers.
SECTION = sections.register("regression")(Section("regression", NumberFields, owner=__package__, context=context))
