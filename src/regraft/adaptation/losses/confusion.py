"""Regularisers of the target's own predictions and features: sure, diverse, not confused, not small.

All but AFN read the target alone and so need no source picture.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

from regraft.adaptation.base import DomainLoss, losses, require
from regraft.adaptation.losses.kernels import both_features
from regraft.core.errors import UsageError
from regraft.core.types import DomainView

#: A class weighs at least this in a logarithm, so that one that was never predicted gives no infinite term.
SMALLEST = 1e-6


def log_probabilities(target: DomainView, method: str, least: int, temperature: float = 1.0) -> Tensor:
    """Log-softmax (M, K), in float32, of the target's logits / temperature. UsageError below `least` samples."""
    logits = require(target.logits, "the target's logits", method)
    if len(logits) < least:
        raise UsageError(f"{method} needs at least {least} target sample(s) in a batch, and got {len(logits)}.")
    return torch.log_softmax(logits.float() / temperature, dim=1)


def entropies(log_p: Tensor) -> Tensor:
    """Entropy (M,) in nats of log-probabilities (M, K); at most log K."""
    return -(log_p.exp() * log_p).sum(dim=1)


def information_loss(log_p: Tensor, class_weights: Tensor | None = None) -> Tensor:
    """Mean entropy minus the entropy of the mean prediction, of log-probabilities (M, K); scalar in nats.

    class_weights (K,): the second term becomes KL(mean prediction ‖ weights over their sum) − log K, which is the
    same for equal weights and asks for no class that the target lacks.
    """
    # In logarithms, so that a class that no sample predicts gives 0 · (large) and not 0 · ∞.
    log_mean = torch.logsumexp(log_p, dim=0) - math.log(len(log_p))
    if class_weights is None:
        return entropies(log_p).mean() + (log_mean.exp() * log_mean).sum()
    log_shares = class_weights.float().clamp(min=SMALLEST).log()
    log_shares = log_shares - torch.logsumexp(log_shares, dim=0)
    return entropies(log_p).mean() + (log_mean.exp() * (log_mean - log_shares)).sum() - math.log(log_p.shape[1])


@losses.register("entropy")
class Entropy(DomainLoss):
    """Mean entropy of the target's predictions, in nats.

    Paper: Grandvalet & Bengio, "Semi-supervised Learning by Entropy Minimization", NeurIPS 2004. Reads
    target.logits (M, K), M ≥ 1. Between 0 and log K. The authors choose the weight by validation; it is 0.1 here, since
    as heavy as a cross-entropy it can be minimised by giving everything to one class. Differs from the paper in
    nothing. Raises UsageError for missing logits or an empty batch.
    """

    paper = "Grandvalet & Bengio, NeurIPS 2004"
    default_weight = 0.1
    needs_classes = True
    needs_source = False

    def forward(self, source: DomainView, target: DomainView, progress: float) -> Tensor:
        return entropies(log_probabilities(target, "entropy", 1)).mean()


@losses.register("infomax")
class InformationMaximisation(DomainLoss):
    """Information maximisation: predictions that are sure one by one and diverse together.

    Paper: Liang et al., "Do We Really Need to Access the Source Data?" (SHOT), ICML 2020, arXiv:2002.08546, eq. 2: mean
    entropy of the predictions minus the entropy of their mean, with weight 1. Reads target.logits (M, K), M ≥ 2.
    Between −log K and 0: it is minus the mutual information of sample and class. Where target.class_weights say how
    often classes are expected, the mean is drawn to these shares and not to equal ones (`information_loss`). Differs
    from the paper in that, which leaves the diversity out where the target lacks classes; its frozen classifier and
    pseudo-labels are no part of this term. Raises UsageError for missing logits or M < 2.
    """

    paper = "Liang et al., ICML 2020, arXiv:2002.08546"
    default_weight = 1.0
    needs_classes = True
    needs_source = False

    def forward(self, source: DomainView, target: DomainView, progress: float) -> Tensor:
        return information_loss(log_probabilities(target, "infomax", 2), target.class_weights)


@losses.register("MCC")
class MCC(DomainLoss):
    """Minimum class confusion: two classes should not be predicted for the same target sample.

    Paper: Jin et al., "Minimum Class Confusion for Versatile Domain Adaptation", ECCV 2020, arXiv:1912.03699, with
    its temperature 2.5 and weight 1. Reads target.logits (M, K), M ≥ 2. Samples weigh 1 + exp(−entropy), so
    that sure ones count more; the weights sum to M and carry no gradient, as in the authors' code. The confusion
    matrix (K, K) is divided by its row sums; the loss is the sum off its diagonal over K, between 0 and 1. Differs from
    the paper in nothing. Raises UsageError for missing logits, M < 2, or a temperature that is not positive.
    """

    paper = "Jin et al., ECCV 2020, arXiv:1912.03699"
    default_weight = 1.0
    needs_classes = True
    needs_source = False

    def __init__(self, feature_dim: int, n_classes: int, *, temperature: float = 2.5) -> None:
        super().__init__(feature_dim, n_classes)
        if not temperature > 0:
            raise UsageError(f"MCC got temperature={temperature}: a positive number is needed.")
        self.temperature = temperature

    def forward(self, source: DomainView, target: DomainView, progress: float) -> Tensor:
        log_p = log_probabilities(target, "MCC", 2, self.temperature)
        p = log_p.exp()
        weight = (1 + torch.exp(-entropies(log_p))).detach()
        weight = weight * (len(p) / weight.sum())
        with torch.autocast(p.device.type, enabled=False):
            confusion = (p * weight[:, None]).T @ p
        # A class whose probabilities all underflow confuses nothing: a row of zeros, not 0 / 0.
        rows = confusion.sum(dim=1, keepdim=True).clamp(min=torch.finfo(p.dtype).tiny)
        confusion = confusion / rows
        return (confusion.sum() - confusion.diagonal().sum()) / confusion.shape[0]


@losses.register("BNM")
class BNM(DomainLoss):
    """Batch nuclear-norm maximisation: minus the sum of the prediction matrix's singular values, over M.

    Paper: Cui et al., "Towards Discriminability and Diversity: Batch Nuclear-norm Maximization under Label Insufficient
    Situations", CVPR 2020, arXiv:2003.12237, with weight 1. Reads target.logits (M, K), M ≥ 1. Between
    −√(min(M, K) / M) and 0. Differs from the paper where target.class_weights are given: column k is first multiplied
    by weight k, so that a class which the target lacks adds nothing. Raises UsageError for missing logits or an empty
    batch.
    """

    paper = "Cui et al., CVPR 2020, arXiv:2003.12237"
    default_weight = 1.0
    needs_classes = True
    needs_source = False

    def forward(self, source: DomainView, target: DomainView, progress: float) -> Tensor:
        p = log_probabilities(target, "BNM", 1).exp()
        if target.class_weights is not None:
            p = p * target.class_weights
        values: Tensor = torch.linalg.svdvals(p)
        return -values.sum() / len(p)


@losses.register("AFN")
class AFN(DomainLoss):
    """Stepwise adaptive feature norm: every sample's feature norm should grow by a step.

    Paper: Xu et al., "Larger Norm More Transferable: An Adaptive Feature Norm Approach for Unsupervised Domain
    Adaptation", ICCV 2019, arXiv:1811.07456, the stepwise variant (SAFN), with its step 1 and weight 0.05. Reads
    source.features (N, D) and target.features (M, D), N and M ≥ 1. The mean over all N + M samples of
    (‖f‖ − (‖f‖ detached + delta))². Its value is delta² always; only its gradient says something: −2 delta per unit of
    norm. It means nothing where features are normalised to a fixed length.

    Differs from the paper in nothing; the authors' code adds the two domains' means, which is twice this for N = M.
    Raises UsageError for an empty batch or a delta that is not positive.
    """

    paper = "Xu et al., ICCV 2019, arXiv:1811.07456"
    default_weight = 0.05

    def __init__(self, feature_dim: int, n_classes: int, *, delta: float = 1.0) -> None:
        super().__init__(feature_dim, n_classes)
        if not delta > 0:
            raise UsageError(f"AFN got delta={delta}: the norms grow by a positive step.")
        self.delta = delta

    def forward(self, source: DomainView, target: DomainView, progress: float) -> Tensor:
        norms = torch.linalg.vector_norm(torch.cat(both_features(source, target, "AFN", least=1)), dim=1)
        loss: Tensor = (norms - (norms.detach() + self.delta)).square().mean()
        return loss
