"""Supervised classification: a backbone, one linear layer, weighted cross-entropy with the usual regularisers."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from regraft.core.types import Backbone, Batch, StepOutput
from regraft.tasks.linear import LinearTask, mean_over_samples, weighted_mean


class Classification(LinearTask):
    """Pictures (N, 3, H, W) → logits (N, K).

    class_weights: (K,), mean 1, or None. label_smoothing: share of the target spread over all classes (Szegedy et al.
    2016, arXiv:1512.00567). mixup, cutmix: Beta parameters, 0 = off (Zhang et al. 2018, arXiv:1710.09412; Yun et al.
    2019, arXiv:1905.04899); where both are on, each batch takes one of them at even odds.
    """

    def __init__(
        self,
        backbone: Backbone,
        n_classes: int,
        *,
        label_smoothing: float = 0.0,
        class_weights: Tensor | None = None,
        mixup: float = 0.0,
        cutmix: float = 0.0,
        dropout: float = 0.0,
    ) -> None:
        super().__init__(backbone, n_classes, dropout=dropout)
        self.n_classes = n_classes
        self.label_smoothing = label_smoothing
        self.mixup, self.cutmix = mixup, cutmix
        self.register_buffer("class_weights", class_weights, persistent=False)

    def predict(self, x: Tensor) -> Tensor:
        """Logits (N, K)."""
        return self.head_outputs(x)

    def supervised(
        self, outputs: Tensor, labels: Tensor, smoothing: float = 0.0, sample_weights: Tensor | None = None
    ) -> Tensor:
        """PyTorch's weighted cross-entropy, which divides by the sum of the weights: of classes, times of samples."""
        weights = self.class_weights if isinstance(self.class_weights, Tensor) else None
        if sample_weights is None:
            return F.cross_entropy(outputs, labels, weight=weights, label_smoothing=smoothing)
        each = F.cross_entropy(outputs, labels, weight=weights, label_smoothing=smoothing, reduction="none")
        return weighted_mean(
            each, sample_weights, sample_weights if weights is None else sample_weights * weights[labels]
        )

    def forward(self, batches: Mapping[str, Batch], progress: float, phase: str = "step") -> StepOutput:
        batch = batches["train"]
        assert batch.y is not None, "the train stream carries labels"
        x, targets = batch.x, F.one_hot(batch.y, self.n_classes).float()
        if self.training and self.mixup + self.cutmix > 0:
            x, targets = self._mix(x, targets)
        logits = self.predict(x).float()
        smooth = self.label_smoothing
        targets = targets * (1 - smooth) + smooth / self.n_classes
        losses = -(targets * logits.log_softmax(dim=1))
        if isinstance(self.class_weights, Tensor):
            losses = losses * self.class_weights
        return StepOutput(mean_over_samples(losses.sum(dim=1), batch.weight))

    def _mix(self, x: Tensor, targets: Tensor) -> tuple[Tensor, Tensor]:
        cut = self.cutmix > 0 and (self.mixup <= 0 or bool(torch.rand(()) < 0.5))
        alpha = self.cutmix if cut else self.mixup
        share = float(torch.distributions.Beta(alpha, alpha).sample())
        order = torch.randperm(len(x), device=x.device)
        if cut:
            height, width = x.shape[-2:]
            h, w = round(height * (1 - share) ** 0.5), round(width * (1 - share) ** 0.5)
            top = int(torch.randint(0, height - h + 1, ()))
            left = int(torch.randint(0, width - w + 1, ()))
            x = x.clone()
            x[..., top : top + h, left : left + w] = x[order][..., top : top + h, left : left + w]
            share = 1 - h * w / (height * width)
        else:
            pixels = x.float() / 255 if x.dtype == torch.uint8 else x
            x = share * pixels + (1 - share) * pixels[order]
        return x, share * targets + (1 - share) * targets[order]


def balanced_weights(counts: Tensor, strength: float = 0.5) -> Tensor:
    """Class weights (K,) from counts (K,): (mean count / count)^strength, scaled to a mean over samples of 1."""
    counts = counts.float().clamp(min=1)
    weights = (counts.mean() / counts) ** strength
    return weights * counts.sum() / (weights * counts).sum()


def class_weights(y: np.ndarray, n_classes: int) -> Tensor | None:
    """`balanced_weights` (K,) for class indices (N,); None where the classes are about even."""
    counts = np.bincount(y, minlength=n_classes)
    return balanced_weights(torch.from_numpy(counts)) if counts.max() >= 1.5 * max(1, counts.min()) else None
