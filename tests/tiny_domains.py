"""Pictures of textures: grey on dark by day, the other way round and reddish at night, greenish at dusk."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from PIL import Image

SIDE_PX = 64


def texture(name: str, draw: np.random.Generator) -> np.ndarray:
    """One picture (64, 64, 3) of "blobs", "stripes", "bars" or "checks", at a place or width drawn by chance."""
    pixels = draw.integers(40, 80, (SIDE_PX, SIDE_PX, 3))
    if name == "blobs":
        y, x = draw.integers(5, 40, 2)
        pixels[y : y + 18, x : x + 18] += 120
        return pixels
    step = int(draw.integers(4, 9))
    if name == "stripes":
        pixels[:, ::step] += 120
    elif name == "bars":
        pixels[::step] += 120
    elif name == "checks":
        y, x = np.mgrid[:SIDE_PX, :SIDE_PX] // step
        pixels[(y + x) % 2 == 0] += 120
    else:
        raise ValueError(name)
    return pixels


def write_domain(
    folder: Path, names: tuple[str, ...], count: int, draw: np.random.Generator, *, light: str = "day"
) -> Path:
    """A folder per class with `count` pictures each."""
    for name in names:
        (folder / name).mkdir(parents=True)
        for index in range(count):
            pixels = texture(name, draw)
            if light == "night":
                pixels = 255 - pixels
                pixels[..., 0] = np.minimum(255, pixels[..., 0] + 60)
            elif light == "dusk":
                pixels[..., 1] = np.minimum(255, pixels[..., 1] + 50)
            Image.fromarray(np.clip(pixels, 0, 255).astype(np.uint8)).save(folder / name / f"{index}.png")
    return folder
