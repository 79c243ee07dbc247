"""What a classifier's probabilities are worth: one number per metric, or everything at once.

scikit-learn computes what it has. Expected calibration error: Guo et al., "On Calibration of Modern Neural
Networks", ICML 2017, arXiv:1706.04599, eq. 3, with 15 bins of equal width on the top probability, each open
below and closed above.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from regraft.core.errors import DataError, unknown_name

#: Probabilities below this count as this in a logarithm: one certain and wrong answer costs 27.6 nats, not
#: infinity.
SMALLEST_PROBABILITY = 1e-12


def sklearn_metrics() -> Any:
    """`sklearn.metrics`, loaded when first used: its import would delay a fit's first answer by seconds."""
    import sklearn.metrics

    return sklearn.metrics


class Metric(NamedTuple):
    """label: the name as people read it. higher_is_better: which way is good.

    form: how it is written: "share" (of 1, in per cent), "plain" (three decimals), or "unit" (that of the labels).
    """

    label: str
    higher_is_better: bool
    form: str = "share"


#: Of classes.
METRICS: dict[str, Metric] = {
    "accuracy": Metric("accuracy", True),
    "balanced_accuracy": Metric("balanced accuracy", True),
    "macro_f1": Metric("macro F1", True),
    "auc": Metric("AUC", True, "plain"),
    "nll": Metric("negative log-likelihood", False, "plain"),
    "ece": Metric("expected calibration error", False),
}
#: Of numbers; `measure.regression` computes them.
NUMBER_METRICS: dict[str, Metric] = {
    "mae": Metric("mean absolute error", False, "unit"),
    "rmse": Metric("root mean squared error", False, "unit"),
    "r2": Metric("R²", True, "plain"),
    "spearman": Metric("Spearman's rank correlation", True, "plain"),
}


_FURTHER: dict[str, Metric] = {}


def add_metrics(metrics: Mapping[str, Metric]) -> None:
    """Make a kind's own metrics known; a name that is there keeps its meaning, and ValueError says where it differs."""
    for name, metric in metrics.items():
        if named_metrics().get(name, metric) != metric:
            raise ValueError(f"the metric {name!r} is known already, as {named_metrics()[name]}")
        _FURTHER[name] = metric


def named_metrics() -> dict[str, Metric]:
    """All metrics that are known, of classes, of numbers, and of what has been added."""
    return {**METRICS, **NUMBER_METRICS, **_FURTHER}


def metric_of(name: str) -> Metric:
    """The metric of that name, of any kind; UsageError with the nearest match where there is none."""
    known = named_metrics()
    if name not in known:
        raise unknown_name("metric", name, known)
    return known[name]


def score(name: str, probabilities: np.ndarray, labels: np.ndarray) -> float:
    """One metric of probabilities (N, K) against class indices (N,).

    Rates are fractions in [0, 1]; nll is in nats. `auc` takes index 1 as the positive class of two, and is
    the macro mean of one-versus-rest over the classes present when there are more. The answer is nan where
    the metric has no meaning: no samples, a probability that is not finite, or an `auc` over one class only.
    Raises UsageError for an unknown name, DataError for shapes or labels that do not fit.
    """
    if name not in METRICS:
        raise unknown_name("metric", name, METRICS)
    probabilities, labels = checked(probabilities, labels)
    if len(labels) == 0 or not np.isfinite(probabilities).all():
        return float("nan")
    return float(_SCORES[name](probabilities, labels))


def summary(probabilities: np.ndarray, labels: np.ndarray, classes: Sequence[str]) -> dict[str, Any]:
    """Every metric, per-class figures and the confusion matrix (rows true, columns predicted), ready for
    JSON.

    probabilities (N, K), labels (N,), K class names. A metric without meaning is None, as is the recall of a
    class without test samples and the precision of a class that was never predicted.
    """
    probabilities, labels = checked(probabilities, labels)
    if probabilities.shape[1] != len(classes):
        raise DataError(f"There are {len(classes)} class names for probabilities of {probabilities.shape[1]} classes.")
    indices = list(range(len(classes)))
    predicted = probabilities.argmax(axis=1)
    out: dict[str, Any] = {}
    for name in METRICS:
        value = score(name, probabilities, labels)
        out[name] = value if np.isfinite(value) else None
    if len(labels) == 0:
        empty = {"n": 0, "precision": None, "recall": None, "f1": None}
        out["per_class"] = [{"class": str(name), **empty} for name in classes]
        out["confusion"] = [[0] * len(classes) for _ in classes]
        return out
    table = sklearn_metrics().precision_recall_fscore_support(labels, predicted, labels=indices, zero_division=0)
    precision, recall, f1, support = (np.asarray(column) for column in table)
    times_predicted = np.bincount(predicted, minlength=len(classes))
    out["per_class"] = [
        {
            "class": str(classes[k]),
            "n": int(support[k]),
            "precision": float(precision[k]) if times_predicted[k] else None,
            "recall": float(recall[k]) if support[k] else None,
            "f1": float(f1[k]) if support[k] or times_predicted[k] else None,
        }
        for k in indices
    ]
    out["confusion"] = sklearn_metrics().confusion_matrix(labels, predicted, labels=indices).tolist()
    return out


def checked(probabilities: np.ndarray, labels: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Float64 (N, K) and int64 (N,); DataError where they do not belong together."""
    probabilities = np.asarray(probabilities, dtype=np.float64)
    labels = np.asarray(labels)
    if probabilities.ndim != 2 or labels.ndim != 1 or len(probabilities) != len(labels):
        raise DataError(
            f"Probabilities of shape {probabilities.shape} do not go with labels of shape {labels.shape}: "
            "(N, K) and (N,) are needed."
        )
    labels = labels.astype(np.int64)
    if len(labels) and (labels.min() < 0 or labels.max() >= probabilities.shape[1]):
        raise DataError(
            f"Labels run from {labels.min()} to {labels.max()}, but probabilities have classes 0 to "
            f"{probabilities.shape[1] - 1}."
        )
    return probabilities, labels


def bin_of(confidence: np.ndarray, bins: int) -> np.ndarray:
    """The index of each confidence's bin, (low, high]; 0 falls into the first."""
    return np.asarray(np.clip(np.ceil(confidence * bins).astype(np.int64) - 1, 0, bins - 1))


def log_losses(probabilities: np.ndarray, labels: np.ndarray) -> np.ndarray:
    """Minus the log-probability of each sample's class (N,), in nats; rows are normalised first."""
    total = np.maximum(probabilities.sum(axis=1), SMALLEST_PROBABILITY)
    chosen = probabilities[np.arange(len(labels)), labels] / total
    return np.asarray(-np.log(np.maximum(chosen, SMALLEST_PROBABILITY)))


def _accuracy(probabilities: np.ndarray, labels: np.ndarray) -> float:
    return float((probabilities.argmax(axis=1) == labels).mean())  # without waiting for scikit-learn's import


def _balanced_accuracy(probabilities: np.ndarray, labels: np.ndarray) -> float:
    # scikit-learn's balanced_accuracy_score, without its warning for predictions of a class that has no
    # sample.
    present = np.unique(labels)
    return float(
        sklearn_metrics().recall_score(
            labels, probabilities.argmax(axis=1), labels=present, average="macro", zero_division=0
        )
    )


def _macro_f1(probabilities: np.ndarray, labels: np.ndarray) -> float:
    return float(sklearn_metrics().f1_score(labels, probabilities.argmax(axis=1), average="macro", zero_division=0))


def _auc(probabilities: np.ndarray, labels: np.ndarray) -> float:
    present = np.unique(labels)
    if len(present) < 2:
        return float("nan")
    if probabilities.shape[1] == 2:
        return float(sklearn_metrics().roc_auc_score(labels == 1, probabilities[:, 1]))
    return float(np.mean([sklearn_metrics().roc_auc_score(labels == k, probabilities[:, k]) for k in present]))


def _nll(probabilities: np.ndarray, labels: np.ndarray) -> float:
    return float(log_losses(probabilities, labels).mean())


def _ece(probabilities: np.ndarray, labels: np.ndarray, bins: int = 15) -> float:
    confidence = probabilities.max(axis=1)
    gap = (probabilities.argmax(axis=1) == labels) - confidence
    return float(np.abs(np.bincount(bin_of(confidence, bins), weights=gap, minlength=bins)).sum() / len(labels))


_SCORES: dict[str, Callable[[np.ndarray, np.ndarray], float]] = {
    "accuracy": _accuracy,
    "balanced_accuracy": _balanced_accuracy,
    "macro_f1": _macro_f1,
    "auc": _auc,
    "nll": _nll,
    "ece": _ece,
}
