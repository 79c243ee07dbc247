"""Run a model over a stream once, in order, without gradients."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from regraft.core.types import Stream
from regraft.engine.device import Machine


class Prediction(NamedTuple):
    """outputs: (N, …) float32 on the CPU, padding removed. labels: (N,) or None where the stream has none."""

    outputs: Tensor
    labels: Tensor | None


def predict(
    module: nn.Module,
    stream: Stream,
    machine: Machine,
    *,
    call: Callable[[Any], Tensor] | None = None,
    on_batch: Callable[[int, int], None] | None = None,
) -> Prediction:
    """Outputs of `call` (the module's `predict` unless told) for epoch 0 of the stream.

    The module is put in evaluation mode and back. on_batch(done, total) is called after each batch.
    """
    function: Any = call or module.predict
    training = module.training
    modes = {name: m.training for name, m in module.named_modules()}
    module.eval()
    outputs, labels = [], []
    try:
        with torch.inference_mode(), machine.fabric.autocast():
            for index, batch in enumerate(stream.epoch(0)):
                batch = batch.to(machine.device)
                out = function(channels_last(batch.x)).float()
                keep = slice(None) if batch.weight is None else batch.weight > 0
                outputs.append(out[keep].cpu())
                if batch.y is not None:
                    labels.append(batch.y[keep].cpu())
                if on_batch is not None:
                    on_batch(index + 1, len(stream))
    finally:
        module.train(training)
        for name, m in module.named_modules():
            m.training = modes[name]
    # Cloned outside inference mode, so that callers may use the results in a graph.
    return Prediction(torch.cat(outputs).clone(), torch.cat(labels).clone() if labels else None)


def channels_last(x: Any) -> Any:
    """Pictures in channels-last memory order, which convolutions run fastest in; anything else as it is."""
    if isinstance(x, Tensor) and x.dim() == 4:
        return x.contiguous(memory_format=torch.channels_last)
    return x
