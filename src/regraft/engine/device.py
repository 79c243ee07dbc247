"""Device, precision and processes, decided once and handed to whoever computes."""

from __future__ import annotations

import os
from dataclasses import dataclass
from typing import Any, Final, Literal

import torch

from regraft.core.errors import UsageError
from regraft.core.hardware import best_precision, find_device
from regraft.core.memory import keep_freed_memory
from regraft.engine.fabric import Autocast, Fabric, TorchElasticEnvironment, seed_everything
from regraft.engine.processes import agree

PRECISIONS = ("fp32", "bf16", "fp16")
#: Those that are computed by autocast, by Fabric's names.
AUTOCAST: Final[dict[str, Literal["bf16-mixed", "16-mixed"]]] = {"bf16": "bf16-mixed", "fp16": "16-mixed"}


@dataclass(frozen=True)
class Machine:
    """Fabric and what was chosen with it. `device` is what this process computes on."""

    fabric: Fabric
    precision: str

    @property
    def device(self) -> torch.device:
        return self.fabric.device

    @property
    def is_first(self) -> bool:
        """Whether this process is the one that writes and shows."""
        return bool(self.fabric.is_global_zero)


def launch(
    *,
    device: str = "auto",
    devices: int | None = None,
    nodes: int = 1,
    precision: str = "auto",
    seed: int = 0,
    deterministic: bool = False,
) -> Machine:
    """Set up the processes. With devices > 1 the command is started again once per further process on this node.

    device: "auto", "cpu", "cuda" or "mps". devices: processes on each node; None for a command that computes in one
    alone. nodes: machines that each start this command. precision: "auto", "fp32", "bf16" or "fp16". Where torchrun
    started the processes already, these are all, and 1 of either leaves their number to it.
    Raises UsageError for a device that is not there, a precision that it does not have, or numbers that torchrun
    contradicts.
    """
    kind = find_device(device).type
    processes = agree(devices, nodes)
    if kind == "cuda" and processes.devices > torch.cuda.device_count():
        raise UsageError(
            f"--devices {processes.devices} was asked for, but there are {torch.cuda.device_count()} GPUs."
        )
    chosen = best_precision(kind) if precision == "auto" else precision
    if chosen not in PRECISIONS:
        raise UsageError(f"--precision takes auto, {', '.join(PRECISIONS)}; got {precision!r}.")
    if chosen == "fp16" and kind == "cpu":
        raise UsageError("fp16 is for GPUs: on a CPU use fp32, or bf16 where the processor has it.")
    if deterministic:
        os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
        torch.use_deterministic_algorithms(True)
        torch.backends.cudnn.benchmark = False
    plugins: list[Any] = [Autocast(AUTOCAST[chosen], kind)] if chosen in AUTOCAST else []
    if processes.started:
        plugins.append(TorchElasticEnvironment())
    fabric = Fabric(
        accelerator="gpu" if kind == "cuda" else kind,
        devices=processes.devices,
        num_nodes=processes.nodes,
        plugins=plugins or None,
        strategy="ddp" if processes.several else "auto",
    )
    fabric.launch()
    if kind == "cpu":
        keep_freed_memory()
    seed_everything(seed, verbose=False)
    return Machine(fabric, chosen)
