"""What held-out samples teach about a regression: how far its numbers may be off."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
from torch import Tensor

from regraft.measure.conformal import UNKNOWN, ConformalInterval
from regraft.tasks.regression.reading import NumberReader


@dataclass(frozen=True)
class NumberCalibration:
    """How far the numbers may be off; they themselves stay as they are."""

    interval: ConformalInterval

    outputs: ClassVar[tuple[str, ...]] = ("numbers",)
    threshold: ClassVar[float] = 0.0

    def answers(self, outputs: np.ndarray) -> np.ndarray:
        return np.asarray(outputs, dtype=np.float64)

    def scored(self, answers: np.ndarray) -> np.ndarray:
        return answers

    def finish(self, outputs: Tensor) -> tuple[Tensor, ...]:
        return (outputs,)

    def reader(self, labels: tuple[str, ...]) -> NumberReader:
        return NumberReader(self.interval)

    def to_manifest(self) -> dict[str, Any]:
        # The first version of the format asks every artifact for a temperature.
        return {"temperature": 1.0, "interval": self.interval.to_json()}

    def to_metadata(self) -> dict[str, Any]:
        return {"interval": self.interval.to_json()}

    @classmethod
    def read(cls, described: Mapping[str, Any]) -> NumberCalibration:
        """What `to_manifest` gave; a manifest that says nothing of an interval has none."""
        value = described.get("interval")
        return cls(UNKNOWN if value is None else ConformalInterval.from_json(value))
