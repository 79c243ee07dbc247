"""Features of a stream's pictures by the quickest engine."""

from __future__ import annotations

import numpy as np

from regraft.core.listener import Listener
from regraft.core.types import Backbone
from regraft.engine import Machine
from regraft.engine.features import CountedStream
from regraft.engine.features import features_of as features_by
from regraft.images.backbones.base import ImageBackbone
from regraft.images.backbones.fast import FastFeatures, fast_features

__all__ = ["CountedStream", "features_of"]


def features_of(
    backbone: Backbone,
    stream: CountedStream,
    machine: Machine,
    listener: Listener,
    what: str,
    quick: FastFeatures | None = None,
) -> np.ndarray:
    """Pooled features (N, D) float32 of a stream's pictures by the quickest engine that agrees with the network."""
    if quick is None and isinstance(backbone, ImageBackbone):
        quick = fast_features(backbone, device=machine.device, n_pictures=stream.samples)
    return features_by(backbone, stream, machine, listener, what, quick)
