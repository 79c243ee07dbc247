"""`fit`: the one training loop. It sees a task, named streams and a plan, and knows nothing of pictures or labels.

One step: take `accumulate` batches of every stream, run each phase of the task on them, clip, step. The random state is
set from (seed, step) at the start of every step and a stream's batches depend on (epoch, index) alone, so a run that
was killed goes on from its checkpoint exactly as if it had not been.
"""

from __future__ import annotations

import logging
import math
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from regraft.core.errors import DivergedError, PlanError
from regraft.core.types import Stream, Task
from regraft.engine.average import RunningAverage
from regraft.engine.checkpoint import load_checkpoint, save_checkpoint
from regraft.engine.device import Machine
from regraft.engine.feeding import Feeder
from regraft.engine.layout import arrange_weights
from regraft.engine.optimizers import PlanLike, build_optimizer, set_rates
from regraft.engine.settings import FitSettings, StepRecord
from regraft.engine.state import State
from regraft.engine.stepping import Stepper

log = logging.getLogger(__name__)

#: Evaluates the task as it stands: (score to maximise, figures to log).
Evaluate = Callable[[Task], tuple[float, Mapping[str, float]]]


@dataclass
class FitResult:
    """How a fit ended. stopped: "finished", "early", "budget" or "diverged". The task holds the best weights."""

    steps: int
    stopped: str
    best_step: int
    best_score: float
    seconds: float
    split: int


def fit(
    task: Task,
    streams: Mapping[str, Stream],
    plan: PlanLike,
    settings: FitSettings,
    machine: Machine,
    *,
    evaluate: Evaluate | None = None,
    on_step: Callable[[StepRecord], None] | None = None,
    checkpoints: Path | None = None,
) -> FitResult:
    """Train `task` in place; at the end it holds the weights of the best evaluation (the last ones without `evaluate`).

    The first stream sets the length of an epoch; shorter ones start again. Resumes from `checkpoints` when it holds
    one. Raises DivergedError when the loss is not a number before anything good exists.
    """
    if settings.steps < 1 or not streams or any(len(s) == 0 for s in streams.values()):
        raise PlanError(
            f"Nothing to train on: {settings.steps} steps, streams { ({k: len(s) for k, s in streams.items()}) }."
        )
    return _Fitting(task, streams, plan, settings, machine, _Hooks(evaluate, on_step, checkpoints)).run()


@dataclass(frozen=True)
class _Hooks:
    """Who is asked and told on the way, and where checkpoints are kept."""

    evaluate: Evaluate | None
    on_step: Callable[[StepRecord], None] | None
    checkpoints: Path | None


class _Fitting:
    """One fit under way: `step`, `judge` and `checkpoint` are its moves, `run` their order."""

    def __init__(
        self,
        task: Task,
        streams: Mapping[str, Stream],
        plan: PlanLike,
        settings: FitSettings,
        machine: Machine,
        hooks: _Hooks,
    ) -> None:
        self.task, self.plan, self.settings, self.machine, self.hooks = task, plan, settings, machine, hooks
        self.fabric = machine.fabric
        self.distributed = self.fabric.world_size > 1
        task.to(machine.device)
        if machine.device.type != "mps":
            arrange_weights(task, task.memory_format)
        # Set before wrapping: a parameter that never trains must not be waited for by other processes.
        for name, parameter in task.named_parameters():
            parameter.requires_grad_(any(plan.trains(name, p) for p in plan.thaw_points()))
        self.optimizer = build_optimizer(task, plan, settings)
        self.average = RunningAverage(task, settings.ema) if settings.ema else None
        self.state = State()
        self.resumed = self._resume()
        wrapped, prepared = self.fabric.setup(task, self.optimizer)
        self.stepper = Stepper(task, wrapped, prepared, settings, machine, self.state)
        self.feeder = Feeder(streams, settings.accumulate, start=self.state.step)
        #: Names of the parameters that train now, None where the modes are to be set again.
        self.thawed: set[str] | None = None
        self.clock = 0.0

    def run(self) -> FitResult:
        """All steps that are left, with what is due after each."""
        state, settings = self.state, self.settings
        if state.step == 0 and not self.resumed:
            self.judge(math.nan, 0.0)
        stopped = "finished"
        self.clock, last_saved = time.monotonic(), state.elapsed_s
        while state.step < settings.steps:
            # Asked here, not after the evaluation, so that a run resumed after its early stop does not take another
            # step.
            if settings.patience is not None and state.bad >= settings.patience:
                stopped = "early"
                break
            loss, lr = self.step()
            if not state.healthy(loss):
                stopped = "diverged"
                break
            over = settings.limit_s is not None and state.elapsed_s > settings.limit_s
            if self.distributed:
                over = bool(self.fabric.broadcast(over))
            self._tell(loss, lr, logs=self.stepper.logs)
            due = settings.evaluate_every and state.step % settings.evaluate_every == 0
            if due or state.step == settings.steps or over:
                self.judge(loss, lr)
                self.thawed = None  # the evaluation may have changed the modes: they are set again
            if over and state.step < settings.steps:
                stopped = "budget"
                break
            if state.elapsed_s - last_saved >= settings.checkpoint_every_s:
                self.checkpoint()
                last_saved = state.elapsed_s
        self._keep_best(stopped)
        self.checkpoint()
        return FitResult(state.step, stopped, state.best_step, state.best_score, state.elapsed_s, state.split)

    def step(self) -> tuple[float, float]:
        """One step of the optimiser; its loss and its largest rate."""
        state, settings = self.state, self.settings
        progress = state.step / settings.steps
        trains = self._thaw(progress)
        lr = set_rates(self.optimizer, settings, progress)
        torch.manual_seed((settings.seed << 32) + state.step * self.fabric.world_size + self.fabric.global_rank)
        micro = self.feeder.take(state.step)
        loss = self.stepper.step(micro, progress, trains)
        if self.average is not None:
            self.average.update(self.task)
        state.step += 1
        state.samples += sum(batches["_"].size for batches in micro)
        tick = time.monotonic()
        state.elapsed_s += tick - self.clock
        self.clock = tick
        return loss, lr

    def judge(self, loss: float, lr: float) -> None:
        """Evaluate, remember the best weights, tell."""
        if self.hooks.evaluate is None:
            return
        if self.average is not None and self.state.step > 0:
            with self.average.swapped(self.task):
                score, values = self.hooks.evaluate(self.task)
                weights = _copied(self.task)
        else:
            score, values = self.hooks.evaluate(self.task)
            weights = _copied(self.task)
        if self.distributed:  # every process must come to the same decision
            score = self.fabric.broadcast(score)
        self.state.judged(score, weights, self.settings)
        self._tell(loss, lr, values=values)

    def checkpoint(self) -> None:
        """Write all that a later process needs to go on from this step, where checkpoints are kept."""
        if self.hooks.checkpoints is None or not self.machine.is_first:
            return
        average = self.average
        saved = {
            "task": self.task.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "average": average.state if average else {},
            "updates": average.updates if average else 0,
            "state": self.state.plain(),
            "best": self.state.best,
        }
        save_checkpoint(self.hooks.checkpoints, self.state.step, saved)

    def _resume(self) -> bool:
        """Take up the newest checkpoint; False where there is none."""
        folder = self.hooks.checkpoints
        saved = load_checkpoint(folder, self.machine.device) if folder else None
        if saved is None:
            return False
        self.task.load_state_dict(saved["task"])
        self.optimizer.load_state_dict(saved["optimizer"])
        if self.average is not None:
            self.average.load(saved["average"], saved["updates"])
        self.state = State(**saved["state"], best=saved["best"])
        log.info("resumed at step %d of %d", self.state.step, self.settings.steps)
        return True

    def _thaw(self, progress: float) -> set[str]:
        """Set modes and gradients for what trains at this progress, and name it."""
        trains = {name for name, _ in self.task.named_parameters() if self.plan.trains(name, progress)}
        if trains != self.thawed:
            self.thawed = trains
            self.plan.set_modes(self.task, progress)
            if not self.distributed:
                for name, parameter in self.task.named_parameters():
                    parameter.requires_grad_(name in trains)
        return trains

    def _keep_best(self, stopped: str) -> None:
        """The weights to hand over; DivergedError where there is nothing good."""
        state = self.state
        if state.best:
            self.task.load_state_dict(state.best)
        elif stopped == "diverged":
            raise DivergedError(
                f"The loss became {state.mean_loss:g} at step {state.step} and nothing good was kept: lower --lr "
                "(a tenth is a good try), or use --precision fp32."
            )
        elif self.average is not None:
            self.task.load_state_dict(self.average.state)

    def _tell(
        self,
        loss: float,
        lr: float,
        *,
        values: Mapping[str, float] | None = None,
        logs: Mapping[str, float] | None = None,
    ) -> None:
        if self.hooks.on_step is not None and self.machine.is_first:
            self.hooks.on_step(
                self.state.record(self.settings, self.feeder.steps_per_epoch, loss, lr, values=values, logs=logs)
            )


def _copied(task: Task) -> dict[str, Tensor]:
    return {name: value.detach().clone() for name, value in task.state_dict().items()}
