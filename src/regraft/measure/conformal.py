"""How far a predicted number may be off: split-conformal intervals from residuals on pictures that were held out.

Paper: Lei, G'Sell, Rinaldo, Tibshirani & Wasserman, "Distribution-Free Predictive Inference for Regression", JASA 2018,
arXiv:1604.04173, algorithm 2: predicted ± the ⌈(n + 1)(1 − α)⌉-th smallest of n absolute residuals. It covers a new
picture with probability of at least 1 − α (theorem 2.2) where that picture and the n are exchangeable: drawn alike, and
none of them seen by the model. One width serves all pictures; it holds on average, not for each kind of picture.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from regraft.core.errors import UsageError

#: The share of new pictures whose number the interval is to contain.
COVERAGE = 0.9


@dataclass(frozen=True)
class ConformalInterval:
    """half_width: in the labels' unit; None where n residuals are too few for the coverage. coverage: in (0, 1)."""

    half_width: float | None
    coverage: float
    n: int

    def around(self, predicted: np.ndarray) -> tuple[np.ndarray, np.ndarray] | None:
        """(low, high) of predictions, each of their shape; None without a width."""
        return None if self.half_width is None else (predicted - self.half_width, predicted + self.half_width)

    def covers(self, predicted: np.ndarray, numbers: np.ndarray) -> float | None:
        """The share of numbers (N,) inside; None without a width or samples."""
        if self.half_width is None or len(numbers) == 0:
            return None
        return float((np.abs(np.asarray(predicted).reshape(-1) - numbers) <= self.half_width).mean())

    def to_json(self) -> dict[str, Any]:
        return {"half_width": self.half_width, "coverage": self.coverage, "n": self.n}

    @classmethod
    def from_json(cls, value: Mapping[str, Any]) -> ConformalInterval:
        """What `to_json` gave; KeyError, TypeError or ValueError for anything else."""
        width = value["half_width"]
        found = cls(None if width is None else float(width), float(value["coverage"]), int(value["n"]))
        if not 0 < found.coverage < 1 or (found.half_width is not None and not 0 <= found.half_width < math.inf):
            raise ValueError(f"no interval: {value!r}")
        return found


#: Where nothing is known of a model's residuals.
UNKNOWN = ConformalInterval(None, COVERAGE, 0)


def conformal_interval(predicted: np.ndarray, numbers: np.ndarray, *, coverage: float = COVERAGE) -> ConformalInterval:
    """The interval from predictions (N,) or (N, 1) and numbers (N,) of held-out pictures.

    Raises UsageError for a coverage outside (0, 1).
    """
    if not 0 < coverage < 1:
        raise UsageError(f"The coverage is {coverage}: a fraction between 0 and 1 is needed, such as 0.9.")
    residuals = np.sort(np.abs(np.asarray(predicted, dtype=np.float64).reshape(-1) - numbers))
    n = len(residuals)
    rank = math.ceil((n + 1) * coverage - 1e-9)  # 0.9 · 10 is 9, whatever floating point says
    if rank > n or not np.isfinite(residuals).all():
        return ConformalInterval(None, coverage, n)
    return ConformalInterval(float(residuals[rank - 1]), coverage, n)
