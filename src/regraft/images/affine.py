"""Pictures turned, shifted, stretched and scaled about their middle: chance for things that fill the picture.

Where the thing is the whole picture (digits, letters, single cells or parts), a crop cuts a piece off it; seen a little
larger or smaller, slanted or off the middle it is the same thing still.
"""

from __future__ import annotations

import math
from typing import Final

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from regraft.images.spec import ImageSpec
from regraft.images.transform import EvalTransform, jitter

#: What is drawn, evenly, from − to +: radians; logarithms of the scale and of width over height; how far the top slides
#: over the bottom, as a share of the height; shares of the sides.
TURN_RAD: Final = 0.3
LOG_SCALE: Final = math.log(1.8)
LOG_STRETCH: Final = math.log(1.5)
SLANT: Final = 0.3
SHIFT: Final = 0.1


class AffineTransform:
    """The picture as it is scored, moved by a random affine map, mirrored and jittered; all chance is from `rng`.

    The map turns by up to 0.3 rad, scales by 1/1.8 … 1.8 with sides in the ratio 1/1.5 … 1.5, slants by up to 0.3 and
    shifts by up to a tenth of a side. What comes in from outside has the median colour of the picture's border. colour:
    as in `TrainTransform`. uint8 (3, H, W) → uint8 (3, h, w).
    """

    exact = False

    def __init__(self, spec: ImageSpec, *, flip: bool = True, colour: float = 0.2) -> None:
        self._whole = EvalTransform(spec)
        self.flip, self.colour = flip, colour

    def __call__(self, picture: Tensor, rng: np.random.Generator) -> Tensor:
        pixels = self._whole(picture).numpy()
        height, width = pixels.shape[1:]
        edge = np.concatenate([pixels[:, [0, -1]].reshape(3, -1), pixels[:, :, [0, -1]].reshape(3, -1)], axis=1)
        outside = tuple(int(value) for value in np.median(edge, axis=1))
        moved = Image.fromarray(pixels.transpose(1, 2, 0)).transform(
            (width, height), Image.Transform.AFFINE, _drawn(rng, width, height), Image.Resampling.BILINEAR,
            fillcolor=outside,
        )  # fmt: skip
        found = np.asarray(moved).transpose(2, 0, 1)
        if self.flip and rng.random() < 0.5:
            found = found[:, :, ::-1]
        if self.colour > 0:
            found = jitter(found, *rng.uniform(1 - self.colour, 1 + self.colour, size=3))
        return torch.from_numpy(found.copy())


def _drawn(rng: np.random.Generator, width: int, height: int) -> tuple[float, ...]:
    """Six numbers of a map from places of the result to places of the picture, in px: x' = 0 x + 1 y + 2, y' = …"""
    turn, scale, stretch, across, down, slant = rng.uniform(-1, 1, size=6)
    angle, size, side = TURN_RAD * turn, math.exp(LOG_SCALE * scale), math.exp(LOG_STRETCH * stretch / 2)
    cos, sin = math.cos(angle) / size, math.sin(angle) / size
    lean = SLANT * slant
    rows = (cos / side, (lean * cos - sin) * side), (sin / side, (cos + lean * sin) * side)
    middle = width / 2, height / 2
    origin = middle[0] + SHIFT * across * width, middle[1] + SHIFT * down * height
    return tuple(
        value for (x, y), to in zip(rows, middle, strict=True) for value in (x, y, to - x * origin[0] - y * origin[1])
    )
