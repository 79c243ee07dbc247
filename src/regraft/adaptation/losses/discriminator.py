"""The domain discriminator, its cross-entropy, and the gradient penalty that keeps it smooth.

The source is 1 and the target 0. Nothing here mixes the samples of a batch (no batch normalisation), so that the two
domains may come in batches of any size. Everything is in float32, also under autocast.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.utils import parametrizations

from regraft.core.errors import UsageError


class DomainDiscriminator(nn.Module):
    """Rows (P, D) → logits (P,) of being from the source: two hidden layers of ReLU, without dropout.

    spectral_norm: every weight matrix is divided by its largest singular value, followed by power iteration in training
    mode (Miyato et al., ICLR 2018, arXiv:1802.05957, eq. 8), so that the logit's slope in the features is at most about
    1 where there is no layer_norm. layer_norm: after each hidden layer, before its ReLU. Raises UsageError for an
    impossible width.
    """

    def __init__(
        self, feature_dim: int, *, hidden: int = 256, layer_norm: bool = False, spectral_norm: bool = False
    ) -> None:
        super().__init__()
        if feature_dim < 1 or hidden < 1:
            raise UsageError(
                f"A discriminator got {feature_dim} features and {hidden} hidden units: 1 or more of each."
            )
        layers: list[nn.Module] = []
        for inputs, outputs in ((feature_dim, hidden), (hidden, hidden)):
            layers.append(nn.Linear(inputs, outputs))
            if layer_norm:
                layers.append(nn.LayerNorm(outputs))
            layers.append(nn.ReLU())
        layers.append(nn.Linear(hidden, 1))
        if spectral_norm:
            layers = [parametrizations.spectral_norm(m) if isinstance(m, nn.Linear) else m for m in layers]
        self.layers = nn.Sequential(*layers)

    def forward(self, features: Tensor) -> Tensor:
        with torch.autocast(features.device.type, enabled=False):
            logits: Tensor = self.layers(features.float()).squeeze(1)
        return logits


def domain_cross_entropy(
    source_logits: Tensor, target_logits: Tensor, weights: tuple[Tensor, Tensor] | None = None
) -> Tensor:
    """Binary cross-entropy in nats of logits (N,) and (M,), a scalar; each domain weighs half, whatever its size.

    weights: of the samples, (N,) and (M,), at least 0 and not all 0; within a domain only their ratios count.
    """
    of_source, of_target = F.softplus(-source_logits.float()), F.softplus(target_logits.float())
    if weights is None:
        return (of_source.mean() + of_target.mean()) / 2
    w, v = weights
    return ((w * of_source).sum() / w.sum() + (v * of_target).sum() / v.sum()) / 2


def gradient_penalty(discriminator: Callable[[Tensor], Tensor], source: Tensor, target: Tensor) -> Tensor:
    """Mean of (‖∇D(x̂)‖₂ − 1)² at points x̂ between the domains, a scalar; 0 where D's slope is 1 there.

    Paper: Gulrajani et al., "Improved Training of Wasserstein GANs", NeurIPS 2017, arXiv:1704.00028, eq. 3, without its
    weight λ. source (N, D) and target (M, D), not empty; D: rows (P, D) → (P,), row by row. Each x̂ lies at a uniformly
    drawn place between a source and a target row; the place comes from torch's random numbers of the features' device,
    so a seed fixes it. The smaller batch is gone through again until the larger one ends.

    Differs from the paper: D may be a classifier's logit. The features are detached: the penalty is the
    discriminator's alone. It is computed also where gradients are off.
    """
    n, m = len(source), len(target)
    if min(n, m) < 1:
        raise UsageError(f"A gradient penalty needs samples of both domains, and got {n} and {m}.")
    rows = torch.arange(max(n, m), device=source.device)
    x, y = source.detach().float()[rows % n], target.detach().float()[rows % m]
    with torch.enable_grad(), torch.autocast(x.device.type, enabled=False):
        between = torch.lerp(y, x, torch.rand(len(rows), 1, device=x.device)).requires_grad_()
        # The graph is kept, since the penalty itself is to be differentiated.
        (slope,) = torch.autograd.grad(discriminator(between).sum(), between, create_graph=True)
        penalty: Tensor = (torch.linalg.vector_norm(slope, dim=1) - 1).square().mean()
        return penalty
