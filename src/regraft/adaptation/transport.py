"""Entropic optimal transport in the log domain, and the map of the source onto the target that it gives.

Papers: Cuturi, "Sinkhorn Distances", NeurIPS 2013, arXiv:1306.0895; Courty et al., "Optimal Transport for Domain
Adaptation", TPAMI 2017, arXiv:1507.00504; for rows that were not fitted, Pooladian & Niles-Weed, "Entropic Estimation
of Optimal Transport Maps", 2021, arXiv:2109.12004. Cost is the squared Euclidean distance; all rows weigh the same.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.special import logsumexp, softmax

from regraft.adaptation.distances import squared_distances
from regraft.core.errors import UsageError

Array = NDArray[np.float64]

#: Quick multiplicative steps between two exact steps in the log domain.
QUICK_STEPS = 20
#: Neither factor of a quick step leaves this range; the exact step that follows repairs what was cut.
SMALLEST, LARGEST = 1e-100, 1e100


@dataclass(frozen=True)
class EntropicMap:
    """x ↦ Σⱼ wⱼ(x) yⱼ, w(x) = softmax of (gⱼ − ‖x − yⱼ‖²) / epsilon over the target's rows.

    For a fitted row that is the barycentric map Σⱼ γᵢⱼ yⱼ / Σⱼ γᵢⱼ of its row of the plan γ, and it is defined for any
    other row too. rows: yⱼ, (M, D); potential: g, (M,), in units of the cost; epsilon in the same units.
    """

    rows: Array
    potential: Array
    epsilon: float

    def __call__(self, features: np.ndarray) -> Array:
        """(N, D) → (N, D) float64."""
        mapped = np.empty((len(features), self.rows.shape[1]))
        for start in range(0, len(features), 1024):
            cost = squared_distances(features[start : start + 1024], self.rows)
            mapped[start : start + 1024] = softmax((self.potential - cost) / self.epsilon, axis=1) @ self.rows
        return mapped


def entropic_map(source: np.ndarray, target: np.ndarray, entropy: float) -> EntropicMap:
    """The map of source rows (N, D) onto target rows (M, D). entropy: epsilon as a multiple of the median cost.

    Raises UsageError unless entropy > 0.
    """
    if not entropy > 0:
        raise UsageError(f"Optimal transport got entropy={entropy}: a number above 0 is needed.")
    cost = squared_distances(source, target)
    epsilon = entropy * (float(np.median(cost)) or float(cost.mean()) or 1.0)
    return EntropicMap(np.asarray(target, dtype=np.float64), sinkhorn(cost, epsilon)[1], epsilon)


def sinkhorn(cost: Array, epsilon: float, *, tolerance: float = 1e-4, rounds: int = 200) -> tuple[Array, Array]:
    """Potentials f (N,) and g (M,) of the plan exp((fᵢ + gⱼ − costᵢⱼ) / epsilon) between uniform weights.

    cost (N, M) and epsilon in the same units. The plan's columns sum to 1 / M exactly; its rows to 1 / N within
    `tolerance`, summed over the rows, or as near as `rounds` rounds of 21 steps at the last epsilon bring them. Epsilon
    falls from the cost's range to its value by halves, each start being the previous solution: with a small epsilon
    alone it takes far more steps. The map of `EntropicMap` divides by the rows' sums, so their error is not in it.
    """
    f, g = np.zeros(len(cost)), np.zeros(cost.shape[1])
    step = max(epsilon, float(np.ptp(cost)))
    while step > epsilon:
        f, g = _balance(cost, f, g, step, 1e-2, 2)
        step /= 2
    return _balance(cost, f, g, epsilon, tolerance, rounds)


def _balance(cost: Array, f: Array, g: Array, epsilon: float, tolerance: float, rounds: int) -> tuple[Array, Array]:
    """Sinkhorn's steps at one epsilon: an exact one in the log domain, then quick ones on the plan itself."""
    a, b = 1 / len(f), 1 / len(g)
    for _ in range(rounds):
        f = epsilon * (np.log(a) - logsumexp((g - cost) / epsilon, axis=1))
        g = epsilon * (np.log(b) - logsumexp((f[:, None] - cost) / epsilon, axis=0))
        plan = np.exp((f[:, None] + g - cost) / epsilon)
        if np.abs(plan.sum(axis=1) - a).sum() < tolerance:
            break
        u = np.ones(len(f))
        for _ in range(QUICK_STEPS):
            v = np.clip(b / np.maximum(u @ plan, SMALLEST), SMALLEST, LARGEST)
            u = np.clip(a / np.maximum(plan @ v, SMALLEST), SMALLEST, LARGEST)
        f, g = f + epsilon * np.log(u), g + epsilon * np.log(v)
    else:
        # The last quick step fitted the rows; the columns are exact again after this one.
        g = epsilon * (np.log(b) - logsumexp((f[:, None] - cost) / epsilon, axis=0))
    return f, g
