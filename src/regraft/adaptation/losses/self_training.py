"""Self-training on the target: the network's own sure answers become its labels.

All of these read the target alone and so work without source pictures; with them they stand beside the source's loss.
"""

from __future__ import annotations

from typing import ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor

from regraft.adaptation.base import DomainLoss, losses, ramp, require
from regraft.adaptation.losses.confusion import SMALLEST, entropies, information_loss, log_probabilities
from regraft.adaptation.training.partial import present
from regraft.core.types import DomainView


class _TargetAlone(DomainLoss):
    needs_classes = True
    needs_source = False


@losses.register("pseudo-label")
class PseudoLabel(_TargetAlone):
    """Cross-entropy against the network's own class where it is sure, every class with the same weight.

    Paper: Lee, ICML-W 2013; the balance between classes is that of class-balanced self-training (Zou et al. 2018,
    arXiv:1810.07911), here per batch. target.logits (M, K). threshold: probability from which an answer counts. The
    weight rises with `progress` (ramp), as the answers get better. Where target.class_weights are given, a class weighs
    that much: else the few wrong answers for a class that the target lacks would count as much as all right ones for
    another. Returns 0 where nobody is sure.
    """

    paper = "Lee, ICML-W 2013; Zou et al., ECCV 2018, arXiv:1810.07911"

    def __init__(self, feature_dim: int, n_classes: int, *, threshold: float = 0.9) -> None:
        super().__init__(feature_dim, n_classes)
        self.threshold = threshold

    def forward(self, source: DomainView, target: DomainView, progress: float) -> Tensor:
        logits = require(target.logits, "target logits", "pseudo-label").float()
        confidence, own = logits.detach().softmax(1).max(1)
        return ramp(progress) * balanced_cross_entropy(logits, own, confidence >= self.threshold, target.class_weights)


@losses.register("FixMatch")
class FixMatch(_TargetAlone):
    """The sure answer on the plain view is the label of the heavily altered view.

    Paper: Sohn et al., NeurIPS 2020, arXiv:2001.07685, eq. 4. target.logits and target.strong (M, K). The mean is over
    all M samples, as in the paper, so unsure ones count as 0.
    """

    paper = "Sohn et al., NeurIPS 2020, arXiv:2001.07685"
    needs_strong = True

    def __init__(self, feature_dim: int, n_classes: int, *, threshold: float = 0.95) -> None:
        super().__init__(feature_dim, n_classes)
        self.threshold = threshold

    def forward(self, source: DomainView, target: DomainView, progress: float) -> Tensor:
        plain = require(target.logits, "target logits", "FixMatch").detach().float()
        strong = require(target.strong, "a strong view", "FixMatch").float()
        confidence, own = plain.softmax(1).max(1)
        each = F.cross_entropy(strong, own, reduction="none")
        return (each * (confidence >= self.threshold)).mean()


@losses.register("mean-teacher")
class MeanTeacher(_TargetAlone):
    """The network on the altered view agrees with its own running average on the plain view.

    Paper: Tarvainen & Valpola, NeurIPS 2017, arXiv:1703.01780; for adaptation French et al., ICLR 2018,
    arXiv:1706.05208, whose confidence threshold in place of a ramp is used. target.teacher and target.strong (M, K).
    Squared distance of the probabilities, summed over classes, mean over all M samples.
    """

    paper = "Tarvainen & Valpola, NeurIPS 2017, arXiv:1703.01780; French et al., ICLR 2018, arXiv:1706.05208"
    default_weight: ClassVar[float] = 3.0
    needs_strong = True
    needs_teacher = True

    def __init__(self, feature_dim: int, n_classes: int, *, threshold: float = 0.8) -> None:
        super().__init__(feature_dim, n_classes)
        self.threshold = threshold

    def forward(self, source: DomainView, target: DomainView, progress: float) -> Tensor:
        teacher = require(target.teacher, "a teacher's logits", "mean-teacher").detach().float().softmax(1)
        strong = require(target.strong, "a strong view", "mean-teacher").float().softmax(1)
        sure = teacher.max(1).values >= self.threshold
        return ((strong - teacher).square().sum(1) * sure).mean()


@losses.register("SHOT")
class SHOT(_TargetAlone):
    """Information maximisation, and labels from the class centres of the target's own features.

    Paper: Liang et al., "Do We Really Need to Access the Source Data?", ICML 2020, arXiv:2002.08546, eq. 2–6. The head
    stays frozen (the recipe's rules say so), which keeps the source's hypothesis. target.features (M, D), target.logits
    (M, K). `centres` (K, D), unit rows, is set by `find_centres` over the whole target at every epoch's end, as in the
    paper; without them (all zero) the second term is left out. weight of the pseudo-labels: `beta` (paper: 0.3).
    Where target.class_weights are given, the diversity of the first term is that of `information_loss`; the paper
    leaves it out where the target lacks classes.
    """

    paper = "Liang et al., ICML 2020, arXiv:2002.08546"
    centres: Tensor
    continues = True
    freezes_head = True

    def __init__(self, feature_dim: int, n_classes: int, *, beta: float = 0.3) -> None:
        super().__init__(feature_dim, n_classes)
        self.beta = beta
        self.register_buffer("centres", torch.zeros(n_classes, feature_dim))

    @torch.no_grad()
    def find_centres(
        self, features: Tensor, logits: Tensor, rounds: int = 2, class_weights: Tensor | None = None
    ) -> None:
        """Class centres of (M, D) features with (M, K) logits: weighted by probability, then by nearest centre.

        A class that nobody is given has no centre; with class_weights (K,) neither has one that seems absent
        (`partial.present`), where the paper asks for 10 answers.
        """
        unit = F.normalize(features.float(), dim=1)
        weights = logits.float().softmax(1)
        there = torch.bincount(logits.argmax(1), minlength=self.n_classes) > 0
        if class_weights is not None:
            there &= present(class_weights)
        for _ in range(rounds):
            centres = F.normalize(weights.T @ unit, dim=1) * there[:, None]
            weights = F.one_hot(_nearest(unit, centres, there), self.n_classes).float()
        self.centres.copy_(centres)

    def forward(self, source: DomainView, target: DomainView, progress: float) -> Tensor:
        logits = require(target.logits, "target logits", "SHOT").float()
        loss = information_loss(log_probabilities(target, "SHOT", 2), target.class_weights)
        there = self.centres.abs().sum(1) > 0
        if self.beta > 0 and bool(there.any()):
            unit = F.normalize(target.features.detach().float(), dim=1)
            loss = loss + self.beta * F.cross_entropy(logits, _nearest(unit, self.centres, there))
        return loss


@losses.register("TENT")
class TENT(_TargetAlone):
    """Mean entropy of the target's answers, lowered by the normalisation layers' scales and shifts alone.

    Paper: Wang et al., "Tent: Fully Test-Time Adaptation by Entropy Minimization", ICLR 2021, arXiv:2006.10726. The
    recipe's rules freeze everything but the affine parameters of the normalisation layers.
    """

    paper = "Wang et al., ICLR 2021, arXiv:2006.10726"
    continues = True
    trains_norms_alone = True

    def forward(self, source: DomainView, target: DomainView, progress: float) -> Tensor:
        return entropies(log_probabilities(target, "TENT", 1)).mean()


def balanced_cross_entropy(
    logits: Tensor, labels: Tensor, chosen: Tensor, class_weights: Tensor | None = None
) -> Tensor:
    """Cross-entropy over the chosen samples (M,) bool; 0 for no sample.

    Every class that occurs weighs the same, or as class_weights (K,) say.
    """
    if not bool(chosen.any()):
        return logits.sum() * 0.0
    each = F.cross_entropy(logits[chosen], labels[chosen], reduction="none")
    counts = torch.bincount(labels[chosen], minlength=logits.shape[1]).float()
    of_class = 1.0 / counts.clamp(min=1)
    if class_weights is not None:
        of_class = of_class * class_weights.clamp(min=SMALLEST)
    weights = of_class[labels[chosen]]
    return (each * weights).sum() / weights.sum()


def _nearest(unit: Tensor, centres: Tensor, present: Tensor) -> Tensor:
    """The class (M,) of the nearest centre by cosine; classes without a centre are never given."""
    similarity = unit @ centres.T.to(unit.dtype)
    return similarity.masked_fill(~present[None, :], -2.0).argmax(1)
