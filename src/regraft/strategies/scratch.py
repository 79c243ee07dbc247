"""The control: the same network from random weights, which transfer is measured against."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import torch

from regraft.core.types import Rule, Task
from regraft.strategies.base import S, Strategy, register

#: Before this share of its steps the control is not stopped for standing still.
PATIENCE_FROM = 0.5


@register
class Scratch(Strategy):
    """Everything trains at one rate, which is higher than fine-tuning's, and statistics are the data's own."""

    name = "scratch"
    control = True
    usual = True
    cost = 100

    @property
    def base_lr(self) -> float:
        return self.options.scratch_lr

    @property
    def keeps_statistics(self) -> bool:
        return False

    def prepare(self, task: Task, seed: int) -> Task:
        torch.manual_seed(seed)
        task.reset_parameters()
        return task

    def rules(self, task: Task) -> Sequence[Rule]:
        return [Rule(".*", 1.0)]

    def settings(self, usual: S) -> S:
        """The control is judged when it has been trained: random weights that a handful of validation pictures happen
        to like are none, and one that finds its way late is not stopped while its rate is still high."""
        return replace(usual, patience_from=PATIENCE_FROM, keep_start=False)
