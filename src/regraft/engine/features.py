"""Features of a stream's samples, with the rate shown as they come."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from regraft.core.listener import Listener
from regraft.core.types import Backbone, Stream
from regraft.engine.device import Machine
from regraft.engine.predict import predict


class CountedStream(Stream, Protocol):
    """A stream that says how many samples it has, and what they are called."""

    samples: int
    many: str


def features_of(
    backbone: Backbone,
    stream: CountedStream,
    machine: Machine,
    listener: Listener,
    what: str,
    call: Callable[[Any], Tensor] | None = None,
) -> NDArray[np.float32]:
    """Pooled features (N, D) float32 of a stream's samples, by `call` where there is a quicker engine than PyTorch."""
    count = stream.samples
    started = time.monotonic()

    def tell(done: int, total: int) -> None:
        elapsed = max(1e-6, time.monotonic() - started)
        rate = f"{done / total * count / elapsed:.0f} {stream.many}/s"
        listener.progress(what, done, total, rate=rate, remaining_s=elapsed / done * (total - done))

    def plain(x: Any) -> Tensor:
        pooled: Tensor = backbone(x).pooled
        return pooled

    found = predict(backbone, stream, machine, call=call or plain, on_batch=tell).outputs
    features: NDArray[np.float32] = found.contiguous().numpy()
    return features
