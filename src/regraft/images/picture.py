"""A picture as people keep it: colours with their profile, alpha, 8 or 16 bits, upright; read into sRGB and written.

Choice: everything is worked on in sRGB. A picture with another profile is converted on reading, and back into it on
writing, so that a photo's result has the photo's profile, and colours of pictures with different profiles can be mixed.
Colours outside sRGB are cut.
"""

from __future__ import annotations

import io
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Final

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from regraft.core.errors import UnreadableError, UsageError
from regraft.core.files import replacing
from regraft.images.colour_profile import from_srgb, srgb_profile, to_srgb
from regraft.images.decode import MAX_PIXELS, decode_bytes, read_bytes, upright
from regraft.images.deep import decode_png16, decode_tiff16, encode_png16, encode_tiff16, tiff_depth
from regraft.images.header import Header, read_header

#: Suffix → Pillow's format, and whether it holds alpha and 16 bits.
WRITTEN: Final = {
    ".png": ("PNG", True, True), ".tif": ("TIFF", True, True), ".tiff": ("TIFF", True, True),
    ".jpg": ("JPEG", False, False), ".jpeg": ("JPEG", False, False), ".webp": ("WEBP", True, False),
}  # fmt: skip


@dataclass(frozen=True)
class Picture:
    """pixels: float32 (3, H, W), sRGB in [0, 1], upright. alpha: (1, H, W) in [0, 1], or None. bits: 8 or 16.

    profile: the ICC profile that the file came with and is to be written with; empty: sRGB.
    """

    pixels: Tensor
    alpha: Tensor | None = None
    bits: int = 8
    profile: bytes = field(default=b"", repr=False)

    @property
    def size_px(self) -> tuple[int, int]:
        """Height and width."""
        return int(self.pixels.shape[-2]), int(self.pixels.shape[-1])


def read_picture(path: Path, *, max_pixels: int = MAX_PIXELS) -> Picture:
    """The picture at `path`. Colours under transparent places are kept as they are stored.

    Raises UnreadableError for a file that is missing, broken, no picture, or claims more than max_pixels pixels.
    """
    name = str(path)
    data = read_bytes(path)
    header = read_header(data, name, max_pixels=max_pixels)
    deep = header.format == "PNG" and header.bits == 16
    if deep or (header.format == "TIFF" and tiff_depth(data) == 16):
        stored = decode_png16(data, name) if deep else decode_tiff16(data, header, name)
        values, bits = torch.from_numpy(stored.astype(np.float32) / 65_535).permute(2, 0, 1), 16
        colours, alpha = _split(values)
    elif header.alpha:
        values, bits = _pillow_rgba(data, name), 8
        colours, alpha = values[:3], values[3:]
    else:
        colours, alpha, bits = decode_bytes(data, replace(header, orientation=1), name).float() / 255, None, 8
    profile = _profile(data, header)
    if profile:
        colours = to_srgb(colours, profile)
    turned = upright(colours, header.orientation).contiguous()
    alpha = None if alpha is None else upright(alpha, header.orientation).contiguous()
    return Picture(turned, alpha, bits, profile)


def check_writable(path: Path, *, force: bool) -> None:
    """Raises UsageError for a suffix that is not written, or a file that is there already without `force`."""
    if path.suffix.lower() not in WRITTEN:
        raise UsageError(f"{path} is not written: give a name that ends in {', '.join(WRITTEN)}.")
    if path.is_dir():
        raise UsageError(f"{path} is a folder: give the name of a picture file in it.")
    if path.exists() and not force:
        raise UsageError(f"{path} is there already: pass --force to replace it, or give another name.")


def write_picture(picture: Picture, path: Path, *, force: bool = False) -> None:
    """Write it whole or not at all, as its suffix says, with its own profile, else that of sRGB.

    PNG and TIFF keep 16 bits and alpha, WebP alpha; JPEG has neither: alpha is laid over white. Raises UsageError as
    `check_writable` does.
    """
    check_writable(path, force=force)
    kind, holds_alpha, holds_depth = WRITTEN[path.suffix.lower()]
    pixels, alpha = picture.pixels.detach().float().cpu().clamp(0, 1), picture.alpha
    # Over white as sRGB sees it, then into the profile.
    if alpha is not None:
        alpha = alpha.detach().float().cpu().clamp(0, 1)
        pixels = pixels if holds_alpha else pixels * alpha + (1 - alpha)
    own = from_srgb(pixels, picture.profile) if picture.profile else None
    pixels, profile = (pixels, srgb_profile()) if own is None else (own, picture.profile)
    if alpha is not None and holds_alpha:
        pixels = torch.cat((pixels, alpha))
    rows = pixels.permute(1, 2, 0).contiguous().numpy()
    if picture.bits == 16 and holds_depth:
        deep = np.rint(rows * 65_535).astype(np.uint16)
        data = encode_png16(deep, profile) if kind == "PNG" else encode_tiff16(deep, profile)
    else:
        buffer = io.BytesIO()
        options = {  # above level 3 a photo as PNG takes longer and no less room
            "JPEG": {"quality": 95, "subsampling": 0}, "WEBP": {"quality": 95, "exact": True},
            "TIFF": {"compression": "tiff_deflate"}, "PNG": {"compress_level": 3},
        }[kind]  # fmt: skip
        Image.fromarray(np.rint(rows * 255).astype(np.uint8)).save(buffer, kind, icc_profile=profile, **options)  # type: ignore[arg-type]
        data = buffer.getvalue()
    with replacing(path) as temporary:
        temporary.write_bytes(data)


def _split(values: Tensor) -> tuple[Tensor, Tensor | None]:
    """(C, H, W), C of 1 to 4 → colours (3, H, W), alpha (1, H, W) or None."""
    colours = values[:3] if values.shape[0] >= 3 else values[:1].expand(3, -1, -1)
    return colours, values[-1:] if values.shape[0] in (2, 4) else None


def _pillow_rgba(data: bytes, name: str) -> Tensor:
    try:
        with Image.open(io.BytesIO(data)) as picture:
            stored = np.array(picture.convert("RGBA"))
    except Exception as error:  # Pillow's decoders raise almost anything on hostile bytes
        raise UnreadableError(f"{name} cannot be decoded: {error}.", kind="unreadable") from error
    return torch.from_numpy(stored).permute(2, 0, 1).float() / 255


def _profile(data: bytes, header: Header) -> bytes:
    """The embedded ICC profile; none for CMYK, whose inks have been turned into colours by then."""
    if header.mode not in ("RGB", "RGBA", "L", "LA", "P", "PA", "I;16", "I;16B", "I"):
        return b""
    try:
        with Image.open(io.BytesIO(data)) as picture:
            return bytes(picture.info.get("icc_profile") or b"")
    except Exception:  # the pixels were decoded: what cannot be read is the profile alone
        return b""
