"""Optimisers by name, and the way from a plan to one whose groups carry their real rates.

Lion (Chen et al. 2023, arXiv:2302.06675) and schedule-free AdamW are not among them: whether they serve better here
has not been measured. Another package adds one through the entry-point group `regraft.optimizer`.
"""

from __future__ import annotations

from typing import Any, Protocol

import torch
from torch import nn

from regraft.core.errors import PlanError
from regraft.core.registry import Registry
from regraft.engine.settings import FitSettings

#: Parameter groups as `torch.optim` takes them, each with its rate and decay.
Groups = list[dict[str, Any]]


class OptimizerBuilder(Protocol):
    """What a name stands for: parameter groups with their own rates, and the base rate `lr`."""

    def __call__(self, groups: Groups, lr: float, settings: FitSettings) -> torch.optim.Optimizer: ...


optimizers: Registry[OptimizerBuilder] = Registry("optimizer")


@optimizers.register("adamw")
def adamw(groups: Groups, lr: float, settings: FitSettings) -> torch.optim.Optimizer:
    """AdamW (Loshchilov & Hutter 2019, arXiv:1711.05101)."""
    return torch.optim.AdamW(groups, lr=lr, betas=settings.betas)


@optimizers.register("sgd")
def sgd(groups: Groups, lr: float, settings: FitSettings) -> torch.optim.Optimizer:
    """Stochastic gradient descent with Nesterov's momentum of 0.9."""
    return torch.optim.SGD(groups, lr=lr, momentum=0.9, nesterov=True)


class Row(Protocol):
    """One parameter of a plan."""

    @property
    def name(self) -> str: ...
    @property
    def lr(self) -> float | None: ...
    @property
    def from_progress(self) -> float: ...
    @property
    def decay(self) -> bool: ...


class PlanLike(Protocol):
    """What the loop needs of a plan; `regraft.strategies.Plan` is one."""

    @property
    def rows(self) -> tuple[Row, ...]: ...
    @property
    def base_lr(self) -> float: ...

    def trains(self, name: str, progress: float) -> bool: ...
    def thaw_points(self) -> tuple[float, ...]: ...
    def set_modes(self, task: nn.Module, progress: float) -> None: ...


def build_optimizer(task: nn.Module, plan: PlanLike, settings: FitSettings) -> torch.optim.Optimizer:
    """The optimiser that the settings name, with one group per (rate, thaw, decay).

    Raises PlanError where nothing trains, UsageError for a name that there is not.
    """
    build = optimizers.get(settings.optimizer)
    parameters = dict(task.named_parameters())
    groups: dict[tuple[float, float, bool], list[nn.Parameter]] = {}
    for row in plan.rows:
        if row.lr is not None:
            groups.setdefault((row.lr, row.from_progress, row.decay), []).append(parameters[row.name])
    if not groups:
        raise PlanError("The plan trains nothing: give at least one rule a rate.")
    described: Groups = [
        {
            "params": members,
            "lr": plan.base_lr * multiple,
            "peak_lr": plan.base_lr * multiple,
            "from_progress": start,
            "weight_decay": settings.weight_decay if decay else 0.0,
        }
        for (multiple, start, decay), members in groups.items()
    ]
    return build(described, plan.base_lr, settings)


def set_rates(optimizer: torch.optim.Optimizer, settings: FitSettings, progress: float) -> float:
    """Set every group's rate for this progress; returns the largest. A group that is not thawed yet has rate 0.

    Progress 0 of the warm-up would waste the first step, so the rate is taken at the step's end.
    """
    factor = settings.lr_factor(min(1.0, progress + 1 / settings.steps))
    largest = 0.0
    for group in optimizer.param_groups:
        lr = group["peak_lr"] * factor if progress >= group["from_progress"] else 0.0
        group["lr"] = lr
        largest = max(largest, lr)
    return largest
