"""Alignment by classifiers that disagree: the target's features move to where they cannot.

Both methods are games between features and classifiers of the loss's own; a reversed gradient plays both sides in one
step. The task's own head gives the predictions, as in every other method here.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from regraft.adaptation.base import DomainLoss, losses, ramp, require, reverse_gradient
from regraft.adaptation.losses.kernels import both_features
from regraft.core.errors import UsageError
from regraft.core.types import DomainView


class OwnClassifier(nn.Module):
    """Features (P, D) → logits (P, K) in float32, also under autocast: one hidden layer of ReLU.

    Raises UsageError for an impossible width.
    """

    def __init__(self, feature_dim: int, n_classes: int, hidden: int) -> None:
        super().__init__()
        if hidden < 1:
            raise UsageError(f"A classifier got {hidden} hidden units: 1 or more are needed.")
        self.layers = nn.Sequential(nn.Linear(feature_dim, hidden), nn.ReLU(), nn.Linear(hidden, n_classes))

    def forward(self, features: Tensor) -> Tensor:
        with torch.autocast(features.device.type, enabled=False):
            logits: Tensor = self.layers(features.float())
        return logits


@losses.register("MCD")
class MCD(DomainLoss):
    """Two classifiers that fit the source and disagree on the target; target features on which they agree.

    Paper: Saito et al., "Maximum Classifier Discrepancy for Unsupervised Domain Adaptation", CVPR 2018,
    arXiv:1712.02560, §3. Reads source.features (N, D), source.labels (N,) and target.features (M, D), N and
    M ≥ 1. The value is the sum of both classifiers' cross-entropies on the source minus the discrepancy, the mean over
    samples and classes of |p₁ − p₂| on the target: at least −2 / K, and it may be negative. The cross-entropies train
    the features too. Weight 1.

    Differs from the paper: its three alternating steps (A: all fit the source, B: the classifiers also raise the
    discrepancy, C: the features lower it, several times) are one step. Before the classifiers the gradient of the
    target's features is reversed with strength ramp(progress), in place of repeating C. The two classifiers, one
    hidden layer each and different from the start, are the loss's own; the task's head learns from the source alone
    and gives the predictions. Raises UsageError for missing labels, an empty batch and an impossible width.
    """

    paper = "Saito et al., CVPR 2018, arXiv:1712.02560"
    needs_classes = True

    def __init__(self, feature_dim: int, n_classes: int, *, hidden: int = 256) -> None:
        super().__init__(feature_dim, n_classes)
        self.first = OwnClassifier(feature_dim, n_classes, hidden)
        self.second = OwnClassifier(feature_dim, n_classes, hidden)

    def forward(self, source: DomainView, target: DomainView, progress: float) -> Tensor:
        x, y = both_features(source, target, "MCD", least=1)
        labels = require(source.labels, "the source's labels", "MCD").long()
        supervised = F.cross_entropy(self.first(x), labels) + F.cross_entropy(self.second(x), labels)
        y = reverse_gradient(y, ramp(progress))
        loss: Tensor = supervised - (self.first(y).softmax(dim=1) - self.second(y).softmax(dim=1)).abs().mean()
        return loss


@losses.register("MDD")
class MDD(DomainLoss):
    """A second classifier that agrees with the head on the source and not on the target; features that prevent it.

    Paper: Zhang et al., "Bridging Theory and Algorithm for Domain Adaptation", ICML 2019, arXiv:1904.05801, eq. 27 to
    30. Reads source.features (N, D), target.features (M, D) and the logits (N, K) and (M, K) of both, N and M ≥ 1. With
    p the second classifier's probability of the head's class (argmax of the logits, detached), the value is
    gamma · mean(−log p) on the source + mean(−log(1 − p)) on the target, in nats; the second classifier minimises it.
    gamma: the margin, as its exponential (the paper's 4). The features get the reversed gradient with strength
    eta · ramp(progress); eta is 0.1 in the authors' code. Weight 1.

    Differs from the paper: log(1 − p) is computed from the log-odds, so that it is finite and has a slope where p is
    1 in float32 (the authors shift it by 1e-6); the ramp follows `progress` in place of a count of steps; one hidden
    layer of `hidden` units, no dropout. Raises UsageError for missing logits, an empty batch and impossible options.
    """

    paper = "Zhang et al., ICML 2019, arXiv:1904.05801"
    needs_classes = True

    def __init__(
        self, feature_dim: int, n_classes: int, *, gamma: float = 4.0, eta: float = 0.1, hidden: int = 256
    ) -> None:
        super().__init__(feature_dim, n_classes)
        if gamma <= 0 or eta < 0:
            raise UsageError(f"MDD got gamma={gamma} and eta={eta}: a positive margin, and a strength of 0 or more.")
        self.gamma, self.eta = gamma, eta
        self.second = OwnClassifier(feature_dim, n_classes, hidden)

    def forward(self, source: DomainView, target: DomainView, progress: float) -> Tensor:
        x, y = both_features(source, target, "MDD", least=1)
        source_classes = require(source.logits, "the source's logits", "MDD").argmax(dim=1)
        target_classes = require(target.logits, "the target's logits", "MDD").argmax(dim=1)
        strength = self.eta * ramp(progress)
        on_source = log_odds(self.second(reverse_gradient(x, strength)), source_classes)
        on_target = log_odds(self.second(reverse_gradient(y, strength)), target_classes)
        # −log p = softplus(−log-odds) and −log(1 − p) = softplus(log-odds).
        return self.gamma * F.softplus(-on_source).mean() + F.softplus(on_target).mean()


def log_odds(logits: Tensor, classes: Tensor) -> Tensor:
    """log(p / (1 − p)) (P,) where p is the softmax of logits (P, K), K ≥ 2, at the given classes (P,)."""
    chosen = classes[:, None]
    others = logits.scatter(1, chosen, float("-inf")).logsumexp(dim=1)
    return logits.gather(1, chosen).squeeze(1) - others
