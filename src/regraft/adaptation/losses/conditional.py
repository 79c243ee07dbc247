"""Alignment by a discriminator that sees features together with the classes that the network gives them.

Paper: Long et al., "Conditional Adversarial Domain Adaptation", NeurIPS 2018, arXiv:1705.10667.
"""

from __future__ import annotations

import math
from typing import ClassVar

import torch
from torch import Tensor

from regraft.adaptation.base import losses, ramp, require
from regraft.adaptation.losses.adversarial import Adversarial
from regraft.adaptation.losses.kernels import both_features
from regraft.core.errors import UsageError
from regraft.core.types import DomainView

#: The most coordinates of the exact map (the paper's number); above it the randomised one takes its place.
LARGEST_MAP = 4096


@losses.register("CDAN")
class CDAN(Adversarial):
    """DANN on the outer product of features and class probabilities, which keeps the classes apart.

    Paper: arXiv:1705.10667, eq. 4 to 6. Reads source.features (N, D), target.features (M, D) and the logits (N, K) and
    (M, K) of both, N and M ≥ 1. Where D · K is above 4096, the map of eq. 6 replaces the outer product: random_dim
    coordinates whose inner products are those of the outer products on average. Its two matrices are standard normal,
    drawn when the loss is made and part of its state dict. The value is the discriminator's binary cross-entropy, log 2
    where it tells nothing; the strength of the reversed gradient is ramp(progress). Weight 1.

    Differs from the paper: the probabilities are detached, as in the authors' code, so that only the features are
    aligned and the head is not pushed to give sure but wrong answers; each domain weighs half. Raises UsageError for
    missing logits, an empty batch and impossible options.
    """

    paper = "Long et al., NeurIPS 2018, arXiv:1705.10667"
    needs_classes = True
    #: Its name in the registry, for messages.
    called: ClassVar[str] = "CDAN"
    of_features: Tensor | None
    of_classes: Tensor | None

    def __init__(
        self,
        feature_dim: int,
        n_classes: int,
        *,
        random_dim: int = 1024,
        hidden: int = 256,
        layer_norm: bool = False,
        spectral_norm: bool = False,
        gradient_penalty: float = 0.0,
    ) -> None:
        if random_dim < 1:
            raise UsageError(f"{self.called} got random_dim={random_dim}: 1 or more is needed.")
        exact = feature_dim * n_classes <= LARGEST_MAP
        super().__init__(
            feature_dim,
            n_classes,
            inputs=feature_dim * n_classes if exact else random_dim,
            hidden=hidden,
            layer_norm=layer_norm,
            spectral_norm=spectral_norm,
            gradient_penalty=gradient_penalty,
        )
        self.register_buffer("of_features", None if exact else torch.randn(feature_dim, random_dim))
        self.register_buffer("of_classes", None if exact else torch.randn(n_classes, random_dim))

    def forward(self, source: DomainView, target: DomainView, progress: float) -> Tensor:
        x, y = both_features(source, target, self.called, least=1)
        p = require(source.logits, "the source's logits", self.called).detach().float().softmax(dim=1)
        q = require(target.logits, "the target's logits", self.called).detach().float().softmax(dim=1)
        return self.told_apart(self.joint(x, p), self.joint(y, q), ramp(progress), self.weights(p, q))

    def joint(self, features: Tensor, probabilities: Tensor) -> Tensor:
        """Features (P, D) and probabilities (P, K) → (P, D · K), or (P, random_dim) where that is too large."""
        if self.of_features is None or self.of_classes is None:
            return (features[:, :, None] * probabilities[:, None, :]).flatten(1)
        with torch.autocast(features.device.type, enabled=False):
            product = (features @ self.of_features) * (probabilities @ self.of_classes)
        return product / math.sqrt(product.shape[1])

    def weights(self, p: Tensor, q: Tensor) -> tuple[Tensor, Tensor] | None:
        """How much each sample counts, from the probabilities (N, K) and (M, K); None: all the same."""
        return None


@losses.register("CDAN+E")
class CDANE(CDAN):
    """CDAN in which sure samples count more: weight 1 + exp(−H) of the probabilities' entropy H in nats.

    Paper: arXiv:1705.10667, eq. 7. Shapes, value, options and errors as in CDAN; a weight is between 1 + 1 / K and 2.
    Differs from the paper: the weights are divided by their sum over each domain's batch, so that they change who
    counts and not how much the term does; they carry no gradient, neither plain nor reversed, to the logits.
    """

    called = "CDAN+E"

    def weights(self, p: Tensor, q: Tensor) -> tuple[Tensor, Tensor] | None:
        return surety(p), surety(q)


def surety(probabilities: Tensor) -> Tensor:
    """1 + exp(−entropy) (P,) of probabilities (P, K); 0 · log 0 = 0."""
    return 1 + torch.exp(-torch.special.entr(probabilities).sum(dim=1))
