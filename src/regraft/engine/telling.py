"""What shows a training's steps while it runs, and writes its curves into the run."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from regraft.core.listener import Listener
from regraft.core.rundir import RunDirectory
from regraft.engine import StepRecord


def step_teller(run: RunDirectory, listener: Listener, name: str, steps: int) -> Callable[[StepRecord], None]:
    """What hears the steps of the candidate `name`: progress with its terms (as the losses of both domains) to the
    listener, 100 means of them to a file."""
    running: dict[str, list[float]] = {}
    every = max(1, steps // 100)

    def tell(record: StepRecord) -> None:
        if record.values:
            return
        terms = "".join(f", {key.replace('_', ' ')} {value:.3f}" for key, value in record.logs.items())
        listener.progress(
            f"{name}: epoch {record.epoch:.1f}, loss {record.loss:.3f}{terms}",
            record.step,
            record.steps,
            rate=f"{record.rate:.0f} pictures/s",
            remaining_s=record.remaining_s,
        )
        for key, value in record.logs.items():
            running.setdefault(key, []).append(value)
        if record.step % every == 0 or record.step == record.steps:
            means = {key: round(float(np.mean(values)), 6) for key, values in running.items()}
            running.clear()
            run.log_metrics(
                candidate=name, step=record.step, epoch=round(record.epoch, 3),
                progress=round(record.step / record.steps, 4), elapsed_s=round(record.elapsed_s, 2), **means,
            )  # fmt: skip

    return tell
