"""`regraft distance`: how far apart two folders of pictures are, without any label."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch

from regraft.adaptation.domains import read_unlabelled
from regraft.adaptation.evidence.distances import domain_distance
from regraft.core.listener import Listener
from regraft.images.backbones import create
from regraft.images.backbones.fast import fast_features
from regraft.images.stream import PictureStream
from regraft.images.transform import EvalTransform
from regraft.recipes.distance.options import DistanceConfig

#: What each measure means, for people.
MEANINGS = {
    "a_distance": "0: cannot be told apart, 2: always told apart (Ben-David et al. 2010)",
    "mmd2": "squared maximum mean discrepancy, Gaussian kernel, unbiased; around 0 for the same distribution",
    "gaussian_kl": "symmetric Kullback-Leibler divergence of Gaussians, nats per coordinate",
}


def run_distance(options: DistanceConfig, *, listener: Listener | None = None) -> dict[str, Any]:
    """{"a", "b", "n", "backbone", "measures": {name: {"value", "meaning"}}, "sentence"}."""
    listener = listener or Listener()
    a, b, backbone = options.a, options.b, options.backbone
    net = create(backbone, options.weights).eval()
    features, counts = [], []
    for root in (a, b):
        found = read_unlabelled((root,), max_bad=1.0)
        paths = list(found.source.paths)
        if len(paths) > 2000:
            chosen = np.sort(np.random.default_rng(options.seed).permutation(len(paths))[:2000])
            paths = [paths[i] for i in chosen]
        quick = fast_features(net, n_pictures=len(paths))
        stream = PictureStream(paths, None, EvalTransform(net.input_spec), batch_size=32)
        parts = []
        for index, batch in enumerate(stream.epoch(0)):
            keep = slice(None) if batch.weight is None else batch.weight > 0
            parts.append(quick(batch.x)[keep])
            listener.progress(f"Features of {root.name}", index + 1, len(stream))
        features.append(torch.cat(parts).numpy())
        counts.append(len(paths))
    values = domain_distance(features[0], features[1], seed=options.seed)
    measures = {name: {"value": float(value), "meaning": MEANINGS.get(name, "")} for name, value in values.items()}
    gap = values["a_distance"]
    if gap < 0.3:
        judged = "They can hardly be told apart: a model of one should serve the other as it is."
    elif gap < 1.2:
        judged = "They differ: compare with `regraft adapt` before a model of one is used on the other."
    else:
        judged = "They differ strongly: a model of one will probably do worse on the other."
    return {
        "a": str(a),
        "b": str(b),
        "n": counts,
        "backbone": backbone,
        "measures": measures,
        "sentence": f"Proxy A-distance {gap:.2f} of 2 in the features of {backbone}. {judged}",
    }
