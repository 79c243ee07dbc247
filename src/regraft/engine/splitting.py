"""Cutting a batch that does not fit into memory, so that the effective batch stays what it was."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

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
    count = min(parts, *(_length(b.x) for b in real.values()))
    cut = {name: _chunks(batch, count) for name, batch in real.items()}
    return [{name: pieces[i] for name, pieces in cut.items()} for i in range(count)]


def total_weight(batches: Mapping[str, Batch]) -> float:
    """How many real samples the first stream's batch holds; padding counts 0."""
    first = next(iter(batches.values()))
    return float(first.weight.sum()) if first.weight is not None else float(_length(first.x))


def _chunks(batch: Batch, count: int) -> list[Batch]:
    def cut(value: Any) -> list[Any]:
        if value is None:
            return [None] * count
        if isinstance(value, Mapping):
            pieces = {k: cut(v) for k, v in value.items()}
            return [{k: v[i] for k, v in pieces.items()} for i in range(count)]
        return list(torch.tensor_split(value, count))

    parts = (cut(batch.x), cut(batch.y), cut(batch.weight), cut(batch.domain))
    return [Batch(*part) for part in zip(*parts, strict=True)]


def _length(x: Any) -> int:
    if isinstance(x, Mapping):
        x = next(iter(x.values()))
    assert isinstance(x, Tensor)
    return len(x)
