"""Digits in the MNIST distribution's form: `*-images-idx3-ubyte(.gz)` beside `*-labels-idx1-ubyte(.gz)`.

They are written out once, as PNG files in folders per class, so that everything after this sees a folder of pictures.
Format: LeCun, Cortes & Burges, "The MNIST database of handwritten digits": big-endian magic, sizes, then bytes.
"""

from __future__ import annotations

import gzip
import os
import struct
from pathlib import Path
from typing import Final

import numpy as np
from PIL import Image

from regraft.core.errors import DataError
from regraft.core.files import sha256_file, stable_hash

#: File-name prefixes and the split folders that they become.
PARTS: Final = {"train": "train", "t10k": "test"}
#: Bytes that one unpacked file may have: ten times MNIST's largest.
MAX_BYTES: Final = 512 << 20


def is_idx_folder(folder: Path) -> bool:
    """Whether the folder holds idx pictures."""
    return folder.is_dir() and bool(_images(folder))


def expand_idx(folder: Path, cache: Path | None = None) -> Path:
    """Write the folder's pictures as PNG below the cache and return that folder: train/<label>/, test/<label>/.

    cache: the folder for such copies; the user's cache unless told. A copy that is complete is used again. Raises
    DataError for a file of another form, of sizes that disagree, or without its labels.
    """
    found = _images(folder)
    if not found:
        raise DataError(f"{folder} has no *-images-idx3-ubyte or .gz files.")
    digest = stable_hash({part: [sha256_file(path), sha256_file(_labels_of(path))] for part, path in found.items()})
    out = (cache or _default_cache()) / digest[:24]
    if (out / "COMPLETE").is_file():
        return out
    for part, path in found.items():
        pixels, labels = read_idx(path), read_idx(_labels_of(path))
        if pixels.ndim != 3 or labels.ndim != 1 or len(pixels) != len(labels):
            raise DataError(f"{path.name} has the shape {pixels.shape} and its labels {labels.shape}: they do not fit.")
        for label in np.unique(labels):
            (out / PARTS[part] / str(label)).mkdir(parents=True, exist_ok=True)
        for index, (picture, label) in enumerate(zip(pixels, labels, strict=True)):
            Image.fromarray(picture).save(out / PARTS[part] / str(label) / f"{index:06d}.png", compress_level=1)
    (out / "COMPLETE").touch()
    return out


def read_idx(path: Path) -> np.ndarray:
    """The uint8 array in an idx file; DataError where it is none, is cut short, or unpacks to over 512 MiB."""
    opener = gzip.open if path.suffix == ".gz" else open
    try:
        with opener(path, "rb") as source:
            data = source.read(MAX_BYTES + 1)
    except (OSError, EOFError) as error:
        raise DataError(f"{path} cannot be read: {error}.") from error
    if len(data) > MAX_BYTES:
        raise DataError(f"{path} unpacks to more than {MAX_BYTES >> 20} MiB; it is not read.")
    if len(data) < 4 or data[:2] != b"\0\0" or data[2] != 8 or not 1 <= data[3] <= 3:
        raise DataError(f"{path} is no idx file of bytes: it begins with {data[:4].hex(' ') or 'nothing'}.")
    start = 4 + 4 * data[3]
    if len(data) < start:
        raise DataError(f"{path} is cut short inside its header.")
    shape = struct.unpack(f">{data[3]}I", data[4:start])
    expected = 1
    for size in shape:
        expected *= size
    if expected != len(data) - start:
        raise DataError(f"{path} says {shape}, that is {expected} bytes, and holds {len(data) - start}.")
    return np.frombuffer(data, np.uint8, offset=start).reshape(shape)


def _images(folder: Path) -> dict[str, Path]:
    found = {}
    for part in PARTS:
        for name in (f"{part}-images-idx3-ubyte.gz", f"{part}-images-idx3-ubyte"):
            if (folder / name).is_file():
                found[part] = folder / name
                break
    return found


def _labels_of(images: Path) -> Path:
    for suffix in (".gz", ""):
        path = images.with_name(images.name.removesuffix(".gz").replace("images-idx3", "labels-idx1") + suffix)
        if path.is_file():
            return path
    raise DataError(f"{images} has no labels file beside it ({images.name.replace('images-idx3', 'labels-idx1')}).")


def _default_cache() -> Path:
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "regraft" / "idx"
