"""What held-out samples teach about several labels: probabilities that hold, and a threshold for each label."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar, Final

import numpy as np
import torch
from scipy.optimize import minimize
from torch import Tensor

from regraft.tasks.multilabel.reading import LabelReader

#: A label that fewer held-out samples have, or lack, keeps the threshold 1/2: there is nothing to tune it on.
FEW: Final = 3
#: How far a temperature may be from 1, as a factor, and a threshold from the ends.
FURTHEST, EDGE = 20.0, 0.02


@dataclass(frozen=True)
class LabelCalibration:
    """probability = sigmoid((logit − shift) / temperature); a label applies from its threshold on. Both (S,).

    The shift takes back what the weights of rare labels did to the probabilities (Platt's scaling with one slope for
    all labels: Platt, "Probabilistic Outputs for Support Vector Machines", 1999, with his smoothed targets).
    """

    shifts: tuple[float, ...]
    thresholds: tuple[float, ...]
    temperature: float = 1.0

    outputs: ClassVar[tuple[str, ...]] = ("probabilities", "logits")
    threshold: ClassVar[float] = 0.0

    def answers(self, outputs: np.ndarray) -> np.ndarray:
        return self.scored(probabilities(outputs, np.asarray(self.shifts), self.temperature))

    def scored(self, answers: np.ndarray) -> np.ndarray:
        """Probabilities (N, S) → (N, S, 2): with whether each is over its threshold."""
        given = np.asarray(answers, dtype=np.float64)
        return np.stack([given, given >= np.asarray(self.thresholds)], axis=2)

    def finish(self, outputs: Tensor) -> tuple[Tensor, ...]:
        shifts = torch.tensor(self.shifts, dtype=outputs.dtype, device=outputs.device)
        return ((outputs - shifts) / self.temperature).sigmoid(), outputs

    def reader(self, labels: tuple[str, ...]) -> LabelReader:
        return LabelReader(labels, self.thresholds)

    def to_manifest(self) -> dict[str, Any]:
        return {
            "temperature": self.temperature, "shifts": list(self.shifts), "thresholds": list(self.thresholds),
        }  # fmt: skip

    def to_metadata(self) -> dict[str, Any]:
        return {"kind": "multilabel", **self.to_manifest()}

    @classmethod
    def read(cls, described: Mapping[str, Any]) -> LabelCalibration:
        """What `to_manifest` gave; ValueError where the labels' numbers are not as many as the labels."""
        shifts, thresholds = (tuple(float(v) for v in described[key]) for key in ("shifts", "thresholds"))
        if not len(shifts) == len(thresholds) == len(described["labels"]):
            raise ValueError(f"{len(described['labels'])} labels, {len(shifts)} shifts, {len(thresholds)} thresholds")
        return cls(shifts, thresholds, float(described["temperature"]))

    @classmethod
    def plain(cls, n_labels: int) -> LabelCalibration:
        """Where nothing is known: probabilities as they come, and half of it as threshold."""
        return cls((0.0,) * n_labels, (0.5,) * n_labels)


def fit_calibration(logits: np.ndarray, y: np.ndarray) -> LabelCalibration:
    """From logits (N, S) and y (N, S) of samples that the model has not learned from."""
    shifts, temperature = fit_shifts(logits, y)
    thresholds = best_thresholds(probabilities(logits, shifts, temperature), y)
    return LabelCalibration(tuple(map(float, shifts)), tuple(map(float, thresholds)), temperature)


def probabilities(logits: np.ndarray, shifts: np.ndarray, temperature: float) -> np.ndarray:
    """Probabilities (N, S) of logits (N, S)."""
    scaled = (np.asarray(logits, dtype=np.float64) - shifts) / temperature
    return np.asarray(1 / (1 + np.exp(-np.clip(scaled, -500, 500))))


def fit_shifts(logits: np.ndarray, y: np.ndarray) -> tuple[np.ndarray, float]:
    """The shifts (S,) and the temperature with the least log-loss, against Platt's smoothed targets."""
    logits = np.asarray(logits, dtype=np.float64)
    have, n = y.sum(axis=0), len(y)
    targets = np.where(y > 0, (have + 1) / (have + 2), 1 / (n - have + 2))

    def objective(flat: np.ndarray) -> tuple[float, np.ndarray]:
        slope = np.exp(-flat[-1])
        scaled = slope * (logits - flat[:-1])
        loss = (np.logaddexp(0, scaled) - targets * scaled).mean()
        error = (probabilities(scaled, np.zeros(1), 1.0) - targets) / scaled.size
        gradient = np.append(-slope * error.sum(axis=0), -(error * scaled).sum())
        return float(loss), gradient

    limit = np.log(FURTHEST)
    bounds = [(None, None)] * logits.shape[1] + [(-limit, limit)]
    found = minimize(objective, np.zeros(logits.shape[1] + 1), jac=True, method="L-BFGS-B", bounds=bounds)
    return np.asarray(found.x[:-1]), float(np.exp(found.x[-1]))


def best_thresholds(found: np.ndarray, y: np.ndarray) -> np.ndarray:
    """For each label the threshold (S,) with the greatest F1 on probabilities (N, S), in the middle of two of them.

    Of equally good ones the nearest to 1/2. Tuned on few samples it is a guess: where fewer than three have the label,
    or lack it, it is 1/2.
    """
    best = np.full(y.shape[1], 0.5)
    for k in range(y.shape[1]):
        have = int(y[:, k].sum())
        if min(have, len(y) - have) < FEW:
            continue
        different = np.unique(found[:, k])
        middles = np.append((different[1:] + different[:-1]) / 2, 0.5)
        tried = middles[(middles >= EDGE) & (middles <= 1 - EDGE)]
        given = found[:, k, None] >= tried
        f1 = 2 * (given & (y[:, k, None] > 0)).sum(axis=0) / (given.sum(axis=0) + have)
        best[k] = tried[np.lexsort((np.abs(tried - 0.5), -f1))[0]]
    return best
