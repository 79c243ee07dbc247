"""Bootstrap intervals of figures over several labels, for one model or the gap between two."""

from __future__ import annotations

import numpy as np

from regraft.measure.bootstrap import Interval, checked_groups, percentile_interval, wilson
from regraft.tasks.multilabel.metrics import of_counts, score


def label_bootstrap(
    metric: str,
    answers: np.ndarray,
    y: np.ndarray,
    *,
    groups: np.ndarray | None = None,
    resamples: int = 2000,
    level: float = 0.95,
    seed: int = 0,
) -> Interval:
    """The metric of answers (N, S, 2) against y (N, S) with its percentile interval at `level`.

    groups (N,): names of what was sampled together. A figure of exactly 0 or 1, of which every resample says the same,
    is widened to cover Wilson's interval over the independent units.
    """
    groups = checked_groups(groups, len(y), level)
    value = score(metric, answers, y)
    if not np.isfinite(value):
        return Interval(value, float("nan"), float("nan"))
    of = of_counts(metric, answers, y)
    low, high = percentile_interval(of, value, len(y), resamples, groups=groups, level=level, seed=seed)
    if low == high and value in (0.0, 1.0):
        units = len(y) if groups is None else len(np.unique(groups))
        low, high = wilson(value * units, units, level)
    return Interval(value, low, high)


def label_gain(
    metric: str,
    a: np.ndarray,
    b: np.ndarray,
    y: np.ndarray,
    *,
    groups: np.ndarray | None = None,
    resamples: int = 2000,
    level: float = 0.95,
    seed: int = 0,
) -> Interval:
    """metric(a) − metric(b) with its interval; both see the same resamples, so what they share cancels."""
    groups = checked_groups(groups, len(y), level)
    value = score(metric, a, y) - score(metric, b, y)
    if not np.isfinite(value):
        return Interval(value, float("nan"), float("nan"))
    if np.array_equal(a, b):
        return Interval(0.0, 0.0, 0.0)
    of_a, of_b = of_counts(metric, a, y), of_counts(metric, b, y)
    low, high = percentile_interval(
        lambda counts: of_a(counts) - of_b(counts), value, len(y), resamples, groups=groups, level=level, seed=seed
    )
    if low == high:
        one, other = (
            label_bootstrap(metric, of, y, groups=groups, resamples=resamples, level=level, seed=seed) for of in (a, b)
        )
        low, high = one.low - other.high, one.high - other.low
    return Interval(value, low, high)
