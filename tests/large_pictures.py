"""Networks and pictures for the tests of tiles and pyramids; and bounds on memory that make several tiles of them."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from regraft.style.base import resize
from regraft.style.large.frozen_norms import Statistics


class Local(nn.Module):
    """A student: unshuffled by 2, a depthwise block, batch norm; takes even sizes alone."""

    def __init__(self) -> None:
        super().__init__()
        self.net = nn.Sequential(
            nn.PixelUnshuffle(2), nn.Conv2d(12, 8, 3, padding=1), nn.BatchNorm2d(8), nn.ReLU(),
            nn.Conv2d(8, 8, 5, padding=2, groups=8), nn.Conv2d(8, 12, 1), nn.PixelShuffle(2),
        )  # fmt: skip

    def forward(self, x: Tensor) -> Tensor:
        return self.net(x)


class EvenedOut(Local):
    """The same for any size: it mirrors the last row and column itself."""

    def forward(self, x: Tensor) -> Tensor:
        height, width = x.shape[-2:]
        return self.net(F.pad(x, (0, width % 2, 0, height % 2), mode="reflect"))[..., :height, :width]


class Normed(nn.Module):
    """A teacher: instance norms, mirrored borders, down and up by 4."""

    def __init__(self) -> None:
        super().__init__()

        def block(a: int, b: int, stride: int) -> list[nn.Module]:
            norm = nn.InstanceNorm2d(b, affine=True)
            nn.init.normal_(norm.weight, 1.0, 0.3)
            nn.init.normal_(norm.bias, 0.0, 0.3)
            return [nn.ReflectionPad2d(1), nn.Conv2d(a, b, 3, stride), norm, nn.ReLU()]

        self.net = nn.Sequential(
            *block(3, 6, 2), *block(6, 8, 2), nn.Upsample(scale_factor=2), *block(8, 6, 1),
            nn.Upsample(scale_factor=2), nn.Conv2d(6, 3, 3, padding=1),
        )  # fmt: skip

    def forward(self, x: Tensor) -> Tensor:
        return self.net(x)


class Widened(nn.Module):
    """Pads all at once at the start, so that its feature maps are larger than the picture, and cuts at the end."""

    def __init__(self) -> None:
        super().__init__()
        self.net = nn.Sequential(
            nn.ReflectionPad2d(6), nn.Conv2d(3, 6, 3), nn.InstanceNorm2d(6), nn.ReLU(), nn.Conv2d(6, 6, 5),
            nn.InstanceNorm2d(6), nn.Conv2d(6, 3, 3),
        )  # fmt: skip

    def forward(self, x: Tensor) -> Tensor:
        return self.net(x)[..., 2:-2, 2:-2]


class Matched(nn.Module):
    """An AdaIN-like layer of its own kind: channel statistics by hand, with the protocol to hold them."""

    def __init__(self) -> None:
        super().__init__()
        self.held: Statistics | None = None

    def freeze_statistics(self, found: Statistics) -> None:
        self.held = found

    def thaw_statistics(self) -> None:
        self.held = None

    def forward(self, x: Tensor) -> Tensor:
        if self.held is None:
            mean, variance = x.mean(dim=(2, 3), keepdim=True), x.var(dim=(2, 3), keepdim=True, correction=0)
        else:
            mean, variance = (v.to(x).view(1, -1, 1, 1) for v in (self.held.mean, self.held.variance))
        return 0.2 * (x - mean) / (variance + 1e-5).sqrt() + 0.5


class AdaptiveLike(nn.Module):
    """Encoder, one matched layer, decoder."""

    def __init__(self) -> None:
        super().__init__()
        self.net = nn.Sequential(
            nn.Conv2d(3, 8, 4, stride=2, padding=1), nn.ReLU(), Matched(), nn.ConvTranspose2d(8, 3, 4, 2, 1)
        )

    def forward(self, x: Tensor) -> Tensor:
        return self.net(x)


class Etching(nn.Module):
    """A hand-made local style: colours turned and flattened to a few tones, edges drawn dark. Follows the content."""

    def __init__(self) -> None:
        super().__init__()
        turn = torch.tensor([[0.8, 0.3, -0.1], [0.1, 0.7, 0.2], [-0.1, 0.3, 0.8]]).view(3, 3, 1, 1)
        self.register_buffer("turn", turn, persistent=False)
        self.turn: Tensor

    def forward(self, x: Tensor) -> Tensor:
        smooth = F.avg_pool2d(x, 3, 1, 1, count_include_pad=False)
        colours = F.conv2d(smooth, self.turn)
        tones = torch.stack([torch.sigmoid(12 * (colours - at)) for at in (0.25, 0.5, 0.75)]).mean(dim=0)
        return (tones - 1.5 * (x - smooth).abs().mean(dim=1, keepdim=True)).clamp(0, 1)


def drawn(kind: type[nn.Module], seed: int = 0) -> nn.Module:
    """A network of that kind with weights that the seed decides, in evaluation mode."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return kind().eval()


def photo(height: int, width: int, seed: int = 0) -> Tensor:
    """(3, height, width) in [0, 1]: smooth colours, edges of a few shapes, and a little grain."""
    draw = np.random.default_rng(seed)
    picture = resize(torch.from_numpy(draw.random((3, 5, 6))).float(), (height, width))
    rows, columns = torch.meshgrid(torch.arange(height), torch.arange(width), indexing="ij")
    for _ in range(6):
        y, x, reach = draw.random() * height, draw.random() * width, (0.08 + 0.2 * draw.random()) * height
        inside = ((rows - y).square() + (columns - x).square()).sqrt() < reach
        picture = torch.where(inside, torch.from_numpy(draw.random((3, 1, 1))).float(), picture)
    grain = torch.from_numpy(draw.normal(0, 0.02, (3, height, width))).float()
    return (picture + grain).clamp(0, 1)
