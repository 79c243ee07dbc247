"""Marginal and class-conditional alignment together, weighted by how far apart each of the two still is.

Papers: Wang et al. (MEDA), MM 2018, arXiv:1807.07258; Yu et al. (DAAN), ICDM 2019, arXiv:1909.08184.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

from regraft.adaptation.base import DomainLoss, losses, require
from regraft.adaptation.losses.kernels import (
    MULTIPLES,
    GaussianKernel,
    both_features,
    joint_distances,
    off_diagonal,
    squared_mmd,
)
from regraft.core.errors import UsageError, unknown_name
from regraft.core.types import DomainView

#: How the share of the conditional term is found, besides a fixed number.
WEIGHTS = ("distances", "mean-gap")
#: Steepness of the "mean-gap" weight per unit of feature distance.
GAP_STEEPNESS = 0.1


@losses.register("DDAN")
class DDAN(DomainLoss):
    """(1 − μ) · marginal + μ · class-conditional squared maximum mean discrepancy, μ from the batch itself.

    Papers: Wang et al., MM 2018, arXiv:1807.07258, eq. 12 (MEDA; DDAN is its deep form, arXiv:1909.08531);
    Yu et al., ICDM 2019, arXiv:1909.08184, eq. 9 (DAAN). Reads source.features (N, D), source.labels (N,),
    target.features (M, D) and target.logits (M, K), N and M ≥ 2. The softmax of the logits is the target's soft
    pseudo-label and carries no gradient; both distances are unbiased and share one multi-kernel.

    weight: "distances": μ = conditional / (marginal + conditional), from the two distances of this batch, detached and
    at least 0; 1/2 where both are 0. "mean-gap": 1 − μ = sigmoid(0.1 · ‖mean source − mean target‖₂), so the marginal
    term has at least half and more the farther the means are apart. A number in [0, 1]: μ itself, fixed.

    Differs from the papers: the squared discrepancies stand for the A-distances, which need a trained classifier; the
    conditional one is a mean over classes (as in DAAN), not a sum, so that many classes do not outvote the marginal
    one; nothing is kept between batches. A class takes part where the source has two samples of it, and weighs as many
    target samples as are predicted; where those are fewer than one in all, μ shrinks with them. Weight 1.
    Raises UsageError for missing labels or logits, batches that are too small and impossible options.
    """

    paper = "Wang et al., MM 2018, arXiv:1807.07258"
    default_weight = 1.0
    needs_classes = True

    def __init__(
        self,
        feature_dim: int,
        n_classes: int,
        *,
        weight: str | float = "distances",
        multiples: Sequence[float] = MULTIPLES,
    ) -> None:
        super().__init__(feature_dim, n_classes)
        if isinstance(weight, str) and weight not in WEIGHTS:
            raise unknown_name("weight of DDAN", weight, WEIGHTS)
        if not isinstance(weight, str) and not 0 <= weight <= 1:
            raise UsageError(f"DDAN got weight={weight}: a number in [0, 1], or one of {', '.join(WEIGHTS)}.")
        self.weight, self.kernel = weight, GaussianKernel(multiples)

    def forward(self, source: DomainView, target: DomainView, progress: float) -> Tensor:
        x, y = both_features(source, target, "DDAN")
        labels = require(source.labels, "the source's labels", "DDAN")
        logits = require(target.logits, "the target's logits", "DDAN")
        known = F.one_hot(labels.long(), self.n_classes).float()
        guessed = logits.detach().float().softmax(dim=1)
        kernel = self.kernel(joint_distances(x, y))
        marginal = squared_mmd(kernel, len(x))
        distances, evidence = class_squared_mmd(kernel, known, guessed)
        total = evidence.sum()
        conditional = (evidence * distances).sum() / total.clamp(min=torch.finfo(total.dtype).eps)
        share = self._conditional_share(marginal.detach(), conditional.detach(), (x.mean(0) - y.mean(0)).detach())
        share = share * total.clamp(max=1.0)
        return (1 - share) * marginal + share * conditional

    def _conditional_share(self, marginal: Tensor, conditional: Tensor, gap: Tensor) -> Tensor:
        """μ, a scalar in [0, 1], from the two detached distances and the gap (D,) of the means."""
        if not isinstance(self.weight, str):
            return torch.full_like(marginal, self.weight)
        if self.weight == "mean-gap":
            return 1 - torch.sigmoid(GAP_STEEPNESS * torch.linalg.vector_norm(gap))
        # An unbiased estimate may be below 0, which is no distance. The small number makes 0 / 0 a half.
        small = torch.finfo(marginal.dtype).eps
        of_marginal, of_conditional = marginal.clamp(min=0) + small, conditional.clamp(min=0) + small
        return of_conditional / (of_marginal + of_conditional)


def class_squared_mmd(kernel: Tensor, known: Tensor, guessed: Tensor) -> tuple[Tensor, Tensor]:
    """Per class: the unbiased squared maximum mean discrepancy (K,), and its evidence (K,) in target samples.

    kernel (N + M, N + M); known (N, K) and guessed (M, K): how much of each sample is of which class. A class that one
    domain lacks has evidence 0 and a finite distance. Means over pairs of different samples weigh a pair by the product
    of its two memberships.
    """
    n = len(known)
    with torch.autocast(kernel.device.type, enabled=False):
        source_pairs, source_mean = _pair_mean(kernel[:n, :n], known)
        target_pairs, target_mean = _pair_mean(kernel[n:, n:], guessed)
        mass = known.sum(dim=0) * guessed.sum(dim=0)
        between = (known * (kernel[:n, n:] @ guessed)).sum(dim=0) / mass.clamp(min=torch.finfo(mass.dtype).eps)
    evidence = target_pairs.sqrt() * (source_pairs > 0)
    return source_mean + target_mean - 2 * between, evidence.detach()


def _pair_mean(kernel: Tensor, membership: Tensor) -> tuple[Tensor, Tensor]:
    """The weight (K,) of all pairs of different samples in a class, and the kernel's mean (K,) over them."""
    others = off_diagonal(torch.ones_like(kernel))
    pairs = (membership * (others @ membership)).sum(dim=0)
    total = (membership * (off_diagonal(kernel) @ membership)).sum(dim=0)
    return pairs, total / pairs.clamp(min=torch.finfo(pairs.dtype).eps)
