"""Gaussian kernels over a batch of both domains, and the maximum mean discrepancy that they give.

Paper: Gretton et al., "A Kernel Two-Sample Test", JMLR 13, 2012, eq. 3 (unbiased) and eq. 5 (biased).
Everything is in float32, also under autocast: distances are differences of large numbers.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from regraft.adaptation.base import squared_distances
from regraft.core.errors import UsageError, unknown_name
from regraft.core.types import DomainView

#: A quarter to four times the typical squared distance: a factor of two between neighbours.
MULTIPLES = (0.25, 0.5, 1.0, 2.0, 4.0)
#: The least typical squared distance: below it samples are the same, and what is left is rounding.
SMALLEST = 1e-8


def median_distance(squared: Tensor) -> Tensor:
    """The median of (P,) squared distances; their mean where more than half of the samples are the same."""
    median = squared.median()
    return torch.where(median > 0, median, squared.mean())


#: How a typical squared distance is read off all pairs of different samples, both domains together.
RULES: dict[str, Callable[[Tensor], Tensor]] = {"median": median_distance, "mean": torch.mean}


class GaussianKernel:
    """The mean of Gaussian kernels exp(−d / (multiple · typical d)) of squared distances d.

    Paper: Long et al., arXiv:1502.02791, eq. 2: several kernels, since none suits all of training; there their
    coefficients are learned, here they are equal and sum to 1, so that 0 < k ≤ 1. The typical distance is detached:
    no gradient can lower the discrepancy by moving the bandwidth. It is the same for every pair and does not know the
    domains, so that the unbiased estimate stays unbiased where they agree. Raises UsageError for no multiple, one that
    is not positive, or an unknown rule.
    """

    def __init__(self, multiples: Sequence[float] = MULTIPLES, rule: str = "median") -> None:
        if not multiples or not all(m > 0 for m in multiples):
            raise UsageError(f"The bandwidth multiples are {list(multiples)}: one or more positive numbers are needed.")
        if rule not in RULES:
            raise unknown_name("bandwidth rule", rule, RULES)
        self.multiples, self.rule = tuple(float(m) for m in multiples), rule

    def __call__(self, squared: Tensor) -> Tensor:
        """Squared distances (P, P) of P ≥ 2 samples → kernel (P, P)."""
        scale = typical_distance(squared, self.rule)
        return torch.stack([torch.exp(-squared / (m * scale)) for m in self.multiples]).mean(dim=0)


def typical_distance(squared: Tensor, rule: str) -> Tensor:
    """A detached scalar > 0 from squared distances (P, P), by one of RULES over the pairs i < j."""
    rows, columns = torch.triu_indices(len(squared), len(squared), 1, device=squared.device)
    return RULES[rule](squared.detach()[rows, columns]).clamp(min=SMALLEST)


def joint_distances(source: Tensor, target: Tensor) -> Tensor:
    """Squared distances (N + M, N + M) among the rows of source (N, D) and target (M, D) together, in float32."""
    rows = torch.cat([source.float(), target.float()])
    # Distances do not change with the origin; near the mean their float32 differences lose fewer digits.
    rows = rows - rows.mean(dim=0).detach()
    with torch.autocast(rows.device.type, enabled=False):
        return squared_distances(rows, rows)


def off_diagonal(kernel: Tensor) -> Tensor:
    """(P, P) with zeros where a sample meets itself."""
    return kernel - torch.diag(kernel.diagonal())


def squared_mmd(kernel: Tensor, n_source: int, *, unbiased: bool = True) -> Tensor:
    """The squared maximum mean discrepancy, a scalar, from a kernel (N + M, N + M) whose first N rows are the source.

    unbiased: eq. 3, which leaves out k(x, x): its expectation does not depend on N and M and is 0 where the domains
    agree, so it may be negative; N and M are at least 2. Otherwise eq. 5 squared, which is never negative, 0 for
    identical samples, and too large by about 1 / N + 1 / M.
    """
    n, m = n_source, len(kernel) - n_source
    within_source, within_target, between = kernel[:n, :n], kernel[n:, n:], kernel[:n, n:]
    if unbiased:
        own = off_diagonal(within_source).sum() / (n * (n - 1)) + off_diagonal(within_target).sum() / (m * (m - 1))
    else:
        own = within_source.mean() + within_target.mean()
    return own - 2 * between.mean()


def both_features(source: DomainView, target: DomainView, method: str, least: int = 2) -> tuple[Tensor, Tensor]:
    """The features (N, D) and (M, D) in float32; UsageError where a domain has fewer than `least` samples."""
    x, y = source.features.float(), target.features.float()
    if min(len(x), len(y)) < least:
        raise UsageError(
            f"{method} compares batches of at least {least} samples of each domain, and got {len(x)} of the source "
            f"and {len(y)} of the target. Use a larger batch, or drop the last incomplete one."
        )
    return x, y
