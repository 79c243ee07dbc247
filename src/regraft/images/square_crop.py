"""Squares of pictures at one scale, for networks that learn how things are painted and not only what they are."""

from __future__ import annotations

import numpy as np

from regraft.core.errors import DataError
from regraft.images.spec import ImageSpec
from regraft.images.transform import TrainTransform


class SquareCrop(TrainTransform):
    """A random square of nearly the shorter side, at the input's size, mirrored by chance.

    Neither proportions nor colours change. The square's side is drawn from [least, 1] of the shorter side, its place
    evenly; in CycleGAN (arXiv:1703.10593) it is 256 of 286 px. uint8 (3, H, W) → uint8 (3, h, h). Raises DataError for
    an input that is no square and for a share out of (0, 1].
    """

    def __init__(self, spec: ImageSpec, *, least: float = 8 / 9, flip: bool = True) -> None:
        super().__init__(spec, ratio=(1.0, 1.0), flip=flip, colour=0.0)
        if self.height_px != self.width_px or not 0 < least <= 1:
            raise DataError(
                f"A square crop got {self.height_px} × {self.width_px} px and a share of {least}; accepted are a "
                "square and a share above 0, at most 1."
            )
        self.least = least

    def _crop(self, height: int, width: int, rng: np.random.Generator) -> tuple[int, int, int, int]:
        side = max(1, round(min(height, width) * rng.uniform(self.least, 1)))
        return int(rng.integers(0, height - side + 1)), int(rng.integers(0, width - side + 1)), side, side
