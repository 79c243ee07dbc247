"""A backbone and one linear layer on its pooled features: what every supervised task on pictures is made of."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from regraft.core.types import Backbone, Task


class LinearTask(Task):
    """Pictures (N, 3, H, W) → outputs (N, K) of a linear head."""

    def __init__(self, backbone: Backbone, outputs: int, *, dropout: float = 0.0) -> None:
        super().__init__()
        self.backbone = backbone
        self.memory_format = getattr(backbone, "memory_format", None)
        self.dropout = nn.Dropout(dropout)
        self.head = nn.Linear(backbone.feature_dim, outputs)

    def layer_groups(self) -> dict[str, list[str]]:
        """The backbone's groups and then "head"."""
        groups = {
            group: [f"backbone.{name}" for name in names] for group, names in self.backbone.layer_groups().items()
        }
        return {**groups, "head": [f"head.{name}" for name, _ in self.head.named_parameters()]}

    def reset_parameters(self) -> None:
        self.backbone.reset_parameters()
        self.head.reset_parameters()

    def set_head(self, weight: Tensor, bias: Tensor) -> None:
        """Put a solved head in place: weight (K, D), bias (K,)."""
        with torch.no_grad():
            self.head.weight.copy_(weight)
            self.head.bias.copy_(bias)

    def solved_head(self) -> tuple[Tensor, Tensor]:
        """Weight (K, D) and bias (K,), float64 on the CPU, of what `predict` gives for features."""
        return self.head.weight.detach().double().cpu(), self.head.bias.detach().double().cpu()

    def supervised(
        self, outputs: Tensor, labels: Tensor, smoothing: float = 0.0, sample_weights: Tensor | None = None
    ) -> Tensor:
        """The plain loss of head outputs (N, K) against labels (N,), a scalar; label smoothing is for classes.

        sample_weights (N,): how much each sample counts in the mean; None where all count the same.
        """
        raise TypeError(f"{type(self).__name__} does not define supervised")

    def head_outputs(self, x: Tensor) -> Tensor:
        """What the head gives for pictures: (N, K)."""
        found: Tensor = self.head(self.dropout(self.backbone(x).pooled))
        return found


def mean_over_samples(per_sample: Tensor, weight: Tensor | None) -> Tensor:
    """The mean (scalar) of losses (N,), in which padding, whose weight is 0, does not count."""
    if weight is None:
        return per_sample.mean()
    return (per_sample * weight).sum() / weight.sum().clamp(min=1)


def weighted_mean(per_sample: Tensor, sample_weights: Tensor, whole: Tensor) -> Tensor:
    """The sum (scalar) of losses (N,) times their weights (N,), over the sum of the weights `whole` (N,).

    Of a batch without a sample that counts there is nothing to learn: 0.
    """
    return (per_sample * sample_weights).sum() / whole.sum().clamp(min=1e-12)
