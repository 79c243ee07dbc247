"""The answer to one picture, the same whichever runtime gave it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from regraft.core.errors import UsageError


@dataclass(frozen=True)
class Prediction:
    """What a model says of one picture.

    path: as given, None for a picture that came as pixels. label: None where the model abstained (confidence
    below the threshold) or the picture could not be read. confidence: probability of the likeliest label, in
    [0, 1]. top: the likeliest (label, probability), best first; empty where there is an error. error: why
    there is no answer.
    """

    path: str | None
    label: str | None
    confidence: float
    top: tuple[tuple[str, float], ...] = ()
    error: str | None = None

    @property
    def abstained(self) -> bool:
        """Whether the model looked and was not sure enough."""
        return self.label is None and self.error is None

    def to_json(self) -> dict[str, Any]:
        """A JSON-ready dictionary; `abstained` tells the two meanings of a missing label apart."""
        return {
            "path": self.path,
            "label": self.label,
            "confidence": self.confidence,
            "abstained": self.abstained,
            "top": [{"label": label, "probability": probability} for label, probability in self.top],
            "error": self.error,
        }


def answer(
    path: str | None, probabilities: np.ndarray, labels: Sequence[str], *, top: int, threshold: float
) -> Prediction:
    """Probabilities (K,) → a prediction with at most `top` alternatives; ties keep the order of the labels."""
    order = np.argsort(-probabilities, kind="stable")
    best = tuple((labels[i], float(probabilities[i])) for i in order[:top])
    confidence = float(probabilities[order[0]])
    return Prediction(path, labels[order[0]] if confidence >= threshold else None, confidence, best)


def check_options(top: int, threshold: float, batch_size: int) -> None:
    """UsageError for a number that cannot mean anything."""
    if top < 1 or batch_size < 1 or not 0 <= threshold <= 1:
        raise UsageError(
            f"Predicting got top={top}, threshold={threshold}, batch_size={batch_size}; "
            "accepted: top ≥ 1, 0 ≤ threshold ≤ 1, batch_size ≥ 1."
        )
