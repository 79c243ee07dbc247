"""Supervised learning of several labels: a backbone and one linear layer, a weighted binary cross-entropy for each."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from regraft.core.types import Backbone, Batch, StepOutput
from regraft.tasks.linear import LinearTask, mean_over_samples, weighted_mean

#: A rare label counts more by at most this.
LARGEST_WEIGHT = 10.0


class MultiLabel(LinearTask):
    """Samples → logits (N, S), one for each label; its sigmoid is the probability that the label applies.

    positive_weights: (S,), how much a sample that has the label counts beside one that has not, or None.
    label_smoothing: share of the way from each target to 1/2.
    """

    def __init__(
        self,
        backbone: Backbone,
        n_labels: int,
        *,
        positive_weights: Tensor | None = None,
        label_smoothing: float = 0.0,
    ) -> None:
        super().__init__(backbone, n_labels)
        self.label_smoothing = label_smoothing
        self.register_buffer("positive_weights", positive_weights, persistent=False)

    def predict(self, x: Tensor) -> Tensor:
        """Logits (N, S)."""
        return self.head_outputs(x)

    def forward(self, batches: Mapping[str, Batch], progress: float, phase: str = "step") -> StepOutput:
        batch = batches["train"]
        assert batch.y is not None, "the train stream carries labels"
        losses = self._losses(self.predict(batch.x), batch.y, self.label_smoothing)
        return StepOutput(mean_over_samples(losses, batch.weight))

    def supervised(
        self, outputs: Tensor, labels: Tensor, smoothing: float = 0.0, sample_weights: Tensor | None = None
    ) -> Tensor:
        """The mean loss of logits (N, S) against labels (N, S)."""
        each = self._losses(outputs, labels, smoothing)
        return each.mean() if sample_weights is None else weighted_mean(each, sample_weights, sample_weights)

    def _losses(self, logits: Tensor, labels: Tensor, smoothing: float) -> Tensor:
        weights = self.positive_weights if isinstance(self.positive_weights, Tensor) else None
        targets = labels.float() * (1 - smoothing) + smoothing / 2
        each = F.binary_cross_entropy_with_logits(logits.float(), targets, pos_weight=weights, reduction="none")
        return each.mean(dim=1)


def positive_weights(y: np.ndarray, strength: float = 0.5) -> Tensor:
    """Weights (S,) from y (N, S): (without / with)^strength, between 1/10 and 10; 1 for a label that is constant."""
    have = torch.from_numpy(y.sum(axis=0).astype(np.float32))
    lack = len(y) - have
    weights = (lack / have.clamp(min=1)) ** strength
    return torch.where((have > 0) & (lack > 0), weights, 1.0).clamp(1 / LARGEST_WEIGHT, LARGEST_WEIGHT)
