"""The network that turns a picture of one set into one of the other: an encoder, residual blocks, a decoder."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any, Final

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from regraft.core.errors import UsageError, unknown_name

UPSAMPLINGS: Final = ("nearest", "pixelshuffle")
#: Both sides of what the network computes on are multiples of this; `Generator` pads others and cuts them again.
STRIDE_PX: Final = 4
#: Deviation of the random weights that everything starts from (arXiv:1703.10593, section 4).
INITIAL_DEVIATION: Final = 0.02
#: Where the picture that is painted on is cut, so that what gives it has an end: half a grey level before black, white.
NEAR_WHITE: Final = 1 - 1 / 255


@dataclass(frozen=True)
class GeneratorSettings:
    """width: channels at full size, four times as many at a quarter. blocks: residual blocks there. upsampling: one of
    `UPSAMPLINGS`. from_picture: the network paints on the picture, which it gives back at first. Raises UsageError for
    values without meaning, or so large that no machine would hold them."""

    width: int = 32
    blocks: int = 6
    upsampling: str = "nearest"
    from_picture: bool = False

    def __post_init__(self) -> None:
        if type(self.width) is not int or type(self.blocks) is not int or not isinstance(self.upsampling, str):
            raise UsageError("A generator takes whole numbers as width and blocks, and a name as upsampling.")
        if not (2 <= self.width <= 256 and 0 <= self.blocks <= 32):
            raise UsageError(
                f"A generator got a width of {self.width} and {self.blocks} blocks; accepted are 2 to 256 and 0 to 32."
            )
        if self.upsampling not in UPSAMPLINGS:
            raise unknown_name("upsampling", self.upsampling, UPSAMPLINGS)
        if type(self.from_picture) is not bool:
            raise UsageError("A generator begins from the picture or it does not: from_picture is true or false.")

    def to_json(self) -> dict[str, Any]:
        return asdict(self)

    @classmethod
    def from_json(cls, value: Mapping[str, Any]) -> GeneratorSettings:
        """Raises UsageError for anything that `to_json` does not write. Files of before `from_picture` lack it."""
        if isinstance(value, Mapping):
            value = {"from_picture": False, **value}
        if not isinstance(value, Mapping) or set(value) != set(asdict(cls())):
            raise UsageError(f"A generator is described by {', '.join(asdict(cls()))}; {value!r} came.")
        return cls(**value)


class Generator(nn.Module):
    """Pictures (N, 3, H, W) in [−1, 1] → pictures of the same size in [−1, 1]; any H and W of 8 px or more.

    Paper: Zhu, Park, Isola & Efros, "Unpaired Image-to-Image Translation using Cycle-Consistent Adversarial Networks",
    ICCV 2017, arXiv:1703.10593, appendix 7.2, after Johnson et al. 2016, arXiv:1603.08155: 7 × 7 convolution, two of
    stride 2, residual blocks, two that enlarge, 7 × 7 convolution and tanh; instance normalisation (arXiv:1607.08022),
    ReLU, edges mirrored.

    Differs from the paper: it enlarges without transposed convolutions, whose uneven overlap leaves a checkerboard
    (Odena et al. 2016, "Deconvolution and Checkerboard Artifacts"). "nearest": each pixel becomes 2 × 2, then a 3 × 3
    convolution; "pixelshuffle": a convolution gives the four pixels (arXiv:1609.05158), which start out alike (Aitken
    et al. 2017, arXiv:1707.02937). With `from_picture` what the decoder gives is added to the picture before the tanh,
    and is 0 at first: a short training then begins with the picture, not with noise (the identity start of He et al.
    2016, arXiv:1603.05027, for the whole network).
    """

    def __init__(self, settings: GeneratorSettings) -> None:
        super().__init__()
        self.settings = settings
        width = settings.width
        self.encoder = nn.Sequential(
            *_convolution(3, width, 7), *_convolution(width, 2 * width, 3, stride=2),
            *_convolution(2 * width, 4 * width, 3, stride=2),
        )  # fmt: skip
        self.blocks = nn.Sequential(*(ResidualBlock(4 * width) for _ in range(settings.blocks)))
        self.decoder = nn.Sequential(
            *_enlarged(4 * width, 2 * width, settings.upsampling), *_enlarged(2 * width, width, settings.upsampling),
            nn.ReflectionPad2d(3), nn.Conv2d(width, 3, 7),
        )  # fmt: skip
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.normal_(module.weight, std=INITIAL_DEVIATION)
                if module.bias is not None:
                    nn.init.zeros_(module.bias)
        for module in self.modules():
            if isinstance(module, Shuffled):
                module.start_alike()
        if settings.from_picture:
            last = self.decoder[-1]
            assert isinstance(last, nn.Conv2d)
            nn.init.zeros_(last.weight)

    def forward(self, x: Tensor) -> Tensor:
        height, width = int(x.shape[-2]), int(x.shape[-1])
        if min(height, width) < 2 * STRIDE_PX:
            raise UsageError(f"A picture of {width} × {height} px is too small: both sides must have 8 px or more.")
        missing = (-width % STRIDE_PX, -height % STRIDE_PX)
        if any(missing):
            x = F.pad(x, (0, missing[0], 0, missing[1]), mode="reflect")
        # In float32: half precision has fewer steps near 1 than an 8-bit picture.
        found = self.decoder(self.blocks(self.encoder(x))).float()
        if self.settings.from_picture:
            found = found + x.float().clamp(-NEAR_WHITE, NEAR_WHITE).atanh()
        bounded: Tensor = found[..., :height, :width].tanh()
        return bounded


class ResidualBlock(nn.Module):
    """(N, C, H, W) → the same shape: x plus two 3 × 3 convolutions of it, no activation after the sum."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.layers = nn.Sequential(*_convolution(channels, channels, 3), *_convolution(channels, channels, 3)[:-1])

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = x + self.layers(x)
        return y


class Shuffled(nn.Module):
    """(N, C, H, W) → (N, out, 2H, 2W): a convolution to four times as many channels, laid out as 2 × 2 pixels."""

    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__()
        self.pad = nn.ReflectionPad2d(1)
        self.convolution = nn.Conv2d(inputs, 4 * outputs, 3, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        return F.pixel_shuffle(self.convolution(self.pad(x)), 2)

    @torch.no_grad()
    def start_alike(self) -> None:
        """The four pixels of one place get the weights of the first."""
        weight = self.convolution.weight
        weight.copy_(weight[::4].repeat_interleave(4, dim=0))


def _convolution(inputs: int, outputs: int, kernel: int, *, stride: int = 1) -> list[nn.Module]:
    """Convolution with mirrored edges, instance normalisation without parameters, ReLU."""
    # Instance normalisation takes a bias away again.
    convolution = nn.Conv2d(inputs, outputs, kernel, stride=stride, bias=False)
    return [nn.ReflectionPad2d(kernel // 2), convolution, nn.InstanceNorm2d(outputs), nn.ReLU(inplace=True)]


def _enlarged(inputs: int, outputs: int, upsampling: str) -> list[nn.Module]:
    if upsampling == "nearest":
        return [nn.Upsample(scale_factor=2, mode="nearest"), *_convolution(inputs, outputs, 3)]
    return [Shuffled(inputs, outputs), nn.InstanceNorm2d(outputs), nn.ReLU(inplace=True)]
