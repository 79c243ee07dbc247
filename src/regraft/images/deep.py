"""Pictures of 16 bits per channel: PNG by torchvision's decoder and an encoder of our own, TIFF by tifffile.

Pillow reads 16-bit colour as 8 bits and cannot write it.
"""

from __future__ import annotations

import io
import struct
import zlib
from typing import Final

import numpy as np
import torch

from regraft.core.errors import MissingExtraError, UnreadableError
from regraft.images.decoders import image_operators
from regraft.images.header import Header

_UNCHANGED: Final = 0
_COLOUR_TYPE: Final = {1: 0, 2: 4, 3: 2, 4: 6}


def decode_png16(data: bytes, name: str) -> np.ndarray:
    """A 16-bit PNG → uint16 (H, W, C) with C of 1 to 4: grey, grey and alpha, RGB, RGBA. Raises UnreadableError."""
    try:
        found = image_operators().decode_png(torch.frombuffer(bytearray(data), dtype=torch.uint8), _UNCHANGED)
    except RuntimeError as error:
        raise UnreadableError(f"{name} cannot be decoded: {error}.", kind="unreadable") from error
    if found.dtype != torch.uint16:
        raise UnreadableError(f"{name} claims 16 bits and holds {found.dtype}.", kind="unreadable")
    pixels: np.ndarray = found.permute(1, 2, 0).contiguous().numpy()
    return pixels


def encode_png16(pixels: np.ndarray, profile: bytes) -> bytes:
    """uint16 (H, W, C), C of 1 to 4 → a PNG (W3C, third edition) with an iCCP chunk; rows filtered by "up"."""
    height, width, channels = pixels.shape
    rows = np.ascontiguousarray(pixels.astype(">u2")).view(np.uint8).reshape(height, -1)
    filtered = np.empty((height, 1 + rows.shape[1]), dtype=np.uint8)
    filtered[:, 0] = 2
    filtered[0, 1:] = rows[0]
    np.subtract(rows[1:], rows[:-1], out=filtered[1:, 1:])  # modulo 256, as the format wants it
    header = struct.pack(">IIBBBBB", width, height, 16, _COLOUR_TYPE[channels], 0, 0, 0)
    return b"".join(
        (
            b"\x89PNG\r\n\x1a\n",
            _chunk(b"IHDR", header),
            _chunk(b"iCCP", b"ICC profile\0\0" + zlib.compress(profile)),
            _chunk(b"IDAT", zlib.compress(filtered.tobytes(), 5)),
            _chunk(b"IEND", b""),
        )
    )


def _chunk(kind: bytes, body: bytes) -> bytes:
    return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))


def tiff_depth(data: bytes) -> int:
    """Bits per channel that the first page of a TIFF states (tag 258); 8 where that cannot be read.

    Pillow shows 16-bit colour as plain RGB, so its mode does not tell.
    """
    order = ">" if data[:2] == b"MM" else "<"
    try:
        (at,) = struct.unpack_from(order + "I", data, 4)
        (count,) = struct.unpack_from(order + "H", data, at)
        for index in range(min(count, 512)):
            tag, _kind, length, value = struct.unpack_from(order + "HHII", data, at + 2 + 12 * index)
            if tag == 258:
                place = at + 2 + 12 * index + 8 if length <= 2 else value
                bits: int = struct.unpack_from(order + "H", data, place)[0]
                return bits
    except struct.error:
        pass
    return 8


def decode_tiff16(data: bytes, header: Header, name: str) -> np.ndarray:
    """The first page of a 16-bit TIFF → uint16 (H, W, C), rows from top. Needs the extra `style`.

    header: as `read_header` gave it; a file whose pages disagree with it is refused, so its bound on pixels holds.
    Raises UnreadableError where tifffile cannot read it (LZW needs its optional codecs), MissingExtraError.
    """
    try:
        import tifffile
    except ImportError as error:
        raise MissingExtraError(f"{name} is a 16-bit TIFF, which", "style") from error
    try:
        with tifffile.TiffFile(io.BytesIO(data)) as file:
            page = file.pages[0]
            shape, dtype = tuple(page.shape), page.dtype
            fits = shape[:2] == (header.height, header.width) or shape[1:] == (header.height, header.width)
            if dtype != np.uint16 or not fits or not 2 <= len(shape) <= 3:
                raise ValueError(f"its first page is {dtype} {shape}")
            pixels = page.asarray()
            planar = len(shape) == 3 and shape[:2] != (header.height, header.width)
    except Exception as error:  # a hostile TIFF makes tifffile raise almost anything; all of it means the same here
        raise UnreadableError(f"{name} cannot be decoded as a 16-bit TIFF: {error}.", kind="unreadable") from error
    if pixels.ndim == 2:
        pixels = pixels[..., None]
    elif planar:
        pixels = pixels.transpose(1, 2, 0)
    if pixels.shape[2] > 4:
        raise UnreadableError(f"{name} has {pixels.shape[2]} channels; 1 to 4 are read.", kind="unreadable")
    return np.ascontiguousarray(pixels)


def encode_tiff16(pixels: np.ndarray, profile: bytes) -> bytes:
    """uint16 (H, W, 3 or 4) → a deflated TIFF with its profile; alpha is unassociated. Needs the extra `style`."""
    try:
        import tifffile
    except ImportError as error:
        raise MissingExtraError("Writing a 16-bit TIFF", "style") from error
    out = io.BytesIO()
    extra = ["unassalpha"] if pixels.shape[2] == 4 else None
    tifffile.imwrite(
        out, pixels, photometric="rgb", compression="zlib", predictor=True, extrasamples=extra, iccprofile=profile,
        metadata=None,
    )  # fmt: skip
    return out.getvalue()
