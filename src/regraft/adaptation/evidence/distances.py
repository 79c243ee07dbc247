"""How far two domains lie apart in feature space, as numbers that can be compared before and after adaptation.

All work on cached features, in float64, on at most 1,000 rows a side. None needs a target label.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import minimize
from scipy.special import expit

from regraft.core.errors import DataError, UsageError
from regraft.strategies.heads.probe import fit_probe

Array = NDArray[np.float64]

#: Ridge penalties of the domain classifier, as multiples of the mean squared norm of the centred features.
PENALTIES = (0.1, 1.0, 10.0, 100.0)
FOLDS = 5
#: Directions and strengths of the domain classifier behind `density_ratio`: few and strong, for ratios without spikes.
DIRECTIONS, STRENGTHS = 64, (1.0, 0.1, 0.01)
#: How far each variance is drawn to the mean variance in `gaussian_divergence`.
SHRINKAGE = 0.1


def domain_distance(
    source: np.ndarray,
    target: np.ndarray,
    *,
    labels: np.ndarray | None = None,
    pseudo_labels: np.ndarray | None = None,
    rows: int = 1000,
    seed: int = 0,
) -> dict[str, float]:
    """Every distance between features (N, D) and (M, D), by name.

    "a_distance" (0…2), "mmd2" (about 0…2, may be just below 0), "gaussian_kl" (nats per coordinate), and "cid" where
    labels (N,) and pseudo_labels (M,) are given and two classes are in both domains. rows: at most so many of each
    domain, drawn with `seed`. Raises DataError for fewer than 2 rows, values that are not finite, or unlike widths;
    UsageError for rows < 2.
    """
    if rows < 2:
        raise UsageError(f"domain_distance got rows={rows}: at least 2 are needed.")
    x, y = checked_pair(source, target)
    draw = np.random.default_rng(seed)
    of_source = np.sort(draw.permutation(len(x))[:rows])
    of_target = np.sort(draw.permutation(len(y))[:rows])
    x, y = x[of_source], y[of_target]
    found = {
        "a_distance": a_distance(x, y, seed=seed),
        "mmd2": squared_mmd(x, y),
        "gaussian_kl": gaussian_divergence(x, y),
    }
    if labels is not None and pseudo_labels is not None:
        by_class = class_distance(x, np.asarray(labels)[of_source], y, np.asarray(pseudo_labels)[of_target])
        if by_class is not None:
            found["cid"] = by_class
    return found


def a_distance(source: np.ndarray, target: np.ndarray, *, seed: int = 0) -> float:
    """Proxy A-distance 2 (1 − 2 error) of a linear domain classifier, from 0 (not told apart) to 2 (always).

    Paper: Ben-David et al., "A Theory of Learning from Different Domains", Machine Learning 79, 2010. source (N, D),
    target (M, D), N and M ≥ 2. Differs from the paper: the classifier is ridge regression on ±1, whose error is by
    5-fold cross-validation in closed form; its penalty is the one with the least squared error out of fold; the larger
    domain is cut to the smaller one's size; an error above ½ counts as ½.
    """
    x, y = checked_pair(source, target)
    draw = np.random.default_rng(seed)
    n = min(len(x), len(y))
    rows = np.concatenate([x[draw.permutation(len(x))[:n]], y[draw.permutation(len(y))[:n]]])
    domain = np.repeat([1.0, -1.0], n)
    folds = np.tile(np.arange(n) % min(FOLDS, n), 2)  # both permutations are random already
    predictions = out_of_fold(rows, domain, folds, PENALTIES)
    predicted = min(predictions, key=lambda p: float(np.square(p - domain).sum()))
    error = float((predicted * domain <= 0).mean())
    return float(np.clip(2 * (1 - 2 * error), 0.0, 2.0))


def out_of_fold(features: Array, wanted: Array, folds: NDArray[np.int64], penalties: tuple[float, ...]) -> list[Array]:
    """Per penalty the (n,) predictions of ridge regression for every row by the model fitted without its fold.

    One decomposition serves all penalties and folds: with H the hat matrix of the fit to all rows and r its residuals,
    the residuals of a held-out block V are (I − H_VV)⁻¹ r_V. features (n, D), wanted (n,), penalties as in PENALTIES;
    the intercept is free.
    """
    x = features - features.mean(axis=0)
    unit = float(np.square(x).sum()) / len(x) or 1.0
    if len(x) <= x.shape[1]:
        values, vectors = np.linalg.eigh(x @ x.T)
        scores = vectors * np.sqrt(np.maximum(values, 0))
    else:
        values, vectors = np.linalg.eigh(x.T @ x)
        scores = x @ vectors
    found = []
    for penalty in penalties:
        half = scores / np.sqrt(np.maximum(values, 0) + penalty * unit)
        residual = wanted - wanted.mean() - half @ (half.T @ wanted)
        predicted = np.empty(len(x))
        for fold in np.unique(folds):
            held = np.flatnonzero(folds == fold)
            within = np.eye(len(held)) - half[held] @ half[held].T - 1 / len(x)
            predicted[held] = wanted[held] - np.linalg.solve(within, residual[held])
        found.append(predicted)
    return found


def density_ratio(source: np.ndarray, target: np.ndarray, *, seed: int = 0) -> Array:
    """(N,) estimates of target density over source density at every source row: 1 on average if the ratio is right.

    (N / M) · P(target | x) / P(source | x) of a logistic domain classifier, as in You et al., ICML 2019, there a small
    network. source (N, D), target (M, D), N and M ≥ 2. Each row's ratio comes from a classifier that did not see
    it, over 3 folds, with the L2 strength of the least log-loss out of fold, then calibrated; it looks at the 64
    leading principal directions of both domains together. Without these, a classifier of more coordinates than rows
    tells all rows apart, and no weight is left on the source.
    """
    x, y = checked_pair(source, target)
    n, m = len(x), len(y)
    draw = np.random.default_rng(seed)
    rows = np.concatenate([x, y])
    led = leading_coordinates(rows - rows.mean(axis=0), DIRECTIONS, draw).astype(np.float32)
    folds = np.concatenate([draw.permutation(n) % min(3, n, m), draw.permutation(m) % min(3, n, m)])
    domain = np.repeat(np.array([0, 1]), [n, m])
    head = fit_probe(led, domain, folds, 2, settings=tuple(("logistic", s) for s in STRENGTHS))
    odds = _calibrated(head.out_of_fold[:, 1] - head.out_of_fold[:, 0], domain)[:n]
    return np.asarray(np.exp(np.clip(odds, -50, 50)) * (n / m))


def _calibrated(odds: Array, domain: NDArray[np.int64]) -> Array:
    """Odds → a · odds + b of the least log-loss, 0 ≤ a ≤ 2 (Platt scaling), so that the ratios are 1 on average.

    One scale for scores and intercept alone, as the probe has it, cannot say "no difference" where N and M differ.
    """
    sign = 2.0 * domain - 1
    share = float(domain.mean())

    def loss(line: Array) -> tuple[float, Array]:
        margin = sign * (line[0] * odds + line[1])
        slope = -sign * expit(-margin) / len(odds)
        return float(np.logaddexp(0, -margin).mean()), np.array([slope @ odds, slope.sum()])

    start = np.array([0.0, np.log(share / (1 - share))])
    a, b = minimize(loss, start, jac=True, method="L-BFGS-B", bounds=[(0, 2), (None, None)]).x
    return np.asarray(a * odds + b)


def leading_coordinates(centred: Array, count: int, draw: np.random.Generator) -> Array:
    """(n, count) coordinates of centred rows (n, D) in about their leading principal directions; all where D is less.

    Halko et al., "Finding Structure with Randomness", SIAM Review 2011, arXiv:0909.4061: a random sketch with two power
    iterations.
    """
    if min(centred.shape) <= count:
        return centred
    basis = centred @ draw.normal(size=(centred.shape[1], count + 16))
    for _ in range(2):
        basis = np.linalg.qr(centred @ (centred.T @ np.linalg.qr(basis)[0]))[0]
    within = basis.T @ centred
    values, vectors = np.linalg.eigh(within @ within.T)
    return np.asarray(basis @ (vectors[:, -count:] * np.sqrt(np.maximum(values[-count:], 0))))


def squared_mmd(source: np.ndarray, target: np.ndarray, *, scale: float | None = None) -> float:
    """Unbiased squared maximum mean discrepancy with a Gaussian kernel exp(−d² / median d²).

    Paper: Gretton et al., "A Kernel Two-Sample Test", JMLR 13, 2012, eq. 3. source (N, D), target (M, D), N and M ≥ 2.
    scale: another squared width in place of the median (`kernel_scale` of these two), so that distances of several
    pairs of domains can be compared with each other.
    """
    x, y = checked_pair(source, target)
    n, m = len(x), len(y)
    squared = squared_distances(np.concatenate([x, y]), np.concatenate([x, y]))
    kernel = np.exp(-squared / (_width(squared) if scale is None else scale))
    np.fill_diagonal(kernel, 0.0)
    own = kernel[:n, :n].sum() / (n * (n - 1)) + kernel[n:, n:].sum() / (m * (m - 1))
    return float(own - 2 * kernel[:n, n:].mean())


def kernel_scale(source: np.ndarray, target: np.ndarray) -> float:
    """The squared kernel width of `squared_mmd` for features (N, D) and (M, D).

    The median squared distance over all pairs of both domains together; the mean, where most rows are the same.
    """
    rows = np.concatenate(checked_pair(source, target))
    return _width(squared_distances(rows, rows))


def _width(squared: Array) -> float:
    pairs = squared[np.triu_indices(len(squared), 1)]
    return float(np.median(pairs)) or float(pairs.mean()) or 1.0


def gaussian_divergence(source: np.ndarray, target: np.ndarray, *, shrinkage: float = SHRINKAGE) -> float:
    """Jeffreys divergence KL(p‖q) + KL(q‖p) of two Gaussians with diagonal covariance, over D: nats per coordinate.

    source (N, D), target (M, D). Correlations are left out, since N rows cannot tell D² of them. Every variance is
    drawn to the mean variance of both domains by `shrinkage`, so that a coordinate that never moves in one of them
    counts, but not without bound.
    """
    x, y = checked_pair(source, target)
    p, q = x.var(axis=0, ddof=1), y.var(axis=0, ddof=1)
    gap = np.square(x.mean(axis=0) - y.mean(axis=0))
    # Two domains of one point each have no variance: their distance is then the unit.
    common = float((p.mean() + q.mean()) / 2) or float(gap.mean()) or 1.0
    p, q = (1 - shrinkage) * p + shrinkage * common, (1 - shrinkage) * q + shrinkage * common
    return float((p / q + q / p - 2 + gap * (1 / p + 1 / q)).mean() / 2)


def class_distance(
    source: np.ndarray, labels: np.ndarray, target: np.ndarray, pseudo_labels: np.ndarray
) -> float | None:
    """How far the class means moved, relative to how far classes lie apart ("CID"): 0 where each stayed in place.

    Mean over classes k of ‖μₖ(source) − μₖ(target)‖, divided by the mean over k ≠ l of ‖μₖ(source) − μₗ(target)‖.
    Above about 1 a class is no nearer to itself in the other domain than to other classes. source (N, D) with labels
    (N,), target (M, D) with a model's answers (M,): so it believes that model. Classes that one domain lacks are left
    out; None with fewer than two left, or where all means are the same.
    """
    labels, pseudo_labels = np.asarray(labels), np.asarray(pseudo_labels)
    shared = np.intersect1d(labels, pseudo_labels)
    if len(shared) < 2:
        return None
    of_source = np.stack([source[labels == k].mean(axis=0) for k in shared])
    of_target = np.stack([target[pseudo_labels == k].mean(axis=0) for k in shared])
    apart = np.linalg.norm(of_source[:, None] - of_target[None], axis=2)
    between = float(apart[~np.eye(len(shared), dtype=bool)].mean())
    return float(np.diag(apart).mean()) / between if between > 0 else None


def squared_distances(a: np.ndarray, b: np.ndarray) -> Array:
    """‖aᵢ − bⱼ‖² (N, M) of rows (N, D) and (M, D) in float64, never negative."""
    origin = b.mean(axis=0, dtype=np.float64)  # near the rows differences of squares lose fewer digits
    a, b = a - origin, b - origin
    squares = np.square(a).sum(axis=1)[:, None] + np.square(b).sum(axis=1) - 2 * a @ b.T
    return np.asarray(np.maximum(squares, 0.0), dtype=np.float64)


def checked_pair(source: np.ndarray, target: np.ndarray) -> tuple[Array, Array]:
    """Both as float64; DataError unless they are finite, of one width, and of at least two rows each."""
    x, y = np.asarray(source, dtype=np.float64), np.asarray(target, dtype=np.float64)
    if x.ndim != 2 or y.ndim != 2 or x.shape[1] != y.shape[1] or min(len(x), len(y)) < 2:
        raise DataError(
            f"Domains are compared by features (N, D) and (M, D) of at least 2 rows; {x.shape} and {y.shape} came."
        )
    if not (np.isfinite(x).all() and np.isfinite(y).all()):
        raise DataError("Domains are compared by finite features; some here are not: the model may have diverged.")
    return x, y
