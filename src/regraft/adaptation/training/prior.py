"""How often each class occurs in the target, for the two methods that use it and for the report; no label is read."""

from __future__ import annotations

from typing import Any

import numpy as np

from regraft.adaptation.maps.label_shift import bbse, em_prior, prior_offset
from regraft.adaptation.options import PRIORS
from regraft.adaptation.training.answers import Adapted
from regraft.adaptation.training.bench import AdaptBench
from regraft.adaptation.training.partial import PRESENT
from regraft.measure.probabilities import softmax


def class_shares(bench: AdaptBench) -> np.ndarray:
    """The shares (K,) of the classes among the pictures that heads are solved on; equal ones without a source."""
    k = len(bench.classes)
    if bench.source is None:
        return np.full(k, 1 / k)
    counts = np.bincount(bench.source.labels[bench.source.train], minlength=k)
    return np.asarray(counts / counts.sum())


def corrected_shares(
    name: str,
    unseen: np.ndarray,
    labels: np.ndarray,
    target: np.ndarray,
    source_shares: np.ndarray,
    temperature: float,
) -> tuple[np.ndarray, np.ndarray]:
    """The target's shares (K,) by BBSE or by EM, and what to add to the logits (K,).

    unseen: logits (N, K) of source pictures with labels (N,) by a head that did not learn from them; target: (M, K);
    the head learned where the classes had source_shares (K,). Both estimates want probabilities, so the logits are
    first divided by the temperature; what is added is multiplied by it, since the artifact divides later.
    """
    p, q = softmax(unseen, temperature), softmax(target, temperature)
    bbse_name, em_name = PRIORS
    shares = {bbse_name: lambda: bbse(p, labels, q), em_name: lambda: em_prior(q, source_shares)}[name]()
    return shares, temperature * prior_offset(source_shares, shares)


def prior_rows(
    bench: AdaptBench, kept: Adapted, temperature: float, *, rows: np.ndarray, partial: bool
) -> list[dict[str, Any]]:
    """Per class its share in the source and its estimated share in the target, for the report.

    The estimate is the kept candidate's own where it makes one, else EM's from its calibrated answers for these rows
    (M,) bool. partial: with the class weights of PADA, and whether the class seems to be there at all.
    """
    learned = class_shares(bench)
    weights = bench.class_weights() if kept.steps else None
    # A loss that weighs classes acts as if the source had had other shares.
    acted = learned if weights is None else learned * weights.numpy() / (learned * weights.numpy()).sum()
    q = softmax(kept.target_logits, temperature)
    shares = kept.prior if kept.prior is not None else em_prior(q[rows], acted)
    mean = softmax(kept.target_logits).mean(axis=0)
    return [
        {
            "name": name,
            "source": float(learned[k]) if bench.source is not None else None,
            "target": round(float(shares[k]), 6),  # EM goes on to 1e-100 for a class that nobody is given
            "weight": float(mean[k] / mean.max()) if partial else None,
            "present": bool(mean[k] / mean.max() >= PRESENT) if partial else None,
        }
        for k, name in enumerate(bench.classes)
    ]
