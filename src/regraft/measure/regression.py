"""What predicted numbers are worth: one number per metric, all of them at once, and bootstrap intervals.

scikit-learn computes the metrics, as for classes; resamples have vectorised forms of their own. Mean absolute and root
mean squared error are in the unit of the labels. R² is 1 − Σ(y − ŷ)² / Σ(y − ȳ)², where ȳ is the mean of the labels
that are scored: 0 is what always saying that mean would get. Spearman's correlation is Pearson's of the ranks, ties at
their middle.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from regraft.core.errors import DataError, unknown_name
from regraft.measure.bootstrap import Interval, checked_groups, percentile_interval
from regraft.measure.metrics import NUMBER_METRICS, sklearn_metrics

Resampled = Callable[[np.ndarray], np.ndarray]


def number_score(name: str, predicted: np.ndarray, numbers: np.ndarray) -> float:
    """One metric of predictions (N,) or (N, 1) against numbers (N,).

    nan where the metric has no meaning: no samples, a prediction that is not finite, R² or Spearman's correlation
    where all numbers (for the latter also: all predictions) are the same. Raises UsageError for an unknown name,
    DataError for shapes that do not fit or numbers that are not finite.
    """
    if name not in NUMBER_METRICS:
        raise unknown_name("metric of numbers", name, NUMBER_METRICS)
    predicted, numbers = checked_numbers(predicted, numbers)
    if len(numbers) == 0 or not np.isfinite(predicted).all():
        return float("nan")
    if name == "mae":
        return float(sklearn_metrics().mean_absolute_error(numbers, predicted))
    if name == "rmse":
        return float(np.sqrt(sklearn_metrics().mean_squared_error(numbers, predicted)))
    if np.ptp(numbers) == 0:
        return float("nan")
    if name == "r2":
        return float(sklearn_metrics().r2_score(numbers, predicted))
    return float(_spearman(predicted, numbers)(np.ones((1, len(numbers))))[0])


def number_summary(predicted: np.ndarray, numbers: np.ndarray) -> dict[str, Any]:
    """Every metric, `n`, `bias` (mean of predicted − true) and the largest error; a figure without meaning is None."""
    predicted, numbers = checked_numbers(predicted, numbers)
    out: dict[str, Any] = {"n": len(numbers)}
    for name in NUMBER_METRICS:
        value = number_score(name, predicted, numbers)
        out[name] = value if np.isfinite(value) else None
    residuals = predicted - numbers
    usable = len(residuals) > 0 and bool(np.isfinite(residuals).all())
    out["bias"] = float(residuals.mean()) if usable else None
    out["largest_error"] = float(np.abs(residuals).max()) if usable else None
    return out


def number_bootstrap(
    metric: str,
    predicted: np.ndarray,
    numbers: np.ndarray,
    *,
    groups: np.ndarray | None = None,
    resamples: int = 2000,
    level: float = 0.95,
    seed: int = 0,
) -> Interval:
    """The metric of predictions (N,) against numbers (N,) with its percentile interval; as `measure.bootstrap`."""
    predicted, numbers = checked_numbers(predicted, numbers)
    groups = checked_groups(groups, len(numbers), level)
    value = number_score(metric, predicted, numbers)
    if not np.isfinite(value):
        return Interval(value, float("nan"), float("nan"))
    of = resampled(metric, predicted, numbers)
    low, high = percentile_interval(of, value, len(numbers), resamples, groups=groups, level=level, seed=seed)
    return Interval(value, low, high)


def number_gain(
    metric: str,
    predicted_a: np.ndarray,
    predicted_b: np.ndarray,
    numbers: np.ndarray,
    *,
    groups: np.ndarray | None = None,
    resamples: int = 2000,
    level: float = 0.95,
    seed: int = 0,
) -> Interval:
    """metric(a) − metric(b) with its paired percentile interval; as `measure.paired_gain`.

    Of an error (mae, rmse) a gain is below zero where a is the better one.
    """
    a, numbers = checked_numbers(predicted_a, numbers)
    b, numbers = checked_numbers(predicted_b, numbers)
    groups = checked_groups(groups, len(numbers), level)
    value = number_score(metric, a, numbers) - number_score(metric, b, numbers)
    if not np.isfinite(value):
        return Interval(value, float("nan"), float("nan"))
    of_a, of_b = resampled(metric, a, numbers), resampled(metric, b, numbers)
    low, high = percentile_interval(
        lambda counts: of_a(counts) - of_b(counts), value, len(numbers), resamples,
        groups=groups, level=level, seed=seed,
    )  # fmt: skip
    return Interval(value, low, high)


def resampled(name: str, predicted: np.ndarray, numbers: np.ndarray) -> Resampled:
    """A function from counts (R, N) to the metric of each resample (R,); nan where one leaves no meaning."""
    errors = predicted - numbers
    if name == "mae":
        return lambda counts: counts @ np.abs(errors) / counts.sum(axis=1)
    if name == "rmse":
        return lambda counts: np.sqrt(counts @ np.square(errors) / counts.sum(axis=1))
    if name == "r2":
        return _r2(errors, numbers - numbers.mean())  # shifted, so that squares do not cancel
    return _spearman(predicted, numbers)


def checked_numbers(predicted: np.ndarray, numbers: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Both as float64 (N,); DataError where they do not belong together or a number is not finite."""
    predicted = np.asarray(predicted, dtype=np.float64)
    numbers = np.asarray(numbers, dtype=np.float64)
    if predicted.ndim == 2 and predicted.shape[1] == 1:
        predicted = predicted[:, 0]
    if predicted.ndim != 1 or numbers.ndim != 1 or len(predicted) != len(numbers):
        raise DataError(
            f"Predictions of shape {predicted.shape} do not go with numbers of shape {numbers.shape}: "
            "(N,) or (N, 1), and (N,) are needed."
        )
    if not np.isfinite(numbers).all():
        raise DataError("The numbers to compare with hold one that is not finite.")
    return predicted, numbers


def _r2(errors: np.ndarray, around: np.ndarray) -> Resampled:
    def of(counts: np.ndarray) -> np.ndarray:
        n = counts.sum(axis=1)
        spread = counts @ np.square(around) - np.square(counts @ around) / n
        meant = spread > 1e-12 * np.maximum(counts @ np.square(around), 1e-300)
        return np.where(meant, 1 - counts @ np.square(errors) / np.where(meant, spread, 1), np.nan)

    return of


def _spearman(predicted: np.ndarray, numbers: np.ndarray) -> Resampled:
    rank_p, rank_y = _ranks(predicted), _ranks(numbers)

    def of(counts: np.ndarray) -> np.ndarray:
        n = counts.sum(axis=1, keepdims=True)
        p, y = rank_p(counts) - (n + 1) / 2, rank_y(counts) - (n + 1) / 2  # the mean of ranks 1…n
        both = (counts * p * y).sum(axis=1)
        size = np.sqrt((counts * p * p).sum(axis=1) * (counts * y * y).sum(axis=1))
        return np.where(size > 0, both / np.where(size > 0, size, 1), np.nan)

    return of


def _ranks(values: np.ndarray) -> Resampled:
    """A function from counts (R, N) to the middle ranks (R, N) of the samples in each resample."""
    distinct, member = np.unique(values, return_inverse=True)
    member = member.reshape(-1)
    order = np.argsort(member, kind="stable")
    starts = np.searchsorted(member[order], np.arange(len(distinct)))

    def of(counts: np.ndarray) -> np.ndarray:
        each = np.add.reduceat(counts[:, order], starts, axis=1)
        middle = np.cumsum(each, axis=1) - each / 2 + 0.5
        return middle[:, member]

    return of
