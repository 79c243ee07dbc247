"""What the loop is told, and what it tells."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from regraft.engine.schedules import schedules


@dataclass(frozen=True)
class FitSettings:
    """Settings of one fit.

    steps: optimiser steps in all. accumulate: batches per step. warmup: share of the steps in which the rate rises.
    schedule: how it falls after that, a name in `schedules`; optimizer: a name in `optimizers`.
    final_lr: share of the base rate that the schedule ends at. clip_norm: largest gradient norm, None = off.
    ema: decay of the running average of the weights, 0 = off. evaluate_every: steps between evaluations.
    patience: evaluations without a better one before stopping, None = never; those before patience_from of the steps do
    not count. keep_start: whether the weights before the first step may be the best. limit_s: seconds of training,
    counted over resumes, None = none. checkpoint_every_s: seconds between checkpoints. betas: decay of AdamW's two
    running averages.
    """

    steps: int
    accumulate: int = 1
    weight_decay: float = 0.02
    warmup: float = 0.1
    final_lr: float = 0.01
    clip_norm: float | None = 1.0
    ema: float = 0.0
    evaluate_every: int = 0
    patience: int | None = None
    patience_from: float = 0.0
    keep_start: bool = True
    limit_s: float | None = None
    checkpoint_every_s: float = 30.0
    optimizer: str = "adamw"
    schedule: str = "cosine"
    betas: tuple[float, float] = (0.9, 0.999)
    seed: int = 0

    def lr_factor(self, progress: float) -> float:
        """The share of the base rate at a progress in [0, 1]: linear warm-up from 0, then the schedule.

        Raises UsageError for a schedule that there is not.
        """
        schedule = schedules.get(self.schedule)
        if progress < self.warmup:
            return progress / self.warmup
        done = (progress - self.warmup) / max(1e-9, 1 - self.warmup)
        return schedule(min(1.0, done), self.final_lr)


@dataclass(frozen=True)
class StepRecord:
    """What the loop says after a step, or after an evaluation (then `values` has its figures).

    rate: samples per second so far; remaining_s: at that rate, to the end of the plan. logs: what the task said beside
    the loss of the last batch.
    """

    step: int
    steps: int
    epoch: float
    loss: float
    lr: float
    rate: float
    remaining_s: float
    elapsed_s: float
    values: Mapping[str, float] = field(default_factory=dict)
    logs: Mapping[str, float] = field(default_factory=dict)
