"""Two sets of pictures that differ in one thing: bright squares on dark ground, reddish in A and bluish in B."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch import Tensor

TINTS = {"a": (220, 90, 40), "b": (40, 90, 220)}


def shapes(kind: str, count: int, side_px: int = 32, *, seed: int = 0) -> Tensor:
    """uint8 (count, 3, side, side); the squares of the two kinds lie at different places."""
    draw = np.random.default_rng([seed, ord(kind)])
    pictures = draw.integers(20, 40, (count, side_px, side_px, 3))
    for picture in pictures:
        side = int(draw.integers(side_px // 4, side_px // 2))
        top, left = draw.integers(0, side_px - side, 2)
        picture[top : top + side, left : left + side] = np.array(TINTS[kind]) + draw.integers(-30, 30)
    return torch.from_numpy(np.clip(pictures, 0, 255).astype(np.uint8)).permute(0, 3, 1, 2).contiguous()


def write_shapes(folder: Path, kind: str, count: int, side_px: int = 40, *, seed: int = 0) -> Path:
    """The same as PNG files of various widths."""
    folder.mkdir(parents=True)
    for index, picture in enumerate(shapes(kind, count, side_px, seed=seed)):
        pixels = picture.permute(1, 2, 0).numpy()
        Image.fromarray(pixels).resize((side_px + index % 5, side_px)).save(folder / f"{index:03d}.png")
    return folder
