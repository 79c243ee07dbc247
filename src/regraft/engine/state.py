"""What a fit has come to: its step, its best weights, how its loss stands. All of it survives a kill."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from torch import Tensor

from regraft.engine.settings import FitSettings, StepRecord


@dataclass
class State:
    """Everything of a fit that must survive a kill, beside weights and optimiser.

    bad: evaluations in a row without a better one. split: how many parts each batch is computed in. best: the weights
    of the best evaluation, empty without one.
    """

    step: int = 0
    elapsed_s: float = 0.0
    best_score: float = -math.inf
    best_step: int = -1
    bad: int = 0
    split: int = 1
    mean_loss: float = 0.0
    first_loss: float = 0.0
    samples: int = 0
    best: dict[str, Tensor] = field(default_factory=dict)

    def plain(self) -> dict[str, Any]:
        """The numbers alone, as a checkpoint keeps them; `best` stands beside them there."""
        return {name: value for name, value in self.__dict__.items() if name != "best"}

    def healthy(self, loss: float) -> bool:
        """Keep a running mean of the loss; False when it is no number or has left the range where it began."""
        if not math.isfinite(loss):
            self.mean_loss = loss
            return False
        if self.step == 1:
            self.mean_loss = self.first_loss = loss
        self.mean_loss = 0.9 * self.mean_loss + 0.1 * loss
        return self.mean_loss < 10 + 5 * abs(self.first_loss)

    def judged(self, score: float, weights: dict[str, Tensor], settings: FitSettings) -> None:
        """Remember weights that have that score, where it is the best so far."""
        if self.step == 0 and not settings.keep_start:
            self.best_step, self.best = 0, weights  # to fall back on; whatever has been trained is better
        elif score > self.best_score:
            self.best_score, self.best_step, self.best, self.bad = score, self.step, weights, 0
        elif self.step >= settings.patience_from * settings.steps:
            self.bad += 1

    def record(
        self,
        settings: FitSettings,
        steps_per_epoch: float,
        loss: float,
        lr: float,
        *,
        values: Mapping[str, float] | None = None,
        logs: Mapping[str, float] | None = None,
    ) -> StepRecord:
        """What there is to tell after this step, or after an evaluation that gave `values`."""
        per_step = self.elapsed_s / max(1, self.step)
        return StepRecord(
            step=self.step,
            steps=settings.steps,
            epoch=self.step / steps_per_epoch,
            loss=loss,
            lr=lr,
            rate=self.samples / max(1e-9, self.elapsed_s),
            remaining_s=per_step * (settings.steps - self.step),
            elapsed_s=self.elapsed_s,
            values=values or {},
            logs=dict(logs or {}),
        )
