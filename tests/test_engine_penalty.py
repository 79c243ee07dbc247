"""A task's penalty counts once per phase, whatever a batch is cut into; schedules and optimisers are found by name."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor

from regraft.core.errors import UsageError
from regraft.core.types import Rule, Task
from regraft.engine import FitSettings, StepRecord, fit
from regraft.engine.optimizers import optimizers
from regraft.engine.schedules import schedules
from test_engine_failures import Narrow
from tiny_training import Regression, numbers, one_machine, plan_of

pytestmark = pytest.mark.usefixtures("one_thread")
DOUBLE = torch.float64
#: One step of plain gradient descent: with momentum at rest Nesterov's first step is 1.9 times the gradient.
ONE = FitSettings(1, optimizer="sgd", clip_norm=None, weight_decay=0.0, warmup=0.0, final_lr=1.0)


def towards(start: Task, strength: float) -> Callable[[Task], Tensor]:
    """L2-SP (Li et al. 2018, arXiv:1802.01483, eq. 2): half the squared distance to the weights that one began with."""
    kept = {name: value.detach().clone() - 0.5 for name, value in start.named_parameters()}

    def penalty(task: Task) -> Tensor:
        gaps = [(value - kept[name]).square().sum() for name, value in task.named_parameters()]
        return strength / 2 * torch.stack(gaps).sum()

    return penalty


def moved(task: Task, settings: FitSettings, batch: int) -> dict[str, Tensor]:
    """The gradient that one step followed, from how far the weights went."""
    before = {name: value.detach().clone() for name, value in task.named_parameters()}
    stream = numbers(8, batch, shuffle=False, dtype=DOUBLE)
    fit(task, {"train": stream}, plan_of(task, base_lr=0.001), settings, one_machine())
    return {name: (before[name] - value.detach()) / (0.001 * 1.9) for name, value in task.named_parameters()}


@pytest.mark.parametrize(("accumulate", "batch", "room"), [(1, 8, 8), (2, 4, 8), (4, 2, 8), (1, 8, 2), (2, 4, 1)])
def test_gradient_is_that_of_loss_and_penalty_by_hand(accumulate: int, batch: int, room: int) -> None:
    task = Narrow(room)
    task.penalty = towards(task, 0.7)
    by_hand = Regression(DOUBLE)
    whole = next(numbers(8, 8, shuffle=False, dtype=DOUBLE).epoch(0))
    (by_hand.predict(whole.x) - whole.y).square().sum(dim=1).mean().backward()
    found = moved(task, replace(ONE, accumulate=accumulate), batch)
    for name, parameter in by_hand.named_parameters():
        assert parameter.grad is not None
        expected = parameter.grad + 0.7 * 0.5  # every weight is half away from what it is held to
        torch.testing.assert_close(found[name], expected, rtol=0, atol=1e-9, msg=name)


def test_frozen_weights_feel_no_penalty_and_it_is_told() -> None:
    task = Regression(DOUBLE)
    task.penalty = towards(task, 2.0)
    before = task.a.weight.detach().clone()
    told: list[StepRecord] = []
    plan = plan_of(task, Rule("group:b", 1.0), Rule(".*", None))
    settings = replace(ONE, steps=2)
    fit(task, {"train": numbers(dtype=DOUBLE)}, plan, settings, one_machine(), on_step=told.append)
    count = sum(value.numel() for value in task.parameters())
    assert told[0].logs["penalty"] == pytest.approx(count * 0.25)
    assert torch.equal(task.a.weight, before) and told[1].logs["penalty"] < told[0].logs["penalty"]


def factors(**options: Any) -> list[float]:
    settings = FitSettings(100, **options)
    return [settings.lr_factor(n / 20) for n in range(21)]


def test_schedules_follow_their_formulas_after_the_same_warm_up() -> None:
    assert factors(schedule="constant", warmup=0.0) == [1.0] * 21
    stepped = factors(schedule="step", warmup=0.0, final_lr=0.01)
    assert stepped == pytest.approx([1.0] * 10 + [0.1] * 5 + [0.01] * 6)
    cosine = factors(schedule="cosine", warmup=0.0, final_lr=0.2)
    assert cosine == pytest.approx([0.2 + 0.4 * (1 + math.cos(math.pi * n / 20)) for n in range(21)])
    for name in schedules.names():
        warmed = factors(schedule=name, warmup=0.5)
        assert warmed[:10] == pytest.approx([n / 10 for n in range(10)])
        assert warmed[10] == pytest.approx(1.0) and all(0 < value <= 1 for value in warmed[10:])


def test_schedule_reaches_the_optimiser() -> None:
    told: list[float] = []
    task = Regression()
    settings = FitSettings(8, schedule="step", warmup=0.0, final_lr=0.01)
    fit(task, {"train": numbers()}, plan_of(task), settings, one_machine(), on_step=lambda r: told.append(r.lr))
    assert told == pytest.approx([0.01] * 3 + [0.001] * 2 + [0.0001] * 3)


@pytest.mark.parametrize("name", optimizers.names())
def test_every_optimiser_lowers_the_loss_and_keeps_each_group_s_rate(name: str) -> None:
    told: list[float] = []
    task = Regression()
    settings = FitSettings(60, optimizer=name, warmup=0.1)
    rules = (Rule("a.bias", None), Rule("group:a", 1.0), Rule("group:b", 2.0))
    frozen = task.a.bias.detach().clone()
    plan = plan_of(task, *rules, base_lr=0.01)
    fit(task, {"train": numbers()}, plan, settings, one_machine(), on_step=lambda r: told.append(r.loss))
    assert told[-1] < 0.7 * told[0] and torch.equal(task.a.bias, frozen)


@pytest.mark.parametrize(("field", "wrong", "near"), [("schedule", "cosin", "cosine"), ("optimizer", "SGDW", "sgd")])
def test_unknown_names_get_the_nearest_match(field: str, wrong: str, near: str) -> None:
    from regraft.recipes.fit.options import FitConfig

    task = Regression()
    settings = replace(FitSettings(2), **{field: wrong})
    with pytest.raises(UsageError, match=f"no {field} {wrong!r}. Did you mean {near!r}"):
        fit(task, {"train": numbers()}, plan_of(task), settings, one_machine())
    with pytest.raises(UsageError, match=f"no {field} {wrong!r}. Did you mean {near!r}"):
        FitConfig.checked(roots=("pictures",), **{field: wrong})
