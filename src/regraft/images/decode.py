"""A picture file → upright 8-bit RGB, Pillow's pixels of `convert("RGB")`, or one error that says why not.

Plain JPEGs go through torchvision's decoder, which holds no lock while it works and takes two thirds of Pillow's time;
everything else, and all of it where torchvision has no decoder, goes through Pillow.
"""

from __future__ import annotations

import io
from collections.abc import Callable
from pathlib import Path
from typing import Final

import numpy as np
import torch
from PIL import Image, ImageChops
from torch import Tensor

from regraft.core.errors import UnreadableError
from regraft.images.decoders import image_operators
from regraft.images.header import Header, read_header

MAX_PIXELS: Final = 50_000_000
MAX_FILE_BYTES: Final = 1 << 30
#: The modes of torchvision's decoder.
_GREY, _RGB = 1, 3


def _torchvision_decoder() -> Callable[[Tensor, int], Tensor] | None:
    """Encoded bytes uint8 (N,) and a mode → uint8 (C, H, W); None in a torchvision that has no decoder.

    The operator itself, since `torchvision.io.decode_jpeg` adds nothing but a DeprecationWarning to every call (0.29).
    It cannot be caught at the call: before Python 3.14 the warning filters belong to the whole process, and threads
    that set them aside at the same time leave the user's changed.
    """
    decoder: Callable[[Tensor, int], Tensor] | None = getattr(image_operators(), "decode_jpeg", None)
    return decoder


_DECODER = _torchvision_decoder()


def decode(path: Path, *, max_pixels: int = MAX_PIXELS) -> Tensor:
    """The picture at `path` as uint8 (3, H, W) RGB, turned upright by its EXIF orientation.

    Alpha is laid over white; 16-bit grey is divided by 257; of an animation the first frame counts. Raises
    UnreadableError with kind "missing", "zero-byte", "truncated", "unreadable", "not-a-picture" or "bomb".
    """
    data = read_bytes(path)
    return decode_bytes(data, read_header(data, str(path), max_pixels=max_pixels), str(path))


def read_bytes(path: Path) -> bytes:
    """The file's bytes; UnreadableError where it is missing, may not be read, or is over 1 GiB."""
    try:
        if path.stat().st_size > MAX_FILE_BYTES:
            raise UnreadableError(f"{path} is larger than {MAX_FILE_BYTES >> 30} GiB; it is not read.", kind="bomb")
        return path.read_bytes()
    except FileNotFoundError as error:
        raise UnreadableError(f"{path} does not exist.", kind="missing") from error
    except OSError as error:
        raise UnreadableError(f"{path} cannot be opened: {error.strerror}.", kind="unreadable") from error


def decode_bytes(data: bytes, header: Header, name: str) -> Tensor:
    """As `decode`, for bytes whose header has been read and judged."""
    if header.plain:
        pixels = _decode_plain(data, name, _RGB)
        if pixels is not None:
            return upright(pixels, header.orientation)
    return upright(_decode_pillow(data, header, name), header.orientation)


def decode_thumbnail(data: bytes, header: Header, name: str, side_px: int) -> np.ndarray:
    """The upright picture as grey uint8 (side_px, side_px), by the cheapest reading that proves it whole.

    A large JPEG is decoded at a fraction of its size, where its end marker is in place; a file cut short has
    none.
    """
    grey: Image.Image | None = None
    large = header.width * header.height > 1_000_000
    if header.plain and large and data.find(b"\xff\xd9", header.pixels_at) >= 0:
        grey = _draft(data, name, side_px)
    elif header.plain:
        pixels = _decode_plain(data, name, _GREY)
        grey = None if pixels is None else Image.fromarray(pixels[0].numpy())
    if grey is None:
        rgb = _decode_pillow(data, header, name).permute(1, 2, 0).contiguous()
        grey = Image.fromarray(rgb.numpy()).convert("L")
    small = torch.from_numpy(np.array(grey.resize((side_px, side_px), Image.Resampling.BOX)))
    return upright(small[None], header.orientation)[0].numpy()


def _decode_plain(data: bytes, name: str, mode: int) -> Tensor | None:
    """(C, H, W) by torchvision; None where its decoder is missing or lacks the coding, and Pillow should try."""
    if _DECODER is None:
        return None
    try:
        return _DECODER(torch.frombuffer(bytearray(data), dtype=torch.uint8), mode)
    except RuntimeError as error:
        if "truncated" in str(error):
            raise UnreadableError(f"{name} is cut short: its pixels end early.", kind="truncated") from error
        return None


def _draft(data: bytes, name: str, side_px: int) -> Image.Image:
    try:
        with Image.open(io.BytesIO(data)) as picture:
            picture.draft("L", (4 * side_px, 4 * side_px))
            return picture.convert("L")
    except Exception as error:  # as in _decode_pillow
        raise _unreadable(error, name) from error


def _decode_pillow(data: bytes, header: Header, name: str) -> Tensor:
    try:
        with Image.open(io.BytesIO(data)) as picture:
            picture.load()
            rgb = _to_rgb(picture, header)
    except (
        Exception
    ) as error:  # Pillow's decoders raise almost anything on hostile bytes; all of it means the same here
        raise _unreadable(error, name) from error
    return torch.from_numpy(np.array(rgb)).permute(2, 0, 1)


def _unreadable(error: Exception, name: str) -> UnreadableError:
    text = str(error).lower()
    if "truncated" in text or "incomplete" in text or "unexpected end" in text or isinstance(error, EOFError):
        return UnreadableError(f"{name} is cut short: {error}.", kind="truncated")
    return UnreadableError(f"{name} cannot be decoded: {error}.", kind="unreadable")


def _to_rgb(picture: Image.Image, header: Header) -> Image.Image:
    if picture.mode.startswith(("I", "F")):
        return Image.fromarray(_to_8_bit(np.asarray(picture))).convert("RGB")
    if picture.mode == "CMYK" and not header.cmyk_inverted:
        picture = ImageChops.invert(picture)  # Pillow takes every four-channel JPEG for Adobe's, which stores 255 − ink
    if header.alpha:
        rgba = picture.convert("RGBA")
        white = Image.new("RGBA", rgba.size, (255, 255, 255, 255))
        return Image.alpha_composite(white, rgba).convert("RGB")
    return picture.convert("RGB")


def _to_8_bit(values: np.ndarray) -> np.ndarray:
    """Deep grey (H, W) → uint8: 16-bit integers over 257; wider or real ones by their own range.

    Real values in [0, 1] and wide integers up to 65,535 keep their scale, so pictures of one set stay
    comparable.
    """
    if values.dtype == np.uint16:
        return ((values.astype(np.uint32) + 128) // 257).astype(np.uint8)
    real = np.nan_to_num(values.astype(np.float64))
    low, high = float(real.min()), float(real.max())
    if np.issubdtype(values.dtype, np.integer):
        if low >= 0 and high <= 65_535:
            return ((real + 128) // 257).astype(np.uint8)
    elif low >= 0 and high <= 1:
        return np.rint(real * 255).astype(np.uint8)
    elif low >= 0 and high <= 255:
        return np.rint(real).astype(np.uint8)
    return np.rint((real - low) * (255 / max(high - low, 1e-12))).astype(np.uint8)


def upright(pixels: Tensor, orientation: int) -> Tensor:
    """Undo an EXIF orientation (TIFF 6.0, tag 274) on (C, H, W)."""
    if orientation == 1:
        return pixels
    if orientation >= 5:
        pixels = pixels.transpose(1, 2)
    # After the transpose, 5–8 need: nothing, a mirror left-right, both, a mirror top-bottom.
    flips = {2: [2], 3: [1, 2], 4: [1], 5: [], 6: [2], 7: [1, 2], 8: [1]}[orientation]
    return pixels.flip(flips).contiguous() if flips else pixels.contiguous()
