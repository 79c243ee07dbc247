"""The memory order that convolutions run fastest in, where a task asks for one."""

from __future__ import annotations

from typing import Any, Final

import torch
from torch import Tensor, nn

from regraft.core import nested

#: How many dimensions a tensor has that can be put into this order.
DIMENSIONS: Final[dict[torch.memory_format, int]] = {torch.channels_last: 4, torch.channels_last_3d: 5}


def arrange_weights(module: nn.Module, memory_format: torch.memory_format | None) -> None:
    """Bring the weights and buffers of as many dimensions into that order, in place; None leaves them alone."""
    if memory_format is None:
        return
    dimensions = DIMENSIONS.get(memory_format)

    def arranged(value: Tensor) -> Tensor:
        return value.to(memory_format=memory_format) if value.dim() == dimensions else value

    # As `module.to(memory_format=…)` does, which refuses a weight of other dimensions.
    module._apply(arranged)  # type: ignore[no-untyped-call]


def arrange(x: Any, memory_format: torch.memory_format | None) -> Any:
    """Bring the tensors in x that have as many dimensions into that order; anything else stays as it is."""
    if memory_format is None:
        return x
    dimensions = DIMENSIONS.get(memory_format)

    def arranged(value: Tensor) -> Tensor:
        return value.contiguous(memory_format=memory_format) if value.dim() == dimensions else value

    return nested.map_tensors(x, arranged)
