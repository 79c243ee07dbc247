"""Several sources of one adaptation: how far each is from the target, and how much it should count for it."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import torch

from regraft.adaptation.domains import Labelled
from regraft.adaptation.evidence.distances import domain_distance
from regraft.adaptation.training.several_sources import nearness_weights

#: The candidate whose source loss counts each source by its nearness to the target.
WEIGHTING = "source-weighting"
#: What `--method auto` tries beside the rest where there are several sources.
FOR_SEVERAL = ("M3SDA", WEIGHTING)


@dataclass(frozen=True)
class SourceDomain:
    """One source for the report. n: pictures; distances to the target and weight: None where nothing measured them."""

    name: str
    n: int
    a_distance: float | None = None
    mmd2: float | None = None
    weight: float | None = None

    def to_json(self) -> dict[str, Any]:
        return asdict(self)


def described(source: Labelled) -> tuple[SourceDomain, ...]:
    """The sources without distances; none where there is only one."""
    counts = np.bincount(source.domains, minlength=len(source.names))
    return tuple(SourceDomain(n, int(c)) for n, c in zip(source.names, counts, strict=True)) if source.several else ()


def measured(source: Labelled, train: np.ndarray, target: np.ndarray, *, seed: int) -> tuple[SourceDomain, ...]:
    """The sources with their distances and weights; none where there is only one.

    train: features (N, D) of the source's training pictures; target: (M, D). The weight is by the squared maximum mean
    discrepancy, for which no label is read: the proxy A-distance is often 2 for every source, and then tells nothing.
    """
    if not source.several:
        return ()
    of = source.domains[source.train]
    found = [domain_distance(train[of == d], target, seed=seed) for d in range(len(source.names))]
    weights = nearness_weights([distance["mmd2"] for distance in found])
    return tuple(
        SourceDomain(plain.name, plain.n, distance["a_distance"], distance["mmd2"], float(weight))
        for plain, distance, weight in zip(described(source), found, weights, strict=True)
    )


def sample_weights(source: Labelled, sources: tuple[SourceDomain, ...]) -> torch.Tensor:
    """Per source the weight (S,) of each of its training pictures: its own over its share of them, so 1 on average."""
    share = np.bincount(source.domains[source.train], minlength=len(sources)) / len(source.train)
    return torch.tensor([float(s.weight or 0.0) / share[i] for i, s in enumerate(sources)], dtype=torch.float32)
