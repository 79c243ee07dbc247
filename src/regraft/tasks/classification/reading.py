"""A classifier's answer to one sample."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

#: The answer below the threshold of a model that was adapted to a target with other classes beside its own.
UNKNOWN = "unknown"


@dataclass(frozen=True)
class Prediction:
    """What a model says of one picture.

    path: as given, None for a picture that came as pixels. label: None where the model abstained (confidence
    below the threshold) or the picture could not be read; "unknown" where the model takes it for none of its classes.
    confidence: probability of the likeliest label, in [0, 1]. top: the likeliest (label, probability), best first;
    empty where there is an error. error: why there is no answer. unknown: tells that answer from a class of that name.
    """

    path: str | None
    label: str | None
    confidence: float
    top: tuple[tuple[str, float], ...] = ()
    error: str | None = None
    unknown: bool = False

    @property
    def abstained(self) -> bool:
        """Whether the model looked and was not sure enough."""
        return self.label is None and self.error is None

    def told(self, top: int = 1) -> str:
        """One line for people, fields parted by tabs: path, label, confidence, and with `top` above 1 the others."""
        named = "  ".join(f"{label} {share:.1%}" for label, share in self.top)
        return f"{self.path}\t{self.label or 'not sure'}\t{self.confidence:.1%}" + (f"\t{named}" if top > 1 else "")

    def to_json(self) -> dict[str, Any]:
        """A JSON-ready dictionary; `abstained` tells the two meanings of a missing label apart."""
        return {
            "path": self.path,
            "label": self.label,
            "confidence": self.confidence,
            "abstained": self.abstained,
            "unknown": self.unknown,
            "top": [{"label": label, "probability": probability} for label, probability in self.top],
            "error": self.error,
        }


def answer(
    path: str | None,
    probabilities: np.ndarray,
    labels: Sequence[str],
    *,
    top: int,
    threshold: float,
    unknown: bool = False,
) -> Prediction:
    """Probabilities (K,) → a prediction with at most `top` alternatives; ties keep the order of the labels.

    unknown: whether a confidence below the threshold means "none of these classes" and not "not sure".
    """
    order = np.argsort(-probabilities, kind="stable")
    best = tuple((labels[i], float(probabilities[i])) for i in order[:top])
    confidence = float(probabilities[order[0]])
    if confidence >= threshold:
        return Prediction(path, labels[order[0]], confidence, best)
    return Prediction(path, UNKNOWN if unknown else None, confidence, best, unknown=unknown)


@dataclass(frozen=True)
class ClassReader:
    """Rows are probabilities of these labels. threshold: the model's own, in [0, 1]; unknown: as for `answer`."""

    labels: tuple[str, ...]
    threshold: float = 0.0
    unknown: bool = False

    def read(self, path: str | None, row: np.ndarray, *, top: int, threshold: float | None) -> Prediction:
        least = self.threshold if threshold is None else threshold
        return answer(path, row, self.labels, top=top, threshold=least, unknown=self.unknown)

    def unread(self, path: str | None, error: str) -> Prediction:
        return Prediction(path, None, 0.0, error=error)
