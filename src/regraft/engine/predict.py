"""Run a model over a stream once, in order, without gradients."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from regraft.core import nested
from regraft.core.types import Batch, Stream
from regraft.engine.device import Machine
from regraft.engine.layout import arrange


class Prediction(NamedTuple):
    """What came out, on the CPU and in the stream's order, padding removed.

    outputs: float32 (N, …) where the module gives tensors of one size; of several sizes a list with one entry for each
    sample; a mapping or list where it gives these. labels: the same of the stream's labels, None where it has none.
    """

    outputs: Any
    labels: Any


def predict(
    module: nn.Module,
    stream: Stream,
    machine: Machine,
    *,
    call: Callable[[Any], Any] | None = None,
    on_batch: Callable[[int, int], None] | None = None,
) -> Prediction:
    """Outputs of `call` (the module's `predict` unless told) for epoch 0 of the stream.

    The module is put in evaluation mode and back; inputs come in its `memory_format`, where it has one.
    on_batch(done, total) is called after each batch.
    """
    function: Any = call or module.predict
    memory_format = getattr(module, "memory_format", None)
    training = module.training
    modes = {name: m.training for name, m in module.named_modules()}
    module.eval()
    outputs, labels = list[Any](), list[Any]()
    try:
        with torch.inference_mode(), machine.fabric.autocast():
            for index, batch in enumerate(stream.epoch(0)):
                batch = batch.to(machine.device)
                found = nested.to_cpu_float(_kept(function(arrange(batch.x, memory_format)), batch))
                outputs.append(found)
                if batch.y is not None:
                    labels.append(nested.map_tensors(_kept(batch.y, batch), Tensor.cpu))
                if on_batch is not None:
                    on_batch(index + 1, len(stream))
    finally:
        module.train(training)
        for name, m in module.named_modules():
            m.training = modes[name]
    return Prediction(_whole(outputs), _whole(labels) if labels else None)


def _kept(values: Any, batch: Batch) -> Any:
    """The values of a batch's real samples."""
    return values if batch.weight is None else nested.gather(values, batch.weight > 0)


def _whole(parts: list[Any]) -> Any:
    """Cloned outside inference mode, so that callers may use the results in a graph."""
    return nested.map_tensors(nested.concatenate(parts), Tensor.clone)
