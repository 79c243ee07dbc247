"""Cached features: every sample through the frozen backbone once, kept in the run for a resume."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import torch
from safetensors.torch import load_file, save_file

from regraft.core.files import replacing
from regraft.engine.features import features_of

if TYPE_CHECKING:
    from regraft.recipes.fit.workbench import Workbench


def extract_features(bench: Workbench, indices: np.ndarray, kept: Path, *, half: bool = True) -> np.ndarray:
    """Pooled features (N, D) float32 of these samples, in their order, with the weights' own preprocessing.

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
