"""CycleGAN by the engine: figures move as they should, a stopped run ends like one that was not, collapse is seen."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from regraft.core.errors import DataError
from regraft.core.types import Rule, Task
from regraft.engine import FitSettings, StepRecord, fit
from regraft.engine.checkpoint import load_checkpoint
from regraft.recipes.translate.figures import mean_ssim
from regraft.recipes.translate.training import BETAS
from regraft.style.translation.cyclegan import (
    CycleGAN,
    DiscriminatorSettings,
    Evaluation,
    GeneratorSettings,
    all_signs,
    signs,
)
from regraft.style.translation.cyclegan.pool import as_bytes, as_signed
from regraft.style.translation.cyclegan.watch import LEAST_DIVERSITY, MOST_ACCURACY, MOST_FALL, diversity
from swapped_shapes import shapes
from test_engine_resume import RunStoppedError, same, stop_at
from tiny_training import Numbers, one_machine, plan_of

pytestmark = pytest.mark.usefixtures("one_thread")
RULES = (Rule("group:generators", 1.0), Rule("group:discriminators", 1.0))


def tiny() -> CycleGAN:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        return CycleGAN(GeneratorSettings(6, 1), DiscriminatorSettings(4, 2, 2), side_px=32, pool=6)


def streams(count: int = 12, batch: int = 2) -> dict[str, Numbers]:
    return {kind: Numbers(shapes(kind, count), torch.zeros(count), batch) for kind in "ab"}


def train(
    steps: int, folder: Path | None = None, on_step: Callable[[StepRecord], None] | None = None, **options: Any
) -> CycleGAN:
    task = tiny()
    settings = FitSettings(
        steps, weight_decay=0.0, warmup=0.0, clip_norm=None, betas=BETAS, checkpoint_every_s=0.0, **options
    )
    at = 0

    def tell(record: StepRecord) -> None:
        nonlocal at
        at = record.step
        if on_step is not None:
            on_step(record)

    def evaluate(current: Task) -> tuple[float, Mapping[str, float]]:
        """Later is better, as in the recipe: what is evaluated is the average, and it is handed over."""
        current.eval()
        torch.rand(5)  # whatever an evaluation draws must not change the training
        return float(at), {"at": 0.0}

    plan = plan_of(task, *RULES, base_lr=2e-3)
    fit(task, streams(), plan, settings, one_machine(), evaluate=evaluate, on_step=tell, checkpoints=folder)
    return task


def there_and_back(task: CycleGAN) -> float:
    held = shapes("a", 6, seed=9)
    with torch.no_grad():
        return mean_ssim(held, as_bytes(task.eval().b_to_a(task.a_to_b(as_signed(held)))))


def test_cycle_loss_falls_and_pictures_come_back() -> None:
    losses: list[float] = []

    def tell(record: StepRecord) -> None:
        if not record.values:
            losses.append(record.logs["cycle"])

    before = there_and_back(tiny())
    task = train(45, on_step=tell)
    assert np.mean(losses[-10:]) < 0.5 * np.mean(losses[:3])
    assert there_and_back(task) > before + 0.2
    held = shapes("a", 6, seed=9)
    with torch.no_grad():
        translated = task.predict(held)
    assert translated.shape == held.shape and translated.min() >= 0 and translated.max() <= 1


@pytest.mark.parametrize("ema", [0.0, 0.9])
def test_five_steps_and_five_more_are_ten(tmp_path: Path, ema: float) -> None:
    """Weights, optimiser, singular vectors and pools, byte for byte; the pool of 6 is full after 3 steps of 2."""
    straight = train(10, tmp_path / "straight", ema=ema, evaluate_every=4)
    with pytest.raises(RunStoppedError):
        train(10, tmp_path / "stopped", stop_at(6), ema=ema, evaluate_every=4)
    saved = load_checkpoint(tmp_path / "stopped", torch.device("cpu"))
    assert saved is not None and saved["state"]["step"] == 5
    assert int(saved["task"]["pool_a.count"]) == 6
    resumed = train(10, tmp_path / "stopped", ema=ema, evaluate_every=4)
    same(dict(straight.state_dict()), dict(resumed.state_dict()))
    ends = [load_checkpoint(tmp_path / name, torch.device("cpu")) for name in ("straight", "stopped")]
    assert ends[0] is not None and ends[1] is not None
    same(ends[0]["optimizer"]["state"], ends[1]["optimizer"]["state"])


def test_the_pool_matters_to_the_next_step(tmp_path: Path) -> None:
    """Guards the test above: with a pool that was lost the run would end elsewhere."""
    straight = train(10)
    with pytest.raises(RunStoppedError):
        train(10, tmp_path, stop_at(6))
    (path,) = tmp_path.glob("step-*.pt")
    saved = torch.load(path, weights_only=True)
    saved["task"]["pool_a.pictures"].zero_()
    torch.save(saved, path)
    found = train(10, tmp_path)
    assert not torch.equal(found.b_to_a.decoder[-1].weight, straight.b_to_a.decoder[-1].weight)


# ---- the watch ------------------------------------------------------------------------------------------------------


def evaluation(step: int, **values: Any) -> Evaluation:
    usual: dict[str, Any] = {
        "cycle_ssim": {"AtoB": 0.7, "BtoA": 0.7}, "identity": {"AtoB": 0.1, "BtoA": 0.1},
        "diversity": {"AtoB": 0.9, "BtoA": 1.1}, "mmd2": {"AtoB": 0.1, "BtoA": 0.1}, "accuracy": 0.8,
    }  # fmt: skip
    return Evaluation(step, **{**usual, **values})


def test_diversity_is_a_ratio_of_mean_distances() -> None:
    draw = np.random.default_rng(0)
    x, y = draw.normal(size=(5, 3)), 2 * draw.normal(size=(7, 3))

    def mean(rows: np.ndarray) -> float:
        return float(np.mean([np.linalg.norm(rows[i] - rows[j]) for i in range(len(rows)) for j in range(i)]))

    assert diversity(torch.tensor(x), torch.tensor(y)) == pytest.approx(mean(x) / mean(y))
    assert diversity(torch.ones(4, 3), torch.tensor(y)) == 0
    with pytest.raises(DataError, match="at least 2 rows"):
        diversity(torch.ones(1, 3), torch.tensor(y))
    with pytest.raises(DataError, match="all the same"):
        diversity(torch.tensor(x), torch.ones(4, 3))


def test_constant_outputs_are_a_collapse_and_pictures_of_the_set_are_not() -> None:
    wanted = shapes("b", 8).flatten(1).float()
    constant = shapes("b", 1, seed=3).flatten(1).float().expand(8, -1) + torch.rand(8, 1)
    healthy = shapes("b", 8, seed=3).flatten(1).float()
    for rows, kinds in ((constant, ["collapse"]), (healthy, [])):
        found = {"AtoB": diversity(rows, wanted), "BtoA": 1.0}
        assert [sign.kind for sign in signs([evaluation(0), evaluation(5, diversity=found)])] == kinds


def test_each_sign_has_its_bound() -> None:
    first = evaluation(0)

    def kinds(**values: Any) -> list[tuple[str, str]]:
        return [(sign.kind, sign.direction) for sign in signs([first, evaluation(5, **values)])]

    assert kinds() == []
    assert kinds(diversity={"AtoB": 1.0, "BtoA": LEAST_DIVERSITY - 0.01}) == [("collapse", "BtoA")]
    assert kinds(diversity={"AtoB": LEAST_DIVERSITY, "BtoA": 1.0}) == []
    assert kinds(accuracy=MOST_ACCURACY + 0.01) == [("saturated", "both")]
    assert kinds(accuracy=None) == kinds(accuracy=MOST_ACCURACY) == []
    assert kinds(cycle_ssim={"AtoB": 0.7 - MOST_FALL - 0.01, "BtoA": 0.9}) == [("forgetting", "AtoB")]
    assert kinds(cycle_ssim={"AtoB": 0.7 - MOST_FALL + 0.01, "BtoA": 0.9}) == []


def test_an_untrained_network_gives_no_sign_and_a_fall_is_from_the_best() -> None:
    flat = {"AtoB": 0.0, "BtoA": 0.0}
    assert signs([evaluation(0, diversity=flat)]) == signs([]) == []


def test_outputs_that_are_alike_but_less_and_less_so_are_no_collapse() -> None:
    # As a training from nothing begins: measured on photos and paintings at 64 px.
    course = [evaluation(step, diversity={"AtoB": value, "BtoA": 1.0}) for step, value in
              enumerate((0.16, 0.30, 0.39, 0.44, 0.39, 0.385, 0.38))]  # fmt: skip
    found = [[sign.kind for sign in signs(course[:end])] for end in range(1, len(course) + 1)]
    assert found == [[], [], [], [], ["collapse"], ["collapse"], ["collapse"]]
    history = [
        evaluation(step, cycle_ssim={"AtoB": value, "BtoA": 0.5}) for step, value in enumerate((0.2, 0.8, 0.75, 0.6))
    ]
    found = all_signs(history)
    assert [(sign.step, sign.kind) for sign in found] == [(3, "forgetting")]
    assert "0.600 where it was 0.800" in found[0].sentence
