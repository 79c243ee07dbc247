"""What a report says of several labels: a table of labels with their thresholds, and the samples it is furthest off."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from pydantic import Field

from regraft.report.frame import Part
from regraft.report.gathering import MISTAKES, table
from regraft.report.sections import Page, Section, sections
from regraft.tasks.multilabel.metrics import METRICS


class LabelsFields(Part):
    """The fields that reports on several labels have."""

    labels: list[str] = Field(default_factory=list, description="names of the labels, in the order of the outputs")
    thresholds: list[float] | None = Field(
        None, description="the probability from which each label applies, tuned on validation for its F1"
    )
    temperature: float | None = Field(None, description="the divisor of the logits, fitted on validation")
    intervals: dict[str, Any] | None = Field(
        None, description="further metrics by name, each with value and 95 % interval"
    )


@dataclass(frozen=True)
class Answered:
    """The chosen candidate on the test, one row per sample: labels, probabilities and answers, each (N, S)."""

    paths: list[str]
    labels: np.ndarray
    probabilities: np.ndarray
    given: np.ndarray


def context(page: Page) -> Mapping[str, Any]:
    """What `section.html` is drawn from."""
    report: Any = page.report
    summary = report.summary or {}
    thresholds = report.thresholds or [None] * len(report.labels)
    rows = summary.get("per_label") or []
    worst, n_wrong = mistakes(answered(page), report.labels, page)
    return {
        "metrics": {name: metric.label for name, metric in METRICS.items()},
        "per_label": [{**row, "threshold": threshold} for row, threshold in zip(rows, thresholds, strict=False)],
        "mistakes": worst,
        "n_wrong": n_wrong,
    }


def answered(page: Page) -> Answered | None:
    """The answers on the test; where a sample was scored in several rounds, its last."""
    found: dict[str, Mapping[str, Any]] = {}
    for row in table(page.run / "predictions.parquet"):
        own = row.get("split") == "test" and row.get("candidate") in (None, page.report.chosen)
        if own and row.get("labels") is not None and row.get("label_probabilities") is not None:
            found[str(row["path"])] = row
    if not found:
        return None
    names = ("labels", "label_probabilities", "given")
    return Answered(list(found), *(np.asarray([row[name] for row in found.values()]) for name in names))


def mistakes(found: Answered | None, names: list[str], page: Page) -> tuple[list[dict[str, Any]], int]:
    """The samples with the most surely wrong labels, at most 24; and how many have any wrong one."""
    if found is None or found.labels.shape[1] != len(names):
        return [], 0
    wrong = found.given != found.labels
    off = np.where(wrong, np.abs(found.probabilities - found.labels), 0.0)
    order = [index for index in np.argsort(-off.max(axis=1), kind="stable") if wrong[index].any()]
    out = []
    for index in order[:MISTAKES]:
        path = found.paths[index]
        missed, wrongly = (
            [f"{names[k]} ({found.probabilities[index, k]:.0%})" for k in np.flatnonzero(wrong[index] & side)]
            for side in (found.labels[index] > 0, found.labels[index] == 0)
        )
        true = ", ".join(names[k] for k in np.flatnonzero(found.labels[index])) or "none"
        out.append(
            {
                "file": Path(path).name,
                "true": true,
                "missed": ", ".join(missed),
                "wrongly": ", ".join(wrongly),
                "shown": page.shown(page.locate(path), alt=true) or "",
            }
        )
    return out, len(order)


#: The section of several labels.
SECTION = sections.register("multilabel")(
    Section("multilabel", LabelsFields, owner="regraft.tasks.multilabel", context=context)
)
