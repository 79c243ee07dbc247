"""Rows of every process in one tensor, so that an alignment over two processes is the alignment over one.

A distance between two samples is not the mean of the distances between their halves. So where processes share a batch,
features and logits are gathered first, every process computes the same loss on all rows, and the gradient of its own
rows goes back to it.
"""

from __future__ import annotations

from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor
from torch.autograd import Function


class _Gather(Function):
    """(n, …) of each process, n alike in all → (n · processes, …), in the order of the processes.

    Backward sums what all processes ask of a row. What wraps the task averages over them afterwards, which
    together is the gradient of the one loss.
    """

    @staticmethod
    def forward(ctx: Any, rows: Tensor) -> Tensor:
        ctx.rows = len(rows)
        parts = [torch.empty_like(rows) for _ in range(dist.get_world_size())]
        dist.all_gather(parts, rows.contiguous())
        return torch.cat(parts)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> Tensor:
        whole = gradients[0].clone()
        dist.all_reduce(whole)
        first = dist.get_rank() * ctx.rows
        return whole[first : first + ctx.rows]


def rows_of_all(rows: Tensor) -> Tensor:
    """`rows` (n, …) of every process, (n · processes, …); they themselves where there is one process."""
    if not dist.is_available() or not dist.is_initialized() or dist.get_world_size() == 1:
        return rows
    gathered: Tensor = _Gather.apply(rows)
    return gathered
