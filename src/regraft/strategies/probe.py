"""The probe: a linear head solved on cached features, its regularisation picked by cross-validation.

Features are divided by one common scale and centred; ridge is solved in closed form (the "few-shot as ridge" idea of
big_vision), logistic regression by scikit-learn. The better of both by out-of-fold log-loss becomes the head. Centring
and scale are folded into weight and bias, so the head is one linear layer.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray
from sklearn.linear_model import LogisticRegression

Array = NDArray[np.float64]
Indices = NDArray[np.int64]

#: Inverse strengths for logistic regression, on features of unit mean square per coordinate.
LOGISTIC_C = (1e-4, 1e-3, 1e-2, 1e-1, 1.0)
#: Ridge strengths relative to the mean eigenvalue of the features' covariance.
RIDGE = (1e-2, 1e-1, 1.0, 10.0)


@dataclass(frozen=True)
class ProbeHead:
    """weight (K, D) and bias (K,) for raw features; logits = features @ weight.T + bias.

    out_of_fold: (N, K) logits of every training sample from a head that did not see its fold.
    scores: out-of-fold accuracy of every setting tried.
    """

    weight: NDArray[np.float32]
    bias: NDArray[np.float32]
    kind: str
    strength: float
    out_of_fold: Array
    scores: dict[str, float] = field(default_factory=dict)

    def logits(self, features: NDArray[np.float32]) -> Array:
        """(N, D) → (N, K)."""
        return np.asarray(features @ self.weight.T + self.bias, dtype=np.float64)


def fit_probe(
    features: NDArray[np.float32],
    labels: Indices,
    folds: Indices,
    n_classes: int,
    *,
    settings: tuple[tuple[str, float], ...] | None = None,
) -> ProbeHead:
    """Solve the head for features (N, D), labels (N,) in 0…K−1 and fold numbers (N,).

    Samples of one group must share a fold number. settings: (kind, strength) pairs to try; the built-in grid unless told.
    Selection is by out-of-fold log-loss after the best common scale, which is finer than accuracy on few samples; that
    scale is part of the head, so its softmax is meaningful as it is.
    """
    settings = settings or tuple([("ridge", s) for s in RIDGE] + [("logistic", c) for c in LOGISTIC_C])
    centre, scale = _standard(features)
    x = (features.astype(np.float64) - centre) / scale
    best: tuple[float, float, str, float, Array] | None = None
    scores: dict[str, float] = {}
    parts = [(np.flatnonzero(folds != f), np.flatnonzero(folds == f)) for f in np.unique(folds)]
    out_of_fold = {setting: np.zeros((len(x), n_classes)) for setting in settings}
    for train, held in parts:
        solved = _solve_all(x[train], labels[train], n_classes, settings)
        for setting, (weight, bias) in solved.items():
            out_of_fold[setting][held] = x[held] @ weight.T + bias
    for setting in settings:
        logits = out_of_fold[setting]
        scores[f"{setting[0]} {setting[1]:g}"] = float((logits.argmax(1) == labels).mean())
        loss, factor = _best_log_loss(logits, labels)
        if best is None or loss < best[0] - 1e-9:
            best = (loss, factor, *setting, logits * factor)
    assert best is not None
    _, factor, kind, strength, logits = best
    weight, bias = _solve_all(x, labels, n_classes, ((kind, strength),))[kind, strength]
    weight, bias = weight * (factor / scale), bias * factor
    bias = bias - weight @ centre
    return ProbeHead(weight.astype(np.float32), bias.astype(np.float32), kind, strength, logits, scores)


def _standard(features: NDArray[np.float32]) -> tuple[Array, float]:
    """The mean per coordinate and one scale for all: coordinates keep their relative spread, which carries information."""
    centre = features.mean(axis=0, dtype=np.float64)
    spread = float(np.sqrt(np.square(features - centre, dtype=np.float64).mean()))
    return centre, spread or 1.0


def _solve_all(
    x: Array, labels: Indices, n_classes: int, settings: tuple[tuple[str, float], ...]
) -> dict[tuple[str, float], tuple[Array, Array]]:
    """Every setting on the same samples: ridge shares one decomposition, logistic regression starts from the last."""
    solved: dict[tuple[str, float], tuple[Array, Array]] = {}
    present = np.unique(labels)
    strengths = [s for kind, s in settings if kind == "ridge"]
    if strengths:
        targets = np.eye(n_classes)[labels]
        prior = targets.mean(axis=0)
        centre = x.mean(axis=0)
        centred = x - centre
        # The N × N form where samples are fewer than coordinates (Hastie et al., ESL, 18.3.5).
        dual = len(x) <= x.shape[1]
        matrix = centred @ centred.T if dual else centred.T @ centred
        values, vectors = np.linalg.eigh(matrix)
        unit = float(np.trace(matrix)) / len(x) or 1.0
        for strength in strengths:
            inverse = (vectors / (np.maximum(values, 0) + strength * unit)) @ vectors.T
            right = targets - prior
            weight = (centred.T @ (inverse @ right) if dual else inverse @ (centred.T @ right)).T
            solved["ridge", strength] = (weight, prior - weight @ centre)
    for strength in sorted(s for kind, s in settings if kind == "logistic"):
        weight, bias = np.zeros((n_classes, x.shape[1])), np.full(n_classes, -30.0)
        if len(present) == 1:
            bias[present] = 30.0
        else:
            # scikit-learn's penalty is per sample sum; dividing by N keeps C comparable between folds and data sizes.
            model = LogisticRegression(C=strength * 300 / len(x), max_iter=300, tol=1e-4)
            model.fit(x, labels)
            if len(present) == 2:
                weight[present[1]], weight[present[0]] = model.coef_[0] / 2, -model.coef_[0] / 2
                bias[present[1]], bias[present[0]] = model.intercept_[0] / 2, -model.intercept_[0] / 2
            else:
                weight[present], bias[present] = model.coef_, model.intercept_
        solved["logistic", strength] = (weight, bias)
    return solved


def _best_log_loss(logits: Array, labels: Indices) -> tuple[float, float]:
    """Least mean negative log-likelihood over a grid of scales, and the scale: ridge scores are no log-odds."""
    best = (np.inf, 1.0)
    for factor in np.geomspace(0.05, 50, 31):
        scaled = logits * factor
        scaled = scaled - scaled.max(axis=1, keepdims=True)
        log_probability = scaled - np.log(np.exp(scaled).sum(axis=1, keepdims=True))
        best = min(best, (float(-log_probability[np.arange(len(labels)), labels].mean()), float(factor)))
    return best
