"""Every strategy of the registry, on a small picture network: what a fit relies on, whatever the strategy does."""

from __future__ import annotations

import copy
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from torch import Tensor

from regraft.core.types import Batch, Task
from regraft.engine import FitSettings, StepRecord, fit, launch
from regraft.images.backbones import create
from regraft.images.backbones.base import ImageBackbone
from regraft.strategies import Strategy, StrategyOptions, strategies
from regraft.strategies.base import by_cost
from regraft.tasks.classification.kind import ClassKind
from regraft.tasks.classification.task import Classification
from regraft.tasks.packing import pack, unpack

pytestmark = pytest.mark.usefixtures("one_thread")
EVERY = by_cost(strategies)
USUAL = FitSettings(steps=4, warmup=0.25, ema=0.5, evaluate_every=2, checkpoint_every_s=0.0)


class KilledError(Exception):
    """In place of a signal."""


class Pictures:
    """Three batches of four pictures of 32 px in two classes."""

    def __len__(self) -> int:
        return 3

    def epoch(self, index: int, start: int = 0) -> Iterator[Batch]:
        for number in range(start, len(self)):
            draw = torch.Generator().manual_seed(100 * index + number)
            y = torch.arange(4) % 2
            x = torch.randint(0, 156, (4, 3, 32, 32), generator=draw) + 100 * y.view(-1, 1, 1, 1)
            yield Batch(x.to(torch.uint8), y)


@pytest.fixture(scope="module")
def backbone() -> ImageBackbone:
    """Pretrained, with linear, pointwise and depthwise layers and batch norm."""
    return create("scion:size=32")


def plain(backbone: ImageBackbone) -> Classification:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(1)
        return Classification(copy.deepcopy(backbone), 2)


def prepared(name: str, backbone: ImageBackbone) -> tuple[Strategy, Task]:
    strategy = strategies.get(name)(StrategyOptions(), 100)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(1)
        return strategy, strategy.prepare(plain(backbone), 1)


def score(task: Task) -> float:
    """The less the logits of one batch differ, the better: some preference that a strategy may follow."""
    (batch, *_) = Pictures().epoch(9)
    task.eval()
    with torch.no_grad():
        return -float(task.predict(batch.x).std())


def train(strategy: Strategy, task: Task, folder: Path | None = None, stop_at: int | None = None) -> None:
    def on_step(record: StepRecord) -> None:
        if record.step == stop_at and not record.values:
            raise KilledError

    fit(
        task,
        {"train": Pictures()},
        strategy.plan(task, strategy.base_lr),
        strategy.settings(USUAL),
        launch(device="cpu", precision="fp32"),
        evaluate=lambda current: (score(current), {"score": 0.0}),
        on_step=on_step,
        checkpoints=folder,
    )


def copied(task: Task) -> dict[str, Tensor]:
    return {name: value.detach().clone() for name, value in task.state_dict().items()}


def logits(task: Task) -> Tensor:
    (batch, *_) = Pictures().epoch(5)
    with torch.no_grad():
        return task.eval().predict(batch.x)


@pytest.mark.parametrize("name", EVERY)
def test_the_plan_covers_what_was_prepared(name: str, backbone: ImageBackbone) -> None:
    strategy, task = prepared(name, backbone)
    found = strategy.plan(task, strategy.base_lr)
    assert sorted(row.name for row in found.rows) == sorted(name for name, _ in task.named_parameters())
    named = [one for names in task.layer_groups().values() for one in names]
    assert len(named) == len(set(named)) == len(found.rows)
    assert found.trained_parameters > 0 and str(found)


@pytest.mark.parametrize("name", EVERY)
def test_only_the_control_forgets_the_pretraining(name: str, backbone: ImageBackbone) -> None:
    """Before its first step everything else is the pretrained function, whatever was inserted."""
    strategy, task = prepared(name, backbone)
    assert torch.allclose(logits(task), logits(plain(backbone)), atol=1e-5) is not strategy.control


@pytest.mark.parametrize("name", [name for name in EVERY if not strategies.get(name).solved])
def test_training_moves_what_trains_and_nothing_else(name: str, backbone: ImageBackbone, tmp_path: Path) -> None:
    strategy, task = prepared(name, backbone)
    before = copied(task)
    found = strategy.plan(task, strategy.base_lr)
    train(strategy, task)
    after = task.state_dict()
    frozen = {row.name for row in found.rows if row.lr is None}
    assert all(torch.equal(before[one], after[one]) for one in frozen)
    moved = {row.name for row in found.rows if not torch.equal(before[row.name], after[row.name])}
    assert moved and moved.isdisjoint(frozen)
    statistics = [one for one in before if one.endswith(("running_mean", "running_var"))]
    assert statistics
    assert all(torch.equal(before[one], after[one]) for one in statistics) is strategy.keeps_statistics

    trained = logits(task)
    finished = strategy.finish(task, None, [])
    assert torch.allclose(logits(finished.task), trained, atol=1e-5), "without validation nothing is given up"
    again = plain(backbone)
    again.load_state_dict(finished.task.state_dict())  # no key too many: nothing that was inserted is left
    kind = ClassKind(("a", "b"))
    pack(tmp_path / "artifact", kind, again, kind.uncalibrated, provenance={}, metrics={})
    assert torch.allclose(logits(unpack(tmp_path / "artifact").task), logits(finished.task), atol=1e-5)


@pytest.mark.parametrize("name", [name for name in EVERY if not strategies.get(name).solved])
def test_a_killed_training_ends_as_an_uninterrupted_one(name: str, backbone: ImageBackbone, tmp_path: Path) -> None:
    strategy, whole = prepared(name, backbone)
    train(strategy, whole)
    first = strategy.finish(whole, score, [])

    strategy, task = prepared(name, backbone)
    with pytest.raises(KilledError):
        train(strategy, task, tmp_path, stop_at=3)
    strategy, task = prepared(name, backbone)
    train(strategy, task, tmp_path)
    second = strategy.finish(task, score, [])
    assert first.kept == second.kept and first.note == second.note
    ours, theirs = first.task.state_dict(), second.task.state_dict()
    assert ours.keys() == theirs.keys() and all(torch.equal(ours[one], theirs[one]) for one in ours)
