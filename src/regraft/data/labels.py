"""Labels as batches carry them."""

from __future__ import annotations

import numpy as np


def as_labels(labels: np.ndarray) -> np.ndarray:
    """Labels as a batch carries them: numbers to predict float32, class indices int64."""
    return labels.astype(np.float32 if labels.dtype.kind == "f" else np.int64)
