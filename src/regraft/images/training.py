"""How training pictures are altered."""

from __future__ import annotations

from regraft.images.affine import AffineTransform
from regraft.images.spec import ImageSpec
from regraft.images.transform import TrainTransform


def training_transform(
    spec: ImageSpec, augment: str, *, scale: float, ratio: float = 4 / 3, flip: bool, colour: float
) -> TrainTransform | AffineTransform:
    """How training pictures are altered: "crop" takes a part of at least that scale, "affine" moves the whole."""
    if augment == "affine":
        return AffineTransform(spec, flip=flip, colour=colour)
    return TrainTransform(spec, scale=(scale, 1.0), ratio=(1 / ratio, ratio), flip=flip, colour=colour)
