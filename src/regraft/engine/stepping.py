"""One optimiser step: gradients of all parts of all batches, weighted by their samples, and the task's penalty."""

from __future__ import annotations

import logging
import math
from dataclasses import dataclass, field, replace
from typing import Any

import torch
from torch import Tensor

from regraft.core.types import Batch, Task
from regraft.engine.device import Machine
from regraft.engine.layout import arrange
from regraft.engine.settings import FitSettings
from regraft.engine.splitting import is_out_of_memory, split_batches, total_weight
from regraft.engine.state import State

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Stepper:
    """Makes the steps of one fit. wrapped and optimizer are as Fabric prepared them; the rest is as `fit` got it."""

    task: Task
    wrapped: Any
    optimizer: Any
    settings: FitSettings
    machine: Machine
    state: State
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
        """The gradients of one phase, and one optimiser step unless the loss is no number."""
        fabric, clip_norm = self.machine.fabric, self.settings.clip_norm
        self.optimizer.zero_grad(set_to_none=True)
        parts = [part for batches in micro for part in split_batches(batches, self.state.split)]
        weights = [total_weight(part) for part in parts]
        # DistributedDataParallel divides the sum of gradients by the number of processes: so does this.
        whole = self._process_mean(sum(weights))
        total = 0.0
        for index, (part, weight) in enumerate(zip(parts, weights, strict=True)):
            moved = {name: ready(batch, self.machine, self.task.memory_format) for name, batch in part.items()}
            last = index == len(parts) - 1
            with fabric.no_backward_sync(self.wrapped, enabled=not last and fabric.world_size > 1):
                output = self.wrapped(moved, progress, phase)
                share = output.loss * (weight / max(whole, 1e-12))
                if last and self.task.penalty is not None:
                    share = share + self._penalty()
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

    def _penalty(self) -> Tensor:
        """The penalty in full: the shares of all parts add up to one, and so do the means over processes."""
        assert self.task.penalty is not None
        penalty = self.task.penalty(self.task)
        self.logs["penalty"] = float(penalty.detach())
        return penalty

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


def ready(batch: Batch, machine: Machine, memory_format: torch.memory_format | None) -> Batch:
    """The batch on the machine's device, its inputs in that memory order."""
    moved = batch.to(machine.device)
    return replace(moved, x=arrange(moved.x, memory_format))
