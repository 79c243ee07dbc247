"""A target with classes that the source lacks: features that keep them apart, and the confidence below which an
answer is `unknown`."""

from __future__ import annotations

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from regraft.adaptation.base import DomainLoss, losses, ramp, require, reverse_gradient
from regraft.adaptation.losses.discrepancy import OwnClassifier
from regraft.adaptation.losses.kernels import both_features
from regraft.core.errors import DataError, UsageError
from regraft.core.types import DomainView


@losses.register("OSBP")
class OSBP(DomainLoss):
    """A classifier with one class more, which is made to call every target sample unknown by half.

    Paper: Saito et al., "Open Set Domain Adaptation by Backpropagation", ECCV 2018, arXiv:1804.10427, §3. Reads
    source.features (N, D), source.labels (N,) and target.features (M, D), N and M ≥ 1. Its own classifier gives K + 1
    logits; the value is its cross-entropy on the source plus −t log p − (1 − t) log(1 − p), mean over the target, of
    the probability p of class K + 1. The classifier lowers the second term, to p = t; the features, by a reversed
    gradient, raise it, and so go to either side: one of the source's classes, or unknown. t: the paper's 0.5. Weight 1.

    Differs from the paper: the classifier is the loss's own, with one hidden layer, and is left behind; the task's
    head gives the answers, and `unknown` is told by its confidence, as for every other method (`split`). The reversed
    gradient's strength is ramp(progress). Raises UsageError for missing labels, an empty batch, an impossible width,
    and t outside (0, 1).
    """

    paper = "Saito et al., ECCV 2018, arXiv:1804.10427"
    needs_classes = True

    def __init__(self, feature_dim: int, n_classes: int, *, t: float = 0.5, hidden: int = 256) -> None:
        super().__init__(feature_dim, n_classes)
        if not 0 < t < 1:
            raise UsageError(f"OSBP got t={t}: a probability between 0 and 1, neither of them, is needed.")
        self.t = t
        self.classifier = OwnClassifier(feature_dim, n_classes + 1, hidden)

    def forward(self, source: DomainView, target: DomainView, progress: float) -> Tensor:
        x, y = both_features(source, target, "OSBP", least=1)
        labels = require(source.labels, "the source's labels", "OSBP").long()
        supervised = F.cross_entropy(self.classifier(x), labels)
        logits = self.classifier(reverse_gradient(y, ramp(progress)))
        # The log odds of "unknown" against all known classes together.
        odds = logits[:, -1] - torch.logsumexp(logits[:, :-1], dim=1)
        return supervised + F.binary_cross_entropy_with_logits(odds, torch.full_like(odds, self.t))


def split(scores: np.ndarray) -> float:
    """The threshold that parts scores (M,) into two groups best; scores at it or above are the upper group.

    Paper: Otsu, "A Threshold Selection Method from Gray-Level Histograms", IEEE Transactions on Systems, Man, and
    Cybernetics 9, 1979: the most variance between the groups. On a model's confidence (Hendrycks & Gimpel, "A Baseline
    for Detecting Misclassified and Out-of-Distribution Examples", ICLR 2017, arXiv:1610.02136) the lower group is what
    it does not know. No label is read, so it finds two groups where there is one too: it is for a target that is known
    to hold other classes.

    Differs from the paper: over the scores themselves, not a histogram; the threshold is halfway between the two
    scores that it parts. 0.0 where all scores are the same. Raises DataError for no score or one that is not finite.
    """
    ordered = np.sort(np.asarray(scores, dtype=np.float64))
    if ordered.ndim != 1 or len(ordered) == 0 or not np.isfinite(ordered).all():
        raise DataError(f"Scores are parted where there is one or more, all finite; {ordered.shape} came.")
    m = len(ordered)
    below = np.arange(1, m)
    means = np.cumsum(ordered)[:-1] / below
    above = (ordered.sum() - means * below) / (m - below)
    between = np.where(ordered[1:] > ordered[:-1], below * (m - below) * np.square(above - means), -1.0)
    if m == 1 or between.max() <= 0:
        return 0.0
    at = int(between.argmax())
    return float((ordered[at] + ordered[at + 1]) / 2)
