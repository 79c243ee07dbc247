"""Alignment by statistics: the two domains' features should have the same mean embedding, covariance or moments."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from regraft.adaptation.base import DomainLoss, losses, require
from regraft.adaptation.losses.kernels import (
    MULTIPLES,
    GaussianKernel,
    both_features,
    joint_distances,
    squared_mmd,
    typical_distance,
)
from regraft.core.errors import UsageError, unknown_name
from regraft.core.types import DomainView


@losses.register("DDC")
class DDC(DomainLoss):
    """Squared maximum mean discrepancy with a single kernel, linear or Gaussian.

    Paper: Tzeng et al., "Deep Domain Confusion", 2014, arXiv:1412.3474, eq. 1 and 2. Reads source.features (N, D) and
    target.features (M, D), N and M ≥ 2. With the linear kernel it is ‖mean source − mean target‖², the square of eq. 1.
    kernel: "linear", the paper's, or "gaussian", with the median squared distance as bandwidth. unbiased: leaves out
    each sample's product with itself; the paper keeps it. scale_free: divides the linear kernel by the batch's mean
    squared distance, detached, as a Gaussian one does; False is the paper's formula.

    Differs from the paper in that: its 0.25 belongs to a bottleneck of 256 features, while ‖·‖² of 1,280 pretrained
    ones is about 100 to 700. Divided, the term is about 0.1 to 1 for any width, and the weight is 1. Raises UsageError
    for another kernel and for batches that are too small.
    """

    paper = "Tzeng et al., 2014, arXiv:1412.3474"
    default_weight = 1.0

    def __init__(
        self,
        feature_dim: int,
        n_classes: int,
        *,
        kernel: str = "linear",
        unbiased: bool = False,
        scale_free: bool = True,
    ) -> None:
        super().__init__(feature_dim, n_classes)
        if kernel not in ("linear", "gaussian"):
            raise unknown_name("kernel of DDC", kernel, ("linear", "gaussian"))
        self.kernel, self.unbiased, self.scale_free = kernel, unbiased, scale_free
        self.gaussian = GaussianKernel((1.0,))

    def forward(self, source: DomainView, target: DomainView, progress: float) -> Tensor:
        x, y = both_features(source, target, "DDC")
        squared = joint_distances(x, y)
        if self.kernel == "gaussian":
            return squared_mmd(self.gaussian(squared), len(x), unbiased=self.unbiased)
        # −d / 2 differs from the inner product by terms that cancel in either estimate.
        linear = squared_mmd(-squared / 2, len(x), unbiased=self.unbiased)
        return linear / typical_distance(squared, "mean") if self.scale_free else linear


@losses.register("DAN")
class DAN(DomainLoss):
    """Squared maximum mean discrepancy with several Gaussian kernels.

    Paper: Long et al., "Learning Transferable Features with Deep Adaptation Networks", ICML 2015, arXiv:1502.02791,
    eq. 1 and 2. Reads source.features (N, D) and target.features (M, D), N and M ≥ 2. multiples: the kernels'
    bandwidths as multiples of the typical squared distance; rule: "median" (the paper's) or "mean" of all pairs.
    unbiased: the expectation is independent of N and M; values may be negative.

    Differs from the paper: one layer; the kernels' coefficients are equal, not learned; all pairs are used, not
    disjoint ones. At most 2; weight 1. Raises UsageError for batches that are too small and impossible options.
    """

    paper = "Long et al., ICML 2015, arXiv:1502.02791"
    default_weight = 1.0

    def __init__(
        self,
        feature_dim: int,
        n_classes: int,
        *,
        multiples: Sequence[float] = MULTIPLES,
        rule: str = "median",
        unbiased: bool = True,
    ) -> None:
        super().__init__(feature_dim, n_classes)
        self.kernel, self.unbiased = GaussianKernel(multiples, rule), unbiased

    def forward(self, source: DomainView, target: DomainView, progress: float) -> Tensor:
        x, y = both_features(source, target, "DAN")
        return squared_mmd(self.kernel(joint_distances(x, y)), len(x), unbiased=self.unbiased)


@losses.register("JAN")
class JAN(DomainLoss):
    """Squared joint maximum mean discrepancy of features and predictions: the kernel is a product over both.

    Paper: Long et al., "Deep Transfer Learning with Joint Adaptation Networks", ICML 2017, arXiv:1605.06636, the
    JMMD of two layers. Reads features (N, D), (M, D) and logits (N, K), (M, K), N and M ≥ 2; labels are not read.
    multiples: bandwidths of the feature kernels, probability_multiples: of the softmax kernels, both times the median
    squared distance.

    Differs from the paper: all pairs are used, each once and never a sample with itself (unbiased), where the paper's
    estimate keeps the diagonal or takes disjoint pairs; no rising schedule, since `progress` is not read. At most 2;
    weight 1. Raises UsageError for missing logits and batches that are too small.
    """

    paper = "Long et al., ICML 2017, arXiv:1605.06636"
    default_weight = 1.0
    needs_classes = True

    def __init__(
        self,
        feature_dim: int,
        n_classes: int,
        *,
        multiples: Sequence[float] = MULTIPLES,
        probability_multiples: Sequence[float] = (1.0,),
        unbiased: bool = True,
    ) -> None:
        super().__init__(feature_dim, n_classes)
        self.kernel, self.unbiased = GaussianKernel(multiples), unbiased
        self.probability_kernel = GaussianKernel(probability_multiples)

    def forward(self, source: DomainView, target: DomainView, progress: float) -> Tensor:
        x, y = both_features(source, target, "JAN")
        p = require(source.logits, "the source's logits", "JAN").float().softmax(dim=1)
        q = require(target.logits, "the target's logits", "JAN").float().softmax(dim=1)
        joint = self.kernel(joint_distances(x, y)) * self.probability_kernel(joint_distances(p, q))
        return squared_mmd(joint, len(x), unbiased=self.unbiased)


@losses.register("DeepCORAL")
class DeepCORAL(DomainLoss):
    """Squared Frobenius distance between the two feature covariances, over 4 D².

    Paper: Sun & Saenko, "Deep CORAL", ECCV workshops 2016, arXiv:1607.01719, eq. 1. Reads source.features (N, D) and
    target.features (M, D), N and M ≥ 2. Differs from the paper in nothing, but is used there on 31 outputs, not on
    features. The authors choose the weight so that the term ends as large as the classification loss; on 1,280
    pretrained features of norm 35 it is about 0.003, and 100 brings it there. Raises UsageError for smaller batches.
    """

    paper = "Sun & Saenko, ECCV workshops 2016, arXiv:1607.01719"
    default_weight = 100.0

    def forward(self, source: DomainView, target: DomainView, progress: float) -> Tensor:
        x, y = both_features(source, target, "DeepCORAL")
        gap = covariance(x) - covariance(y)
        return gap.square().sum() / (4 * gap.shape[0] ** 2)


def covariance(features: Tensor) -> Tensor:
    """Unbiased covariance (D, D) of features (N, D), in float32 also under autocast."""
    centred = features.float() - features.float().mean(dim=0)
    with torch.autocast(centred.device.type, enabled=False):
        return centred.T @ centred / (len(features) - 1)


@losses.register("CMD")
class CMD(DomainLoss):
    """Central moment discrepancy: distances of the means and of the central moments up to an order.

    Paper: Zellinger et al., "Central Moment Discrepancy for Domain-Invariant Representation Learning", ICLR 2017,
    arXiv:1702.08811, the empirical estimate, with its order 5 and weight 1. Reads source.features (N, D) and
    target.features (M, D), N and M ≥ 2. Moment k is per coordinate and its distance is over |b − a|ᵏ.

    bounds: (a, b) of the features. Differs from the paper, whose features are bounded by tanh or a sigmoid: without
    bounds, |b − a| is the range of all values in the two batches, detached. Raises UsageError for batches that are too
    small, an order below 1 and bounds that are not a < b.
    """

    paper = "Zellinger et al., ICLR 2017, arXiv:1702.08811"
    default_weight = 1.0

    def __init__(
        self,
        feature_dim: int,
        n_classes: int,
        *,
        order: int = 5,
        bounds: Sequence[float] | None = None,
    ) -> None:
        super().__init__(feature_dim, n_classes)
        if order < 1:
            raise UsageError(f"CMD got order={order}: moments are compared up to order 1 or more.")
        if bounds is not None and not (len(bounds) == 2 and bounds[0] < bounds[1]):
            raise UsageError(f"CMD got bounds={list(bounds)}: the least and the greatest feature value are needed.")
        self.order = order
        self.width = None if bounds is None else float(bounds[1] - bounds[0])

    def forward(self, source: DomainView, target: DomainView, progress: float) -> Tensor:
        x, y = both_features(source, target, "CMD")
        values = torch.cat([x, y]).detach()
        width = (values.max() - values.min()).clamp(min=torch.finfo(values.dtype).eps)
        if self.width is not None:
            width = torch.full_like(width, self.width)
        # Divided first, so that a fifth power cannot overflow.
        x, y = x / width, y / width
        total: Tensor = torch.linalg.vector_norm(x.mean(dim=0) - y.mean(dim=0))
        x, y = x - x.mean(dim=0), y - y.mean(dim=0)
        for k in range(2, self.order + 1):
            total = total + torch.linalg.vector_norm(x.pow(k).mean(dim=0) - y.pow(k).mean(dim=0))
        return total
