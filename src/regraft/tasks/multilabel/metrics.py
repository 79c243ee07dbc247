"""What answers with several labels are worth, for one set of samples or for many resamples of it at once.

An answer is (N, S, 2): [..., 0] the probability that a label applies, [..., 1] whether it is over the label's threshold
(0 or 1). Every figure is computed from counts (R, N), how often each sample was drawn; the tests hold them against
scikit-learn.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

import numpy as np

from regraft.core.errors import unknown_name
from regraft.measure.metrics import METRICS as OF_CLASSES
from regraft.measure.metrics import Metric, add_metrics

METRICS: Final[dict[str, Metric]] = {
    "map": Metric("mean average precision", True),
    "macro_f1": OF_CLASSES["macro_f1"],
    "micro_f1": Metric("micro F1", True),
    "auc": OF_CLASSES["auc"],
}
add_metrics(METRICS)

#: Counts (R, N) → a figure of each resample (R,), nan where it has no meaning.
OfCounts = Callable[[np.ndarray], np.ndarray]


def of_counts(metric: str, answers: np.ndarray, y: np.ndarray) -> OfCounts:
    """The metric as a function of counts; UsageError for an unknown one.

    map, auc: means over the labels for which they mean something. macro_f1: over labels that are there or were given.
    """
    probabilities, given = answers[..., 0], answers[..., 1]
    if metric in ("map", "auc"):
        of_label = _average_precision if metric == "map" else _auc
        each = [of_label(probabilities[:, k], y[:, k]) for k in range(y.shape[1])]
        return lambda counts: _mean(np.stack([of(counts) for of in each]))
    hits, both = given * y, given + y
    if metric == "macro_f1":
        return lambda counts: _mean(_ratio(2 * (counts @ hits), counts @ both).T)
    if metric == "micro_f1":
        return lambda counts: _ratio(2 * (counts @ hits).sum(axis=1), (counts @ both).sum(axis=1))
    raise unknown_name("metric", metric, METRICS)


def score(metric: str, answers: np.ndarray, y: np.ndarray) -> float:
    """The metric on all samples; nan where it has no meaning."""
    if not len(y) or not np.isfinite(answers).all():
        return float("nan")
    return float(of_counts(metric, answers, y)(np.ones((1, len(y))))[0])


def per_label(answers: np.ndarray, y: np.ndarray) -> list[dict[str, float | int | None]]:
    """Of every label: n that have it, average precision, AUC, precision, recall and F1; None without meaning."""
    ones = np.ones((1, len(y)))
    rows: list[dict[str, float | int | None]] = []
    for k in range(y.shape[1]):
        true, given = y[:, k].astype(np.float64), answers[:, k, 1]
        hits = float((true * given).sum())
        figures = {
            "ap": _average_precision(answers[:, k, 0], y[:, k])(ones)[0],
            "auc": _auc(answers[:, k, 0], y[:, k])(ones)[0],
            "precision": hits / given.sum() if given.sum() else np.nan,
            "recall": hits / true.sum() if true.sum() else np.nan,
            "f1": 2 * hits / (true + given).sum() if (true + given).sum() else np.nan,
        }
        named: dict[str, float | int | None] = {key: _or_none(value) for key, value in figures.items()}
        rows.append({"n": int(true.sum()), **named})
    return rows


def log_losses(logits: np.ndarray, y: np.ndarray) -> np.ndarray:
    """The mean binary log-loss over the labels of every sample (N,), in nats."""
    logits = np.asarray(logits, dtype=np.float64)
    return np.asarray((np.logaddexp(0, logits) - y * logits).mean(axis=1))


def _average_precision(probabilities: np.ndarray, true: np.ndarray) -> OfCounts:
    """Σ (R_i − R_{i−1}) P_i over the different probabilities from the top; nan without a sample that has the label."""
    order = np.argsort(-probabilities, kind="stable")
    ends = np.flatnonzero(np.append(np.diff(probabilities[order]) != 0, True))

    def figure(counts: np.ndarray) -> np.ndarray:
        drawn = counts[:, order]
        hits, seen = np.cumsum(drawn * true[order], axis=1)[:, ends], np.cumsum(drawn, axis=1)[:, ends]
        steps = np.diff(hits, axis=1, prepend=0.0)
        precision = np.divide(hits, seen, out=np.zeros_like(hits), where=seen > 0)
        return _ratio((steps * precision).sum(axis=1), hits[:, -1])

    return figure


def _auc(probabilities: np.ndarray, true: np.ndarray) -> OfCounts:
    """The chance that a sample with the label is above one without, ties half; nan where one of them is missing."""
    order = np.argsort(probabilities, kind="stable")
    starts = np.flatnonzero(np.append(True, np.diff(probabilities[order]) != 0))

    def figure(counts: np.ndarray) -> np.ndarray:
        drawn = counts[:, order]
        have = np.add.reduceat(drawn * true[order], starts, axis=1)
        lack = np.add.reduceat(drawn * (1 - true[order]), starts, axis=1)
        below = np.cumsum(lack, axis=1) - lack
        return _ratio((have * (below + lack / 2)).sum(axis=1), have.sum(axis=1) * lack.sum(axis=1))

    return figure


def _ratio(above: np.ndarray, below: np.ndarray) -> np.ndarray:
    found: np.ndarray = np.divide(above, below, out=np.full(above.shape, np.nan), where=below > 0)
    return found


def _mean(values: np.ndarray) -> np.ndarray:
    """Over the first axis, of what is no nan; nan where nothing is left."""
    known = np.isfinite(values)
    return _ratio(np.where(known, values, 0.0).sum(axis=0), known.sum(axis=0).astype(np.float64))


def _or_none(value: float) -> float | None:
    return float(value) if np.isfinite(value) else None
