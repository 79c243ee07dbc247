"""Picture files as the world delivers them: broken, lying, oversized or unusual. Same seed, same bytes."""

from __future__ import annotations

import io
import struct
import zlib
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image

ODD_NAMES = ("plain", "with spaces", "ünï ¢öde 花", "many.dots.in-it", "UPPER (1)")


@dataclass(frozen=True)
class Hostile:
    """fate: "named" (left out, as `finding`) or "handled". expected: right pixels (H, W, 3) ± tolerance."""

    path: Path
    kind: str
    fate: str
    finding: str
    expected: np.ndarray | None = None
    tolerance: float = 0.0


def scene(rng: np.random.Generator, height: int = 90, width: int = 120) -> np.ndarray:
    """A smooth colour picture uint8 (height, width, 3) like no other, and like none of its mirror images."""
    coarse = Image.fromarray(rng.integers(0, 256, (6, 8, 3), dtype=np.uint8))
    return np.asarray(coarse.resize((width, height), Image.Resampling.BICUBIC))


def jpeg(pixels: np.ndarray, **options: object) -> bytes:
    return encoded(Image.fromarray(pixels), "JPEG", quality=95, subsampling=0, **options)


def encoded(picture: Image.Image, kind: str, **options: object) -> bytes:
    buffer = io.BytesIO()
    picture.save(buffer, kind, **options)
    return buffer.getvalue()


def chunk(name: bytes, body: bytes) -> bytes:
    return struct.pack(">I", len(body)) + name + body + struct.pack(">I", zlib.crc32(name + body))


def png_bomb(side_px: int) -> bytes:
    """A one-bit PNG that claims side_px² pixels in a few bytes."""
    start = struct.pack(">IIBBBBB", side_px, side_px, 1, 0, 0, 0, 0)
    data = zlib.compress(bytes(100_000), 9)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", start) + chunk(b"IDAT", data) + chunk(b"IEND", b"")


def bomb(rng: np.random.Generator, i: int) -> bytes:
    if i == 2:
        return b"GIF89a" + struct.pack("<HHBBB", 65_535, 65_535, 0x80, 0, 0) + bytes(6) + b","
    if i == 3:
        return (
            b"BM"
            + struct.pack("<IHHI", 1000, 0, 0, 54)
            + struct.pack("<IiiHH", 40, 50_000, -50_000, 1, 24)
            + bytes(900)
        )
    if i == 4:
        data = bytearray(jpeg(scene(rng)))
        at = data.find(b"\xff\xc0")
        data[at + 5 : at + 9] = struct.pack(">HH", 65_000, 65_000)
        return bytes(data)
    return png_bomb((60_000, 12_000)[i])


def cmyk(rng: np.random.Generator, i: int) -> tuple[bytes, np.ndarray, float]:
    """Adobe's inverted CMYK, and for odd `i` the same picture without Adobe's marker and so not inverted."""
    ink = Image.fromarray(scene(rng)).convert("CMYK")
    right = np.asarray(ink.convert("RGB"))
    if i % 2 == 0:
        return encoded(ink, "JPEG", quality=95, subsampling=0), right, 12
    data = encoded(Image.fromarray(255 - np.asarray(ink), "CMYK"), "JPEG", quality=95, subsampling=0)
    at = data.find(b"\xff\xee")
    length = struct.unpack(">H", data[at + 2 : at + 4])[0]
    return data[:at] + data[at + 2 + length :], right, 12


def deep(rng: np.random.Generator) -> tuple[bytes, np.ndarray, float]:
    grey = scene(rng)[..., 0].astype(np.uint16)
    data = encoded(Image.fromarray(grey * 257), "PNG")
    return data, np.repeat(grey.astype(np.uint8)[..., None], 3, axis=2), 0


def palette(rng: np.random.Generator) -> tuple[bytes, np.ndarray, float]:
    picture = Image.fromarray(scene(rng)).quantize(32)
    right = np.asarray(picture.convert("RGB")).copy()
    right[np.asarray(picture) == 5] = 255
    return encoded(picture, "PNG", transparency=5), right, 0


def rgba(rng: np.random.Generator) -> tuple[bytes, np.ndarray, float]:
    colour = scene(rng)
    alpha = scene(rng)[..., :1]
    share = alpha / 255.0
    right = np.rint(colour * share + 255 * (1 - share)).astype(np.uint8)
    return encoded(Image.fromarray(np.concatenate([colour, alpha], axis=2)), "PNG"), right, 1


def turned(rng: np.random.Generator, orientation: int) -> tuple[bytes, np.ndarray, float]:
    """Stored so that only a reader which obeys the tag sees the scene upright."""
    upright = scene(rng)
    undo: dict[int, Callable[[np.ndarray], np.ndarray]] = {
        2: lambda p: p[:, ::-1],
        3: lambda p: p[::-1, ::-1],
        4: lambda p: p[::-1],
        5: lambda p: p.transpose(1, 0, 2),
        6: lambda p: np.rot90(p, 1),
        7: lambda p: p[::-1, ::-1].transpose(1, 0, 2),
        8: lambda p: np.rot90(p, -1),
    }
    exif = Image.Exif()
    exif[0x0112] = orientation
    return jpeg(np.ascontiguousarray(undo[orientation](upright)), exif=exif.tobytes()), upright, 12


def build(folder: Path, *, seed: int = 0, each: int = 5, good: int = 40) -> list[Hostile]:
    """Write `each` files of each of 12 kinds and `good` sound ones into folder/{apples,pears}: 60 + 40."""
    rng = np.random.default_rng(seed)
    for label in ("apples", "pears"):
        (folder / label).mkdir(parents=True, exist_ok=True)
    made: list[Hostile] = []

    def add(kind: str, i: int, suffix: str, data: bytes, fate: str, finding: str,
            expected: np.ndarray | None = None, tolerance: float = 0) -> None:  # fmt: skip
        name = f"{kind} {i} {ODD_NAMES[i % len(ODD_NAMES)]}{suffix}"
        path = folder / ("apples", "pears")[i % 2] / name
        path.write_bytes(data)
        made.append(Hostile(path, kind, fate, finding, expected, tolerance))

    for i in range(good):
        path = folder / ("apples", "pears")[i % 2] / f"good {i:02d}.jpg"
        path.write_bytes(jpeg(scene(rng)))
    for i in range(each):
        whole = jpeg(scene(rng), progressive=i % 2 == 1)
        add("zero-byte", i, (".jpg", ".png", ".webp", ".gif", ".tif")[i % 5], b"", "named", "zero-byte")
        cut = (len(whole) // 2, len(whole) - 2, 300, len(whole) * 9 // 10, 30)[i % 5]
        add("truncated-jpeg", i, ".jpg", whole[:cut], "named", "truncated")
        drawn = encoded(Image.fromarray(scene(rng)), "PNG")
        add("truncated-png", i, ".png", drawn[: len(drawn) * (i + 1) // (each + 2)], "named", "truncated")
        add(
            "random-bytes",
            i,
            ".jpg",
            b"\x01" + rng.bytes(int(rng.integers(50, 5000))),
            "named",
            "not-a-picture",
        )
        add("text", i, ".png", b"Dear reader, this is no picture.\n" * (i + 1), "named", "not-a-picture")
        sound = scene(rng)
        add(
            "png-named-jpg",
            i,
            ".jpg",
            encoded(Image.fromarray(sound), "PNG"),
            "handled",
            "wrong-extension",
            sound,
        )
        add("bomb", i, (".png", ".png", ".gif", ".bmp", ".jpg")[i % 5], bomb(rng, i % 5), "named", "bomb")
        add("cmyk", i, ".jpg", *_handled(cmyk(rng, i), "cmyk"))
        add("16-bit", i, ".png", *_handled(deep(rng), "16-bit"))
        add("palette", i, ".png", *_handled(palette(rng), "palette"))
        add("rgba", i, ".png", *_handled(rgba(rng), "alpha"))
        add("exif-rotated", i, ".jpg", *_handled(turned(rng, (6, 3, 8, 5, 2)[i % 5]), "exif-rotated"))
    return made


def _handled(made: tuple[bytes, np.ndarray, float], finding: str) -> tuple[bytes, str, str, np.ndarray, float]:
    return made[0], "handled", finding, made[1], made[2]
