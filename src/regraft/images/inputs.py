"""What a person hands over for prediction → pictures: files, folders, patterns, arrays, Pillow images."""

from __future__ import annotations

import glob
import io
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from regraft.core.errors import DataError, UnreadableError, UsageError
from regraft.data.source import Sample
from regraft.images.decode import MAX_PIXELS, decode, decode_bytes
from regraft.images.extensions import EXTENSIONS
from regraft.images.header import read_header
from regraft.images.spec import ImageSpec


def expand_inputs(items: Sequence[str]) -> list[Path]:
    """Files as they are, folders searched through in order, patterns such as `new/*.jpg` matched.

    A file that does not exist is kept, so that its prediction says so. Raises UsageError for a pattern that
    matches nothing, DataError for a folder without pictures.
    """
    found: list[Path] = []
    for item in items:
        path = Path(item)
        if path.is_dir():
            found += _pictures_below(path)
        elif not path.exists() and glob.has_magic(item):
            matches = sorted(glob.glob(item, recursive=True))
            if not matches:
                raise UsageError(f"The pattern {item!r} matches no file. Quote it if the shell should not expand it.")
            for match in map(Path, matches):
                found += _pictures_below(match) if match.is_dir() else [match]
        else:
            found.append(path)
    return found


def _pictures_below(folder: Path) -> list[Path]:
    """Hidden files and folders are left out: they are thumbnails and leftovers of file managers."""
    pictures = [
        path
        for path in sorted(folder.rglob("*"))
        if path.suffix.lower() in EXTENSIONS
        and path.is_file()
        and not any(part.startswith(".") for part in path.relative_to(folder).parts)
    ]
    if not pictures:
        raise DataError(f"{folder} holds no pictures: looked below it for {', '.join(sorted(EXTENSIONS))}.")
    return pictures


def as_list(pictures: Any) -> list[Any]:
    """One picture → a list of one; a batch array (N, H, W, 3) → its pictures; anything else → its items."""
    if isinstance(pictures, (str, Path, Image.Image)) or (isinstance(pictures, np.ndarray) and pictures.ndim <= 3):
        return [pictures]
    return list(pictures)


def name_of(item: Any) -> str | None:
    """The path as given, None for pixels."""
    if isinstance(item, Sample):
        return item.name
    return str(item) if isinstance(item, (str, Path)) else None


def read_picture(item: Any) -> Tensor:
    """A path, sample, uint8 array (H, W, 3) or Pillow image → uint8 (3, H, W) RGB, upright. Raises UnreadableError."""
    if isinstance(item, (str, Path, Sample)):
        return decode(item.path if isinstance(item, Sample) else Path(item))
    if isinstance(item, Image.Image):
        return _from_pillow(item)
    if isinstance(item, np.ndarray):
        if item.dtype != np.uint8 or item.ndim != 3 or item.shape[2] != 3 or 0 in item.shape:
            raise UnreadableError(
                f"An array of {item.dtype} {item.shape} came; accepted is uint8 (H, W, 3), RGB, 0…255.",
                kind="not-a-picture",
            )
        return torch.from_numpy(np.ascontiguousarray(item.transpose(2, 0, 1)))
    raise UnreadableError(
        f"{type(item).__name__} is no picture: give a path, a uint8 array (H, W, 3) or a Pillow image.",
        kind="not-a-picture",
    )


def _from_pillow(picture: Image.Image) -> Tensor:
    """Plain RGB is copied; alpha, deep grey, palettes and EXIF turns go through the same reader as files do."""
    try:
        if picture.mode == "RGB" and picture.getexif().get(0x0112, 1) == 1:
            return torch.from_numpy(np.array(picture)).permute(2, 0, 1).contiguous()
        buffer = io.BytesIO()
        whole = picture if picture.mode in {"1", "L", "LA", "P", "RGB", "RGBA", "I", "I;16"} else picture.convert("RGB")
        whole.save(buffer, "PNG", compress_level=0, exif=picture.getexif().tobytes())
    except (OSError, ValueError, SyntaxError) as error:
        raise UnreadableError(f"The Pillow image cannot be read: {error}.") from error
    data = buffer.getvalue()
    return decode_bytes(data, read_header(data, "the Pillow image", max_pixels=MAX_PIXELS), "the Pillow image")


class PictureReader:
    """Pictures as the plain stream has them. `data.modality.Reader`."""

    def __init__(self, spec: ImageSpec) -> None:
        from regraft.images.transform import EvalTransform  # brings torchvision, which finding files does not need

        self.transform = EvalTransform(spec)

    def read(self, item: Any) -> Tensor:
        """uint8 (3, h, w) of the spec's size."""
        return self.transform(read_picture(item))

    def collate(self, read: Sequence[Tensor]) -> Tensor:
        """uint8 (N, 3, h, w)."""
        return torch.stack(list(read))
