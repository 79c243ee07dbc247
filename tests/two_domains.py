"""Two small domains as arrays and as the views that losses get: 3 coordinates, 4 classes. And three of pictures."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch import nn

from regraft.core.types import DomainView

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
    """Stripes and blobs, 64 px: grey on dark by day; the other way round and reddish at night; greenish at dusk."""
    rng = np.random.default_rng(0)
    for domain in ("day", "night", "dusk"):
        for name in ("blobs", "stripes"):
            (root / domain / name).mkdir(parents=True)
            for index in range(per_class):
                pixels = rng.integers(40, 80, (64, 64, 3))
                if name == "stripes":
                    pixels[:, :: int(rng.integers(4, 9))] += 120
                else:
                    y, x = rng.integers(5, 40, 2)
                    pixels[y : y + 18, x : x + 18] += 120
                if domain == "night":
                    pixels = 255 - pixels
                    pixels[..., 0] = np.minimum(255, pixels[..., 0] + 60)
                if domain == "dusk":
                    pixels[..., 1] = np.minimum(255, pixels[..., 1] + 50)
                Image.fromarray(np.clip(pixels, 0, 255).astype(np.uint8)).save(root / domain / name / f"{index}.png")
    return root / "day", root / "night", root / "dusk"
