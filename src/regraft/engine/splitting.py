"""Cutting a batch that does not fit into memory, so that the effective batch stays what it was."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch

from regraft.core import nested
from regraft.core.types import Batch


def is_out_of_memory(error: BaseException) -> bool:
    """Whether an error says that a device or the CPU allocator has no memory left."""
    if isinstance(error, torch.OutOfMemoryError):
        return True
    text = str(error).lower()
    return "out of memory" in text or "can't allocate memory" in text or "not enough memory" in text


def split_batches(batches: Mapping[str, Any], parts: int) -> list[dict[str, Batch]]:
    """Cut every stream's batch into `parts` pieces of nearly equal length; fewer where a batch is shorter than that."""
    real = {name: batch for name, batch in batches.items() if isinstance(batch, Batch)}
    if parts <= 1:
        return [real]
    count = min(parts, *(nested.length(batch.x) for batch in real.values()))
    pieces = {name: batch.cut(count) for name, batch in real.items()}
    return [{name: piece[index] for name, piece in pieces.items()} for index in range(count)]


def total_weight(batches: Mapping[str, Batch]) -> float:
    """How many real samples the first stream's batch holds; padding counts 0."""
    first = next(iter(batches.values()))
    return float(first.weight.sum()) if first.weight is not None else float(nested.length(first.x))
