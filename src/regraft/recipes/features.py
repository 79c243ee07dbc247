"""Cached features: every picture through the frozen backbone once, kept in the run for a resume."""

from __future__ import annotations

import time
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import torch
from safetensors.torch import load_file, save_file

from regraft.core.files import replacing
from regraft.engine import predict

if TYPE_CHECKING:
    from regraft.recipes.candidates import Workbench


def extract_features(bench: Workbench, indices: np.ndarray, kept: Path) -> np.ndarray:
    """Pooled features (N, D) float32 of these pictures, in their order, with the weights' own preprocessing."""
    if kept.is_file():
        cached = load_file(kept)
        if cached["indices"].tolist() == indices.tolist():
            return cached["features"].numpy()
    started = time.monotonic()
    stream = bench.streams.plain(indices)

    def tell(done: int, total: int) -> None:
        elapsed = max(1e-6, time.monotonic() - started)
        bench.listener.progress(
            "Features",
            done,
            total,
            rate=f"{done * len(indices) / total / elapsed:.0f} pictures/s",
            remaining_s=elapsed / done * (total - done),
        )

    outputs = predict(bench.backbone, stream, bench.machine, call=bench.quick(len(indices)), on_batch=tell).outputs
    if bench.machine.is_first:
        with replacing(kept) as temporary:
            save_file({"features": outputs.contiguous(), "indices": torch.from_numpy(indices)}, temporary)
    return outputs.numpy()
