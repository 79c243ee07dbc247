"""A run that was stopped at any step ends byte for byte like one that was not: weights, average, optimiser, best."""

from __future__ import annotations

import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch

import tiny_training
from regraft.core.errors import ArtifactError
from regraft.engine import FitSettings, StepRecord, fit
from regraft.engine import loop as loop_module
from regraft.engine.checkpoint import load_checkpoint, save_checkpoint
from regraft.engine.feeding import Feeder
from tiny_training import Blocks, Numbers, numbers, one_machine, pictures, plan_of, run_blocks

pytestmark = pytest.mark.usefixtures("one_thread")
CPU = torch.device("cpu")


class RunStoppedError(Exception):
    """Stands for whatever stops a run."""


def stop_at(step: int) -> Any:
    def on_step(record: StepRecord) -> None:
        if record.step == step:
            raise RunStoppedError

    return on_step


def same(a: Any, b: Any, where: str = "") -> None:
    """Equal to the last bit, in nested dicts and lists."""
    if isinstance(a, torch.Tensor):
        assert a.dtype == b.dtype and a.numpy().tobytes() == b.numpy().tobytes(), where
    elif isinstance(a, dict):
        assert a.keys() == b.keys(), where
        for key in a:
            if key != "elapsed_s":
                same(a[key], b[key], f"{where}/{key}")
    elif isinstance(a, list):
        assert len(a) == len(b), where
        for index, (x, y) in enumerate(zip(a, b, strict=True)):
            same(x, y, f"{where}/{index}")
    else:
        assert a == b, where


@pytest.fixture(scope="module")
def straight(one_thread: None, tmp_path_factory: pytest.TempPathFactory) -> tuple[dict[str, Any], dict[str, Any]]:
    """The final weights and the final checkpoint of an uninterrupted run."""
    folder = tmp_path_factory.mktemp("straight")
    task, _ = run_blocks(folder)
    saved = load_checkpoint(folder, CPU)
    assert saved is not None and saved["state"]["step"] == 12
    return task.state_dict(), saved


def check(folder: Path, straight: tuple[dict[str, Any], dict[str, Any]]) -> None:
    task, found = run_blocks(folder)
    assert found.stopped == "finished" and found.steps == 12
    same(dict(straight[0]), dict(task.state_dict()), "task")
    same(straight[1], load_checkpoint(folder, CPU), "checkpoint")


@pytest.mark.parametrize("steps", [(1,), (4,), (6,), (7, 8), (12,)])
def test_interrupted_at_any_step_ends_the_same(
    tmp_path: Path, straight: tuple[dict[str, Any], dict[str, Any]], steps: tuple[int, ...]
) -> None:
    """Step 1 leaves no checkpoint at all; 3, 6, 9 and 12 evaluate; from step 7 on the stem is thawed."""
    for step in steps:
        with pytest.raises(RunStoppedError):
            run_blocks(tmp_path, stop_at(step))
    check(tmp_path, straight)


def test_steps_since_the_last_checkpoint_are_done_again(
    tmp_path: Path, straight: tuple[dict[str, Any], dict[str, Any]], monkeypatch: pytest.MonkeyPatch
) -> None:
    def seldom(folder: Path, step: int, state: dict[str, Any]) -> None:
        if step == 4:
            save_checkpoint(folder, step, state)

    monkeypatch.setattr(loop_module, "save_checkpoint", seldom)
    with pytest.raises(RunStoppedError):
        run_blocks(tmp_path, stop_at(11))
    monkeypatch.undo()
    saved = load_checkpoint(tmp_path, CPU)
    assert saved is not None and saved["state"]["step"] == 4
    check(tmp_path, straight)


def test_killed_process_resumes(tmp_path: Path, straight: tuple[dict[str, Any], dict[str, Any]]) -> None:
    script = Path(tiny_training.__file__)
    killed = subprocess.run(
        [sys.executable, script, "kill", tmp_path, "8"], capture_output=True, text=True, timeout=120
    )
    assert killed.returncode == -signal.SIGKILL, killed.stderr
    saved = load_checkpoint(tmp_path, CPU)
    assert saved is not None and saved["state"]["step"] == 7
    check(tmp_path, straight)


def test_everything_random_was_on(straight: tuple[dict[str, Any], dict[str, Any]]) -> None:
    """Guards the tests above: dropout and mixing change the weights, and the average differs from the last step."""
    saved = straight[1]
    assert saved["updates"] == 12 and saved["average"].keys() == saved["task"].keys()
    assert all(float(s["step"]) > 0 for s in saved["optimizer"]["state"].values())
    other, _ = run_blocks(None)
    same(dict(straight[0]), dict(other.state_dict()))
    plain = Blocks()
    plain.dropout.p = 0.0
    plan = plan_of(plain, *tiny_training.THAWING)
    fit(plain, {"train": pictures(24)}, plan, tiny_training.RUN, one_machine())
    assert not torch.equal(plain.head.weight, other.head.weight)


def test_finished_run_is_left_as_it_is(tmp_path: Path, straight: tuple[dict[str, Any], dict[str, Any]]) -> None:
    first, _ = run_blocks(tmp_path)
    again, found = run_blocks(tmp_path, stop_at(12))  # no step is taken, so nothing is told
    assert found.steps == 12
    same(dict(first.state_dict()), dict(again.state_dict()))


def test_run_that_stopped_early_takes_no_further_step(tmp_path: Path) -> None:
    scores = iter([3.0, 2.0, 1.0, 0.0, -1.0, -2.0])
    settings = FitSettings(10, evaluate_every=1, patience=2)

    def run() -> Any:
        task = tiny_training.Regression()
        plan = plan_of(task)
        return fit(
            task, {"train": numbers()}, plan, settings, one_machine(),
            evaluate=lambda _: (next(scores), {}), checkpoints=tmp_path,
        )  # fmt: skip

    first, second = run(), run()
    assert (first.stopped, first.steps) == (second.stopped, second.steps) == ("early", 2)


def test_streams_start_where_the_step_says() -> None:
    long, short = numbers(12, 2), numbers(6, 2)

    def taken(feeder: Feeder, steps: int, start: int = 0) -> list[torch.Tensor]:
        return [part[name].x for n in range(steps) for part in feeder.take(start + n) for name in ("train", "target")]

    whole = taken(Feeder({"train": long, "target": short}, 4, 0), 6)
    for start in range(6):
        rest = taken(Feeder({"train": long, "target": short}, 4, start), 6 - start, start)
        assert all(torch.equal(a, b) for a, b in zip(whole[8 * start :], rest, strict=True))
    asked = numbers(12, 2)
    taken(Feeder({"train": asked, "target": short}, 4, 2), 2)
    assert asked.asked == [(1, 2), (2, 0)]  # step 2 begins with batch 8 of 6 per epoch: epoch 1, batch 2


def test_checkpoints_are_whole_newest_only_and_read_without_code(tmp_path: Path) -> None:
    assert load_checkpoint(tmp_path, CPU) is None
    save_checkpoint(tmp_path, 3, {"step": 3})
    save_checkpoint(tmp_path, 5, {"step": 5})
    assert sorted(p.name for p in tmp_path.iterdir()) == ["LAST", "step-00000005.pt"]
    assert load_checkpoint(tmp_path, CPU) == {"step": 5}
    path = tmp_path / "step-00000005.pt"
    path.write_bytes(path.read_bytes()[:-20])
    with pytest.raises(ArtifactError, match=r"step-00000005\.pt cannot be read"):
        load_checkpoint(tmp_path, CPU)
    torch.save({"step": Numbers}, path)  # a class, so reading it would import code
    with pytest.raises(ArtifactError, match="cannot be read"):
        load_checkpoint(tmp_path, CPU)
    path.unlink()
    assert load_checkpoint(tmp_path, CPU) is None
