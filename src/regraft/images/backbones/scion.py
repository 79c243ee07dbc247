"""Scion: the small convolutional network whose weights travel inside the package.

The shape is a residual stack of "fused" inverted bottlenecks (Gupta & Tan, EfficientNet-EdgeTPU, 2019; Tan & Le,
EfficientNetV2, 2021, arXiv:2104.00298): a dense 3×3 convolution that widens, a 1×1 that narrows. Dense convolutions are
chosen over depthwise ones because they train and run several times faster per multiplication on a CPU. Stage outputs
are linear and as wide as those of MobileNetV2 (Sandler et al. 2018, arXiv:1801.04381), so that the network can be
distilled stage by stage from it; `bench/embedded/train.py` does that, and `src/regraft/weights/scion.card.md` says with
what result.
"""

from __future__ import annotations

from torch import Tensor, nn

STAGE_WIDTHS = (24, 32, 96, 320)
POOLED_WIDTH = 1280


class SamePad(nn.Sequential):
    """3×3 convolution of stride 2 whose window starts at the first pixel, as TensorFlow's "same" does for even sizes.

    Keeps the positions of the maps aligned with those of a network trained with that padding.
    """

    def __init__(self, channels_in: int, channels_out: int) -> None:
        super().__init__(nn.ZeroPad2d((0, 1, 0, 1)), nn.Conv2d(channels_in, channels_out, 3, stride=2, bias=False))


class FusedBlock(nn.Module):
    """Widening 3×3 convolution, ReLU, narrowing 1×1; residual where input and output agree.

    (N, channels_in, H, W) → (N, channels_out, H / stride, W / stride), rounded up.
    """

    def __init__(self, channels_in: int, hidden: int, channels_out: int, stride: int = 1) -> None:
        super().__init__()
        wide: nn.Module = (
            SamePad(channels_in, hidden) if stride == 2 else nn.Conv2d(channels_in, hidden, 3, padding=1, bias=False)
        )
        self.widen = nn.Sequential(wide, nn.BatchNorm2d(hidden), nn.ReLU(inplace=True))
        self.narrow = nn.Sequential(nn.Conv2d(hidden, channels_out, 1, bias=False), nn.BatchNorm2d(channels_out))
        self.residual = stride == 1 and channels_in == channels_out

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = self.narrow(self.widen(x))
        return x + y if self.residual else y


class Scion(nn.Module):
    """Images (N, 3, H, W), ImageNet-normalised → pooled (N, 1280) and the four stage maps at strides 4, 8, 16, 32."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Sequential(SamePad(3, 24), nn.BatchNorm2d(24), nn.ReLU(inplace=True))
        self.stage1 = nn.Sequential(FusedBlock(24, 48, 24, stride=2), FusedBlock(24, 48, 24))
        self.stage2 = nn.Sequential(FusedBlock(24, 96, 32, stride=2), FusedBlock(32, 96, 32), FusedBlock(32, 96, 32))
        self.stage3 = nn.Sequential(
            FusedBlock(32, 128, 96, stride=2), FusedBlock(96, 144, 96), FusedBlock(96, 144, 96), FusedBlock(96, 144, 96)
        )
        self.stage4 = nn.Sequential(
            FusedBlock(96, 256, 160, stride=2),
            FusedBlock(160, 256, 160),
            FusedBlock(160, 256, 160),
            FusedBlock(160, 192, 320),
        )
        self.head = nn.Sequential(
            nn.Conv2d(320, POOLED_WIDTH, 1, bias=False), nn.BatchNorm2d(POOLED_WIDTH), nn.ReLU6(inplace=True)
        )

    def forward_maps(self, x: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """The stage outputs, shallow → deep: (N, 24, H/4, W/4), (N, 32, /8), (N, 96, /16), (N, 320, /32)."""
        a = self.stage1(self.stem(x))
        b = self.stage2(a)
        c = self.stage3(b)
        return a, b, c, self.stage4(c)

    def pool(self, deepest: Tensor) -> Tensor:
        """(N, 320, h, w) → (N, 1280): the head, averaged over positions."""
        pooled: Tensor = self.head(deepest).mean(dim=(2, 3))
        return pooled

    def forward(self, x: Tensor) -> Tensor:
        return self.pool(self.forward_maps(x)[-1])
