"""Calibration for the target without its labels: how often candidates agree stands in for how often one is right.

A temperature fitted on the source is too sharp for a target that is harder (Ovadia et al. 2019, arXiv:1906.02530).
Models that were trained independently agree about as often as one of them is right, where together they are calibrated
(Jiang et al., "Assessing Generalization of SGD via Disagreement", ICLR 2022, arXiv:2106.13799). The candidates of an
adaptation share features and source labels, so the estimate leans upwards; `bench/adaptation.py` prints by how much.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from scipy.optimize import brentq

from regraft.adaptation.evidence.alarm import agreement

#: Fewer other candidates give no estimate.
LEAST_OTHERS = 2
#: Natural logarithms of the temperatures that are looked at.
RANGE = (-3.0, 5.0)


def estimated_accuracy(answers: np.ndarray, others: Sequence[np.ndarray]) -> float | None:
    """The share of target samples that `answers` (M,) has right, estimated; None with fewer than two others.

    The mean share on which another candidate answers the same. others: answers (M,) of candidates that learned from the
    target too.
    """
    return agreement(answers, others) if len(others) >= LEAST_OTHERS else None


def matching_temperature(logits: np.ndarray, accuracy: float) -> float:
    """The temperature at which the mean confidence of logits (M, K) is `accuracy`, within e^-3 … e^5.

    Mean confidence falls with the temperature, from 1 to 1/K, so there is one such temperature, or the nearer end.
    """

    def excess(log_temperature: float) -> float:
        scaled = logits / np.exp(log_temperature)
        scaled = scaled - scaled.max(axis=1, keepdims=True)
        return float((1 / np.exp(scaled).sum(axis=1)).mean()) - accuracy

    low, high = RANGE
    if excess(low) <= 0:
        return float(np.exp(low))
    if excess(high) >= 0:
        return float(np.exp(high))
    return float(np.exp(brentq(excess, low, high, xtol=1e-6)))
