"""Between the colours of an ICC profile and sRGB, at full depth where the profile is a matrix and three curves.

Pillow's colour management works on 8 bits alone, which is too few for 16-bit pictures. Nearly all profiles of cameras,
telephones and screens (Display P3, Adobe RGB, ProPhoto) state primaries and curves, which are a few lines of arithmetic
(ICC.1:2022, 8.3, 10.6, 10.18 and F.3). A profile of tables goes through Pillow.
"""

from __future__ import annotations

import io
import logging
import struct
from functools import lru_cache
from typing import Final

import numpy as np
import torch
from PIL import Image, ImageCms
from torch import Tensor

log = logging.getLogger(__name__)

#: sRGB's primaries relative to D50, columns red, green, blue (IEC 61966-2-1, adapted as ICC profiles state them).
_SRGB_TO_XYZ: Final = np.array(
    [[0.43607, 0.38515, 0.14307], [0.22249, 0.71687, 0.06061], [0.01392, 0.09708, 0.71410]], dtype=np.float64
)
#: A profile that moves no colour by more than half a step of 8 bits is sRGB in other words (profiles of sRGB differ in
#: their rounding by up to 0.4 of one).
_SAME: Final = 0.5 / 255
#: Longest curve that is read; real ones have at most 4,096 entries.
_MOST_ENTRIES: Final = 65_536
#: What a damaged profile makes its readers raise.
_DAMAGED: Final = (struct.error, ValueError, KeyError, OSError, np.linalg.LinAlgError, ImageCms.PyCMSError)
_CURVES: Final = (b"rTRC", b"gTRC", b"bTRC")
#: A larger profile is not written into results; real ones have some KB, those of tables up to about 2 MB.
_MOST_BYTES: Final = 4 << 20
#: Values at which a curve is inverted.
_INVERTED_AT: Final = 65_536


def to_srgb(pixels: Tensor, profile: bytes) -> Tensor:
    """Pixels float (3, H, W) in [0, 1] of the profile's space → sRGB, same shape, cut to [0, 1].

    A profile of another colour space than RGB or grey, and a damaged one, leave the pixels as they are (logged): they
    are then taken for sRGB, as without a profile. A profile that says sRGB leaves them as they are too.
    """
    if pixels.shape[-2] * pixels.shape[-1] > _grid().shape[-1] and _is_srgb(profile):
        return pixels
    try:
        found = _followed(pixels, profile)
        if found is not None:
            return found
        space = profile[16:20].decode("latin-1")
        log.warning("A colour profile for %s is not used: the picture is taken for sRGB.", space)
    except _DAMAGED as error:
        log.warning("A damaged colour profile is not used (%s): the picture is taken for sRGB.", error)
    return pixels


def _followed(pixels: Tensor, profile: bytes) -> Tensor | None:
    """`to_srgb`, None for another colour space. Raises one of _DAMAGED."""
    space, tags = profile[16:20], _tags(profile)
    if space == b"GRAY" and b"kTRC" in tags:
        return _encode(_decode_curve(tags[b"kTRC"], pixels))
    if space == b"RGB " and b"A2B0" not in tags and {b"rXYZ", b"gXYZ", b"bXYZ", b"rTRC"} <= tags.keys():
        return _by_matrix(pixels, tags)
    if space == b"RGB ":
        return _by_pillow(pixels, _opened(profile), _srgb())
    return None


def from_srgb(pixels: Tensor, profile: bytes) -> Tensor | None:
    """Pixels float (3, H, W) in [0, 1] of sRGB → the profile's space, same shape, cut to [0, 1]; undoes `to_srgb`.

    None where the profile cannot be written with: not of RGB, damaged, without a way back, or larger than 4 MiB.
    """
    if len(profile) > _MOST_BYTES or profile[16:20] != b"RGB ":
        return None
    try:
        _followed(_grid(), profile)  # a damaged one is told here, and is not written again
        if _is_srgb(profile):
            return pixels
        tags = _tags(profile)
        if b"A2B0" in tags:
            return _by_pillow(pixels, _srgb(), _opened(profile)) if b"B2A0" in tags else None
        matrix = np.linalg.inv(_columns(tags)) @ _SRGB_TO_XYZ
        linear = torch.einsum("ij,jhw->ihw", torch.from_numpy(matrix).to(pixels.dtype), _decode(pixels)).clamp(0, 1)
        return torch.stack([_invert_curve(tags[name], plane) for name, plane in zip(_CURVES, linear, strict=True)])
    except _DAMAGED:
        return None


@lru_cache(maxsize=1)
def srgb_profile() -> bytes:
    """The sRGB profile, which pictures carry that came with none."""
    return _srgb().tobytes()


def _srgb() -> ImageCms.ImageCmsProfile:
    return ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB"))


def _opened(profile: bytes) -> ImageCms.ImageCmsProfile:
    return ImageCms.ImageCmsProfile(io.BytesIO(profile))


@lru_cache(maxsize=16)
def _is_srgb(profile: bytes) -> bool:
    """Whether the profile leaves a grid of colours where they are."""
    return profile[16:20] == b"RGB " and bool((to_srgb(_grid(), profile) - _grid()).abs().max() <= _SAME)


@lru_cache(maxsize=1)
def _grid() -> Tensor:
    """(3, 1, 4913): colours at even steps, few of them steps of 8 bits."""
    steps = torch.linspace(0, 1, 17)
    return torch.stack(torch.meshgrid(steps, steps, steps, indexing="ij")).reshape(3, 1, -1)


def _tags(profile: bytes) -> dict[bytes, bytes]:
    """Signature → the tag's data (ICC.1:2022, 7.3). Raises struct.error or ValueError where the table lies."""
    (count,) = struct.unpack_from(">I", profile, 128)
    if count > 200:
        raise ValueError(f"it claims {count} tags")
    found = {}
    for index in range(count):
        name, offset, size = struct.unpack_from(">4sII", profile, 132 + 12 * index)
        if offset + size > len(profile):
            raise ValueError("a tag lies outside of it")
        found[name] = profile[offset : offset + size]
    return found


def _by_matrix(pixels: Tensor, tags: dict[bytes, bytes]) -> Tensor:
    linear = torch.stack([_decode_curve(tags[name], plane) for name, plane in zip(_CURVES, pixels, strict=True)])
    matrix = np.linalg.inv(_SRGB_TO_XYZ) @ _columns(tags)
    return _encode(torch.einsum("ij,jhw->ihw", torch.from_numpy(matrix).to(linear.dtype), linear))


def _columns(tags: dict[bytes, bytes]) -> np.ndarray:
    """(3, 3): X, Y, Z of the profile's red, green and blue as columns."""
    found = [np.array(struct.unpack_from(">3i", tags[name], 8)) / 65_536 for name in (b"rXYZ", b"gXYZ", b"bXYZ")]
    return np.stack(found, axis=1)


def _invert_curve(tag: bytes, values: Tensor) -> Tensor:
    """Values that the curve brings to these, by interpolation. Raises ValueError where the curve does not rise."""
    steps = np.linspace(0, 1, _INVERTED_AT)
    reached = _decode_curve(tag, torch.from_numpy(steps)).numpy()
    if reached[-1] <= reached[0] or (np.diff(reached) < 0).any():
        raise ValueError("a curve does not rise")
    found = np.interp(values.numpy().ravel(), reached, steps).reshape(values.shape)
    return torch.from_numpy(found).to(values.dtype)


def _decode_curve(tag: bytes, values: Tensor) -> Tensor:
    """A curveType or parametricCurveType applied to values in [0, 1], any shape."""
    kind = tag[:4]
    if kind == b"curv":
        (count,) = struct.unpack_from(">I", tag, 8)
        if count == 0:
            return values
        if count == 1:
            powers: Tensor = values ** (struct.unpack_from(">H", tag, 12)[0] / 256)
            return powers
        if count > _MOST_ENTRIES:
            raise ValueError(f"a curve claims {count} entries")
        table = np.array(struct.unpack_from(f">{count}H", tag, 12)) / 65_535
        found = np.interp(values.numpy().ravel(), np.linspace(0, 1, count), table).reshape(values.shape)
        return torch.from_numpy(found).to(values.dtype)
    if kind != b"para":
        raise ValueError(f"a curve is of the unknown type {kind!r}")
    form = struct.unpack_from(">H", tag, 8)[0]
    lengths = (1, 3, 4, 5, 7)
    if form >= len(lengths):
        raise ValueError(f"a curve is of the unknown form {form}")
    given = [value / 65_536 for value in struct.unpack_from(f">{lengths[form]}i", tag, 12)]
    g, a, b, c, d, e, f = given[0], 1.0, 0.0, 0.0, 0.0, 0.0, 0.0
    if form >= 1:
        a, b = given[1:3]
        d = -b / a if form <= 2 else given[4]  # below it the curve is flat (forms 1, 2) or a line (3, 4)
    if form == 2:
        e = f = given[3]
    if form >= 3:
        c = given[3]
    if form == 4:
        e, f = given[5:7]
    return torch.where(values >= d, (a * values + b).clamp(min=0) ** g + e, c * values + f)


def _decode(values: Tensor) -> Tensor:
    """From sRGB to linear light (IEC 61966-2-1)."""
    values = values.clamp(0, 1)
    return torch.where(values <= 0.04045, values / 12.92, ((values + 0.055) / 1.055) ** 2.4)


def _encode(linear: Tensor) -> Tensor:
    """Linear light → sRGB (IEC 61966-2-1)."""
    linear = linear.clamp(0, 1)
    return torch.where(linear <= 0.0031308, 12.92 * linear, 1.055 * linear.clamp(min=1e-9) ** (1 / 2.4) - 0.055)


def _by_pillow(pixels: Tensor, given: ImageCms.ImageCmsProfile, wanted: ImageCms.ImageCmsProfile) -> Tensor:
    """Through Pillow's colour management, so at 8 bits."""
    picture = Image.fromarray((pixels.permute(1, 2, 0) * 255).round().to(torch.uint8).contiguous().numpy())
    found = ImageCms.profileToProfile(picture, given, wanted, outputMode="RGB")
    if found is None:
        raise ValueError("Pillow returned no picture")
    return torch.from_numpy(np.array(found)).permute(2, 0, 1).to(pixels.dtype) / 255
