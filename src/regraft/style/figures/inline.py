"""Pictures inside the pages of style transfer: tensors as JPEG data URIs."""

from __future__ import annotations

import base64
import io

from PIL import Image
from torch import Tensor

from regraft.style.base import fit_long_side, resize


def data_uri(picture: Tensor, long_px: int) -> str:
    """A JPEG data URI of (3, H, W) in [0, 1], at most long_px on its longer side."""
    if max(picture.shape[-2:]) > long_px:
        picture = resize(picture, fit_long_side(picture.shape[-2:], long_px))
    pixels = (picture.detach().cpu().clamp(0, 1).permute(1, 2, 0) * 255).round().byte().contiguous().numpy()
    out = io.BytesIO()
    Image.fromarray(pixels).save(out, "JPEG", quality=90, subsampling=0, optimize=True)
    return "data:image/jpeg;base64," + base64.b64encode(out.getvalue()).decode("ascii")
