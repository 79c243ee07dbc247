"""Gradual unfreezing: who thaws when, at which rate, and from when on patience counts."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import nn

from regraft.core.types import Task
from regraft.engine import FitSettings, fit
from regraft.strategies import StrategyOptions
from regraft.strategies.gradual import FACTOR, STEPS, Gradual
from tiny_training import Blocks, one_machine, pictures


class Deep(Task):
    """Groups of one bias each, shallow → deep, and a head."""

    def __init__(self, groups: int) -> None:
        super().__init__()
        self.layers = nn.ParameterList(nn.Parameter(torch.zeros(1)) for _ in range(groups))
        self.head = nn.Linear(1, 1)

    def layer_groups(self) -> dict[str, list[str]]:
        return {f"g{i}": [f"layers.{i}"] for i in range(len(self.layers))} | {"head": ["head.weight", "head.bias"]}


def starts(task: Task, last: int | None = None) -> dict[str, Any]:
    """Rate and thaw of every group."""
    found = Gradual(StrategyOptions(last=last), 100).plan(task, 1.0)
    return {row.group: (row.lr, row.from_progress) for row in found.rows}


def test_the_head_begins_and_groups_follow_from_deep_to_shallow() -> None:
    assert starts(Deep(3)) == {
        "g0": (pytest.approx(FACTOR**-2), 0.5),
        "g1": (pytest.approx(FACTOR**-1), pytest.approx(1 / 3)),
        "g2": (1.0, pytest.approx(1 / 6)),
        "head": (10.0, 0.0),
    }


def test_in_a_deep_network_the_shallowest_group_is_as_slow_as_the_paper_s() -> None:
    found = starts(Deep(12))
    assert found["g0"] == (pytest.approx(FACTOR**-STEPS), 0.5)
    rates = [float(found[f"g{i}"][0] or 0) for i in range(12)]
    assert rates == sorted(rates) and rates[-1] == 1.0


def test_last_leaves_the_shallower_groups_frozen() -> None:
    assert starts(Deep(3), last=1) == {
        "g0": (None, 0.0), "g1": (None, 0.0), "g2": (1.0, 0.5), "head": (10.0, 0.0),
    }  # fmt: skip


def test_what_has_not_thawed_does_not_move() -> None:
    task = Blocks()
    strategy = Gradual(StrategyOptions(), 100)
    seen: dict[int, tuple[bool, bool]] = {}
    before = {name: value.clone() for name, value in task.state_dict().items()}

    def on_step(record: object) -> None:
        now = task.state_dict()
        moved = (not torch.equal(before[f"{name}.0.weight"], now[f"{name}.0.weight"]) for name in ("stem", "body"))
        seen[len(seen)] = (next(moved), next(moved))

    settings = strategy.settings(FitSettings(steps=8, warmup=0.0))
    assert settings.patience_from == 0.5
    fit(task, {"train": pictures()}, strategy.plan(task, 0.01), settings, one_machine(), on_step=on_step)
    assert [seen[step] for step in range(8)] == [(False, False)] * 2 + [(False, True)] * 2 + [(True, True)] * 4
