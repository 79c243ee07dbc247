"""Cached features: every picture through the frozen backbone once, kept in the run for a resume."""

from __future__ import annotations

import time
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

import numpy as np
import torch
from safetensors.torch import load_file, save_file

from regraft.backbones.base import ImageBackbone
from regraft.backbones.fast import FastFeatures, fast_features
from regraft.core.files import replacing
from regraft.core.types import Stream
from regraft.engine import Machine, predict
from regraft.recipes.listener import Listener

if TYPE_CHECKING:
    from regraft.recipes.candidates import Workbench


class CountedStream(Stream, Protocol):
    """A stream that says how many pictures it has."""

    @property
    def samples(self) -> int: ...


def extract_features(bench: Workbench, indices: np.ndarray, kept: Path, *, half: bool = True) -> np.ndarray:
    """Pooled features (N, D) float32 of these pictures, in their order, with the weights' own preprocessing.

    half: whether they may be computed in half precision, which is quicker; not where a model is measured that will
    compute in full precision.
    """
    if kept.is_file():
        cached = load_file(kept)
        if cached["indices"].tolist() == indices.tolist():
            return cached["features"].numpy()
    stream = bench.streams.plain(indices)
    quick = bench.quick(len(indices), half=half)
    features = features_of(bench.backbone, stream, bench.machine, bench.listener, "Features", quick)
    if bench.machine.is_first:
        with replacing(kept) as temporary:
            save_file({"features": torch.from_numpy(features), "indices": torch.from_numpy(indices)}, temporary)
    return features


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
    return found.contiguous().numpy()
