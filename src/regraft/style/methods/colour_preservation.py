"""The style's strokes with the content's colours, around any method.

Gatys, Bethge, Hertzmann & Shechtman 2016, "Preserving Color in Neural Artistic Style Transfer", arXiv:1606.05897.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final

import torch
from torch import Tensor

from regraft.core.errors import UsageError, unknown_name
from regraft.style.base import OnStep, Styler
from regraft.style.methods.colour import monge_kantorovich

WAYS: Final = ("luminance", "histogram")
#: RGB → YIQ (FCC 1953, as in the paper's section 3.2).
_YIQ: Final = ((0.299, 0.587, 0.114), (0.5959, -0.2746, -0.3213), (0.2115, -0.5227, 0.3112))


def stylize_keeping_colour(
    styler: Styler,
    content: Tensor,
    styles: Sequence[tuple[Any, float]],
    way: str,
    *,
    masks: Sequence[Tensor | None] | None = None,
    on_step: OnStep | None = None,
) -> Tensor:
    """As `styler.stylize`, with the content's colours.

    way: "luminance" styles the luminance alone, the style's brought to the content's mean and deviation before (section
    3.2), and puts the content's I and Q back: its colours are kept exactly. "histogram" gives the styles the mean and
    covariance of the content's colours before (section 3.1, in the form of eq. 5 with symmetric roots that moves
    colours least): strokes may have colours of their own.
    Raises UsageError for another way.
    """
    if way not in WAYS:
        raise unknown_name("way of keeping colours", way, WAYS)
    if styler.takes is not Tensor:  # a fixed style has no picture whose colours could be changed
        if way == "histogram":
            raise UsageError("A fixed style keeps colours by luminance: leave --keep-colour-by histogram out.")
        return with_luminance(content, luminance(styler.stylize(content, styles, masks=masks, on_step=on_step)))
    if way == "histogram":
        recoloured = [(monge_kantorovich(style, content), weight) for style, weight in styles]
        return styler.stylize(content, recoloured, masks=masks, on_step=on_step)
    grey = luminance(content)
    greys = [(like_luminance(luminance(style), grey).expand(3, -1, -1), weight) for style, weight in styles]
    found = styler.stylize(grey.expand(3, -1, -1).contiguous(), greys, masks=masks, on_step=on_step)
    return with_luminance(content, luminance(found))


def luminance(picture: Tensor) -> Tensor:
    """(3, H, W) → Y (1, H, W)."""
    return torch.einsum("ij,jhw->ihw", _matrix(picture)[:1], picture)


def like_luminance(style: Tensor, content: Tensor) -> Tensor:
    """A style's luminance (1, H, W) with the mean and deviation of the content's (eq. 10), cut to [0, 1]."""
    ratio = content.std() / style.std().clamp(min=1e-6)
    return ((style - style.mean()) * ratio + content.mean()).clamp(0, 1)


def with_luminance(picture: Tensor, y: Tensor) -> Tensor:
    """The picture (3, H, W) with another luminance (1, H, W), its I and Q kept; cut to [0, 1]."""
    matrix = _matrix(picture)
    yiq = torch.einsum("ij,jhw->ihw", matrix, picture)
    back = torch.einsum("ij,jhw->ihw", torch.linalg.inv(matrix), torch.cat((y, yiq[1:])))
    return back.clamp(0, 1)


def _matrix(like: Tensor) -> Tensor:
    return torch.tensor(_YIQ, dtype=like.dtype, device=like.device)
