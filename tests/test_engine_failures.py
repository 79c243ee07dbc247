"""What goes wrong in training: a loss that is no number, no memory, no time, no progress; and the best weights."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import Tensor

from regraft.core.errors import DivergedError, UsageError
from regraft.core.types import Batch, StepOutput, Task
from regraft.engine import FitResult, FitSettings, StepRecord, fit, launch, predict
from regraft.engine import loop as loop_module
from regraft.engine.splitting import is_out_of_memory, split_batches, total_weight
from tiny_training import Regression, numbers, one_machine, plan_of

pytestmark = pytest.mark.usefixtures("one_thread")


def train(task: Task, settings: FitSettings, *, count: int = 8, batch: int = 8, **more: Any) -> FitResult:
    return fit(task, {"train": numbers(count, batch)}, plan_of(task), settings, one_machine(), **more)


def weights(task: Task) -> dict[str, Tensor]:
    return {name: value.detach().clone() for name, value in task.state_dict().items()}


def equal(a: Mapping[str, Tensor], b: Mapping[str, Tensor]) -> bool:
    return all(torch.equal(a[name], b[name]) for name in a)


class Breaking(Regression):
    """Its loss is `broken` (times something with a gradient) from half of training on."""

    def __init__(self, broken: float) -> None:
        super().__init__()
        self.broken = broken

    def forward(self, batches: Mapping[str, Batch], progress: float, phase: str = "step") -> StepOutput:
        loss = super().forward(batches, progress, phase).loss
        return StepOutput(loss if progress < 0.5 else loss * 0 + self.broken + self.a.bias.sum() * self.broken)


@pytest.mark.parametrize("broken", [math.nan, math.inf])
def test_loss_that_is_no_number_stops_and_keeps_the_best(broken: float) -> None:
    task = Breaking(broken)
    kept: list[dict[str, Tensor]] = []

    def evaluate(current: Task) -> tuple[float, Mapping[str, float]]:
        kept.append(weights(current))
        return float(len(kept)), {}

    found = train(task, FitSettings(10, evaluate_every=2), evaluate=evaluate)
    assert (found.stopped, found.steps, found.best_step) == ("diverged", 6, 4)
    assert equal(weights(task), kept[2])


def test_loss_that_runs_away_stops_before_it_is_infinite() -> None:
    told: list[StepRecord] = []
    with pytest.raises(DivergedError):
        train(Breaking(1e4), FitSettings(10), on_step=told.append)
    assert told and all(math.isfinite(record.loss) for record in told)


def test_without_anything_good_it_is_an_error_that_says_what_to_do() -> None:
    with pytest.raises(DivergedError, match=r"became nan at step 6 .* lower --lr"):
        train(Breaking(math.nan), FitSettings(10))


def test_step_with_a_broken_loss_does_not_touch_the_weights() -> None:
    task = Breaking(math.nan)
    seen: list[dict[str, Tensor]] = []
    with pytest.raises(DivergedError):
        train(task, FitSettings(10, ema=0.5), on_step=lambda _: seen.append(weights(task)))
    assert len(seen) == 5 and equal(weights(task), seen[-1])


class Narrow(Regression):
    """Has memory for at most `room` samples at once, in the phases named."""

    def __init__(
        self, room: int, phases: tuple[str, ...] = ("step",), error: Callable[[], Exception] | None = None
    ) -> None:
        super().__init__(torch.float64)
        self.room, self.phases = room, phases
        self.error = error or torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2 GiB")
        self.sizes: list[int] = []

    def forward(self, batches: Mapping[str, Batch], progress: float, phase: str = "step") -> StepOutput:
        batch = batches["train"]
        self.sizes.append(len(batch.x))
        if len(batch.x) > self.room and phase == self.phases[-1]:
            raise self.error
        return super().forward(batches, progress, phase)


def narrow(task: Task, **more: Any) -> FitResult:
    stream = numbers(14, 7, dtype=torch.float64)
    settings = FitSettings(3, optimizer="sgd", clip_norm=0.7, accumulate=2)
    return fit(task, {"train": stream}, plan_of(task), settings, one_machine(), **more)


@pytest.mark.parametrize("room", [4, 3, 1])
def test_batches_that_do_not_fit_are_halved_and_give_the_same_weights(room: int, caplog: Any) -> None:
    whole, cut = Narrow(7), Narrow(room)
    narrow(whole)
    found = narrow(cut)
    assert found.split == {4: 2, 3: 4, 1: 8}[room]
    assert max(cut.sizes[-7:]) <= room and "out of memory: each batch is now computed in 2 parts" in caplog.text
    for name, value in weights(whole).items():
        torch.testing.assert_close(cut.state_dict()[name], value, rtol=0, atol=1e-12)


def test_lack_of_memory_in_the_second_phase_does_not_repeat_the_first() -> None:
    whole, cut = Narrow(7, ("one", "two")), Narrow(2, ("one", "two"))
    narrow(whole)
    narrow(cut)
    for name, value in weights(whole).items():
        torch.testing.assert_close(cut.state_dict()[name], value, rtol=0, atol=1e-12)


def test_single_samples_that_do_not_fit_are_an_error() -> None:
    task = Narrow(0)
    with pytest.raises(torch.OutOfMemoryError):
        narrow(task)
    assert task.sizes[-1] == 1


def test_other_errors_are_not_taken_for_lack_of_memory() -> None:
    task = Narrow(3, error=RuntimeError("mat1 and mat2 shapes cannot be multiplied"))
    with pytest.raises(RuntimeError, match="shapes cannot be multiplied"):
        narrow(task)
    assert len(task.sizes) == 1
    assert is_out_of_memory(RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried to allocate"))


def test_cutting_keeps_every_row_with_its_label_and_weight() -> None:
    x = torch.arange(7.0)
    batch = Batch({"ids": x, "mask": -x}, x.long(), torch.tensor([1.0, 1, 1, 1, 1, 0, 0]))
    parts = split_batches({"train": batch, "target": Batch(torch.arange(5.0)), "_": 3}, 4)
    assert len(parts) == 4 and all(part.keys() == {"train", "target"} for part in parts)
    assert torch.equal(torch.cat([p["train"].x["mask"] for p in parts]), -x)
    assert torch.equal(torch.cat([p["target"].x for p in parts]), torch.arange(5.0))
    assert all(p["target"].y is None for p in parts)
    for part in parts:
        assert part["train"].y is not None and torch.equal(part["train"].y.float(), part["train"].x["ids"])
    assert [total_weight(p) for p in parts] == [2, 2, 1, 0]
    assert len(split_batches({"train": Batch(x), "target": Batch(x[:2])}, 4)) == 2


def judged(scores: list[float], settings: FitSettings) -> tuple[FitResult, Task, list[dict[str, Tensor]]]:
    task, seen, remaining = Regression(), [], iter(scores)

    def evaluate(current: Task) -> tuple[float, Mapping[str, float]]:
        seen.append(weights(current))
        return next(remaining), {}

    return train(task, settings, evaluate=evaluate), task, seen


@pytest.mark.parametrize("ema", [0.0, 0.5])
def test_best_evaluation_s_weights_are_restored(ema: float) -> None:
    found, task, seen = judged([0.1, 0.2, 0.9, 0.4, 0.9], FitSettings(8, evaluate_every=2, ema=ema))
    assert (found.stopped, found.best_step, found.best_score) == ("finished", 4, 0.9)
    assert equal(weights(task), seen[2]) and not equal(seen[2], seen[4])


def test_last_step_is_evaluated_though_it_is_not_due() -> None:
    found, task, seen = judged([0.1, 0.2, 0.3], FitSettings(5, evaluate_every=3))
    assert found.best_step == 5 and len(seen) == 3 and equal(weights(task), seen[2])


def test_start_wins_where_training_only_harms() -> None:
    found, task, _ = judged([0.9, 0.2, 0.3], FitSettings(4, evaluate_every=2))
    assert found.best_step == 0 and equal(weights(task), weights(Regression()))


def test_early_stopping_waits_for_its_patience() -> None:
    scores = [0.1, 0.5, 0.4, 0.6, 0.6, 0.5, 0.4, 0.9]
    found, task, seen = judged(scores, FitSettings(20, evaluate_every=2, patience=3))
    assert (found.stopped, found.steps, found.best_step) == ("early", 12, 6)
    assert equal(weights(task), seen[3])


def test_random_weights_that_happen_to_score_well_are_not_kept() -> None:
    found, task, seen = judged([0.9, 0.2, 0.3], FitSettings(4, evaluate_every=2, keep_start=False))
    assert (found.best_step, found.best_score) == (4, 0.3) and equal(weights(task), seen[2])


def test_patience_begins_where_it_is_told_to() -> None:
    scores = [0.5, 0.4, 0.4, 0.4, 0.4, 0.4, 0.4, 0.9]
    settings = FitSettings(20, evaluate_every=2, patience=2, patience_from=0.45)
    found, task, seen = judged(scores, settings)  # steps 10 and 12 count, those before do not
    assert (found.stopped, found.steps, found.best_step) == ("early", 12, 0)
    assert equal(weights(task), seen[0])


@pytest.fixture
def ticking(monkeypatch: pytest.MonkeyPatch) -> None:
    """A clock that goes on by one second whenever the loop looks: one second a step."""
    now = iter(range(10**6))
    monkeypatch.setattr(loop_module, "time", SimpleNamespace(monotonic=lambda: float(next(now))))


@pytest.mark.usefixtures("ticking")
def test_time_limit_counts_over_resumes(tmp_path: Path) -> None:
    settings = FitSettings(20, limit_s=5.5, checkpoint_every_s=1.0)
    whole = Regression()
    found = train(whole, settings)
    assert (found.stopped, found.steps, found.seconds) == ("budget", 6, 6.0)

    def stop(record: StepRecord) -> None:
        if record.step == 4:
            raise InterruptedError

    with pytest.raises(InterruptedError):
        train(Regression(), settings, on_step=stop, checkpoints=tmp_path)
    resumed = Regression()
    found = train(resumed, settings, checkpoints=tmp_path)
    assert (found.stopped, found.steps, found.seconds) == ("budget", 6, 6.0)
    assert equal(weights(whole), weights(resumed))


@pytest.mark.usefixtures("ticking")
def test_what_is_told_after_each_step() -> None:
    told: list[StepRecord] = []
    train(Regression(), FitSettings(6), count=24, on_step=told.append)
    assert [r.step for r in told] == [1, 2, 3, 4, 5, 6] and {r.steps for r in told} == {6}
    assert [r.epoch for r in told] == pytest.approx([n / 3 for n in range(1, 7)])
    assert [r.rate for r in told] == pytest.approx([8.0] * 6)
    assert [r.remaining_s for r in told] == pytest.approx([5, 4, 3, 2, 1, 0])


def test_predict_keeps_order_and_modes_and_drops_padding() -> None:
    class Padded:
        def __len__(self) -> int:
            return 2

        def epoch(self, index: int, start: int = 0) -> Any:
            yield Batch(torch.ones(3, 3), torch.tensor([4, 5, 6]))
            yield Batch(torch.zeros(3, 3), torch.tensor([7, 8, 0]), torch.tensor([1.0, 1.0, 0.0]))

    task = Regression()
    task.train()
    task.a.eval()
    seen: list[tuple[int, int]] = []
    found = predict(task, Padded(), one_machine(), on_batch=lambda done, total: seen.append((done, total)))
    assert found.labels is not None and found.labels.tolist() == [4, 5, 6, 7, 8]
    expected = torch.cat([task.predict(torch.ones(3, 3)), task.predict(torch.zeros(2, 3))])
    torch.testing.assert_close(found.outputs, expected.detach())
    assert seen == [(1, 2), (2, 2)] and task.training and task.b.training and not task.a.training
    found.outputs.requires_grad_()  # no inference tensor leaves


def test_machine_refuses_what_is_not_there() -> None:
    with pytest.raises(UsageError, match="--devices takes 1 or more, not 0"):
        launch(device="cpu", devices=0)
    with pytest.raises(UsageError, match="--device takes auto, cpu, cuda or mps, got 'gpu'"):
        launch(device="gpu")
    with pytest.raises(UsageError, match="got 'half'"):
        launch(device="cpu", precision="half")
    with pytest.raises(UsageError, match="fp16 is for GPUs"):
        launch(device="cpu", precision="fp16")
