"""The networks that tell pictures of a set from translated ones: patch by patch, at several sizes."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Final

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.utils import parametrizations, parametrize

from regraft.core.errors import UsageError

#: Slope of the leaky ReLU below 0 (arXiv:1611.07004, appendix 6.1).
LEAK: Final = 0.2


@dataclass(frozen=True)
class DiscriminatorSettings:
    """width: channels after the first layer; they double per layer, up to 8 times. layers: convolutions of stride 2.
    scales: at how many sizes, each half of the one before. Raises UsageError."""

    width: int = 32
    layers: int = 3
    scales: int = 2

    def __post_init__(self) -> None:
        if not (1 <= self.width <= 256 and 1 <= self.layers <= 6 and 1 <= self.scales <= 5):
            raise UsageError(
                f"A discriminator got a width of {self.width}, {self.layers} layers and {self.scales} scales; accepted "
                "are 1 to 256, 1 to 6 and 1 to 5."
            )

    @property
    def least_side_px(self) -> int:
        """The smallest picture of which even the coarsest scale has a score."""
        return next(side for side in range(1, 1 << 14) if self._scored(side))

    def _scored(self, side_px: int) -> bool:
        for _ in range(self.scales - 1):
            side_px = halved(side_px)
        return patches(side_px, self.layers) >= 1


class PatchDiscriminator(nn.Module):
    """Pictures (N, 3, H, W) in [−1, 1] → scores (N, 1, h, w), one per patch: 1 means of the set, 0 translated.

    Paper: Isola et al. 2017, arXiv:1611.07004, section 3.2.2: 4 × 4 convolutions, `layers` of stride 2 and two more;
    with three a score sees 70 × 70 px. Every weight is divided by its largest singular value, followed by one power
    iteration per pass in training mode (Miyato et al. 2018, arXiv:1802.05957, eq. 8), in place of the paper's instance
    normalisation, which hides brightness and contrast from the judge.
    """

    def __init__(self, width: int, layers: int) -> None:
        super().__init__()
        channels = [3, *(width * min(2**depth, 8) for depth in range(layers + 1))]
        found: list[nn.Module] = []
        for depth, (inputs, outputs) in enumerate(pairwise(channels)):
            stride = 2 if depth < layers else 1
            found += [_bounded(nn.Conv2d(inputs, outputs, 4, stride=stride, padding=1)), nn.LeakyReLU(LEAK)]
        self.layers = nn.Sequential(*found, _bounded(nn.Conv2d(channels[-1], 1, 4, padding=1)))

    def forward(self, x: Tensor) -> Tensor:
        with parametrize.cached():
            with torch.autocast(x.device.type, enabled=False):
                for layer in self.layers:  # the singular value in float32; the convolutions find it in the cache
                    _ = getattr(layer, "weight", None)
            scores: Tensor = self.layers(x)
        return scores.float()


class MultiScaleDiscriminator(nn.Module):
    """Pictures (N, 3, H, W) in [−1, 1] → scores of every scale, fine → coarse, each (N, 1, h, w).

    Paper: Wang et al., "High-Resolution Image Synthesis and Semantic Manipulation with Conditional GANs" (pix2pixHD),
    2018, arXiv:1711.11585, section 3.2: discriminators of one form, for the picture and for halved ones. The coarse
    ones see most of the picture, the fine one its texture. Raises UsageError for a picture without a single patch.
    """

    def __init__(self, settings: DiscriminatorSettings) -> None:
        super().__init__()
        self.settings = settings
        self.scales = nn.ModuleList(
            PatchDiscriminator(settings.width, settings.layers) for _ in range(settings.scales)
        )  # fmt: skip

    def forward(self, x: Tensor) -> list[Tensor]:
        least = self.settings.least_side_px
        if min(x.shape[-2:]) < least:
            raise UsageError(
                f"Pictures of {x.shape[-1]} × {x.shape[-2]} px are too small for {self.settings.scales} scales of "
                f"{self.settings.layers} layers: both sides must have {least} px or more."
            )
        found = []
        for index, scale in enumerate(self.scales):
            if index:
                x = F.avg_pool2d(x, 3, stride=2, padding=1, count_include_pad=False)
            found.append(scale(x))
        return found


def least_squares(scores: Sequence[Tensor], wanted: float) -> Tensor:
    """Mean over scales of the mean of (score − wanted)², a scalar.

    Paper: Mao et al., "Least Squares Generative Adversarial Networks", ICCV 2017, arXiv:1611.04076, eq. 9 without its
    factor ½, as CycleGAN has it (arXiv:1703.10593, section 4). Every scale weighs the same, however many patches it
    has.
    """
    return torch.stack([(score - wanted).square().mean() for score in scores]).mean()


def accuracy(scores: Sequence[Tensor], *, of_the_set: bool) -> Tensor:
    """Share of patches on the right side of ½, a scalar in 0…1, mean over scales."""
    right = [((score > 0.5) == of_the_set).float().mean() for score in scores]
    return torch.stack(right).mean()


def halved(side_px: int) -> int:
    """A side after the 3 × 3 average of stride 2."""
    return (side_px - 1) // 2 + 1


def patches(side_px: int, layers: int) -> int:
    """How many scores a side has: `layers` 4 × 4 convolutions of stride 2, two of stride 1, each padded by 1."""
    for _ in range(layers):
        side_px = (side_px - 2) // 2 + 1
    return side_px - 2


def _bounded(layer: nn.Conv2d) -> nn.Module:
    nn.init.normal_(layer.weight, std=0.02)
    assert layer.bias is not None
    nn.init.zeros_(layer.bias)
    return parametrizations.spectral_norm(layer)
