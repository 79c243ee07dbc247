"""What there is to compute on, and in which precision. Light: the engine brings Fabric and a compiler with it."""

from __future__ import annotations

import os
import warnings

import torch

from regraft.core.errors import UsageError


def find_device(name: str = "auto") -> torch.device:
    """The device to compute on: "auto", "cpu", "cuda" or "mps". Raises UsageError for one that is not there."""
    with warnings.catch_warnings():
        # A machine without a driver warns at every look; the answer "no GPU" is what was asked for.
        warnings.filterwarnings("ignore", message=".*CUDA initialization.*")
        cuda = torch.cuda.is_available()
    mps = torch.backends.mps.is_available()
    if name == "auto":
        name = "cuda" if cuda else "mps" if mps else "cpu"
    if name not in {"cpu", "cuda", "mps"}:
        raise UsageError(f"--device takes auto, cpu, cuda or mps, got {name!r}.")
    if (name == "cuda" and not cuda) or (name == "mps" and not mps):
        raise UsageError(f"--device {name} was asked for, but PyTorch sees none here: use --device cpu or auto.")
    return torch.device(name, 0) if name == "cuda" else torch.device(name)


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


def default_threads() -> int:
    """Decoding threads where none are asked for: the processors this process may use, at most 16."""
    usable = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return max(1, min(16, usable))
