"""What `regraft style translate` can be told; checked as a whole, written out in full into `config.yaml`."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Literal

from pydantic import Field, model_validator

from regraft.core.options import Options
from regraft.style.translation.cyclegan import CycleGAN, CycleWeights, DiscriminatorSettings, GeneratorSettings

#: Seconds of training where neither epochs nor a budget are given.
DEFAULT_BUDGET_S = 1800.0


class TranslateConfig(Options):
    """Options of a translation between the picture folders `a` and `b`.

    test_a, test_b: pictures that figures are taken from and nothing learns from; without them a part of each folder is
    held out. size: side in px of what is trained on.
    """

    a: Path
    b: Path
    test_a: Path | None = None
    test_b: Path | None = None
    max_bad: float = Field(0.1, ge=0, le=1)

    size: int = Field(128, ge=16, le=1024, multiple_of=4)
    width: int = Field(32, ge=2, le=256)
    blocks: int = Field(6, ge=0, le=32)
    upsampling: Literal["nearest", "pixelshuffle"] = "nearest"
    from_picture: bool = False
    discriminator_width: int = Field(32, ge=1, le=256)
    discriminator_layers: int = Field(3, ge=1, le=6)
    scales: int = Field(2, ge=1, le=5)
    cycle_weight: float = Field(10.0, ge=0, allow_inf_nan=False)
    identity_weight: float = Field(5.0, ge=0, allow_inf_nan=False)
    pool: int = Field(50, ge=0, le=10_000)

    budget_s: float | None = Field(None, gt=0)
    epochs: float | None = Field(None, gt=0)
    lr: float = Field(2e-4, gt=0)
    batch_size: int = Field(1, ge=1, le=256)
    ema: float = Field(0.999, ge=0, lt=1)
    flip: bool = True

    seed: int = Field(0, ge=0, lt=2**31)
    deterministic: bool = False
    device: str = "auto"
    precision: str = "auto"
    threads: int | None = Field(None, ge=1)
    checkpoint_every_s: float = Field(30.0, gt=0)

    @model_validator(mode="after")
    def _fits_together(self) -> TranslateConfig:
        if self.a.resolve() == self.b.resolve():
            raise ValueError("needs two folders with different pictures, one of each kind")
        if (self.test_a is None) != (self.test_b is None):
            raise ValueError("takes --test-a and --test-b together, or neither: figures are for both ways")
        if self.budget_s is not None and self.epochs is not None:
            raise ValueError("takes --epochs or --budget, not both: the one follows from the other")
        least = self.discriminator().least_side_px
        if self.size < least:
            raise ValueError(
                f"takes a --size of {least} px or more for {self.scales} scales of {self.discriminator_layers} layers: "
                "a larger size, or fewer scales"
            )
        return self

    def discriminator(self) -> DiscriminatorSettings:
        return DiscriminatorSettings(self.discriminator_width, self.discriminator_layers, self.scales)

    def task(self) -> CycleGAN:
        """The networks with random weights; the caller sets the random state."""
        generator = GeneratorSettings(self.width, self.blocks, self.upsampling, self.from_picture)
        return CycleGAN(
            generator, self.discriminator(), side_px=self.size,
            weights=CycleWeights(self.cycle_weight, self.identity_weight), pool=self.pool,
        )  # fmt: skip


def checked_translate(**values: Any) -> TranslateConfig:
    """A TranslateConfig, or a UsageError with every mistake in one sentence each."""
    return TranslateConfig.checked(**values)
