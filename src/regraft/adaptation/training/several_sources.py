"""Several labelled sources and one target: their moments matched pairwise, and how much each source should count."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from regraft.adaptation.base import DomainLoss, losses
from regraft.adaptation.losses.kernels import both_features
from regraft.core.errors import UsageError
from regraft.core.types import DomainView

#: Distances whose mean is below this are all about 0: no source is nearer than another by more than chance.
SMALLEST_MEAN = 0.01


@losses.register("M3SDA")
class M3SDA(DomainLoss):
    """Moments of every source drawn to the target's and to each other's, pair by pair.

    Paper: Peng et al., "Moment Matching for Multi-Source Domain Adaptation", ICCV 2019, arXiv:1812.01754, eq. 1:
    Σₖ (1/S Σᵢ ‖E xᵢᵏ − E yᵏ‖ + 1/C(S,2) Σᵢ﹤ⱼ ‖E xᵢᵏ − E xⱼᵏ‖) over the raw moments k = 1 … order of each coordinate,
    norms not squared. Reads source.features (N, D), source.domains (N,) and target.features (M, D), N and M ≥ 2. The
    sources are those that the batch holds; without `domains` all of it is one source, and the second sum is 0.

    Differs from the paper: no classifier for each source, so neither their weights at the end nor the adversarial steps
    of its M³SDA-β. On 256 adapter features of PACS it is 10 to 15, much of it the chance of small batches: hence 0.1.
    Behind a normalisation by each domain's own batch the first two moments agree already: it is for sources that pass
    together. Raises UsageError for batches that are too small and an order below 1.
    """

    paper = "Peng et al., ICCV 2019, arXiv:1812.01754"
    default_weight = 0.1

    def __init__(self, feature_dim: int, n_classes: int, *, order: int = 2) -> None:
        super().__init__(feature_dim, n_classes)
        if order < 1:
            raise UsageError(f"M3SDA got order={order}: moments are compared up to order 1 or more.")
        self.order = order

    def forward(self, source: DomainView, target: DomainView, progress: float) -> Tensor:
        x, y = both_features(source, target, "M3SDA")
        parts = [x]
        if source.domains is not None:
            domains: Tensor = source.domains.unique()  # type: ignore[no-untyped-call]  # PyTorch has no types for it
            parts = [x[source.domains == domain] for domain in domains]
        first, second = torch.triu_indices(len(parts), len(parts), 1, device=x.device)
        total = x.new_zeros(())
        for k in range(1, self.order + 1):
            own = torch.stack([part.pow(k).mean(dim=0) for part in parts])
            total = total + torch.linalg.vector_norm(own - y.pow(k).mean(dim=0), dim=1).mean()
            if len(parts) > 1:
                total = total + torch.linalg.vector_norm(own[first] - own[second], dim=1).mean()
        return total


def nearness_weights(distances: Sequence[float], *, temperature: float = 1.0) -> NDArray[np.float64]:
    """Weights (S,) of S sources, summing to 1, from their distances (S,) to the target: nearer sources count more.

    The weights α of the simplex that minimise Σ αᵢ gᵢ + temperature · ‖α‖₂, as the aggregation of Wen et al., "Domain
    Aggregation Networks for Multi-Source Domain Adaptation" (DARN), ICML 2020, arXiv:1909.05352: the first term prefers
    near sources, the second keeps the effective number of samples high. The minimum is αᵢ ∝ [ν − gᵢ]₊ with
    Σ [ν − gᵢ]₊² = temperature², so a source that is much farther than others gets 0.

    Differs from the paper: gᵢ is the distance alone, over the mean distance of all sources (negative estimates count
    as 0), measured once before training; there it is a source's loss plus a learned discrepancy, anew in each step.
    Where the mean is below 0.01 that stands in for it. Raises UsageError for no distance, one that is not finite, and
    a temperature that is not positive.
    """
    g = np.maximum(np.asarray(distances, dtype=np.float64), 0.0)
    if g.ndim != 1 or len(g) == 0 or not np.isfinite(g).all() or not temperature > 0:
        raise UsageError(f"Weights are made from finite distances and a temperature above 0; {distances!r} came.")
    g = g / max(float(g.mean()), SMALLEST_MEAN)
    ordered = np.sort(g)
    for count in range(len(g), 0, -1):
        near = ordered[:count]
        # Σ (ν − g)² = temperature² over the nearest `count`: its larger root, where all of them get a weight.
        discriminant = near.sum() ** 2 - count * (np.square(near).sum() - temperature**2)
        level = (near.sum() + np.sqrt(max(discriminant, 0.0))) / count
        if discriminant >= 0 and level > near[-1]:
            break
    share = np.maximum(level - g, 0.0)
    return np.asarray(share / share.sum())
