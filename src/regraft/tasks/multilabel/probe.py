"""The probe for several labels: L2-regularised logistic regression for each on cached features, solved together."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import minimize
from threadpoolctl import threadpool_limits

from regraft.strategies.heads.probe import GRADIENT_TOLERANCE, ITERATIONS, LOGISTIC, ProbeHead
from regraft.strategies.heads.ridge import (
    Array,
    Indices,
    Setting,
    Solution,
    for_raw_features,
    held_out,
    least_coordinates,
    standardised,
)
from regraft.tasks.multilabel.metrics import log_losses


def fit_label_probe(
    features: NDArray[np.float32], y: NDArray[np.int64], folds: Indices, settings: tuple[Setting, ...] | None = None
) -> ProbeHead:
    """Solve the head for features (N, D), y (N, S) of 0 and 1, and fold numbers (N,).

    One strength serves all labels, the one with the least out-of-fold log-loss. Samples of one group must share a fold
    number. settings: ("logistic", strength) pairs to try.
    """
    settings = settings or tuple(("logistic", strength) for strength in LOGISTIC)
    targets = y.astype(np.float64)
    centre, scale, x = standardised(features)
    # Threads of BLAS cost more than they bring on matrices of this size, and much more beside other work.
    with threadpool_limits(limits=1, user_api="blas"):
        basis, z = least_coordinates(x)

        def solve(train: Indices) -> dict[Setting, Solution]:
            return _path(z[train], targets[train], settings)

        out_of_fold = held_out(z, folds, settings, y.shape[1], solve)
        losses = {setting: float(log_losses(found, y).mean()) for setting, found in out_of_fold.items()}
        chosen = min(settings, key=lambda setting: losses[setting])
        weight, bias = _path(z, targets, settings)[chosen]
    weight, bias = for_raw_features(weight, bias, basis, centre, scale)
    scores = {f"{k} {s:g}": float(((out_of_fold[k, s] > 0) == y).mean()) for k, s in settings}
    return ProbeHead(weight.astype(np.float32), bias.astype(np.float32), *chosen, out_of_fold[chosen], scores)


def _path(x: Array, targets: Array, settings: tuple[Setting, ...]) -> dict[Setting, Solution]:
    """Every strength on the same samples, each from the next stronger one's solution."""
    start = np.zeros((targets.shape[1], x.shape[1] + 1))
    have = targets.sum(axis=0)
    start[:, -1] = np.log((have + 0.5) / (len(x) - have + 0.5))
    solved: dict[Setting, Solution] = {}
    for kind, strength in sorted(settings, key=lambda setting: -setting[1]):
        start = _logistic(x, targets, strength, start)
        solved[kind, strength] = (start[:, :-1].copy(), start[:, -1].copy())
    return solved


def _logistic(x: Array, targets: Array, penalty: float, start: Array) -> Array:
    """Minimise the sum over labels of mean log-loss + penalty / 2 · ‖w‖² over (S, R + 1), bias last and unpenalised.

    A label that all or none of the samples have keeps the bias that it starts with: its best one is infinite.
    """
    shape, count = start.shape, len(x)
    constant = (targets == targets[0]).all(axis=0)

    def objective(flat: Array) -> tuple[float, Array]:
        both = flat.reshape(shape)
        weight = both[:, :-1]
        logits = x @ weight.T + both[:, -1]
        loss = (np.logaddexp(0, logits) - targets * logits).sum() / count + penalty / 2 * float((weight * weight).sum())
        error = (1 / (1 + np.exp(-np.clip(logits, -500, 500))) - targets) / count
        gradient = np.concatenate([error.T @ x + penalty * weight, error.sum(axis=0)[:, None]], axis=1)
        gradient[constant] = 0
        return float(loss), gradient.ravel()

    options = {"maxiter": ITERATIONS, "gtol": GRADIENT_TOLERANCE, "maxcor": 10}
    found = minimize(objective, start.ravel(), jac=True, method="L-BFGS-B", options=options)
    return np.asarray(found.x, dtype=np.float64).reshape(shape)
