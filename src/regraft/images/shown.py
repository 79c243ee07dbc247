"""Pictures inside a page: thumbnails as JPEG data URIs of a bounded size."""

from __future__ import annotations

import base64
import io
import logging
from pathlib import Path

from markupsafe import Markup
from PIL import Image

from regraft.core.errors import DataError
from regraft.images.decode import decode

log = logging.getLogger(__name__)

#: Sides of thumbnails, in a gallery and in the tip of a map.
GALLERY_PX, TIP_PX = 300, 72


def shown_picture(path: Path, *, alt: str = "", small: bool = False) -> Markup | None:
    """A picture for a page, as an `<img>` with everything inside it.

    alt: what is said in its place; escaped here. small: a square of 72 px, None where the picture cannot be read;
    otherwise the whole picture, at most 300 px long, and a box that says so where it cannot be read.
    """
    uri = thumbnail(path, TIP_PX) if small else thumbnail(path, GALLERY_PX, quality=72, square=False)
    if uri is None:
        return None if small else Markup('<div class="none">no picture</div>')
    return Markup('<img src="{}" alt="{}">').format(uri, alt)


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
