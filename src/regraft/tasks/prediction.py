"""The answer to one picture, the same whichever runtime gave it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any, Protocol

import numpy as np

from regraft.core.errors import UsageError
from regraft.measure.conformal import ConformalInterval

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


@dataclass(frozen=True)
class NumberPrediction:
    """The number that a model reads off one picture.

    number: None where the picture could not be read. low, high: the interval that covers the true number of a picture
    like those of the model's validation with the probability `coverage`; None where the model has none.
    """

    path: str | None
    number: float | None
    low: float | None = None
    high: float | None = None
    coverage: float | None = None
    error: str | None = None

    def told(self, top: int = 1) -> str:
        """One line for people, fields parted by tabs: path, number, interval with its coverage."""
        assert self.number is not None, "a picture that could not be read has an error to tell instead"
        within = "" if self.low is None else f"\t[{self.low:.5g}, {self.high:.5g}] with {self.coverage:.0%}"
        return f"{self.path}\t{self.number:.5g}{within}"

    def to_json(self) -> dict[str, Any]:
        """A JSON-ready dictionary."""
        return asdict(self)


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


def check_options(top: int, threshold: float, batch_size: int) -> None:
    """UsageError for a number that cannot mean anything."""
    if top < 1 or batch_size < 1 or not 0 <= threshold <= 1:
        raise UsageError(
            f"Predicting got top={top}, threshold={threshold}, batch_size={batch_size}; "
            "accepted: top ≥ 1, 0 ≤ threshold ≤ 1, batch_size ≥ 1."
        )


class Reader(Protocol):
    """Rows (K,) of a model's answers → predictions."""

    def read(self, path: str | None, row: np.ndarray, *, top: int, threshold: float) -> Prediction | NumberPrediction:
        """One row of answers as a prediction."""
        ...

    def unread(self, path: str | None, error: str) -> Prediction | NumberPrediction:
        """The prediction for a picture that could not be read."""
        ...


@dataclass(frozen=True)
class ClassReader:
    """Rows are probabilities of these labels. threshold: the model's own, in [0, 1]; unknown: as for `answer`."""

    labels: tuple[str, ...]
    threshold: float = 0.0
    unknown: bool = False

    def read(self, path: str | None, row: np.ndarray, *, top: int, threshold: float) -> Prediction:
        return answer(path, row, self.labels, top=top, threshold=threshold, unknown=self.unknown)

    def unread(self, path: str | None, error: str) -> Prediction:
        return Prediction(path, None, 0.0, error=error)


@dataclass(frozen=True)
class NumberReader:
    """Rows are one number each; top and threshold, which are about classes, change nothing."""

    interval: ConformalInterval

    def read(self, path: str | None, row: np.ndarray, *, top: int, threshold: float) -> NumberPrediction:
        number = float(row[0])
        within = self.interval.around(row.astype(np.float64))
        if within is None:
            return NumberPrediction(path, number)
        return NumberPrediction(path, number, float(within[0][0]), float(within[1][0]), self.interval.coverage)

    def unread(self, path: str | None, error: str) -> NumberPrediction:
        return NumberPrediction(path, None, error=error)
