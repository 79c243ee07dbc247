"""Metrics of many bootstrap resamples at once: a resample is a row of counts, a metric is a product with it.

A loop over scikit-learn takes about a millisecond per resample and metric; this takes microseconds, and the
tests hold the two against each other.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator

import numpy as np

from regraft.measure.metrics import bin_of, log_losses

#: Counts held at once, in elements: 2 M of float64 are 16 MB.
BLOCK = 2_000_000


def draws(n: int, resamples: int, groups: np.ndarray | None, seed: int) -> Iterator[np.ndarray]:
    """Blocks of counts (R, n), float64, `resamples` rows in all: how often each sample was drawn, with
    replacement.

    With groups (n,) whole groups are drawn (cluster bootstrap), as many as there are; a row then need not
    sum to n.
    """
    rng = np.random.default_rng(seed)
    member = None if groups is None else np.unique(np.asarray(groups).astype(str), return_inverse=True)[1].reshape(-1)
    units = n if member is None else int(member.max()) + 1
    rows = max(1, BLOCK // max(n, units))
    for start in range(0, resamples, rows):
        r = min(rows, resamples - start)
        drawn = rng.integers(0, units, size=(r, units)) + np.arange(r)[:, None] * units
        counts = np.bincount(drawn.ravel(), minlength=r * units).reshape(r, units).astype(np.float64)
        yield counts if member is None else counts[:, member]


def prepared(name: str, probabilities: np.ndarray, labels: np.ndarray) -> Callable[[np.ndarray], np.ndarray]:
    """A function from counts (R, N) to the metric of each resample (R,); nan where a resample makes it
    meaningless.

    probabilities (N, K) finite float64, labels (N,) int64, as `metrics.checked` gives them.
    """
    classes = probabilities.shape[1]
    correct = (probabilities.argmax(axis=1) == labels).astype(np.float64)
    if name == "accuracy":
        return lambda counts: counts @ correct / counts.sum(axis=1)
    if name == "nll":
        losses = log_losses(probabilities, labels)
        return lambda counts: counts @ losses / counts.sum(axis=1)
    if name == "ece":
        return _ece(probabilities, correct)
    if name == "auc":
        return _auc(probabilities, labels)
    true = np.eye(classes)[labels]
    hit = true * correct[:, None]
    if name == "balanced_accuracy":
        return lambda counts: _mean_where(counts @ hit, counts @ true)
    guessed = np.eye(classes)[probabilities.argmax(axis=1)]
    # F1 = 2 TP / (true + predicted), over the classes that were seen or predicted: scikit-learn's convention.
    return lambda counts: _mean_where(2 * (counts @ hit), counts @ (true + guessed))


def _mean_where(above: np.ndarray, below: np.ndarray) -> np.ndarray:
    """Row means of above / below over the columns where below > 0."""
    seen = below > 0
    total = np.where(seen, above / np.where(seen, below, 1), 0).sum(axis=1)
    return np.asarray(total / np.maximum(seen.sum(axis=1), 1))


def _ece(probabilities: np.ndarray, correct: np.ndarray, bins: int = 15) -> Callable[[np.ndarray], np.ndarray]:
    confidence = probabilities.max(axis=1)
    gaps = np.eye(bins)[bin_of(confidence, bins)] * (correct - confidence)[:, None]
    return lambda counts: np.abs(counts @ gaps).sum(axis=1) / counts.sum(axis=1)


def _auc(probabilities: np.ndarray, labels: np.ndarray) -> Callable[[np.ndarray], np.ndarray]:
    if probabilities.shape[1] == 2:
        return _binary_auc(probabilities[:, 1], labels == 1)
    parts = [_binary_auc(probabilities[:, k], labels == k) for k in np.unique(labels)]

    def macro(counts: np.ndarray) -> np.ndarray:
        values = np.stack([part(counts) for part in parts])
        seen = np.isfinite(values)
        total = np.where(seen, values, 0).sum(axis=0)
        return np.where(seen.any(axis=0), total / np.maximum(seen.sum(axis=0), 1), np.nan)

    return macro


def _binary_auc(scores: np.ndarray, positive: np.ndarray) -> Callable[[np.ndarray], np.ndarray]:
    """Share of (positive, negative) pairs in the right order, ties half: Mann-Whitney's U over the number of
    pairs."""
    order = np.argsort(scores, kind="stable")
    starts = np.flatnonzero(np.r_[True, np.diff(scores[order]) > 0])  # one entry per distinct score
    sign = positive[order]

    def area(counts: np.ndarray) -> np.ndarray:
        ranked = counts[:, order]
        up = np.add.reduceat(ranked * sign, starts, axis=1)
        down = np.add.reduceat(ranked * ~sign, starts, axis=1)
        won = (up * (np.cumsum(down, axis=1) - down / 2)).sum(axis=1)
        pairs = up.sum(axis=1) * down.sum(axis=1)
        return np.where(pairs > 0, won / np.where(pairs > 0, pairs, 1), np.nan)

    return area
