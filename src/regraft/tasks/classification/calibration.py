"""What held-out samples teach about a classifier: a temperature, and a threshold below which it abstains."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, ClassVar

import numpy as np
from torch import Tensor

from regraft.measure.probabilities import softmax
from regraft.tasks.classification.reading import ClassReader


@dataclass(frozen=True)
class ClassCalibration:
    """temperature divides the logits before the softmax; rule: of `measure.abstention`, with the threshold.

    unknown: whether an answer below the threshold is "none of these classes" and not "not sure".
    """

    temperature: float = 1.0
    rule: Mapping[str, float] = field(default_factory=lambda: {"threshold": 0.0})
    unknown: bool = False

    outputs: ClassVar[tuple[str, ...]] = ("probabilities", "logits")

    @property
    def threshold(self) -> float:
        return float(self.rule["threshold"])

    def answers(self, outputs: np.ndarray) -> np.ndarray:
        return softmax(outputs, self.temperature)

    def scored(self, answers: np.ndarray) -> np.ndarray:
        return answers

    def finish(self, outputs: Tensor) -> tuple[Tensor, ...]:
        return (outputs / self.temperature).softmax(dim=1), outputs

    def reader(self, labels: tuple[str, ...]) -> ClassReader:
        return ClassReader(labels, self.threshold, self.unknown)

    def to_manifest(self) -> dict[str, Any]:
        return {"temperature": self.temperature, "threshold": self.threshold, "unknown": self.unknown}

    def to_metadata(self) -> dict[str, Any]:
        return {"temperature": self.temperature, "unknown": self.unknown}

    @classmethod
    def read(cls, described: Mapping[str, Any]) -> ClassCalibration:
        """What `to_manifest` gave; the threshold and `unknown` came later than the temperature."""
        rule = {"threshold": float(described.get("threshold", 0.0))}
        return cls(float(described["temperature"]), rule, described.get("unknown") is True)
