"""A regression's answer to one sample."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from regraft.measure.conformal import ConformalInterval


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


@dataclass(frozen=True)
class NumberReader:
    """Rows are one number each; top and threshold, which are about classes, change nothing."""

    interval: ConformalInterval

    def read(self, path: str | None, row: np.ndarray, *, top: int, threshold: float | None) -> NumberPrediction:
        number = float(row[0])
        within = self.interval.around(row.astype(np.float64))
        if within is None:
            return NumberPrediction(path, number)
        return NumberPrediction(path, number, float(within[0][0]), float(within[1][0]), self.interval.coverage)

    def unread(self, path: str | None, error: str) -> NumberPrediction:
        return NumberPrediction(path, None, error=error)
