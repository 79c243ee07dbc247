"""Pictures turned, shifted, stretched and scaled about their middle: chance for things that fill the picture.

Where the thing is the whole picture (digits, letters, single cells or parts), a crop cuts a piece off it; seen a little
larger or smaller, slanted or off the middle it is the same thing still.
"""

from __future__ import annotations

import math
from typing import Final

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from regraft.core.types import InputSpec
from regraft.data.transform import EvalTransform, jitter

#: What is drawn, evenly, from − to +: radians; logarithms of the scale and of width over height; shares of the sides.
TURN_RAD: Final = 0.2
LOG_SCALE: Final = math.log(1.4)
LOG_STRETCH: Final = math.log(1.15)
SHIFT: Final = 0.1


class AffineTransform:
    """The picture as it is scored, moved by a random affine map, mirrored and jittered; all chance is from `rng`.

    The map turns by up to 0.2 rad, scales by 1/1.4 … 1.4 with sides in the ratio 1/1.15 … 1.15, and shifts by up to a
    tenth of a side. What comes in from outside has the median colour of the picture's border. colour: as in
    `TrainTransform`. uint8 (3, H, W) → uint8 (3, h, w).
    """

    exact = False

    def __init__(self, spec: InputSpec, *, flip: bool = True, colour: float = 0.2) -> None:
        self._whole = EvalTransform(spec)
        self.flip, self.colour = flip, colour

    def __call__(self, picture: Tensor, rng: np.random.Generator) -> Tensor:
        pixels = self._whole(picture).float()
        edge = torch.cat([pixels[:, [0, -1]].flatten(1), pixels[:, :, [0, -1]].flatten(1)], dim=1)
        outside = edge.median(dim=1).values[:, None, None]
        matrix = torch.from_numpy(_drawn(rng, pixels.shape[2] / pixels.shape[1])).float()[None]
        grid = F.affine_grid(matrix, [1, *pixels.shape], align_corners=False)
        moved = F.grid_sample((pixels - outside)[None], grid, align_corners=False)[0] + outside
        found = moved.round().clamp(0, 255).to(torch.uint8).numpy()
        if self.flip and rng.random() < 0.5:
            found = found[:, :, ::-1]
        if self.colour > 0:
            found = jitter(found, *rng.uniform(1 - self.colour, 1 + self.colour, size=3))
        return torch.from_numpy(np.ascontiguousarray(found))


def _drawn(rng: np.random.Generator, aspect: float) -> np.ndarray:
    """(2, 3): from places of the result to places of the picture, both in [-1, 1]. aspect: width over height."""
    turn, scale, stretch, across, down = rng.uniform(-1, 1, size=5)
    angle, size, side = TURN_RAD * turn, math.exp(LOG_SCALE * scale), math.exp(LOG_STRETCH * stretch / 2)
    cos, sin = math.cos(angle) / size, math.sin(angle) / size
    return np.array(
        [[cos / side, -sin / aspect * side, 2 * SHIFT * across], [sin * aspect / side, cos * side, 2 * SHIFT * down]]
    )
