"""A small style student whose every part does something, and photos for it; nothing is trained."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch import nn

from hostile_pictures import scene
from regraft.style.networks.model_file import StyleModel, student_model
from regraft.style.networks.transfer_net import StudentNet


def small_student(
    widths: tuple[int, int, int] = (4, 8, 16), inner: tuple[int, ...] = (16, 8), *, seed: int = 0, paint: float = 0.1
) -> StudentNet:
    """In evaluation mode, with random weights and statistics. paint: deviation of the last layer's weights."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        net = StudentNet(widths, inner)
        for module in net.modules():
            if isinstance(module, nn.BatchNorm2d):
                nn.init.uniform_(module.weight, 0.7, 1.3)
                nn.init.normal_(module.bias, std=0.2)
                assert module.running_mean is not None and module.running_var is not None
                nn.init.normal_(module.running_mean, std=0.2)
                nn.init.uniform_(module.running_var, 0.5, 1.5)
        nn.init.normal_(net.paint.weight, std=paint)
        assert net.paint.bias is not None
        nn.init.normal_(net.paint.bias, std=0.02)
    return net.eval()


def small_model(**options: object) -> StyleModel:
    return student_model(small_student(**options), "waves", {"licence": "CC0-1.0"})  # type: ignore[arg-type]


def photos(folder: Path, n: int, height: int = 61, width: int = 83) -> list[Path]:
    """`n` smooth pictures of odd sizes, each its own."""
    folder.mkdir(parents=True, exist_ok=True)
    rng = np.random.default_rng(0)
    paths = [folder / f"{number:02d}.png" for number in range(n)]
    for number, path in enumerate(paths):
        Image.fromarray(scene(rng, height + number, width)).save(path)
    return paths
