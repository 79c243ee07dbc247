"""The mean over domains of a mean over pictures, with an interval: each domain counts alike, whatever its size."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from regraft.core.errors import DataError
from regraft.measure.bootstrap import FEW, Interval, bonett_price, wilson
from regraft.measure.resampling import draws


def mean_over_domains(
    values: Sequence[np.ndarray],
    *,
    paired: bool = False,
    resamples: int = 2000,
    level: float = 0.95,
    seed: int = 0,
) -> Interval:
    """Mean over E domains of the mean of each (N_e,), and its stratified percentile bootstrap interval.

    values: 0 or 1 per picture (right or wrong); paired: −1, 0 or 1, the difference of two models on the same picture.
    Pictures are resampled within their domain: the interval is about these domains, and says
    nothing of another one. With fewer than 5 errors or hits, or fewer than 5 pictures on which only one model is right,
    it is widened as in `bootstrap.py`. Raises DataError for no domain and for one without pictures.
    """
    if not values or any(len(v) == 0 for v in values):
        raise DataError("A mean over domains needs at least one domain, and a picture in each.")
    parts = [np.asarray(v, dtype=np.float64) for v in values]
    value = float(np.mean([part.mean() for part in parts]))
    found = np.mean(
        [
            np.concatenate([counts @ part / len(part) for counts in draws(len(part), resamples, None, seed + i)])
            for i, part in enumerate(parts)
        ],
        axis=0,
    )
    low, high = (float(q) for q in np.quantile(found, [(1 - level) / 2, (1 + level) / 2]))
    together = np.concatenate(parts)
    up, down = int((together > 0).sum()), int((together < 0).sum())
    # As many pictures as give the same variance where every picture of every domain varies alike.
    effective = len(parts) ** 2 / sum(1 / len(part) for part in parts)
    share = effective / len(together)
    if paired and not together.any():
        bounds = (0.0, 0.0)
    elif paired and min(up, down) * share < FEW:
        bounds = bonett_price(up * share, down * share, effective, level)
    elif not paired and min(up, len(together) - up) * share < FEW:
        bounds = wilson(value * effective, effective, level)
    else:
        bounds = (low, high)
    return Interval(value, min(low, bounds[0], value), max(high, bounds[1], value))
