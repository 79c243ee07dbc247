"""Pictures whose number is known: a bright disc of some radius on a dark, grainy ground, and the table of radii."""

from __future__ import annotations

import csv
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw

SIDE_PX = 64


def draw_discs(folder: Path, n: int, *, seed: int = 0, tint: tuple[int, int, int] = (0, 0, 0)) -> Path:
    """`n` pictures and `discs.csv` with file, radius_px, part ("train", every fourth "test"); the table's path."""
    folder.mkdir(parents=True)
    draw = np.random.default_rng(seed)
    with (folder / "discs.csv").open("w", newline="") as stream:
        writer = csv.writer(stream)
        writer.writerow(["file", "radius_px", "part"])
        for index in range(n):
            radius_px = draw.uniform(4, 22)
            x, y = draw.uniform(26, 38, 2)
            picture = Image.fromarray(draw.integers(0, 60, (SIDE_PX, SIDE_PX, 3), dtype=np.uint8))
            colour = tuple(int(value) for value in np.clip(draw.integers(150, 255, 3) + np.array(tint), 0, 255))
            corners = (x - radius_px, y - radius_px, x + radius_px, y + radius_px)
            ImageDraw.Draw(picture).ellipse(corners, fill=colour)
            picture.save(folder / f"{index}.png")
            writer.writerow([f"{index}.png", f"{radius_px:.2f}", "test" if index % 4 == 3 else "train"])
    return folder / "discs.csv"
