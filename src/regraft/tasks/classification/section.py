"""What a report says of classes: the confusion matrix, calibration and abstention, and the surest wrong answers."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from markupsafe import Markup
from pydantic import Field

from regraft.measure import METRICS, risk_coverage
from regraft.report.frame import Part
from regraft.report.gathering import MISTAKES, log, table
from regraft.report.map import class_name
from regraft.report.sections import Page, Section, sections


class ClassFields(Part):
    """The fields that reports on classes have."""

    classes: list[str] = Field(default_factory=list, description="class names in the order of the label indices")
    reliability_before: list[dict[str, Any]] | None = Field(
        None, description="measure.reliability on the test, before temperature scaling"
    )
    reliability_after: list[dict[str, Any]] | None = Field(None, description="the same, after it")
    temperature: float | None = Field(None, description="the divisor of the logits, fitted on validation")
    uncalibrated_ece: float | None = Field(None, description="the calibration error on the test with temperature 1")
    abstention: dict[str, Any] | None = Field(
        None, description="measure.abstention, chosen on validation: threshold, coverage, accuracy, target"
    )
    intervals: dict[str, Any] | None = Field(
        None, description="evaluate: further metrics by name, each with value and 95 % interval"
    )


@dataclass(frozen=True)
class Predictions:
    """Answers of the chosen candidate on the test: paths, labels (N,), probabilities (N, K); one row per sample."""

    paths: list[str]
    labels: np.ndarray
    probabilities: np.ndarray


def context(page: Page) -> Mapping[str, Any]:
    """What `section.html` is drawn from."""
    from regraft.tasks.classification import figures  # matplotlib is wanted for pages only

    report: Any = page.report
    predictions = test_predictions(page)
    worst, n_wrong = mistakes(predictions, page)
    summary = report.summary or {}
    matrix = summary.get("confusion") or []
    named = len(matrix) == len(report.classes) > 0
    abstention = report.abstention or {}
    curve, tested = _abstaining(predictions, abstention.get("threshold"))
    return {
        "confusion": _markup(figures.confusion(matrix, report.classes) if named else None),
        "confused": _off_diagonal(matrix) if named else None,
        "pairs": confused_pairs(matrix, report.classes) if named else [],
        "per_class": summary.get("per_class") or [],
        "metrics": {name: metric.label for name, metric in METRICS.items()},
        "reliability": _markup(figures.reliability(report.reliability_before, report.reliability_after)),
        "ece": (_ece(report.reliability_before), _ece(report.reliability_after)),
        "risk_coverage": curve,
        "abstention": abstention,
        "tested_abstention": tested,
        "mistakes": worst,
        "n_wrong": n_wrong,
    }


def test_predictions(page: Page) -> Predictions | None:
    """The chosen candidate's answers on the test; where a sample was scored in several rounds, their mean."""
    own = [
        row
        for row in table(page.run / "predictions.parquet")
        if row.get("split") == "test"
        and row.get("label") is not None
        and row.get("probabilities")
        and row.get("candidate") in (None, page.report.chosen)
    ]
    answers: dict[str, list[list[float]]] = defaultdict(list)
    label_of: dict[str, int] = {}
    for row in own:
        answers[str(row["path"])].append(row["probabilities"])
        label_of[str(row["path"])] = int(row["label"])
    if not answers:
        return None
    probabilities = np.asarray([np.mean(rows_of, axis=0) for rows_of in answers.values()])
    labels = np.asarray([label_of[path] for path in answers])
    if probabilities.ndim != 2 or labels.min() < 0 or labels.max() >= probabilities.shape[1]:
        log.warning("%s does not fit its own labels; the page goes without it.", page.run / "predictions.parquet")
        return None
    return Predictions(list(answers), labels, probabilities)


def mistakes(predictions: Predictions | None, page: Page) -> tuple[list[dict[str, Any]], int]:
    """The surest wrong answers, at most 24, with what is shown of them; and how many wrong answers there are in all."""
    if predictions is None:
        return [], 0
    names: Sequence[str] = getattr(page.report, "classes", ())
    predicted = predictions.probabilities.argmax(axis=1)
    wrong = np.flatnonzero(predicted != predictions.labels)
    worst = wrong[np.argsort(-predictions.probabilities[wrong, predicted[wrong]], kind="stable")][:MISTAKES]
    out = []
    for index in worst:
        path = predictions.paths[index]
        true = class_name(names, int(predictions.labels[index]))
        answer = class_name(names, int(predicted[index]))
        out.append(
            {
                "file": Path(path).name,
                "true": true,
                "predicted": answer,
                "confidence": float(predictions.probabilities[index, predicted[index]]),
                "shown": page.shown(page.locate(path), alt=f"{true}, taken for {answer}") or "",
            }
        )
    return out, len(wrong)


def confused_pairs(matrix: Sequence[Sequence[int]], classes: Sequence[str], limit: int = 8) -> list[dict[str, Any]]:
    """The commonest mistakes: true class, predicted class, how often, and the share of the true class's samples."""
    counts = np.asarray(matrix)
    off = counts - np.diag(np.diag(counts))
    order = np.argsort(-off, axis=None, kind="stable")[:limit]
    pairs = [(int(flat // len(classes)), int(flat % len(classes))) for flat in order]
    return [
        {"true": classes[i], "predicted": classes[j], "n": int(off[i, j]), "share": off[i, j] / counts[i].sum()}
        for i, j in pairs
        if off[i, j]
    ]


def _abstaining(
    predictions: Predictions | None, threshold: float | None
) -> tuple[Markup | None, dict[str, float | None] | None]:
    """The curve of risk over coverage, and what the threshold does on the test; None where nothing was predicted."""
    from regraft.tasks.classification import figures

    if predictions is None:
        return None, None
    answered = tested = None
    if threshold:
        sure = predictions.probabilities.max(axis=1) >= threshold
        right = predictions.probabilities.argmax(axis=1) == predictions.labels
        answered = float(sure.mean())
        tested = {"coverage": answered, "accuracy": float(right[sure].mean()) if sure.any() else None}
    coverage, risk = risk_coverage(predictions.probabilities, predictions.labels)
    return _markup(figures.risk_coverage(coverage, risk, answered)), tested


def _off_diagonal(matrix: Sequence[Sequence[int]]) -> tuple[int, int]:
    """How many samples are wrong, and how many there are."""
    total = sum(map(sum, matrix))
    return total - sum(row[i] for i, row in enumerate(matrix)), total


def _ece(bins: Sequence[Mapping[str, Any]] | None) -> float | None:
    total = sum(row["n"] for row in bins or ())
    if not bins or not total:
        return None
    return float(sum(row["n"] * abs(row["accuracy"] - row["confidence"]) for row in bins if row["n"]) / total)


def _markup(svg: str | None) -> Markup | None:
    """SVG made by `figures`, where every label has been escaped already."""
    return None if svg is None else Markup(svg)


#: The section of classes.
SECTION = sections.register("classification")(
    Section("classification", ClassFields, owner=__package__, context=context)
)
