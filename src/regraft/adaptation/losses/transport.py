"""Entropic optimal transport from labelled source rows to unlabelled target rows.

Papers: Cuturi, "Sinkhorn Distances", NeurIPS 2013, arXiv:1306.0895; Courty et al., "Optimal Transport for Domain
Adaptation", TPAMI 2017, arXiv:1507.00504, whose class regularisation is solved as in Courty, Flamary & Tuia, ECML 2014.
All rows of a domain weigh the same. Steps are in the log domain, so that a small regularisation does not underflow.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from scipy.special import logsumexp

Array = NDArray[np.float64]
Indices = NDArray[np.int64]

#: Quick multiplicative steps between two exact steps in the log domain.
QUICK_STEPS = 20
#: Neither factor of a quick step leaves this range; the exact step that follows repairs what was cut.
SMALLEST, LARGEST = 1e-100, 1e100
#: A class's share of a target row counts as at least this in the derivative of its root.
LEAST_SHARE = 1e-3


def class_transport(
    cost: Array, labels: Indices, epsilon: float, class_weight: float, *, iterations: int = 10
) -> Array:
    """The plan (N, M) of costs (N, M) that sends each target row's mass from few classes of the source, best from one.

    Courty et al. 2014: + class_weight · Σ over target rows and classes of the root of the class's share of that row,
    which is concave; every round solves the transport with its tangent added to the cost. The plan's columns sum to
    1 / M, its rows to about 1 / N. epsilon and class_weight in the cost's units; labels (N,) of the source. As the
    target's shares of the classes follow the source's, a strong label shift sends mass to wrong classes.
    """
    members = np.unique(labels, return_inverse=True)[1]
    belongs = np.eye(members.max() + 1)[members]
    f, g = sinkhorn(cost, epsilon, tolerance=1e-2, rounds=10)
    penalised = cost
    for _ in range(iterations if class_weight > 0 else 0):
        shares = belongs.T @ _plan(penalised, f, g, epsilon) * cost.shape[1]
        penalised = cost + class_weight * (0.5 / np.sqrt(shares + LEAST_SHARE))[members]
        f, g = _balance(penalised, f, g, epsilon, 1e-2, 2)
    f, g = _balance(penalised, f, g, epsilon, 1e-3, 50)
    return _plan(penalised, f, g, epsilon)


def sinkhorn(cost: Array, epsilon: float, *, tolerance: float = 1e-4, rounds: int = 200) -> tuple[Array, Array]:
    """Potentials f (N,) and g (M,) of the plan exp((fᵢ + gⱼ − costᵢⱼ) / epsilon) between uniform weights.

    cost (N, M) and epsilon in the same units. The plan's columns sum to 1 / M exactly; its rows to 1 / N within
    `tolerance`, summed over the rows, or as near as `rounds` rounds of 21 steps at the last epsilon bring them. Epsilon
    falls from the cost's range to its value by halves, each start being the previous solution: with a small epsilon
    alone it takes far more steps.
    """
    f, g = np.zeros(len(cost)), np.zeros(cost.shape[1])
    step = max(epsilon, float(np.ptp(cost)))
    while step > epsilon:
        f, g = _balance(cost, f, g, step, 1e-2, 2)
        step /= 2
    return _balance(cost, f, g, epsilon, tolerance, rounds)


def _plan(cost: Array, f: Array, g: Array, epsilon: float) -> Array:
    return np.asarray(np.exp((f[:, None] + g - cost) / epsilon))


def _balance(cost: Array, f: Array, g: Array, epsilon: float, tolerance: float, rounds: int) -> tuple[Array, Array]:
    """Sinkhorn's steps at one epsilon: an exact one in the log domain, then quick ones on the plan itself."""
    a, b = 1 / len(f), 1 / len(g)
    for _ in range(rounds):
        f = epsilon * (np.log(a) - logsumexp((g - cost) / epsilon, axis=1))
        g = epsilon * (np.log(b) - logsumexp((f[:, None] - cost) / epsilon, axis=0))
        plan = _plan(cost, f, g, epsilon)
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
