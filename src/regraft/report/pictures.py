"""Pictures small enough to live inside a page: JPEG data URIs of a bounded size."""

from __future__ import annotations

import base64
import io
import logging
from pathlib import Path

from PIL import Image
from torch import Tensor

from regraft.core.errors import DataError
from regraft.images.decode import decode
from regraft.style.base import fit_long_side, resize

log = logging.getLogger(__name__)


def thumbnail(path: Path, side_px: int, *, quality: int = 70, square: bool = True) -> str | None:
    """A `data:image/jpeg` URI of the picture at `path`, upright; None where it cannot be read.

    square: the centre, side_px × side_px; otherwise the whole picture, at most side_px on its longer side. A
    picture is never enlarged beyond its own pixels unless it is square-cut, where the page needs equal tiles.
    """
    try:
        pixels = decode(path)
    except (DataError, OSError) as error:
        log.info("No thumbnail of %s: %s", path, error)
        return None
    picture = Image.fromarray(pixels.permute(1, 2, 0).contiguous().numpy())
    if square:
        side = min(picture.size)
        left, top = (picture.width - side) // 2, (picture.height - side) // 2
        picture = picture.resize(
            (side_px, side_px),
            Image.Resampling.BICUBIC,
            box=(left, top, left + side, top + side),
            reducing_gap=2.0,
        )
    else:
        picture.thumbnail((side_px, side_px), Image.Resampling.BICUBIC, reducing_gap=2.0)
    out = io.BytesIO()
    picture.save(out, "JPEG", quality=quality, optimize=True)
    return "data:image/jpeg;base64," + base64.b64encode(out.getvalue()).decode("ascii")


def data_uri(picture: Tensor, long_px: int) -> str:
    """A JPEG data URI of (3, H, W) in [0, 1], at most long_px on its longer side."""
    if max(picture.shape[-2:]) > long_px:
        picture = resize(picture, fit_long_side(picture.shape[-2:], long_px))
    pixels = (picture.detach().cpu().clamp(0, 1).permute(1, 2, 0) * 255).round().byte().contiguous().numpy()
    out = io.BytesIO()
    Image.fromarray(pixels).save(out, "JPEG", quality=90, subsampling=0, optimize=True)
    return "data:image/jpeg;base64," + base64.b64encode(out.getvalue()).decode("ascii")
