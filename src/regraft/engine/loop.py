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
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from regraft.core.errors import DivergedError, PlanError
from regraft.core.types import Batch, Stream, Task
from regraft.engine.average import RunningAverage
from regraft.engine.checkpoint import load_checkpoint, save_checkpoint
from regraft.engine.device import Machine
from regraft.engine.feeding import Feeder
from regraft.engine.optimizer import PlanLike, build_optimizer, set_rates
from regraft.engine.predict import channels_last
from regraft.engine.settings import FitSettings, StepRecord
from regraft.engine.splitting import is_out_of_memory, split_batches, total_weight

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


@dataclass
class _State:
    """Everything of a fit that must survive a kill, beside weights and optimiser."""

    step: int = 0
    elapsed_s: float = 0.0
    best_score: float = -math.inf
    best_step: int = -1
    bad: int = 0
    split: int = 1
    mean_loss: float = 0.0
    first_loss: float = 0.0
    samples: int = 0
    best: dict[str, Tensor] = field(default_factory=dict)


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
    fabric = machine.fabric
    distributed = fabric.world_size > 1
    task.to(machine.device)
    if machine.device.type != "mps":
        task.to(memory_format=torch.channels_last)
    # Set before wrapping: a parameter that never trains must not be waited for by other processes.
    for name, parameter in task.named_parameters():
        parameter.requires_grad_(any(plan.trains(name, p) for p in plan.thaw_points()))
    optimizer = build_optimizer(task, plan, settings)
    average = RunningAverage(task, settings.ema) if settings.ema else None
    state = _State()
    saved = load_checkpoint(checkpoints, machine.device) if checkpoints else None
    if saved is not None:
        task.load_state_dict(saved["task"])
        optimizer.load_state_dict(saved["optimizer"])
        if average is not None:
            average.load(saved["average"], saved["updates"])
        state = _State(**saved["state"], best=saved["best"])
        log.info("resumed at step %d of %d", state.step, settings.steps)
    wrapped, prepared = fabric.setup(task, optimizer)
    stepper = _Stepper(task, wrapped, prepared, settings, machine, state)
    feeder = Feeder(streams, settings.accumulate, start=state.step)

    def checkpoint() -> None:
        if checkpoints is None or not machine.is_first:
            return
        plain = {k: v for k, v in state.__dict__.items() if k != "best"}
        save_checkpoint(
            checkpoints,
            state.step,
            {
                "task": task.state_dict(),
                "optimizer": optimizer.state_dict(),
                "average": average.state if average else {},
                "updates": average.updates if average else 0,
                "state": plain,
                "best": state.best,
            },
        )

    def judge(loss: float, lr: float) -> None:
        """Evaluate, remember the best weights, tell."""
        if evaluate is None:
            return
        if average is not None and state.step > 0:
            with average.swapped(task):
                score, values = evaluate(task)
                weights = _copied(task)
        else:
            score, values = evaluate(task)
            weights = _copied(task)
        if distributed:  # every process must come to the same decision
            score = fabric.broadcast(score)
        if state.step == 0 and not settings.keep_start:
            state.best_step, state.best = 0, weights  # to fall back on; whatever has been trained is better
        elif score > state.best_score:
            state.best_score, state.best_step, state.best, state.bad = score, state.step, weights, 0
        elif state.step >= settings.patience_from * settings.steps:
            state.bad += 1
        if on_step is not None and machine.is_first:
            on_step(_record(state, settings, feeder.steps_per_epoch, loss, lr, values))

    if state.step == 0 and saved is None:
        judge(math.nan, 0.0)
    stopped = "finished"
    clock, last_saved = time.monotonic(), state.elapsed_s
    thawed: set[str] | None = None
    while state.step < settings.steps:
        # Asked here, not after the evaluation, so that a run resumed after its early stop does not take another step.
        if settings.patience is not None and state.bad >= settings.patience:
            stopped = "early"
            break
        progress = state.step / settings.steps
        now = {name for name, _ in task.named_parameters() if plan.trains(name, progress)}
        if now != thawed:
            thawed = now
            plan.set_modes(task, progress)
            if not distributed:
                for name, parameter in task.named_parameters():
                    parameter.requires_grad_(name in now)
        lr = set_rates(optimizer, settings, progress)
        torch.manual_seed((settings.seed << 32) + state.step * fabric.world_size + fabric.global_rank)
        micro = feeder.take(state.step)
        loss = stepper.step(micro, progress, now)
        if average is not None:
            average.update(task)
        state.step += 1
        state.samples += sum(b["_"].size for b in micro)
        tick = time.monotonic()
        state.elapsed_s += tick - clock
        clock = tick
        if not _healthy(state, loss):
            stopped = "diverged"
            break
        over = settings.limit_s is not None and state.elapsed_s > settings.limit_s
        if distributed:
            over = bool(fabric.broadcast(over))
        if on_step is not None and machine.is_first:
            on_step(_record(state, settings, feeder.steps_per_epoch, loss, lr, {}, stepper.logs))
        due = settings.evaluate_every and state.step % settings.evaluate_every == 0
        if due or state.step == settings.steps or over:
            judge(loss, lr)
            thawed = None  # the evaluation may have changed the modes: they are set again
        if over and state.step < settings.steps:
            stopped = "budget"
            break
        if state.elapsed_s - last_saved >= settings.checkpoint_every_s:
            checkpoint()
            last_saved = state.elapsed_s
    if state.best:
        task.load_state_dict(state.best)
    elif stopped == "diverged":
        raise DivergedError(
            f"The loss became {state.mean_loss:g} at step {state.step} and nothing good was kept: lower --lr "
            "(a tenth is a good try), or use --precision fp32."
        )
    elif average is not None:
        task.load_state_dict(average.state)
    checkpoint()
    return FitResult(state.step, stopped, state.best_step, state.best_score, state.elapsed_s, state.split)


@dataclass(frozen=True)
class _Stepper:
    """Makes the steps of one fit. wrapped and optimizer are as Fabric prepared them; the rest is as `fit` got it."""

    task: Task
    wrapped: Any
    optimizer: Any
    settings: FitSettings
    machine: Machine
    state: _State
    #: What the task said beside the last loss.
    logs: dict[str, float] = field(default_factory=dict)

    def step(self, micro: list[dict[str, Any]], progress: float, trains: set[str]) -> float:
        """One optimiser step per phase over the given batches, and the mean loss over phases and processes.

        trains: names of the parameters that train at this progress.
        """
        total = 0.0
        for phase in self.task.phases:
            while True:
                try:
                    total += self._phase(phase, micro, progress, trains)
                    break
                except RuntimeError as error:
                    if not is_out_of_memory(error) or self.machine.fabric.world_size > 1:
                        raise
                    self._halve(max(part["_"].size for part in micro), error)
                    self.optimizer.zero_grad(set_to_none=True)
                    if self.machine.device.type == "cuda":
                        torch.cuda.empty_cache()
        return total / len(self.task.phases)

    def _phase(self, phase: str, micro: list[dict[str, Any]], progress: float, trains: set[str]) -> float:
        """Gradients of all parts, weighted by their samples, and one optimiser step unless the loss is no number."""
        fabric, clip_norm = self.machine.fabric, self.settings.clip_norm
        self.optimizer.zero_grad(set_to_none=True)
        parts = [part for batches in micro for part in split_batches(batches, self.state.split)]
        weights = [total_weight(part) for part in parts]
        # DistributedDataParallel divides the sum of gradients by the number of processes: so does this.
        whole = self._process_mean(sum(weights))
        total = 0.0
        for index, (part, weight) in enumerate(zip(parts, weights, strict=True)):
            moved = {k: _ready(b, self.machine.device) for k, b in part.items()}
            last = index == len(parts) - 1
            with fabric.no_backward_sync(self.wrapped, enabled=not last and fabric.world_size > 1):
                output = self.wrapped(moved, progress, phase)
                share = output.loss * (weight / max(whole, 1e-12))
                fabric.backward(share)
            total += float(share.detach())
            self.logs.update({name: float(value) for name, value in output.logs.items()})
        # One loss for all processes: each must take the same decision about a loss that is no number.
        total = self._process_mean(total)
        if fabric.world_size > 1:
            for name, parameter in self.task.named_parameters():
                if name not in trains:
                    parameter.grad = None
        if clip_norm is not None:
            fabric.clip_gradients(self.wrapped, self.optimizer, max_norm=clip_norm, error_if_nonfinite=False)
        if math.isfinite(total):
            self.optimizer.step()
        return total

    def _halve(self, largest: int, error: RuntimeError) -> None:
        """Cut batches in twice as many parts from now on; where not even single samples fit, raise the error again."""
        if self.state.split >= largest:
            raise error
        self.state.split *= 2
        parts = self.state.split
        log.warning("out of memory: each batch is now computed in %d parts, the effective batch stays", parts)

    def _process_mean(self, value: float) -> float:
        fabric = self.machine.fabric
        if fabric.world_size == 1:
            return value
        reduced = fabric.all_reduce(torch.tensor(value, dtype=torch.float32, device=self.machine.device))
        assert isinstance(reduced, Tensor)
        return float(reduced)


def _ready(batch: Batch, device: torch.device) -> Batch:
    moved = batch.to(device)
    return replace(moved, x=channels_last(moved.x))


def _copied(task: Task) -> dict[str, Tensor]:
    return {k: v.detach().clone() for k, v in task.state_dict().items()}


def _healthy(state: _State, loss: float) -> bool:
    """Keep a running mean of the loss; False when it is no number or has left the range where it began."""
    if not math.isfinite(loss):
        state.mean_loss = loss
        return False
    if state.step == 1:
        state.mean_loss = state.first_loss = loss
    state.mean_loss = 0.9 * state.mean_loss + 0.1 * loss
    return state.mean_loss < 10 + 5 * abs(state.first_loss)


def _record(
    state: _State,
    settings: FitSettings,
    steps_per_epoch: float,
    loss: float,
    lr: float,
    values: Mapping[str, float],
    logs: Mapping[str, float] | None = None,
) -> StepRecord:
    per_step = state.elapsed_s / max(1, state.step)
    return StepRecord(
        step=state.step,
        steps=settings.steps,
        epoch=state.step / steps_per_epoch,
        loss=loss,
        lr=lr,
        rate=state.samples / max(1e-9, state.elapsed_s),
        remaining_s=per_step * (settings.steps - state.step),
        elapsed_s=state.elapsed_s,
        values=values,
        logs=dict(logs or {}),
    )
