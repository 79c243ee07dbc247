"""Features of a stream's pictures by the quickest engine."""

from __future__ import annotations

import time
from typing import Protocol

import numpy as np

from regraft.core.listener import Listener
from regraft.core.types import Stream
from regraft.engine import Machine, predict
from regraft.images.backbones.base import ImageBackbone
from regraft.images.backbones.fast import FastFeatures, fast_features


class CountedStream(Stream, Protocol):
    """A stream that says how many pictures it has."""

    @property
    def samples(self) -> int: ...


def features_of(
    backbone: ImageBackbone,
    stream: CountedStream,
    machine: Machine,
    listener: Listener,
    what: str,
    quick: FastFeatures | None = None,
) -> np.ndarray:
    """Pooled features (N, D) float32 of a stream's pictures by the quickest engine that agrees with the network."""
    count = stream.samples
    if quick is None:
        quick = fast_features(backbone, device=machine.device, n_pictures=count)
    started = time.monotonic()

    def tell(done: int, total: int) -> None:
        elapsed = max(1e-6, time.monotonic() - started)
        rate = f"{done / total * count / elapsed:.0f} pictures/s"
        listener.progress(what, done, total, rate=rate, remaining_s=elapsed / done * (total - done))

    found = predict(backbone, stream, machine, call=quick, on_batch=tell).outputs
    rows: np.ndarray = found.contiguous().numpy()
    return rows
