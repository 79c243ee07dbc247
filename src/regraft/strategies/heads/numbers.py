"""The probe for numbers: a ridge head on cached features, its strength picked by cross-validation."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from threadpoolctl import threadpool_limits

from regraft.strategies.heads.probe import ProbeHead
from regraft.strategies.heads.ridge import (
    RIDGE,
    Array,
    Indices,
    Setting,
    for_raw_features,
    held_out,
    least_coordinates,
    solve_ridge,
    standardised,
)

#: Noisy numbers want more shrinkage than classes, whose scores need only be in order.
STRENGTHS = (*RIDGE, 100.0)


def fit_number_probe(
    features: NDArray[np.float32],
    numbers: Array,
    folds: Indices,
    *,
    settings: tuple[Setting, ...] | None = None,
) -> ProbeHead:
    """Solve the head for features (N, D), numbers (N,) or (N, R) and fold numbers (N,).

    Numbers are standardised for the solution (each column by its mean and deviation) and the head gives them back in
    their own unit. Selection is by the out-of-fold mean squared error over all columns. Samples of one group must share
    a fold number. settings: ("ridge", strength) pairs to try; `STRENGTHS` unless told.
    """
    settings = settings or tuple(("ridge", strength) for strength in STRENGTHS)
    raw = np.asarray(numbers, dtype=np.float64).reshape(len(numbers), -1)
    mean, deviation = raw.mean(axis=0), raw.std(axis=0)
    deviation = np.where(deviation > 0, deviation, 1.0)
    y = (raw - mean) / deviation
    strengths = [strength for _, strength in settings]
    centre, scale, x = standardised(features)
    # Threads of BLAS cost more than they bring on matrices of this size, and much more beside other work.
    with threadpool_limits(limits=1, user_api="blas"):
        basis, z = least_coordinates(x)

        def solve(train: Indices) -> dict[Setting, tuple[Array, Array]]:
            return {("ridge", s): found for s, found in solve_ridge(z[train], y[train], strengths).items()}

        out_of_fold = held_out(z, folds, settings, y.shape[1], solve)
        errors = {setting: float(np.square(found - y).mean()) for setting, found in out_of_fold.items()}
        chosen = min(settings, key=lambda setting: errors[setting])
        weight, bias = solve(np.arange(len(z)))[chosen]
    weight, bias = for_raw_features(weight * deviation[:, None], bias * deviation + mean, basis, centre, scale)
    variance = float(np.square(y).mean())
    scores = {f"{k} {s:g}": 1 - errors[k, s] / variance if variance else 0.0 for k, s in settings}
    held = out_of_fold[chosen] * deviation + mean
    return ProbeHead(weight.astype(np.float32), bias.astype(np.float32), *chosen, held, scores)
