"""Pictures of any size → the size a backbone expects: one way for scoring, one with chance for training.

Only two torch kernels run here (resize, and slices of it); the rest is numpy. Neither starts threads of its
own, so many workers side by side do not oversubscribe the processor.
"""

from __future__ import annotations

import math
from typing import Final

import numpy as np
import torch
from torch import Tensor
from torchvision.transforms.v2 import InterpolationMode
from torchvision.transforms.v2 import functional as vision

from regraft.core.errors import DataError, unknown_name
from regraft.images.spec import ImageSpec

_MODES: Final = {
    "bilinear": InterpolationMode.BILINEAR,
    "bicubic": InterpolationMode.BICUBIC,
    "nearest": InterpolationMode.NEAREST_EXACT,
}
_CROP_MODES: Final = ("center", "squash")
#: Beyond this ratio of the sides the far ends are cut before resizing: they are cropped away anyway, and 1 ×
#: 5,000 px at a short side of 256 would be a gigabyte.
_LONGEST: Final = 16


class EvalTransform:
    """Resize the short side to floor(size / crop_pct), crop the centre: the pixels of timm and torchvision.

    uint8 (3, H, W) → uint8 (3, h, w) of `spec.shape`. Fields read: interpolation ("bilinear", "bicubic",
    "nearest"), crop_pct, crop_mode ("center", "squash"). Raises DataError or UsageError at construction where
    they mean nothing.
    """

    #: The result depends on the picture alone; a stream may keep it, and refuses to feed it shrunken
    #: pictures.
    exact = True

    def __init__(self, spec: ImageSpec) -> None:
        self.height_px, self.width_px = _sides(spec)
        self.interpolation = _mode(spec)
        crop_pct = float(spec.crop_pct)
        if not crop_pct > 0:
            raise DataError(f"The input spec has crop_pct {crop_pct}; it is a share above 0, such as 0.875 or 1.0.")
        self.scaled_px = math.floor(self.height_px / crop_pct), math.floor(self.width_px / crop_pct)
        self.crop_mode = spec.crop_mode
        if self.crop_mode not in _CROP_MODES:
            raise unknown_name("crop mode", self.crop_mode, _CROP_MODES)

    def __call__(self, picture: Tensor, rng: np.random.Generator | None = None) -> Tensor:
        """`rng` is taken, and left alone, so that a stream calls every transform in the same way."""
        if self.crop_mode == "center":
            picture = _cut_far_ends(picture)
        resized = resize(picture, self._scaled_size(picture), self.interpolation)
        return _contiguous(vision.center_crop(resized, [self.height_px, self.width_px]))

    def _scaled_size(self, picture: Tensor) -> tuple[int, int]:
        height, width = int(picture.shape[1]), int(picture.shape[2])
        scaled_height, scaled_width = self.scaled_px
        if self.crop_mode == "squash":
            return scaled_height, scaled_width
        if scaled_height == scaled_width:  # truncated as torchvision does, while timm rounds for oblong inputs
            if height <= width:
                return scaled_height, int(scaled_height * width / height)
            return int(scaled_width * height / width), scaled_width
        ratio = min(height / scaled_height, width / scaled_width)
        return round(height / ratio), round(width / ratio)


class TrainTransform:
    """Random resized crop, mirror, jitter of brightness, contrast and saturation; all chance is from `rng`.

    Crop as in Szegedy et al., "Going Deeper with Convolutions", 2015, arXiv:1409.4842, §6, with the area's
    share in `scale` and width/height in `ratio`. colour: each factor is drawn from [1 − colour, 1 + colour];
    0 turns it off. uint8 (3, H, W) → uint8 (3, h, w).
    """

    exact = False

    def __init__(
        self,
        spec: ImageSpec,
        *,
        scale: tuple[float, float] = (0.35, 1.0),
        ratio: tuple[float, float] = (3 / 4, 4 / 3),
        flip: bool = True,
        colour: float = 0.2,
    ) -> None:
        self.height_px, self.width_px = _sides(spec)
        self.interpolation = _mode(spec)
        if not (0 < scale[0] <= scale[1] <= 1 and 0 < ratio[0] <= ratio[1] and 0 <= colour < 1):
            raise DataError(
                f"Augmentation got scale {scale}, ratio {ratio}, colour {colour}; accepted: 0 < scale ≤ 1 "
                "and "
                "0 < ratio, each low to high, and 0 ≤ colour < 1."
            )
        self.scale, self.ratio, self.flip, self.colour = scale, ratio, flip, colour

    def __call__(self, picture: Tensor, rng: np.random.Generator) -> Tensor:
        top, left, height, width = self._crop(int(picture.shape[1]), int(picture.shape[2]), rng)
        crop = picture[:, top : top + height, left : left + width]
        pixels = resize(crop, (self.height_px, self.width_px), self.interpolation).numpy()
        if self.flip and rng.random() < 0.5:
            pixels = pixels[:, :, ::-1]
        if self.colour > 0:
            pixels = jitter(pixels, *rng.uniform(1 - self.colour, 1 + self.colour, size=3))
        return torch.from_numpy(np.ascontiguousarray(pixels))

    def _crop(self, height: int, width: int, rng: np.random.Generator) -> tuple[int, int, int, int]:
        """Top, left, height, width in px; after ten misses the largest centred crop within `ratio`."""
        for _ in range(10):
            area = height * width * rng.uniform(*self.scale)
            ratio = math.exp(rng.uniform(math.log(self.ratio[0]), math.log(self.ratio[1])))
            w, h = round(math.sqrt(area * ratio)), round(math.sqrt(area / ratio))
            if 0 < w <= width and 0 < h <= height:
                return int(rng.integers(0, height - h + 1)), int(rng.integers(0, width - w + 1)), h, w
        ratio = min(max(width / height, self.ratio[0]), self.ratio[1])
        w, h = min(width, max(1, round(height * ratio))), min(height, max(1, round(width / ratio)))
        return (height - h) // 2, (width - w) // 2, h, w


def resize(picture: Tensor, size_px: tuple[int, int], interpolation: InterpolationMode) -> Tensor:
    """uint8 (3, H, W) → uint8 (3, *size_px), antialiased, within one grey level of Pillow's."""
    if tuple(picture.shape[1:]) == size_px:
        return picture
    resized: Tensor = vision.resize(picture, list(size_px), interpolation=interpolation, antialias=True)
    return resized


def jitter(pixels: np.ndarray, brightness: float, contrast: float, saturation: float) -> np.ndarray:
    """Brightness, then contrast about the mean grey, then saturation about the pixel's grey; (3, h, w)."""
    real = pixels.astype(np.float32)
    grey = np.float32(0.299) * real[0] + np.float32(0.587) * real[1] + np.float32(0.114) * real[2]
    # The three steps are linear until the last clip, so they fold into: gain · pixel + pull · grey + offset.
    gain = np.float32(brightness * contrast * saturation)
    pull = np.float32(brightness * contrast * (1 - saturation))
    offset = np.float32(brightness * (1 - contrast) * float(grey.mean()))
    real *= gain
    real += pull * grey + (offset + np.float32(0.5))
    return np.clip(real, 0, 255, out=real).astype(np.uint8)


def _cut_far_ends(picture: Tensor) -> Tensor:
    height, width = int(picture.shape[1]), int(picture.shape[2])
    if max(height, width) <= _LONGEST * min(height, width):
        return picture
    cut: Tensor = vision.center_crop(picture, [min(height, _LONGEST * width), min(width, _LONGEST * height)])
    return cut


def _contiguous(picture: Tensor) -> Tensor:
    return torch.from_numpy(np.ascontiguousarray(picture.numpy()))


def _sides(spec: ImageSpec) -> tuple[int, int]:
    if not isinstance(spec, ImageSpec) or len(spec.shape) != 3 or min(spec.shape) < 1:
        shape = getattr(spec, "shape", None)
        raise DataError(f"The input spec is {spec.modality} of shape {shape}; pictures need image and (C, H, W).")
    return int(spec.shape[1]), int(spec.shape[2])


def _mode(spec: ImageSpec) -> InterpolationMode:
    name = spec.interpolation
    if name not in _MODES:
        raise unknown_name("interpolation", name, _MODES)
    return _MODES[name]
