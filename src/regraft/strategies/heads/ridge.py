"""Ridge regression on cached features, and the cross-validation that every solved head shares.

Features are centred and divided by one common scale. An L2-penalised linear model only ever uses directions that the
samples span, so where samples are fewer than coordinates everything is solved in their N-dimensional coordinates: the
same optimum, far cheaper (the kernel trick for a linear kernel). One eigendecomposition serves every strength.

Paper: Hoerl & Kennard, "Ridge Regression: Biased Estimation for Nonorthogonal Problems", Technometrics 1970.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]
Indices = NDArray[np.int64]
#: Kind ("ridge" or "logistic") and strength.
Setting = tuple[str, float]
#: Weight (K, R) and bias (K,).
Solution = tuple[Array, Array]

#: Ridge strengths relative to the mean eigenvalue of the features' Gram matrix.
RIDGE = (0.001, 0.01, 0.1, 1.0, 3.0, 10.0)


def standardised(features: NDArray[np.float32]) -> tuple[Array, float, Array]:
    """The mean per coordinate (D,), one scale for all, and the features (N, D) by them.

    Coordinates keep their relative spread, which is information.
    """
    centre = features.mean(axis=0, dtype=np.float64)
    spread = float(np.sqrt(np.square(features - centre, dtype=np.float64).mean()))
    scale = spread or 1.0
    return centre, scale, (features.astype(np.float64) - centre) / scale


def least_coordinates(x: Array) -> tuple[Array | None, Array]:
    """(basis, samples in it): the samples' own coordinates where they are fewer than columns, else (None, x)."""
    return own_coordinates(x) if len(x) < x.shape[1] else (None, x)


def own_coordinates(x: Array) -> Solution:
    """(R, D) orthonormal rows that span the samples (N, D), and the samples in them (N, R)."""
    values, vectors = np.linalg.eigh(x @ x.T)
    kept = values > max(values[-1], 0) * 1e-10
    if not kept.any():  # all samples are the same
        return np.eye(1, x.shape[1]), np.zeros((len(x), 1))
    root = np.sqrt(values[kept])
    basis = (vectors[:, kept] / root).T @ x
    return basis, vectors[:, kept] * root


def held_out(
    z: Array,
    folds: Indices,
    settings: Sequence[Setting],
    outputs: int,
    solve: Callable[[Indices], dict[Setting, Solution]],
) -> dict[Setting, Array]:
    """Per setting the outputs (N, K) of every sample from a head solved without its fold.

    solve: indices of training samples → a head per setting. Samples of one group must share a fold number.
    """
    found = {setting: np.zeros((len(z), outputs)) for setting in settings}
    for fold in np.unique(folds):
        train, held = np.flatnonzero(folds != fold), np.flatnonzero(folds == fold)
        for setting, (weight, bias) in solve(train).items():
            found[setting][held] = z[held] @ weight.T + bias
    return found


def solve_ridge(x: Array, targets: Array, strengths: Sequence[float]) -> dict[float, Solution]:
    """Per strength argmin ‖Y − X Wᵀ − b‖² + strength · u ‖W‖² for samples (N, R) and targets (N, K).

    b is not penalised; u, the unit of the strengths, is the trace of the centred XᵀX over N.
    """
    if not strengths:
        return {}
    prior, centre = targets.mean(axis=0), x.mean(axis=0)
    centred = x - centre
    right = centred.T @ (targets - prior)
    values, vectors = np.linalg.eigh(centred.T @ centred)
    unit = float(values.sum()) / len(x) or 1.0
    rotated = vectors.T @ right
    solved: dict[float, Solution] = {}
    for strength in strengths:
        weight = (vectors @ (rotated / (np.maximum(values, 0) + strength * unit)[:, None])).T
        solved[strength] = (weight, prior - weight @ centre)
    return solved


def for_raw_features(weight: Array, bias: Array, basis: Array | None, centre: Array, scale: float) -> Solution:
    """A head for standardised features in their own coordinates → the same head for features as they come."""
    if basis is not None:
        weight = weight @ basis
    weight = weight / scale
    return weight, bias - weight @ centre
