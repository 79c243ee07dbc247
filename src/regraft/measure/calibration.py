"""Confidence that means something: one temperature, reliability per bin, and when to abstain.

Paper: Guo et al., "On Calibration of Modern Neural Networks", ICML 2017, arXiv:1706.04599, sec. 4.2.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from regraft.core.errors import DataError, UsageError
from regraft.measure.metrics import bin_of, checked

#: The temperatures that are considered.
COLDEST, HOTTEST = 0.05, 20.0


def fit_temperature(logits: np.ndarray, labels: np.ndarray, *, doubting: bool = False) -> float:
    """The T in [0.05, 20] that minimises the mean NLL of softmax(logits / T); logits (N, K), labels (N,).

    Fit it on validation. In 1 / T the NLL is convex, so the one minimum is found. Differs from the paper
    where every sample is classified rightly: NLL then falls without end as T → 0, so the labels are smoothed
    by 1 / (N + 2) (Platt's correction, 1999), which says no more than N right answers can. doubting: smooth them
    in any case, so that models with and without a mistake can be compared. Raises DataError for no samples or logits
    that are not finite.
    """
    logits, labels = checked(logits, labels)
    if len(labels) == 0 or not np.isfinite(logits).all():
        raise DataError("A temperature is fitted on at least one labelled sample with finite logits; this is not that.")
    n, classes = logits.shape
    if classes == 1:
        return 1.0
    # Here and not above: commands that calibrate nothing start a second sooner without it.
    from scipy.optimize import minimize_scalar
    from scipy.special import log_softmax

    targets = np.zeros_like(logits)
    targets[np.arange(n), labels] = 1.0
    own = logits[np.arange(n), labels]
    others = np.where(targets > 0, -np.inf, logits).max(axis=1)
    if doubting or (own > others).all():
        doubt = 1 / (n + 2)
        targets = targets * (1 - doubt) + (1 - targets) * doubt / (classes - 1)

    def loss(log_temperature: float) -> float:
        return float(-float((targets * log_softmax(logits / np.exp(log_temperature), axis=1)).sum()) / n)

    bounds = (np.log(COLDEST), np.log(HOTTEST))
    found = minimize_scalar(loss, bounds=bounds, method="bounded", options={"xatol": 1e-6})
    # A bounded search stops just inside its bounds: look at them too.
    best = min((float(np.exp(found.x)), COLDEST, HOTTEST), key=lambda temperature: loss(float(np.log(temperature))))
    return float(best)


def reliability(probabilities: np.ndarray, labels: np.ndarray, bins: int = 15) -> list[dict[str, Any]]:
    """Per bin (low, high] of the top probability: n, mean confidence, accuracy (both None where the bin is
    empty).

    probabilities (N, K), labels (N,). The n-weighted mean gap between the two is the expected calibration
    error.
    """
    if bins < 1:
        raise UsageError(f"{bins} bins were asked for: at least 1 is needed.")
    probabilities, labels = checked(probabilities, labels)
    confidence = probabilities.max(axis=1) if len(labels) else np.zeros(0)
    correct = probabilities.argmax(axis=1) == labels if len(labels) else np.zeros(0, dtype=bool)
    index = bin_of(confidence, bins)
    out: list[dict[str, Any]] = []
    for b in range(bins):
        inside = index == b
        n = int(inside.sum())
        out.append(
            {
                "low": b / bins,
                "high": (b + 1) / bins,
                "n": n,
                "confidence": float(confidence[inside].mean()) if n else None,
                "accuracy": float(correct[inside].mean()) if n else None,
            }
        )
    return out


def abstention(
    probabilities: np.ndarray, labels: np.ndarray, *, target_accuracy: float | None = None
) -> dict[str, float]:
    """The smallest threshold on the top probability at which the answered samples reach the target accuracy.

    probabilities (N, K), labels (N,), from validation. A sample is answered where its top probability ≥
    threshold. The default target halves the error rate of answering everything. Returns threshold, the
    coverage (share answered) and accuracy reached there, and the target. Where no threshold reaches the
    target, it is the one with the highest accuracy, and `accuracy` < `target` says so. Raises UsageError for
    a target outside (0, 1], DataError for no samples.
    """
    probabilities, labels = checked(probabilities, labels)
    if len(labels) == 0:
        raise DataError("An abstention threshold is chosen on at least one labelled sample; there is none.")
    if target_accuracy is not None and not 0 < target_accuracy <= 1:
        raise UsageError(f"The target accuracy is {target_accuracy}: a fraction above 0, at most 1, is needed.")
    thresholds, coverage, risk = _steps(probabilities, labels)
    target = 1 - risk[-1] / 2 if target_accuracy is None else target_accuracy
    reached = np.flatnonzero(1 - risk >= target - 1e-12)
    at = int(reached[-1]) if len(reached) else int(len(risk) - 1 - np.argmin(risk[::-1]))
    # Answering everything needs no threshold: later pictures may be less sure than any of these.
    threshold = 0.0 if at == len(risk) - 1 else float(thresholds[at])
    return {
        "threshold": threshold,
        "coverage": float(coverage[at]),
        "accuracy": float(1 - risk[at]),
        "target": float(target),
    }


def risk_coverage(probabilities: np.ndarray, labels: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The curve of a model that answers its surest samples only: coverage (M,) rising to 1, and the error
    rate there.

    El-Yaniv & Wiener, "On the Foundations of Noise-free Selective Classification", JMLR 2010. One point per
    distinct top probability, so samples that tie are answered together. probabilities (N, K), labels (N,);
    empty for N = 0.
    """
    probabilities, labels = checked(probabilities, labels)
    if len(labels) == 0:
        return np.zeros(0), np.zeros(0)
    return _steps(probabilities, labels)[1:]


def _steps(probabilities: np.ndarray, labels: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Distinct top probabilities, falling; the share of samples at or above each; the error rate among
    those."""
    confidence = probabilities.max(axis=1)
    order = np.argsort(-confidence, kind="stable")
    wrong = np.cumsum(probabilities.argmax(axis=1)[order] != labels[order])
    last = np.flatnonzero(np.r_[np.diff(confidence[order]) < 0, True])
    return confidence[order][last], (last + 1) / len(labels), wrong[last] / (last + 1)
