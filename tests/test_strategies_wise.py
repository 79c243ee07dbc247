"""WiSE: validation picks the share of the way, statistics go along, and a training without validation takes it over."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from regraft.core.types import Task
from regraft.strategies import StrategyOptions
from regraft.strategies.wise import SHARES, WiSE
from tiny_training import Blocks


def trained() -> tuple[WiSE, Blocks, dict[str, Tensor], dict[str, Tensor]]:
    """The strategy, its task as after a training, and the states before and after."""
    strategy, task = WiSE(StrategyOptions(), 100), Blocks()
    before = {name: value.clone() for name, value in task.state_dict().items()}
    assert strategy.prepare(task, 0) is task
    with torch.no_grad():
        for value in task.state_dict().values():
            value.add_(torch.ones_like(value) if value.is_floating_point() else 8)
    return strategy, task, before, {name: value.clone() for name, value in task.state_dict().items()}


def at(task: Task, before: dict[str, Tensor]) -> float:
    """How far from the start a task is, where every number of the end is one more."""
    return float((task.state_dict()["head.bias"] - before["head.bias"]).mean())


@pytest.mark.parametrize("best", SHARES)
def test_the_share_that_validation_likes_best_is_kept(best: float) -> None:
    strategy, task, before, after = trained()
    asked: list[float] = []

    def judge(current: Task) -> float:
        asked.append(at(current, before))
        return -abs(asked[-1] - best)

    finished = strategy.finish(task, judge, [])
    assert asked == pytest.approx(SHARES)
    assert finished.kept == {"share": best} and f"{best:.0%}" in finished.note
    for name, value in finished.task.state_dict().items():
        expected = before[name] + best * (after[name] - before[name]) if value.is_floating_point() else after[name]
        assert torch.allclose(value, expected.to(value.dtype), atol=1e-6), name
    assert "stem.1.running_var" in after, "statistics are among them"


def test_of_equals_the_nearest_to_the_pretraining_is_kept() -> None:
    strategy, task, before, _ = trained()
    assert strategy.finish(task, lambda current: 0.0, []).kept == {"share": SHARES[0]}
    assert at(task, before) == pytest.approx(SHARES[0], abs=1e-6)


def test_without_validation_the_rounds_that_had_one_decide() -> None:
    strategy, task, before, _ = trained()
    assert strategy.finish(task, None, [{"share": 0.25}, {"share": 0.75}]).kept == {"share": 0.5}
    assert at(task, before) == pytest.approx(0.5, abs=1e-6)


def test_without_any_knowledge_the_fine_tuned_weights_stay_to_the_bit() -> None:
    strategy, task, _, after = trained()
    finished = strategy.finish(task, None, [])
    assert all(torch.equal(after[name], value) for name, value in finished.task.state_dict().items())
