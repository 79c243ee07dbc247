"""Supervised regression: a backbone and one linear layer that gives numbers, in the unit of the labels."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor

from regraft.core.errors import UsageError
from regraft.core.types import Backbone, Batch, StepOutput
from regraft.tasks.linear import LinearTask, mean_over_samples, weighted_mean

#: Where Huber's loss turns from a square into a line, in deviations of the training targets.
HUBER_DELTA = 1.0


class Regression(LinearTask):
    """Pictures (N, 3, H, W) → numbers (N, R).

    centre, scale: mean and deviation (R,) of the training targets; the head works on standardised targets, so that
    rates and losses mean the same whatever the unit. Both are buffers and travel with the weights. loss: "huber"
    (Huber, "Robust Estimation of a Location Parameter", 1964; linear beyond one deviation, so that a few wrong labels
    do not rule) or "squared" (half the squared error). Raises UsageError for fewer than one output, a scale that is not
    above zero, or another loss.
    """

    def __init__(
        self,
        backbone: Backbone,
        outputs: int = 1,
        *,
        centre: Tensor | None = None,
        scale: Tensor | None = None,
        loss: Literal["huber", "squared"] = "huber",
        dropout: float = 0.0,
    ) -> None:
        if outputs < 1:
            raise UsageError(f"A regression got {outputs} outputs; it gives at least one number.")
        super().__init__(backbone, outputs, dropout=dropout)
        centre = torch.zeros(outputs) if centre is None else centre.float().reshape(outputs)
        scale = torch.ones(outputs) if scale is None else scale.float().reshape(outputs)
        if not bool((scale > 0).all() and scale.isfinite().all() and centre.isfinite().all()):
            raise UsageError(f"A regression got the scale {scale.tolist()}: the targets' deviation, above zero.")
        if loss not in ("huber", "squared"):
            raise UsageError(f"A regression got the loss {loss!r}; accepted: huber, squared.")
        self.loss = loss
        self.centre: Tensor
        self.scale: Tensor
        self.register_buffer("centre", centre)
        self.register_buffer("scale", scale)

    def set_head(self, weight: Tensor, bias: Tensor) -> None:
        """Put a solved head in place: weight (R, D) and bias (R,) that give numbers in the labels' own unit."""
        centre, scale = self.centre.to(weight), self.scale.to(weight)
        super().set_head(weight / scale[:, None], (bias - centre) / scale)

    def predict(self, x: Tensor) -> Tensor:
        """Numbers (N, R) in the labels' own unit."""
        return self.head_outputs(x).float() * self.scale + self.centre

    def forward(self, batches: Mapping[str, Batch], progress: float, phase: str = "step") -> StepOutput:
        batch = batches["train"]
        assert batch.y is not None, "the train stream carries numbers"
        per_sample = self._losses(self.head_outputs(batch.x).float(), batch.y)
        return StepOutput(mean_over_samples(per_sample, batch.weight))

    def solved_head(self) -> tuple[Tensor, Tensor]:
        """Weight (R, D) and bias (R,), float64 on the CPU, that give numbers in the labels' own unit."""
        weight, bias = super().solved_head()
        centre, scale = self.centre.double().cpu(), self.scale.double().cpu()
        return weight * scale[:, None], bias * scale + centre

    def supervised(
        self, outputs: Tensor, labels: Tensor, smoothing: float = 0.0, sample_weights: Tensor | None = None
    ) -> Tensor:
        """The mean loss of what the head gives, standardised numbers (N, R), against numbers in their own unit."""
        each = self._losses(outputs, labels)
        return each.mean() if sample_weights is None else weighted_mean(each, sample_weights, sample_weights)

    def _losses(self, outputs: Tensor, labels: Tensor) -> Tensor:
        targets = (labels.float().reshape(len(labels), -1) - self.centre) / self.scale
        return element_losses(outputs, targets, self.loss).sum(dim=1)


def element_losses(found: Tensor, targets: Tensor, loss: str = "huber") -> Tensor:
    """The loss of every standardised number, same shape: Huber's with δ = 1, or half the square."""
    if loss == "squared":
        return 0.5 * (found - targets).square()
    return F.huber_loss(found, targets, reduction="none", delta=HUBER_DELTA)
