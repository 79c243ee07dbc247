"""Alignment by a discriminator: features from which the domain cannot be told.

One call trains both sides. With a reversed gradient (DANN, BSP) the discriminator and the features pull at the same
number; without one (domain confusion, ADDA) the discriminator sees detached features, and the features see a
discriminator whose parameters are detached.
"""

from __future__ import annotations

from typing import ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.func import functional_call

from regraft.adaptation.base import DomainLoss, losses, ramp, reverse_gradient
from regraft.adaptation.losses.discriminator import DomainDiscriminator, domain_cross_entropy, gradient_penalty
from regraft.adaptation.losses.kernels import both_features
from regraft.core.errors import UsageError
from regraft.core.types import DomainView


class Adversarial(DomainLoss):
    """What these methods share: a discriminator over `inputs` coordinates (D unless told) and its penalty.

    hidden: width of its two hidden layers. layer_norm, spectral_norm: see DomainDiscriminator. gradient_penalty: the
    weight λ of the penalty, 0 = none (arXiv:1704.00028 uses 10 for a Wasserstein critic).
    """

    def __init__(
        self,
        feature_dim: int,
        n_classes: int,
        *,
        inputs: int | None = None,
        hidden: int = 256,
        layer_norm: bool = False,
        spectral_norm: bool = False,
        gradient_penalty: float = 0.0,
    ) -> None:
        super().__init__(feature_dim, n_classes)
        if gradient_penalty < 0:
            raise UsageError(f"The gradient penalty's weight is {gradient_penalty}: 0 (none) or more is needed.")
        self.penalty_weight = gradient_penalty
        self.discriminator = DomainDiscriminator(
            inputs or feature_dim, hidden=hidden, layer_norm=layer_norm, spectral_norm=spectral_norm
        )

    def told_apart(
        self, source: Tensor, target: Tensor, strength: float | None, weights: tuple[Tensor, Tensor] | None = None
    ) -> Tensor:
        """The discriminator's cross-entropy on rows (N, D) and (M, D), and the penalty where one is asked for.

        strength: of the reversed gradient that the rows get; None: they get none.
        """
        rows = torch.cat([source, target])
        rows = rows.detach() if strength is None else reverse_gradient(rows, strength)
        of_source, of_target = self.discriminator(rows).split([len(source), len(target)])
        loss = domain_cross_entropy(of_source, of_target, weights)
        if self.penalty_weight > 0:
            loss = loss + self.penalty_weight * gradient_penalty(self.discriminator, source, target)
        return loss

    def judged(self, rows: Tensor) -> Tensor:
        """Logits (P,) of rows (P, D), whose gradient reaches the rows and not the discriminator."""
        fixed = {name: parameter.detach() for name, parameter in self.discriminator.named_parameters()}
        logits: Tensor = functional_call(self.discriminator, fixed, (rows,))
        return logits


@losses.register("DANN")
class DANN(Adversarial):
    """Domain-adversarial training: a discriminator, and features that get its gradient reversed.

    Paper: Ganin et al., "Domain-Adversarial Training of Neural Networks", JMLR 2016, arXiv:1505.07818, §4.2.
    Reads source.features (N, D) and target.features (M, D), N and M ≥ 1. The value is the discriminator's binary
    cross-entropy, log 2 ≈ 0.69 where it tells nothing; the reversed gradient's strength is ramp(progress), 0 at first.
    Weight 1.

    Differs from the paper: each domain weighs half, so unequal batches are fine; the discriminator's width is one for
    all features. Raises UsageError for an empty batch and impossible options.
    """

    paper = "Ganin et al., JMLR 2016, arXiv:1505.07818"

    def forward(self, source: DomainView, target: DomainView, progress: float) -> Tensor:
        x, y = both_features(source, target, type(self).__name__, least=1)
        return self.told_apart(x, y, ramp(progress))


@losses.register("DomainConfusion")
class DomainConfusion(Adversarial):
    """A discriminator that tells the domains apart, and features on which its answer is one half.

    Papers: the loss is Tzeng et al., "Simultaneous Deep Transfer Across Domains and Tasks", ICCV 2015,
    arXiv:1510.02192: cross-entropy for the discriminator, cross-entropy with the uniform distribution for the features;
    the idea of confusing domains is Tzeng et al. 2014, arXiv:1412.3474, whose own loss is "DDC". Reads source.features
    (N, D) and target.features (M, D), N and M ≥ 1. The value is the sum of both terms. Weight 1, constant: a
    discriminator that knows nothing yet has next to no slope, so no ramp is needed and `progress` is not read.

    Differs from the papers: both updates are made in one step, the discriminator's on detached features and the
    features' through detached parameters; each domain weighs half; no soft labels. The weight multiplies both terms,
    which an adaptive optimiser does not feel in the discriminator. The features' term has no upper bound: a
    discriminator that knows a few samples by heart makes it large, and spectral_norm keeps it small. Raises UsageError
    for an empty batch and impossible options.
    """

    paper = "Tzeng et al., ICCV 2015, arXiv:1510.02192; Tzeng et al., 2014, arXiv:1412.3474"

    def forward(self, source: DomainView, target: DomainView, progress: float) -> Tensor:
        x, y = both_features(source, target, "DomainConfusion", least=1)
        of_source, of_target = torch.split(self.judged(torch.cat([x, y])), [len(x), len(y)])
        # Cross-entropy with (1/2, 1/2): half with the right domain, half with the wrong one.
        right, wrong = domain_cross_entropy(of_source, of_target), domain_cross_entropy(-of_source, -of_target)
        return self.told_apart(x, y, None) + (right + wrong) / 2


@losses.register("ADDA")
class ADDA(Adversarial):
    """Target features that the discriminator takes for source features; the source features stay as they are.

    Paper: Tzeng et al., "Adversarial Discriminative Domain Adaptation", CVPR 2017, arXiv:1702.05464, §4:
    cross-entropy for the discriminator, the same with inverted labels for the target's features. Reads source.features
    (N, D), detached, and target.features (M, D), N and M ≥ 1. The value is the sum of both terms; only target.features
    get a gradient. Weight 1, constant: `progress` is not read.

    With `source_fixed` the task begins from the trained source-only model, takes source.features from a copy of it that
    is frozen and in eval mode, and trains the other one (tied initialisation) on this term alone, with the head frozen.

    Differs from the paper: both updates are made in one step; the discriminator's term is a mean over the two domains,
    not their sum. Raises UsageError for an empty batch and impossible options.
    """

    paper = "Tzeng et al., CVPR 2017, arXiv:1702.05464"
    source_fixed: ClassVar[bool] = True
    freezes_head: ClassVar[bool] = True

    def forward(self, source: DomainView, target: DomainView, progress: float) -> Tensor:
        x, y = both_features(source, target, "ADDA", least=1)
        return self.told_apart(x, y, None) + F.softplus(-self.judged(y)).mean()


@losses.register("BSP")
class BSP(DANN):
    """DANN with a penalty on the largest singular values of each domain's features.

    Paper: Chen et al., "Transferability vs. Discriminability: Batch Spectral Penalization for Adversarial Domain
    Adaptation", ICML 2019. Reads source.features (N, D) and target.features (M, D), N and M ≥ 1. The
    penalty is the sum of the squares of the k largest singular values of both feature matrices, not centred; its
    gradient is not reversed. beta: its weight (the paper's 1e-4), constant. It grows with the number of rows and the
    square of the features, as in the paper, where a batch has 36 rows.

    Differs from the paper in what DANN here differs in. Where a batch has fewer than k singular values all are taken;
    features that are not finite give NaN, not an error of the decomposition. Raises UsageError for an empty batch and
    impossible options.
    """

    paper = "Chen et al., ICML 2019"

    def __init__(
        self,
        feature_dim: int,
        n_classes: int,
        *,
        k: int = 1,
        beta: float = 1e-4,
        hidden: int = 256,
        layer_norm: bool = False,
        spectral_norm: bool = False,
        gradient_penalty: float = 0.0,
    ) -> None:
        super().__init__(
            feature_dim,
            n_classes,
            hidden=hidden,
            layer_norm=layer_norm,
            spectral_norm=spectral_norm,
            gradient_penalty=gradient_penalty,
        )
        if k < 1 or beta < 0:
            raise UsageError(f"BSP got k={k} and beta={beta}: at least one singular value, and a weight of 0 or more.")
        self.k, self.beta = k, beta

    def forward(self, source: DomainView, target: DomainView, progress: float) -> Tensor:
        x, y = both_features(source, target, "BSP", least=1)
        return self.told_apart(x, y, ramp(progress)) + self.beta * (spectrum(x, self.k) + spectrum(y, self.k))


def spectrum(features: Tensor, k: int) -> Tensor:
    """The sum of the squares of the k largest singular values of features (P, D), a scalar."""
    if not bool(torch.isfinite(features).all()):
        return features.sum() * float("nan")
    squares: Tensor = torch.linalg.svdvals(features.float())[:k].square().sum()
    return squares
