"""Two small domains as arrays and as the views that losses get: 3 coordinates, 4 classes. And three of pictures."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from torch import nn

from regraft.core.types import DomainView
from tiny_domains import write_domain

D, K = 3, 4
Arrays = dict[str, np.ndarray]


def arrays(n: int = 7, m: int = 5, seed: int = 0) -> Arrays:
    """Features and logits of two domains that differ, float64, and the source's labels."""
    rng = np.random.default_rng(seed)
    return {
        "x": rng.normal(size=(n, D)) * [1.0, 0.5, 2.0],
        "y": rng.normal(size=(m, D)) + 1.0,
        "p": 2 * rng.normal(size=(n, K)),
        "q": 2 * rng.normal(size=(m, K)),
        "labels": np.arange(n) % K,
    }


def views(a: Arrays, dtype: torch.dtype = torch.float32) -> tuple[DomainView, DomainView]:
    """The two domains' views, whose tensors collect gradients."""

    def leaf(name: str) -> torch.Tensor:
        return torch.tensor(a[name], dtype=dtype, requires_grad=True)

    return DomainView(leaf("x"), leaf("p"), torch.tensor(a["labels"])), DomainView(leaf("y"), leaf("q"))


def weights_of(module: nn.Module) -> Arrays:
    """Parameters by name, float64."""
    return {k: v.detach().double().numpy() for k, v in module.named_parameters()}


def picture_domains(root: Path, per_class: int = 20) -> tuple[Path, Path, Path]:
    """Stripes and blobs, 64 px: by day, at night and at dusk."""
    draw = np.random.default_rng(0)
    day, night, dusk = (
        write_domain(root / light, ("blobs", "stripes"), per_class, draw, light=light)
        for light in ("day", "night", "dusk")
    )
    return day, night, dusk
