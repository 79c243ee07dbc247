"""A small trained layer over frozen features, where every alignment loss works in seconds instead of hours.

The bottleneck of SHOT (Liang et al., ICML 2020, arXiv:2002.08546, §3.4) and CDAN, put on cached features: linear, then
batch norm. In evaluation it is affine, so with the head behind it it folds into one linear layer, and the adapted model
is the frozen network with another head.
"""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from regraft.core.types import Backbone, Features, InputSpec

WIDTH = 256


class FeatureAdapter(Backbone):
    """Features (N, D) → (N, 256); a backbone by its contract. centre, scale: fixed, so that inputs are of unit size."""

    def __init__(self, dim: int, *, width: int = WIDTH, dropout: float = 0.2) -> None:
        super().__init__(InputSpec("features"), width)
        self.dropout = nn.Dropout(dropout)
        self.linear = nn.Linear(dim, width)
        self.norm = nn.BatchNorm1d(width)
        self.scale: Tensor
        self.register_buffer("scale", torch.ones(()))

    def set_scale(self, features: NDArray[np.float32]) -> None:
        """Divide inputs by the root mean square deviation of these (N, D), one number for all coordinates."""
        spread = float(np.sqrt(np.square(features - features.mean(axis=0)).mean()))
        self.scale.fill_(1.0 / max(spread, 1e-6))

    @classmethod
    def scaled_to(cls, features: NDArray[np.float32]) -> FeatureAdapter:
        """A fresh adapter for features like these (N, D)."""
        adapter = cls(features.shape[1])
        adapter.set_scale(features)
        return adapter

    def forward(self, x: Tensor) -> Features:
        return Features(self.norm(self.linear(self.dropout(x * self.scale))))

    def layer_groups(self) -> dict[str, list[str]]:
        return {"adapter": [name for name, _ in self.named_parameters()]}

    def affine(self) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """(matrix (D, 256), offset (256,)) that the adapter is in evaluation mode: features @ matrix + offset."""
        assert self.norm.running_mean is not None and self.norm.running_var is not None
        gain = self.norm.weight / torch.sqrt(self.norm.running_var + self.norm.eps)
        matrix = (self.linear.weight * gain[:, None] * self.scale).detach().double().T
        offset = ((self.linear.bias - self.norm.running_mean) * gain + self.norm.bias).detach().double()
        return matrix.cpu().numpy(), offset.cpu().numpy()
