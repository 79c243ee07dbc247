"""The step itself: accumulation, real rates per group, schedule, thawing and freezing, against formulas."""

from __future__ import annotations

import math
from dataclasses import replace
from itertools import pairwise
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from regraft.core.errors import PlanError, UsageError
from regraft.core.types import Rule, Task
from regraft.engine import FitSettings, StepRecord, fit
from regraft.engine.average import RunningAverage
from tiny_training import Blocks, Regression, numbers, one_machine, pictures, plan_of

pytestmark = pytest.mark.usefixtures("one_thread")
PLAIN = FitSettings(5, clip_norm=None)
RATES = (Rule("group:b", 10.0), Rule("group:a", 1.0))


def weights(task: nn.Module) -> dict[str, Tensor]:
    return {name: value.detach().clone() for name, value in task.state_dict().items()}


def train(task: Task, stream: Any, settings: FitSettings, *rules: Rule, base_lr: float = 0.01, **more: Any) -> Task:
    fit(task, {"train": stream}, plan_of(task, *rules, base_lr=base_lr), settings, one_machine(), **more)
    return task


@pytest.mark.parametrize("optimizer", ["sgd", "adamw"])
def test_four_batches_of_two_are_one_batch_of_eight(optimizer: str) -> None:
    settings = replace(PLAIN, optimizer=optimizer, clip_norm=0.7)
    double = torch.float64
    whole = weights(train(Regression(double), numbers(8, 8, dtype=double), settings))
    parts = weights(train(Regression(double), numbers(8, 2, dtype=double), replace(settings, accumulate=4)))
    for name, value in whole.items():
        assert value.dtype == double
        torch.testing.assert_close(parts[name], value, rtol=0, atol=1e-9)


def test_accumulation_counts_samples_not_batches() -> None:
    """Batches of 3, 3 and 1: the mean over seven samples, not the mean of three means."""
    double = torch.float64
    settings = replace(PLAIN, optimizer="sgd")
    whole = weights(train(Regression(double), numbers(7, 7, shuffle=False, dtype=double), settings))
    three = numbers(7, 3, shuffle=False, dtype=double)
    parts = weights(train(Regression(double), three, replace(settings, accumulate=3)))
    for name, value in whole.items():
        torch.testing.assert_close(parts[name], value, rtol=0, atol=1e-9)


def reference(settings: FitSettings, base_lr: float, multiples: dict[str, float]) -> dict[str, Tensor]:
    """SGD with Nesterov momentum and AdamW as their papers have them, in plain tensors."""
    stream = numbers(8, 8, dtype=torch.float64)
    task = Regression(torch.float64)
    first = {name: torch.zeros_like(p) for name, p in task.named_parameters()}
    second = {name: torch.zeros_like(p) for name, p in task.named_parameters()}
    for step in range(settings.steps):
        batch = next(stream.epoch(step))
        task.zero_grad()
        assert batch.y is not None
        (task.predict(batch.x) - batch.y).square().sum(dim=1).mean().backward()
        gradients = {n: p.grad.clone() for n, p in task.named_parameters() if p.grad is not None}
        norm = math.sqrt(sum(float(g.square().sum()) for g in gradients.values()))
        if settings.clip_norm is not None:
            scale = min(1.0, settings.clip_norm / (norm + 1e-6))
            gradients = {n: g * scale for n, g in gradients.items()}
        done = (step + 1) / settings.steps
        if done < settings.warmup:
            factor = done / settings.warmup
        else:
            turn = math.pi * (done - settings.warmup) / (1 - settings.warmup)
            factor = settings.final_lr + (1 - settings.final_lr) * (1 + math.cos(turn)) / 2
        with torch.no_grad():
            for name, p in task.named_parameters():
                lr = base_lr * multiples[name[0]] * factor
                decay = settings.weight_decay if name.endswith("weight") else 0.0
                g = gradients[name]
                if settings.optimizer == "sgd":
                    g = g + decay * p
                    first[name] = g if step == 0 else 0.9 * first[name] + g
                    p -= lr * (g + 0.9 * first[name])
                else:
                    p *= 1 - lr * decay
                    b1, b2 = settings.betas
                    first[name] = b1 * first[name] + (1 - b1) * g
                    second[name] = b2 * second[name] + (1 - b2) * g * g
                    m, v = first[name] / (1 - b1 ** (step + 1)), second[name] / (1 - b2 ** (step + 1))
                    p -= lr * m / (v.sqrt() + 1e-8)
    return weights(task)


@pytest.mark.parametrize("clip", [None, 0.5])
@pytest.mark.parametrize(
    ("optimizer", "betas"), [("sgd", (0.9, 0.999)), ("adamw", (0.9, 0.999)), ("adamw", (0.5, 0.9))]
)
def test_every_group_moves_by_its_own_rate(optimizer: str, betas: tuple[float, float], clip: float | None) -> None:
    settings = FitSettings(
        6, optimizer=optimizer, betas=betas, clip_norm=clip, weight_decay=0.3, warmup=0.4, final_lr=0.1
    )
    double = torch.float64
    found = weights(train(Regression(double), numbers(8, 8, dtype=double), settings, *RATES, base_lr=0.003))
    expected = reference(settings, 0.003, {"a": 1.0, "b": 10.0})
    for name, value in expected.items():
        torch.testing.assert_close(found[name], value, rtol=1e-9, atol=1e-10)
    swapped = reference(settings, 0.003, {"a": 10.0, "b": 1.0})
    assert not torch.allclose(found["a.weight"], swapped["a.weight"], atol=1e-4)


def test_warm_up_and_cosine_follow_the_formula() -> None:
    settings = FitSettings(100, warmup=0.2, final_lr=0.1)
    for progress in np.linspace(0, 1, 41):
        expected = progress / 0.2
        if progress >= 0.2:
            expected = 0.1 + 0.9 * (1 + np.cos(np.pi * (progress - 0.2) / 0.8)) / 2
        assert settings.lr_factor(float(progress)) == pytest.approx(expected, abs=1e-12)
    assert FitSettings(5, warmup=0.0).lr_factor(0.0) == 1.0
    assert FitSettings(5, warmup=1.0, final_lr=0.1).lr_factor(0.5) == 0.5


def test_rates_told_after_each_step_are_those_of_the_step_s_end() -> None:
    told: list[float] = []
    settings = FitSettings(10, warmup=0.3, final_lr=0.05)
    train(Regression(), numbers(), settings, *RATES, on_step=lambda record: told.append(record.lr))
    assert told == pytest.approx([0.1 * settings.lr_factor((n + 1) / 10) for n in range(10)])
    assert told[0] > 0 and told[2] == max(told) and told[-1] == pytest.approx(0.1 * 0.05)


def test_frozen_weights_and_statistics_stay_byte_for_byte_and_the_others_move() -> None:
    task = Blocks()
    before = weights(task)
    rules = (Rule("group:head", 10.0), Rule("group:body", 1.0), Rule(".*", None))
    train(task, pictures(), FitSettings(6, weight_decay=0.5), *rules)
    after = weights(task)
    frozen = [name for name in before if name.startswith("stem")]
    assert len(frozen) == 7  # convolution 2, norm 2, statistics 3
    for name, value in before.items():
        same = value.numpy().tobytes() == after[name].numpy().tobytes()
        assert same == (name in frozen), name


def test_thawing_starts_at_its_progress_with_its_statistics() -> None:
    task = Blocks()
    seen = [weights(task)]

    def on_step(record: StepRecord) -> None:
        seen.append(weights(task))

    rules = (Rule("group:stem", 1.0, 0.5), Rule(".*", 1.0))
    train(task, pictures(), FitSettings(4, weight_decay=0.5, warmup=0.0), *rules, on_step=on_step)
    for name in [n for n in seen[0] if n.startswith("stem")]:
        moved = [not torch.equal(old[name], new[name]) for old, new in pairwise(seen)]
        assert moved == [False, False, True, True], name
    assert not torch.equal(seen[0]["body.0.weight"], seen[1]["body.0.weight"])


def test_parameters_that_will_thaw_get_no_gradient_before() -> None:
    task = Blocks()
    states: list[bool] = []
    rules = (Rule("group:stem", 1.0, 0.5), Rule(".*", 1.0))
    train(task, pictures(), FitSettings(4), *rules, on_step=lambda _: states.append(task.stem[0].weight.requires_grad))
    assert states == [False, False, True, True]


def test_nothing_to_train_and_unknown_optimiser_are_told() -> None:
    with pytest.raises(PlanError, match="trains nothing"):
        train(Regression(), numbers(), PLAIN, Rule(".*", None))
    with pytest.raises(UsageError, match=r"no optimizer 'adam'\. Did you mean 'adamw'\? Known: adamw, sgd"):
        train(Regression(), numbers(), replace(PLAIN, optimizer="adam"))
    with pytest.raises(PlanError, match="Nothing to train on: 0 steps"):
        train(Regression(), numbers(), replace(PLAIN, steps=0))
    with pytest.raises(PlanError, match="Nothing to train on"):
        train(Regression(), numbers(0), PLAIN)


def test_running_average_is_the_formula() -> None:
    draw = np.random.default_rng(0)
    module = nn.BatchNorm1d(3)
    average = RunningAverage(module, 0.6)
    expected = {k: v.numpy().astype(np.float64) for k, v in module.state_dict().items()}
    for update in range(1, 21):  # the decay rises up to 12 and is capped after that
        with torch.no_grad():
            module.weight.copy_(torch.tensor(draw.normal(size=3)))
            module.running_mean.copy_(torch.tensor(draw.normal(size=3)))  # type: ignore[union-attr]
            module.num_batches_tracked += 1  # type: ignore[operator]
        average.update(module)
        decay = min(0.6, (1 + update) / (10 + update))
        for name, value in module.state_dict().items():
            now = value.numpy().astype(np.float64)
            expected[name] = now if name == "num_batches_tracked" else decay * expected[name] + (1 - decay) * now
    for name, value in average.state.items():
        np.testing.assert_allclose(value.numpy(), expected[name], rtol=1e-5, atol=1e-6)
    own = weights(module)
    with average.swapped(module):
        assert torch.equal(module.weight, average.state["weight"]) and not torch.equal(module.weight, own["weight"])
    assert all(torch.equal(value, own[name]) for name, value in module.state_dict().items())


def test_averaged_weights_are_what_a_fit_leaves() -> None:
    task = Regression()
    seen = [weights(task)]
    train(task, numbers(), FitSettings(4, ema=0.5), on_step=lambda _: seen.append(weights(task)))
    expected = seen[0]["a.weight"]
    for update, now in enumerate(seen[1:], start=1):
        decay = min(0.5, (1 + update) / (10 + update))
        expected = decay * expected + (1 - decay) * now["a.weight"]
    torch.testing.assert_close(task.a.weight.detach(), expected)
    assert not torch.equal(task.a.weight, seen[-1]["a.weight"])
