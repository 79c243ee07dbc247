"""How far to trust a figure: percentile bootstrap intervals over the test set, for one model or the gap
between two.

Paper: Efron, "Bootstrap methods: another look at the jackknife", 1979; resampling whole groups: Field &
Welsh, 2007.

Where hardly any sample disagrees the bootstrap says too little: a model without one error would get [1, 1].
So
- with fewer than 5 errors, or fewer than 5 hits, the interval of accuracy, balanced accuracy and macro F1 is
  widened to cover Wilson's (1927), and that of an AUC of exactly 0 or 1 likewise;
- with fewer than 5 samples on which only one of two models is right, in either direction, the interval of an
  accuracy gain is widened to cover Bonett & Price's (2012, "Adjusted Wald confidence interval for a
  difference of binomial proportions based on paired data").
Groups count as the independent units there.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from statistics import NormalDist

import numpy as np

from regraft.core.errors import UsageError, unknown_name
from regraft.measure.metrics import METRICS, checked, score
from regraft.measure.resampling import draws, prepared

#: Below this many errors (or hits) the percentile interval is too narrow.
FEW = 5
#: Resamples × samples × classes that a multi-class AUC may cost; fewer resamples (at least 200) are taken
#: above it.
AUC_WORK = 400_000_000


@dataclass(frozen=True)
class Interval:
    """A figure with its lower and upper bound, all in the metric's own unit; nan where it has no meaning."""

    value: float
    low: float
    high: float

    def to_json(self) -> dict[str, float | None]:
        """{"value", "low", "high"}; None stands for nan."""
        return {name: _or_none(getattr(self, name)) for name in ("value", "low", "high")}

    def bounds(self) -> list[float | None]:
        """[low, high], as report.json writes it."""
        return [_or_none(self.low), _or_none(self.high)]


def bootstrap(
    metric: str,
    probabilities: np.ndarray,
    labels: np.ndarray,
    *,
    groups: np.ndarray | None = None,
    resamples: int = 2000,
    level: float = 0.95,
    seed: int = 0,
) -> Interval:
    """The metric of probabilities (N, K) against labels (N,) with its percentile interval at `level`.

    groups (N,): names of what was sampled together (a patient); whole groups are then resampled. A resample
    that lost a class counts the classes it has; where that leaves no meaning (AUC of one class) it is left
    out. A multi-class AUC takes 1000 resamples at most. The interval always contains the value.
    Raises UsageError for an unknown metric or a level outside (0, 1), DataError for shapes that do not fit.
    """
    probabilities, labels, groups = _inputs(metric, probabilities, labels, groups, level)
    value = score(metric, probabilities, labels)
    if not np.isfinite(value):
        return Interval(value, float("nan"), float("nan"))
    of = prepared(metric, probabilities, labels)
    count = _resamples(metric, resamples, probabilities)
    low, high = percentile_interval(of, value, len(labels), count, groups=groups, level=level, seed=seed)
    for bound in _few_errors(metric, value, probabilities, labels, groups, level):
        low, high = min(low, bound), max(high, bound)
    return Interval(value, low, high)


def paired_gain(
    metric: str,
    probabilities_a: np.ndarray,
    probabilities_b: np.ndarray,
    labels: np.ndarray,
    *,
    groups: np.ndarray | None = None,
    resamples: int = 2000,
    level: float = 0.95,
    seed: int = 0,
) -> Interval:
    """metric(a) − metric(b) with its interval; both see the same resamples, so what they share cancels.

    Shapes, groups, level and errors as for `bootstrap`. Equal predictions give exactly [0, 0]; different
    ones that no resample tells apart get the gap between their single intervals.
    """
    a, labels, groups = _inputs(metric, probabilities_a, labels, groups, level)
    b, labels = checked(probabilities_b, labels)
    value = score(metric, a, labels) - score(metric, b, labels)
    if not np.isfinite(value):
        return Interval(value, float("nan"), float("nan"))
    if np.array_equal(a, b):
        return Interval(0.0, 0.0, 0.0)
    of_a, of_b = prepared(metric, a, labels), prepared(metric, b, labels)
    count = _resamples(metric, resamples, a)
    low, high = percentile_interval(
        lambda counts: of_a(counts) - of_b(counts), value, len(labels), count, groups=groups, level=level, seed=seed
    )
    if metric == "accuracy":
        right_a, right_b = a.argmax(axis=1) == labels, b.argmax(axis=1) == labels
        share = _units(labels, groups) / len(labels)
        only_a, only_b = (right_a & ~right_b).sum() * share, (right_b & ~right_a).sum() * share
        if min(only_a, only_b) < FEW:
            bounds = bonett_price(float(only_a), float(only_b), len(labels) * share, level)
            low, high = min(low, bounds[0]), max(high, bounds[1])
    elif low == high:
        one = bootstrap(metric, a, labels, groups=groups, resamples=resamples, level=level, seed=seed)
        other = bootstrap(metric, b, labels, groups=groups, resamples=resamples, level=level, seed=seed)
        low, high = one.low - other.high, one.high - other.low
    return Interval(value, low, high)


def percentile_interval(
    of: Callable[[np.ndarray], np.ndarray],
    value: float,
    n: int,
    resamples: int,
    *,
    groups: np.ndarray | None,
    level: float,
    seed: int,
) -> tuple[float, float]:
    """Percentiles at `level` of a figure over resamples of n samples, widened to contain its `value`.

    of: counts (R, n) → figures (R,), nan where a resample leaves no meaning; those are left out.
    """
    values = np.concatenate([of(counts) for counts in draws(n, resamples, groups, seed)])
    values = values[np.isfinite(values)]
    if len(values) == 0:
        return value, value
    low, high = np.quantile(values, [(1 - level) / 2, (1 + level) / 2])
    return min(float(low), value), max(float(high), value)


def wilson(hits: float, n: float, level: float = 0.95) -> tuple[float, float]:
    """Wilson's score interval (1927) of a proportion: hits of n, which need not be whole numbers; n > 0."""
    z = NormalDist().inv_cdf(0.5 + level / 2)
    share = hits / n
    centre = (share + z * z / (2 * n)) / (1 + z * z / n)
    half = z / (1 + z * z / n) * np.sqrt(share * (1 - share) / n + z * z / (4 * n * n))
    return max(0.0, float(centre - half)), min(1.0, float(centre + half))


def bonett_price(only_a: float, only_b: float, n: float, level: float = 0.95) -> tuple[float, float]:
    """Adjusted Wald interval (Bonett & Price 2012) of a paired difference of proportions.

    only_a, only_b: on how many of the n samples only the first, only the second model is right.
    """
    z = NormalDist().inv_cdf(0.5 + level / 2)
    up, down = (only_a + 1) / (n + 2), (only_b + 1) / (n + 2)
    half = z * np.sqrt((up + down - (up - down) ** 2) / (n + 2))
    return max(-1.0, float(up - down - half)), min(1.0, float(up - down + half))


def _few_errors(
    metric: str,
    value: float,
    probabilities: np.ndarray,
    labels: np.ndarray,
    groups: np.ndarray | None,
    level: float,
) -> tuple[float, ...]:
    """Wilson's bounds where the bootstrap is too narrow, else nothing."""
    sizes = np.bincount(labels)
    sizes = sizes[sizes > 0]
    share = _units(labels, groups) / len(labels)
    if metric == "auc":
        # Hanley & McNeil (1982): the variance of an AUC is at most A(1 − A) / min(positives, negatives).
        smaller = float(min(sizes.min(), len(labels) - sizes.max()))
        return wilson(value * smaller * share, smaller * share, level) if value in (0.0, 1.0) else ()
    hits = int((probabilities.argmax(axis=1) == labels).sum())
    if metric not in ("accuracy", "balanced_accuracy", "macro_f1") or min(hits, len(labels) - hits) * share >= FEW:
        return ()
    # A mean of per-class rates varies like one rate over K² / Σ 1/n_k samples.
    effective = len(labels) if metric == "accuracy" else len(sizes) ** 2 / (1 / sizes).sum()
    return wilson(value * effective * share, effective * share, level)


def _inputs(
    metric: str, probabilities: np.ndarray, labels: np.ndarray, groups: np.ndarray | None, level: float
) -> tuple[np.ndarray, np.ndarray, np.ndarray | None]:
    if metric not in METRICS:
        raise unknown_name("metric", metric, METRICS)
    probabilities, labels = checked(probabilities, labels)
    return probabilities, labels, checked_groups(groups, len(labels), level)


def checked_groups(groups: np.ndarray | None, n: int, level: float) -> np.ndarray | None:
    """The group names (n,) or None; UsageError where they do not fit, or for a level outside (0, 1)."""
    if not 0 < level < 1:
        raise UsageError(f"The level is {level}: a fraction between 0 and 1 is needed, such as 0.95.")
    if groups is not None and len(groups) != n:
        raise UsageError(f"There are {len(groups)} group names for {n} samples: one per sample is needed.")
    return None if groups is None else np.asarray(groups)


def _units(labels: np.ndarray, groups: np.ndarray | None) -> int:
    return len(labels) if groups is None else len(np.unique(groups.astype(str)))


def _resamples(metric: str, resamples: int, probabilities: np.ndarray) -> int:
    if metric != "auc" or probabilities.shape[1] == 2:
        return resamples
    return min(resamples, 1000, max(200, AUC_WORK // max(1, probabilities.size)))


def _or_none(value: float) -> float | None:
    return float(value) if np.isfinite(value) else None
