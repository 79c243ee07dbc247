"""A target that holds only some of the source's classes: how much each seems to be there, and source rows to match.

Paper: Cao, Ma, Long & Wang, "Partial Adversarial Domain Adaptation", ECCV 2018, arXiv:1808.04205. Aligned with a whole
source, such a target is drawn to classes that it does not have.
"""

from __future__ import annotations

import torch
from torch import Tensor

#: A class whose weight is below this is taken to be absent: wrong answers give it a few per cent of the likeliest one.
PRESENT = 0.2


def class_weights(probabilities: Tensor) -> Tensor:
    """How much each class is in the target, (K,), from its probabilities (M, K): their mean, over its largest entry.

    arXiv:1808.04205, eq. 3, divided by the largest weight as in the paper. In 0…1, without gradient. All 1 for no row.
    """
    p = probabilities.detach().float()
    if len(p) == 0:
        return torch.ones(p.shape[1], device=p.device)
    mean = p.mean(dim=0)
    return mean / mean.max()


def present(weights: Tensor) -> Tensor:
    """Which classes (K,) bool the target seems to have, by weights (K,) as `class_weights` gives them."""
    return weights >= PRESENT


def resample(weights: Tensor, offset: Tensor) -> Tensor:
    """Rows (N,) in 0…N−1, drawn with replacement in proportion to weights (N,) ≥ 0, not all 0.

    Systematic resampling (Kitagawa, Journal of Computational and Graphical Statistics 5, 1996): one offset in [0, 1)
    for all, so row i comes ⌊N wᵢ / Σw⌋ or one more times, N wᵢ / Σw on average, and equal weights give every row once.
    """
    n = len(weights)
    # On the CPU and in float64, which not every device has; over the largest, so that equal weights are exactly 1.
    shares = weights.detach().cpu().double()
    ends = torch.cumsum(shares / shares.max(), dim=0)
    places = (torch.arange(n) + offset.cpu().double()) * ends[-1] / n
    return torch.searchsorted(ends, places, right=True).clamp(max=n - 1).to(weights.device)
