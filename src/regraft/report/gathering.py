"""What a report page is made of, read from a run directory; whatever optional file is missing gives an empty
part."""

from __future__ import annotations

import json
import logging
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from regraft.report.pictures import thumbnail
from regraft.report.schema import Report

log = logging.getLogger(__name__)

#: Pictures in one page: what the scatter shows on hover, and the worst mistakes.
SCATTER_THUMBNAILS, SCATTER_SIDE_PX = 600, 72
MISTAKES, MISTAKE_SIDE_PX = 24, 300
#: Drawing area of the scatter, in its own units.
SCATTER_WIDTH, SCATTER_HEIGHT, SCATTER_MARGIN = 960, 560, 16
#: Hues of the first classes, in degrees (OKLCH), far apart in this order; later classes go by the golden
#: angle.
_HUES = (195, 45, 290, 130, 350, 85, 245, 20)


@dataclass(frozen=True)
class Predictions:
    """Answers of the chosen candidate on the test: paths, labels (N,), probabilities (N, K); one row per
    picture."""

    paths: list[str]
    labels: np.ndarray
    probabilities: np.ndarray


@dataclass
class Scatter:
    """The map of the features. classes: name, hue, number; points by class: x, y, index, wrong. facts: for
    the hover."""

    classes: list[dict[str, Any]] = field(default_factory=list)
    facts: list[dict[str, Any]] = field(default_factory=list)
    thumbnails: dict[str, str] = field(default_factory=dict)


def metrics_lines(run: Path) -> list[dict[str, Any]]:
    """The lines of metrics.jsonl; a line cut short by a kill is passed over."""
    path = run / "metrics.jsonl"
    lines = []
    for text in path.read_text(encoding="utf-8", errors="replace").splitlines() if path.is_file() else ():
        try:
            line = json.loads(text)
        except ValueError:
            continue
        if isinstance(line, dict):
            lines.append(line)
    return lines


def test_predictions(run: Path, report: Report) -> Predictions | None:
    """The chosen candidate's answers on the test; where a picture was scored in several rounds, their
    mean."""
    rows = _rows(run / "predictions.parquet")
    own = [
        row
        for row in rows
        if row.get("split") == "test"
        and row.get("label") is not None
        and row.get("probabilities")
        and row.get("candidate") in (None, report.chosen)
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
        log.warning("%s does not fit its own labels; the page goes without it.", run / "predictions.parquet")
        return None
    return Predictions(list(answers), labels, probabilities)


def mistakes(predictions: Predictions | None, report: Report, run: Path) -> tuple[list[dict[str, Any]], int]:
    """The surest wrong answers, at most 24, with their pictures; and how many wrong answers there are in
    all."""
    if predictions is None:
        return [], 0
    predicted = predictions.probabilities.argmax(axis=1)
    wrong = np.flatnonzero(predicted != predictions.labels)
    worst = wrong[np.argsort(-predictions.probabilities[wrong, predicted[wrong]], kind="stable")][:MISTAKES]
    out = []
    for index in worst:
        label, answer = int(predictions.labels[index]), int(predicted[index])
        out.append(
            {
                "file": Path(predictions.paths[index]).name,
                "true": class_name(report.classes, label),
                "predicted": class_name(report.classes, answer),
                "confidence": float(predictions.probabilities[index, answer]),
                "true_confidence": float(predictions.probabilities[index, label]),
                "picture": thumbnail(
                    locate(predictions.paths[index], report, run), MISTAKE_SIDE_PX, quality=72, square=False
                ),
            }
        )
    return out, len(wrong)


def scatter(run: Path, report: Report) -> Scatter | None:
    """Points of embedding.parquet, scaled to the drawing area, with thumbnails of up to 600: the mistakes
    first."""
    rows = [row for row in _rows(run / "embedding.parquet") if _finite(row.get("x")) and _finite(row.get("y"))]
    if not rows:
        return None
    xy = np.asarray([[row["x"], row["y"]] for row in rows], dtype=np.float64)
    low, high = xy.min(axis=0), xy.max(axis=0)
    unit = (xy - low) / np.maximum(high - low, 1e-9)
    size = np.asarray([SCATTER_WIDTH, SCATTER_HEIGHT]) - 2 * SCATTER_MARGIN
    places = SCATTER_MARGIN + unit * size
    out = Scatter()
    by_class: dict[int, list[dict[str, Any]]] = defaultdict(list)
    wrong = np.zeros(len(rows), dtype=bool)
    for i, row in enumerate(rows):
        label = -1 if row.get("label") is None else int(row["label"])
        predicted = -1 if row.get("predicted") is None else int(row["predicted"])
        wrong[i] = label >= 0 and predicted >= 0 and predicted != label
        by_class[label].append(
            {"i": i, "x": f"{places[i, 0]:.1f}", "y": f"{places[i, 1]:.1f}", "wrong": bool(wrong[i])}
        )
        out.facts.append(
            {
                "file": Path(str(row.get("path", ""))).name,
                "split": str(row.get("split") or ""),
                "true": str(row.get("band") or class_name(report.classes, label)),
                "predicted": class_name(report.classes, predicted) if predicted >= 0 else "",
            }
        )
    bands = {int(row["label"]): str(row["band"]) for row in rows if row.get("band")}
    for label in sorted(by_class):
        hue = _HUES[label] if 0 <= label < len(_HUES) else (195 + 137.508 * label) % 360
        points = sorted(by_class[label], key=lambda point: point["wrong"])
        out.classes.append(
            {
                "number": label,
                "name": bands.get(label) or class_name(report.classes, label),
                "hue": f"{hue:.0f}",
                "lift": 0.0 if label < len(_HUES) else (-0.09, 0.0, 0.09)[label % 3],
                "points": points,
            }
        )
    others = np.random.default_rng(0).permutation(np.flatnonzero(~wrong))
    for index in [*np.flatnonzero(wrong), *others][:SCATTER_THUMBNAILS]:
        picture = thumbnail(locate(str(rows[index].get("path", "")), report, run), SCATTER_SIDE_PX)
        if picture is not None:
            out.thumbnails[str(index)] = picture
    return out


def confused_pairs(matrix: Sequence[Sequence[int]], classes: Sequence[str], limit: int = 8) -> list[dict[str, Any]]:
    """The commonest mistakes: true class, predicted class, how often, and the share of the true class's
    samples."""
    counts = np.asarray(matrix)
    off = counts - np.diag(np.diag(counts))
    order = np.argsort(-off, axis=None, kind="stable")[:limit]
    pairs = [(int(flat // len(classes)), int(flat % len(classes))) for flat in order]
    return [
        {
            "true": classes[i],
            "predicted": classes[j],
            "n": int(off[i, j]),
            "share": off[i, j] / counts[i].sum(),
        }
        for i, j in pairs
        if off[i, j]
    ]


def flattened(value: Mapping[str, Any], prefix: str = "") -> list[tuple[str, str]]:
    """Nested settings as (dotted name, text), in their order."""
    out: list[tuple[str, str]] = []
    for key, item in value.items():
        if isinstance(item, Mapping):
            out += flattened(item, f"{prefix}{key}.")
        elif item is not None:
            text = ", ".join(map(str, item)) if isinstance(item, list) else str(item)
            out.append((prefix + str(key), text))
    return out


def locate(path: str, report: Report, run: Path) -> Path:
    """Where a picture lies: as it stands when absolute, else below data_root, else beside the run."""
    found = Path(path)
    if found.is_absolute():
        return found
    return (Path(report.data_root) if report.data_root else run) / found


def class_name(classes: Sequence[str], index: int) -> str:
    """The name of a class; "unlabelled" for −1, the number where there is no name."""
    if index < 0:
        return "unlabelled"
    return classes[index] if index < len(classes) else str(index)


def table(path: Path) -> list[dict[str, Any]]:
    """The rows of a Parquet file; none where it is missing or cannot be read."""
    return _rows(path)


def _rows(path: Path) -> list[dict[str, Any]]:
    if not path.is_file():
        return []
    try:
        rows: list[dict[str, Any]] = pq.read_table(path).to_pylist()
    except (OSError, pa.ArrowException) as error:
        log.warning("%s cannot be read (%s); the page goes without it.", path, error)
        return []
    return rows


def _finite(value: Any) -> bool:
    return isinstance(value, int | float) and bool(np.isfinite(value))
