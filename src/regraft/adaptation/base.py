"""The contract of the adaptation losses, their registry, and the two pieces that many share.

A loss sees feature tensors, never pictures: so text and sound have it for nothing. It never sees a target label, since
a target's `DomainView` carries none.
"""

from __future__ import annotations

import math
from typing import Any, ClassVar

import torch
from torch import Tensor
from torch.autograd import Function

from regraft.core.errors import UsageError
from regraft.core.registry import Registry
from regraft.core.types import AlignmentLoss, DomainView


class DomainLoss(AlignmentLoss):
    """One term beside the source's own loss: (source view, target view, progress) → scalar.

    feature_dim: D of the features (N, D). n_classes: K of the logits (N, K); 0 for a regression, whose logits are
    predictions (N, 1). A method keeps no counter: `progress` in [0, 1] is an argument. What it learns itself (a
    discriminator, a second classifier) are its parameters; one call gives the right gradient to them and to the
    features. N and M may differ.
    """

    #: Where the method is from: authors, year, arXiv id or venue.
    paper: ClassVar[str] = ""
    #: The weight of the term that its authors use, or that suits features of pretrained networks.
    default_weight: ClassVar[float] = 1.0
    #: Whether it reads logits over classes, and so has no meaning for a regression.
    needs_classes: ClassVar[bool] = False
    #: False where the target alone is enough: such a method works without any source picture.
    needs_source: ClassVar[bool] = True
    #: Whether it begins from the trained source-only model and leaves the source's pictures aside.
    continues: ClassVar[bool] = False
    #: Whether the source's features come from the trained source-only model, which stays as it is (ADDA).
    source_fixed: ClassVar[bool] = False
    #: What of the model stays as it is: the head, or everything but the normalisation layers' scales and shifts.
    freezes_head: ClassVar[bool] = False
    trains_norms_alone: ClassVar[bool] = False
    #: Whether the target's view must carry `strong`, or `teacher`.
    needs_strong: ClassVar[bool] = False
    needs_teacher: ClassVar[bool] = False

    def __init__(self, feature_dim: int, n_classes: int) -> None:
        super().__init__()
        if feature_dim < 1 or n_classes < 0:
            raise UsageError(f"An adaptation loss got feature_dim={feature_dim} and n_classes={n_classes}.")
        if self.needs_classes and n_classes < 2:
            raise UsageError(f"{type(self).__name__} aligns classes: it takes a classification of 2 classes or more.")
        self.feature_dim, self.n_classes = feature_dim, n_classes

    def forward(self, source: DomainView, target: DomainView, progress: float) -> Tensor:
        raise TypeError(f"{type(self).__name__} does not define forward")


#: name (the paper's) → class
losses: Registry[type[DomainLoss]] = Registry("adaptation loss")


class GradientReversal(Function):
    """Identity forward; the gradient times −strength backward (Ganin et al., JMLR 2016, arXiv:1505.07818, eq. 18)."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, strength: float) -> Tensor:
        ctx.strength = strength
        return x.view_as(x)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, None]:
        return -ctx.strength * gradients[0], None


def reverse_gradient(x: Tensor, strength: float = 1.0) -> Tensor:
    """x, whose gradient is reversed on its way back."""
    reversed_: Tensor = GradientReversal.apply(x, strength)
    return reversed_


def require(value: Tensor | None, what: str, method: str) -> Tensor:
    """`value`, or a UsageError that says what the view lacks."""
    if value is None:
        raise UsageError(f"{method} needs {what}, and the view carries none.")
    return value


def ramp(progress: float, steepness: float = 10.0) -> float:
    """0 → 1 over training: 2 / (1 + exp(−steepness · progress)) − 1 (arXiv:1505.07818, §5.2.2)."""
    return 2.0 / (1.0 + math.exp(-steepness * progress)) - 1.0


def squared_distances(a: Tensor, b: Tensor) -> Tensor:
    """‖aᵢ − bⱼ‖² (N, M) of rows (N, D) and (M, D), in float32 under mixed precision too, never negative."""
    with torch.autocast(a.device.type, enabled=False):
        a, b = a.float(), b.float()
        squares = a.square().sum(1)[:, None] + b.square().sum(1)[None, :] - 2 * a @ b.T
        return torch.clamp(squares, min=0.0)
