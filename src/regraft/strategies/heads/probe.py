"""The probe: a linear head solved on cached features, its regularisation picked by cross-validation.

Features are centred and divided by one common scale. An L2-penalised linear model only ever uses directions that the
samples span, so where samples are fewer than coordinates everything is solved in their N-dimensional coordinates: the
same optimum, far cheaper (the kernel trick for a linear kernel). Ridge is closed-form (the "few-shot as ridge" idea of
big_vision); logistic regression runs L-BFGS from the previous strength's solution. Where the weights came with a
classifier, logistic regression that is pulled towards its rows is tried as well (`known_classes.py`). The best by
out-of-fold log-loss becomes the head, and centring, scale and calibration are folded into its weight and bias: one
linear layer.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import minimize
from threadpoolctl import threadpool_limits

from regraft.strategies.heads.known_classes import KnownClasses, assigned
from regraft.strategies.heads.ridge import (
    RIDGE,
    Array,
    Indices,
    Setting,
    Solution,
    for_raw_features,
    held_out,
    least_coordinates,
    solve_ridge,
    standardised,
)

#: Penalty per sample for logistic regression, on features of unit mean square per coordinate: strong → weak.
LOGISTIC = (1.0, 0.1, 0.01, 0.001)
#: The same for what is added to the pretrained classifier's rows.
KNOWN = (10.0, 1.0, 0.1)
#: The kind of a head that began with them.
KNOWN_KIND = "known classes"
#: L-BFGS stops here; the log-loss out of fold is flat long before the last digit.
ITERATIONS, GRADIENT_TOLERANCE = 150, 1e-4


@dataclass(frozen=True)
class ProbeHead:
    """weight (K, D) and bias (K,) for raw features; logits = features @ weight.T + bias.

    kind: "ridge", "logistic" or "known classes"; source_classes: of the last, the pretrained classifier's class for
    each of these. out_of_fold: (N, K) logits of every training sample from a head that did not see its fold.
    scores: out-of-fold accuracy of every setting tried. Of a regression the logits are numbers (N, R) in the label's
    own unit, and the scores R².
    """

    weight: NDArray[np.float32]
    bias: NDArray[np.float32]
    kind: str
    strength: float
    out_of_fold: Array
    scores: dict[str, float] = field(default_factory=dict)
    source_classes: tuple[int, ...] = ()

    def logits(self, features: NDArray[np.float32]) -> Array:
        """(N, D) → (N, K)."""
        return np.asarray(features @ self.weight.T + self.bias, dtype=np.float64)


def fit_probe(
    features: NDArray[np.float32],
    labels: Indices,
    folds: Indices,
    n_classes: int,
    *,
    settings: tuple[Setting, ...] | None = None,
    known: KnownClasses | None = None,
) -> ProbeHead:
    """Solve the head for features (N, D), labels (N,) in 0…K−1 and fold numbers (N,).

    Samples of one group must share a fold number. settings: (kind, strength) pairs to try; the built-in grid unless
    told, "known classes" among it where `known` is given and has classes enough. Selection is by out-of-fold log-loss
    after the best common scale, which is finer than accuracy on few samples; that scale is part of the head, so its
    softmax is meaningful as it is.
    """
    said = None if known is None else known.logits(features)
    sources = None if said is None else assigned(said, labels, n_classes)
    if settings is None:
        settings = tuple([("ridge", s) for s in RIDGE] + [("logistic", s) for s in LOGISTIC])
        if said is not None and sources is not None:
            rests = [folds != fold for fold in np.unique(folds)]
            if all(assigned(said[rest], labels[rest], n_classes) is not None for rest in rests):
                settings += tuple((KNOWN_KIND, s) for s in KNOWN)
    centre, scale, x = standardised(features)
    # Threads of BLAS cost more than they bring on matrices of this size, and much more beside other work.
    with threadpool_limits(limits=1, user_api="blas"):
        basis, z = least_coordinates(x)

        def solve(rows: Indices, tried: tuple[Setting, ...]) -> dict[Setting, Solution]:
            prior: Solution | None = None
            if known is not None and said is not None and any(kind == KNOWN_KIND for kind, _ in tried):
                theirs = assigned(said[rows], labels[rows], n_classes)
                assert theirs is not None
                prior = _in_coordinates(known, theirs, basis, centre, scale)
            return _solve(z[rows], labels[rows], n_classes, tried, prior)

        out_of_fold = held_out(z, folds, settings, n_classes, lambda train: solve(train, settings))
        losses = {setting: _best_log_loss(logits, labels) for setting, logits in out_of_fold.items()}
        kind, strength = min(settings, key=lambda s: losses[s][0])
        factor = losses[kind, strength][1]
        weight, bias = solve(np.arange(len(z)), ((kind, strength),))[kind, strength]
    weight, bias = for_raw_features(weight * factor, bias * factor, basis, centre, scale)
    if kind == KNOWN_KIND and known is not None and sources is not None and basis is not None:
        # What the samples do not span says nothing about them, but does about new pictures.
        theirs = known.weight[sources].astype(np.float64)
        unspanned = factor * (theirs - theirs @ basis.T @ basis)
        weight, bias = weight + unspanned, bias - unspanned @ centre
    scores = {f"{k} {s:g}": float((out_of_fold[k, s].argmax(1) == labels).mean()) for k, s in settings}
    chosen = out_of_fold[kind, strength] * factor
    told = tuple(int(s) for s in sources) if kind == KNOWN_KIND and sources is not None else ()
    return ProbeHead(weight.astype(np.float32), bias.astype(np.float32), kind, strength, chosen, scores, told)


def _in_coordinates(
    known: KnownClasses, sources: Indices, basis: Array | None, centre: Array, scale: float
) -> Solution:  # fmt: skip
    """The rows of the pretrained classifier as a head for standardised features in their own coordinates."""
    weight = known.weight[sources].astype(np.float64)
    bias = known.bias[sources] + weight @ centre
    return scale * (weight if basis is None else weight @ basis.T), bias


def _solve(
    x: Array, labels: Indices, n_classes: int, settings: tuple[Setting, ...], prior: Solution | None = None
) -> dict[Setting, Solution]:
    """Every setting on the same samples: ridge shares one decomposition, logistic regression starts from the last.

    prior: what heads of the kind "known classes" are pulled towards.
    """
    solved: dict[Setting, Solution] = {}
    targets = np.eye(n_classes)[labels]
    strengths = [s for kind, s in settings if kind == "ridge"]
    for strength, solution in solve_ridge(x, targets, strengths).items():
        solved["ridge", strength] = solution
    start = np.zeros((n_classes, x.shape[1] + 1))
    start[:, -1] = np.log((targets.sum(axis=0) + 0.5) / (len(x) + 0.5 * n_classes))
    for strength in sorted((s for kind, s in settings if kind == "logistic"), reverse=True):
        start = _logistic(x, targets, strength, start)
        solved["logistic", strength] = (start[:, :-1].copy(), start[:, -1].copy())
    if prior is not None:
        offset, change = x @ prior[0].T + prior[1], np.zeros_like(start)
        for strength in sorted((s for kind, s in settings if kind == KNOWN_KIND), reverse=True):
            change = _logistic(x, targets, strength, change, offset)
            solved[KNOWN_KIND, strength] = (prior[0] + change[:, :-1], prior[1] + change[:, -1])
    return solved


def _logistic(x: Array, targets: Array, penalty: float, start: Array, offset: Array | float = 0.0) -> Array:
    """Minimise mean cross-entropy + penalty / 2 · ‖W‖² over (K, R + 1), bias in the last column and unpenalised.

    offset: what is added to the logits (N, K) before.
    """
    shape, count = start.shape, len(x)

    def objective(flat: Array) -> tuple[float, Array]:
        both = flat.reshape(shape)
        weight = both[:, :-1]
        logits = x @ weight.T + both[:, -1] + offset
        logits -= logits.max(axis=1, keepdims=True)
        exp = np.exp(logits)
        total = exp.sum(axis=1, keepdims=True)
        loss = (np.log(total).sum() - (targets * logits).sum()) / count + penalty / 2 * float((weight * weight).sum())
        error = (exp / total - targets) / count
        gradient = np.concatenate([error.T @ x + penalty * weight, error.sum(axis=0)[:, None]], axis=1)
        return float(loss), gradient.ravel()

    options = {"maxiter": ITERATIONS, "gtol": GRADIENT_TOLERANCE, "maxcor": 10}
    found = minimize(objective, start.ravel(), jac=True, method="L-BFGS-B", options=options)
    return np.asarray(found.x, dtype=np.float64).reshape(shape)


def _best_log_loss(logits: Array, labels: Indices) -> tuple[float, float]:
    """Least mean negative log-likelihood over a grid of scales, and the scale: ridge scores are no log-odds."""
    best = (np.inf, 1.0)
    for factor in np.geomspace(0.05, 50, 31):
        scaled = logits * factor
        scaled = scaled - scaled.max(axis=1, keepdims=True)
        log_probability = scaled - np.log(np.exp(scaled).sum(axis=1, keepdims=True))
        best = min(best, (float(-log_probability[np.arange(len(labels)), labels].mean()), float(factor)))
    return best
