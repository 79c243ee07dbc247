"""Mixed precision: autocast is on inside the task, what goes in stays as it is, the result is nearly that of fp32."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
import torch

from conftest import Shell
from regraft.core.types import Batch, StepOutput
from regraft.engine import FitSettings, Machine, fit, launch, predict
from regraft.engine.fabric import Autocast
from tiny_training import Blocks, plan_of
from tiny_training import pictures as numbered

pytestmark = pytest.mark.usefixtures("one_thread")


class Watching(Blocks):
    """Notes what its forward is given and under what."""

    def __init__(self) -> None:
        super().__init__()
        self.seen: list[tuple[torch.dtype, bool, torch.dtype]] = []

    def forward(self, batches: Mapping[str, Batch], progress: float, phase: str = "step") -> StepOutput:
        batch = batches["train"]
        assert isinstance(batch, Batch)
        self.seen.append((batch.x.dtype, torch.is_autocast_enabled("cpu"), self.stem[0](batch.x).dtype))
        return super().forward(batches, progress, phase)


def trained(machine: Machine, settings: FitSettings, **more: Any) -> tuple[Watching, list[float]]:
    torch.manual_seed(0)
    task, losses = Watching(), []
    stream, plan = numbered(24), plan_of(task, base_lr=0.02)
    fit(task, {"train": stream}, plan, settings, machine, on_step=lambda r: losses.append(r.loss), **more)
    return task, losses


def test_a_batch_of_floats_trains_in_bf16_and_is_not_cast() -> None:
    settings = FitSettings(20, accumulate=2, ema=0.9)
    half, losses = trained(launch(device="cpu", precision="bf16"), settings)
    assert set(half.seen) == {(torch.float32, True, torch.bfloat16)}
    whole, reference = trained(launch(device="cpu", precision="fp32"), settings)
    assert {row[1] for row in whole.seen} == {False}
    assert losses[-1] < 0.8 * losses[0]
    assert losses == pytest.approx(reference, rel=0.05) and losses != reference
    assert all(p.dtype == torch.float32 for p in half.parameters())


def test_a_resumed_bf16_training_is_the_uninterrupted_one(tmp_path: Path) -> None:
    class StoppedError(Exception):
        pass

    settings = FitSettings(8, checkpoint_every_s=0.0)
    machine = launch(device="cpu", precision="bf16")
    straight, _ = trained(machine, settings)

    def stop(record: Any) -> None:
        if record.step == 4:
            raise StoppedError

    torch.manual_seed(0)
    task = Watching()
    with pytest.raises(StoppedError):
        fit(task, {"train": numbered(24)}, plan_of(task, base_lr=0.02), settings, machine, on_step=stop,
            checkpoints=tmp_path)  # fmt: skip
    resumed, _ = trained(machine, settings, checkpoints=tmp_path)
    assert len(resumed.seen) < len(straight.seen)
    for name, value in straight.state_dict().items():
        assert torch.equal(value, resumed.state_dict()[name]), name


def test_predictions_in_bf16_are_float32_and_near() -> None:
    task = Blocks().eval()
    found, expected = (
        predict(task, numbered(8), launch(device="cpu", precision=p)).outputs for p in ("bf16", "fp32")
    )  # fmt: skip
    assert found.dtype == torch.float32
    torch.testing.assert_close(found, expected, rtol=0.05, atol=0.05)


def test_fp16_scales_its_losses() -> None:
    """Built as on a GPU, with a scaler that needs none."""
    plugin = Autocast("16-mixed", "cpu")
    assert plugin.scaler is not None
    batch: Mapping[str, Batch] = {"train": Batch(torch.zeros(1), weight=torch.ones(1))}
    assert plugin.convert_input((batch, 0.5))[0] is batch


@pytest.mark.parametrize("precision", ["bf16", "fp32"])
def test_a_whole_fit_in_either(pictures: Path, shell: Shell, precision: str) -> None:
    code, out, err = shell(
        "fit", pictures, "--backbone", "scion:size=64", "--epochs", "1", "--threads", "2", "--precision", precision,
        "--strategies", "finetune,scratch", "--json",
    )  # fmt: skip
    assert code == 0, err
    assert '"transfer_gain"' in out
