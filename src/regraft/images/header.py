"""What a picture file says about itself before anything is decoded: format, size, and what needs care.

Sizes are read here, by a few bytes of each format, so that a file which claims 60,000 × 60,000 px costs
nothing.
"""

from __future__ import annotations

import io
import struct
from dataclasses import dataclass
from typing import Final

from PIL import Image

from regraft.core.errors import UnreadableError

MAGIC: Final = {
    b"\xff\xd8\xff": "JPEG",
    b"\x89PNG\r\n\x1a\n": "PNG",
    b"GIF8": "GIF",
    b"RIFF": "WEBP",
    b"II*\0": "TIFF",
    b"MM\0*": "TIFF",
    b"BM": "BMP",
}
_ORIENTATION: Final = 0x0112
#: Red, green and blue of sRGB as ICC profiles state them: X, Y, Z relative to D50.
_SRGB: Final = {b"rXYZ": (0.436, 0.222, 0.014), b"gXYZ": (0.385, 0.717, 0.097), b"bXYZ": (0.143, 0.061, 0.714)}


@dataclass(frozen=True)
class Header:
    """format: Pillow's name. width, height: px as stored. orientation: EXIF, 1–8. bits: per channel.

    plain: an 8-bit grey or colour JPEG, which torchvision's decoder reads. cmyk_inverted: False where a
    four-channel JPEG lacks Adobe's marker, so that 0 means no ink. pixels_at: where a JPEG's compressed data
    begin, in bytes. other_colours: it embeds an ICC profile whose primaries are not sRGB's.
    """

    format: str
    width: int
    height: int
    mode: str
    orientation: int = 1
    bits: int = 8
    alpha: bool = False
    plain: bool = False
    cmyk_inverted: bool = True
    pixels_at: int = 0
    other_colours: bool = False


def read_header(data: bytes, name: str, *, max_pixels: int) -> Header:
    """The header of a picture file's bytes.

    Raises UnreadableError with kind "zero-byte", "not-a-picture", "truncated", "unreadable" or "bomb" (more
    than `max_pixels` pixels); `name` is only for its sentence.
    """
    if not data:
        raise UnreadableError(f"{name} has no bytes.", kind="zero-byte")
    guess = sniff(data)
    if guess == "JPEG":
        return _checked(_jpeg(data, name), name, max_pixels)
    early = _early_size(data, guess)
    if early is not None:
        _check_size(*early, name, max_pixels)
    try:
        with Image.open(io.BytesIO(data)) as picture:
            return _checked(_from_pillow(picture, data), name, max_pixels)
    except (Image.DecompressionBombError, Image.DecompressionBombWarning) as error:
        raise UnreadableError(f"{name} claims too many pixels: {error}", kind="bomb") from error
    except UnreadableError:
        raise
    except Exception as error:  # Pillow's parsers raise almost anything on hostile bytes; all of it means the same here
        if guess is None:
            raise UnreadableError(f"{name} is not a picture: no known format.", kind="not-a-picture") from error
        kind = "truncated" if _cut_short(error) or len(data) < 64 else "unreadable"
        raise UnreadableError(f"{name} begins as {guess} but cannot be read: {error}", kind=kind) from error


def sniff(data: bytes) -> str | None:
    """The format that a file's first bytes announce, whatever its name; None where they announce none."""
    for magic, known in MAGIC.items():
        if data.startswith(magic) and (known != "WEBP" or data[8:12] == b"WEBP"):
            return known
    return "PPM" if data[:1] == b"P" and data[1:2] in b"123456" and data[2:3].isspace() else None


def _cut_short(error: Exception) -> bool:
    text = str(error).lower()
    return "truncated" in text or "incomplete" in text or "unexpected end" in text or isinstance(error, EOFError)


def _check_size(width: int, height: int, name: str, max_pixels: int) -> None:
    if width < 1 or height < 1:
        raise UnreadableError(f"{name} claims {width} × {height} px.", kind="unreadable")
    if width * height > max_pixels:
        raise UnreadableError(
            f"{name} claims {width} × {height} px, more than the {max_pixels:,} pixels that are decoded.",
            kind="bomb",
        )


def _checked(header: Header, name: str, max_pixels: int) -> Header:
    _check_size(header.width, header.height, name, max_pixels)
    return header


def _early_size(data: bytes, guess: str | None) -> tuple[int, int] | None:
    """Width and height from fixed places of the file: Pillow would warn about large ones on its own."""
    if guess == "PNG" and len(data) >= 24:
        return struct.unpack(">II", data[16:24])
    if guess == "GIF" and len(data) >= 10:
        return struct.unpack("<HH", data[6:10])
    if guess == "BMP" and len(data) >= 26 and data[14] >= 40:
        width, height = struct.unpack("<ii", data[18:26])
        return abs(width), abs(height)
    if guess == "WEBP" and data[12:16] == b"VP8X" and len(data) >= 30:
        return 1 + int.from_bytes(data[24:27], "little"), 1 + int.from_bytes(data[27:30], "little")
    return None


def _from_pillow(picture: Image.Image, data: bytes) -> Header:
    bits = 16 if picture.mode.startswith(("I", "F")) else 1 if picture.mode == "1" else 8
    if picture.format == "PNG" and len(data) > 24 and data[24] == 16:
        bits = 16  # 16-bit colour: Pillow keeps the high byte
    alpha = picture.mode in ("RGBA", "LA", "PA", "RGBa", "La") or "transparency" in picture.info
    orientation = 1
    if picture.format in ("PNG", "WEBP", "TIFF"):
        orientation = _orientation(picture.getexif())
    return Header(
        picture.format or "?",
        picture.width,
        picture.height,
        picture.mode,
        orientation,
        bits=bits,
        alpha=alpha,
        other_colours=_other_colours(picture.info.get("icc_profile") or b""),
    )


def _orientation(exif: Image.Exif) -> int:
    value = exif.get(_ORIENTATION, 1)
    return value if isinstance(value, int) and 1 <= value <= 8 else 1


def _jpeg(data: bytes, name: str) -> Header:
    """Walk a JPEG's markers up to its compressed data (ITU-T T.81, B.1)."""
    at, size = 2, len(data)
    width = height = channels = precision = 0
    orientation, adobe, lossless, other_colours = 1, False, False, False
    while at + 4 <= size:
        if data[at] != 0xFF:
            raise UnreadableError(f"{name} begins as JPEG but its markers are damaged.", kind="unreadable")
        marker = data[at + 1]
        if marker == 0xFF or marker == 0x01 or 0xD0 <= marker <= 0xD8:  # fill byte, or a marker without a length
            at += 1 if marker == 0xFF else 2
            continue
        if marker == 0xD9:
            break
        length = int.from_bytes(data[at + 2 : at + 4], "big")
        body = data[at + 4 : at + 2 + length]
        if 0xC0 <= marker <= 0xCF and marker not in (0xC4, 0xC8, 0xCC) and len(body) >= 6:
            precision, height, width, channels = struct.unpack(">BHHB", body[:6])
            lossless = marker not in (0xC0, 0xC1, 0xC2)
        elif marker == 0xE1 and body.startswith(b"Exif\0\0"):
            orientation = _exif_orientation(body)
        elif marker == 0xE2 and body.startswith(b"ICC_PROFILE\0\1"):  # the first part holds the table and the primaries
            other_colours = _other_colours(body[14:])
        elif marker == 0xEE and body.startswith(b"Adobe"):
            adobe = True
        elif marker == 0xDA:
            if not channels:
                break
            mode = {1: "L", 3: "RGB", 4: "CMYK"}.get(channels, f"{channels} channels")
            return Header(
                "JPEG", width, height, mode, orientation, bits=precision,
                plain=channels in (1, 3) and precision == 8 and not lossless,
                cmyk_inverted=adobe, pixels_at=at + 2 + length, other_colours=other_colours,
            )  # fmt: skip
        at += 2 + max(length, 2)
    raise UnreadableError(f"{name} begins as JPEG but ends before its pixels.", kind="truncated")


def _exif_orientation(body: bytes) -> int:
    exif = Image.Exif()
    try:
        exif.load(body)
        return _orientation(exif)
    except Exception:  # damaged EXIF says nothing about the pixels: the picture is taken as it is stored
        return 1


def _other_colours(profile: bytes) -> bool:
    """Whether an ICC profile (ICC.1:2022, 7.3 and 10.31) states primaries, and other ones than sRGB's."""
    for entry in range(132, 132 + 12 * min(64, int.from_bytes(profile[128:132], "big")), 12):
        expected = _SRGB.get(profile[entry : entry + 4])
        at = 8 + int.from_bytes(profile[entry + 4 : entry + 8], "big")
        if expected is not None and len(profile) >= at + 12:
            stated = [value / 65_536 for value in struct.unpack_from(">3i", profile, at)]
            if max(abs(a - b) for a, b in zip(stated, expected, strict=True)) > 0.01:
                return True
    return False
