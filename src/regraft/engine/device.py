"""Device, precision and processes, decided once and handed to whoever computes."""

from __future__ import annotations

import os
import warnings
from dataclasses import dataclass
from typing import Final, Literal

import torch

from regraft.core.errors import UsageError
from regraft.engine.fabric import Autocast, Fabric, seed_everything
from regraft.engine.memory import keep_freed_memory

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
    devices: int = 1,
    precision: str = "auto",
    seed: int = 0,
    deterministic: bool = False,
) -> Machine:
    """Set up the processes. With devices > 1 the command is started again once per further process.

    device: "auto", "cpu", "cuda" or "mps". precision: "auto", "fp32", "bf16" or "fp16".
    Raises UsageError for a device that is not there or a precision that it does not have.
    """
    kind = _accelerator(device)
    if devices < 1:
        raise UsageError(f"--devices takes 1 or more, not {devices}.")
    if kind == "cuda" and devices > torch.cuda.device_count():
        raise UsageError(f"--devices {devices} was asked for, but there are {torch.cuda.device_count()} GPUs.")
    chosen = best_precision(kind) if precision == "auto" else precision
    if chosen not in PRECISIONS:
        raise UsageError(f"--precision takes auto, {', '.join(PRECISIONS)}; {precision!r} came.")
    if chosen == "fp16" and kind == "cpu":
        raise UsageError("fp16 is for GPUs: on a CPU use fp32, or bf16 where the processor has it.")
    if deterministic:
        os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
        torch.use_deterministic_algorithms(True)
        torch.backends.cudnn.benchmark = False
    fabric = Fabric(
        accelerator="gpu" if kind == "cuda" else kind,
        devices=devices,
        plugins=[Autocast(AUTOCAST[chosen], kind)] if chosen in AUTOCAST else None,
        strategy="ddp" if devices > 1 else "auto",
    )
    fabric.launch()
    if kind == "cpu":
        keep_freed_memory()
    seed_everything(seed, verbose=False)
    return Machine(fabric, chosen)


def is_further_process() -> bool:
    """Whether this process was started by another one's `launch`: it computes, and shows nothing."""
    return int(os.environ.get("LOCAL_RANK", "0")) > 0 or int(os.environ.get("NODE_RANK", "0")) > 0


def best_precision(kind: str) -> str:
    """bf16 where the device computes it natively, fp16 on older GPUs, else fp32.

    A CPU without bf16 instructions computes bf16 ten times slower than fp32 (measured), so it is never chosen there.
    """
    if kind == "cuda":
        return "bf16" if torch.cuda.is_bf16_supported(including_emulation=False) else "fp16"
    if kind == "cpu" and cpu_has_bf16():
        return "bf16"
    return "fp32"


def cpu_has_bf16() -> bool:
    """Whether this processor has AVX-512 BF16 or AMX instructions (Linux and Intel/AMD; elsewhere False)."""
    try:
        with open("/proc/cpuinfo", encoding="utf-8") as source:
            flags = next((line.split() for line in source if line.startswith("flags")), [])
    except OSError:
        return False
    return "avx512_bf16" in flags or "amx_bf16" in flags


def _accelerator(device: str) -> str:
    with warnings.catch_warnings():
        # A machine without a driver warns at every look; the answer "no GPU" is what was asked for.
        warnings.filterwarnings("ignore", message=".*CUDA initialization.*")
        cuda = torch.cuda.is_available()
    mps = torch.backends.mps.is_available()
    if device == "auto":
        return "cuda" if cuda else "mps" if mps else "cpu"
    if device not in {"cpu", "cuda", "mps"}:
        raise UsageError(f"--device takes auto, cpu, cuda or mps; {device!r} came.")
    if (device == "cuda" and not cuda) or (device == "mps" and not mps):
        raise UsageError(f"--device {device} was asked for, but PyTorch sees none here: use --device cpu or auto.")
    return device
