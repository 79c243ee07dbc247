"""The dial: the most style that leaves a picture at least as similar to its content as was asked.

Style and fidelity are a front, not two figures; so one of them is fixed, and the other is what can be compared.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Final

import torch
from torch import Tensor

from regraft.core.errors import UsageError
from regraft.style.figures.similarity import ssim

#: Kept above the asked value, since files hold 8 bits and libraries differ in the last digits.
MARGIN: Final = 2e-4
_HALVINGS: Final = 10


@dataclass(frozen=True)
class Dialled:
    """image (3, H, W); strength: the stylised picture's share in [0, 1]; ssim: of image and content, at 8 bits."""

    image: Tensor
    strength: float
    ssim: float


@dataclass(frozen=True)
class FrontPoint:
    strength: float
    ssim: float
    gram_cosine: float


def blend(content: Tensor, stylised: Tensor, strength: float) -> Tensor:
    """(1 − strength) · content + strength · stylised."""
    return torch.lerp(content, stylised, strength)


def check_least(least_ssim: float) -> None:
    """Raises UsageError for a value that no search can mean."""
    if not 0 < least_ssim < 1:
        raise UsageError(f"The SSIM to keep is a number between 0 and 1, as in --ssim 0.85; {least_ssim:g} came.")


def search(content: Tensor, stylised: Tensor, least_ssim: float) -> Dialled:
    """The largest share of the stylised picture at which SSIM ≥ least_ssim, by bisection.

    Both (3, H, W) in [0, 1]. Whole strength is tried first. What is returned was measured itself, so it holds even
    where SSIM is not monotone in the strength; strength 0 is the content, whose SSIM is 1.
    """
    check_least(least_ssim)
    best = _measured(content, stylised, 1.0)
    if best.ssim >= least_ssim + MARGIN:
        return best
    low, high, best = 0.0, 1.0, _measured(content, stylised, 0.0)
    for _ in range(_HALVINGS):
        middle = (low + high) / 2
        tried = _measured(content, stylised, middle)
        if tried.ssim >= least_ssim + MARGIN:
            low, best = middle, tried
        else:
            high = middle
    return best


def front(
    content: Tensor, stylised: Tensor, gram_cosine: Callable[[Tensor], float],
    strengths: Sequence[float] = (0.0, 0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 1.0),
) -> list[FrontPoint]:  # fmt: skip
    """SSIM and Gram cosine at each strength: what the report plots."""
    points = []
    for strength in strengths:
        at = _measured(content, stylised, strength)
        points.append(FrontPoint(strength, at.ssim, gram_cosine(at.image)))
    return points


def _measured(content: Tensor, stylised: Tensor, strength: float) -> Dialled:
    image = blend(content, stylised, strength)
    with torch.no_grad():
        return Dialled(image, strength, float(ssim((image * 255).round() / 255, content)))
