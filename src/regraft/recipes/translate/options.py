"""What `regraft style translate` can be told; checked as a whole, written out in full into `config.yaml`."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Literal

from pydantic import model_validator

from regraft.core.option_groups import (
    AuditOptions,
    AugmentOptions,
    DeviceOptions,
    ForceOptions,
    MachineOptions,
    PrecisionOptions,
    TimeOptions,
)
from regraft.core.options import DATA, MODEL, OUTPUT, Seconds, altered, option

if TYPE_CHECKING:
    from regraft.style.translation.cyclegan import CycleGAN, DiscriminatorSettings

#: Seconds of training where neither epochs nor a budget are given.
DEFAULT_BUDGET_S = 1800.0


class TranslateConfig(TimeOptions, PrecisionOptions, MachineOptions, AuditOptions):
    """Options of a translation between the picture folders `a` and `b`.

    test_a, test_b: pictures that figures are taken from and nothing learns from; without them a part of each folder is
    held out. size: side in px of what is trained on.
    """

    a: Path = option(..., "A folder of pictures, as of photos.", panel=DATA)
    b: Path = option(..., "A folder of another kind, as of paintings; no pairs are needed.", panel=DATA)
    test_a: Path | None = option(
        None, "Pictures like A for the figures; else a part is held out.", panel=DATA, metavar="FOLDER"
    )
    test_b: Path | None = option(None, "Pictures like B for the figures.", panel=DATA, metavar="FOLDER")

    size: int = option(128, "Side in px that is trained on.", panel=MODEL, metavar="PX", ge=16, le=1024, multiple_of=4)
    width: int = option(32, "Channels of the generators; the paper has 64.", panel=MODEL, metavar="N", ge=2, le=256)
    blocks: int = option(
        6, "Residual blocks; the paper has 6 at 128 px, 9 above.", panel=MODEL, metavar="N", ge=0, le=32
    )
    upsampling: Literal["nearest", "pixelshuffle"] = option("nearest", "How pictures grow again.", panel=MODEL)
    from_picture: bool = option(False, "Paint on the picture: for a short training.", panel=MODEL)
    discriminator_width: int = option(
        32, "Channels of the discriminators; the paper has 64.", panel=MODEL, metavar="N", ge=1, le=256
    )
    discriminator_layers: int = option(3, "Their convolutions of stride 2.", panel=MODEL, metavar="N", ge=1, le=6)
    scales: int = option(2, "At how many sizes they look.", panel=MODEL, metavar="N", ge=1, le=5)
    cycle_weight: float = option(
        10.0, "How much coming back to the picture counts.", metavar="X", ge=0, allow_inf_nan=False
    )
    identity_weight: float = option(
        5.0, "How much leaving the other kind as it is counts.", metavar="X", ge=0, allow_inf_nan=False
    )
    pool: int = option(
        50, "Earlier translations that the discriminators see again; 0 = off.", metavar="N", ge=0, le=10_000
    )

    budget_s: Seconds | None = altered(
        TimeOptions, "budget_s", None, help="Time for everything: 30m, 2h; 30m unless told."
    )
    epochs: float | None = altered(
        TimeOptions, "epochs", None, help="Epochs of the larger folder, in place of a budget."
    )
    lr: float = option(2e-4, "Base rate of all four networks.", metavar="RATE", gt=0)
    batch_size: int = option(1, "Pictures of each kind in a step.", metavar="N", ge=1, le=256)
    ema: float = option(0.999, "Decay of the running average of the weights; 0 = off.", metavar="X", ge=0, lt=1)
    flip: bool = altered(AugmentOptions, "flip", True, help="Mirror images count as pictures of the kind.")

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
        from regraft.style.translation.cyclegan import DiscriminatorSettings

        return DiscriminatorSettings(self.discriminator_width, self.discriminator_layers, self.scales)

    def task(self) -> CycleGAN:
        """The networks with random weights; the caller sets the random state."""
        from regraft.style.translation.cyclegan import CycleGAN, CycleWeights, GeneratorSettings

        generator = GeneratorSettings(self.width, self.blocks, self.upsampling, self.from_picture)
        return CycleGAN(
            generator, self.discriminator(), side_px=self.size,
            weights=CycleWeights(self.cycle_weight, self.identity_weight), pool=self.pool,
        )  # fmt: skip


#: The longest side that is translated.
MOST_PX = 4096


class ApplyConfig(ForceOptions, DeviceOptions):
    """What translating pictures is told. run: of `regraft style translate`."""

    run: Path = option(..., "A run, runs/LAST, or an artifact folder.", panel=DATA)
    content: tuple[str, ...] = option(..., "Pictures: files, folders or globs.", panel=DATA, min_length=1)
    output: Path = option(..., "A file, or a folder for several pictures.", panel=OUTPUT, metavar="PATH")
    direction: str = option("AtoB", "AtoB, or BtoA for the way back.", panel=MODEL, metavar="AtoB|BtoA")
    size: int | None = option(
        None,
        "Longer side of the result in px; the training's scale else.",
        panel=OUTPUT,
        metavar="PX",
        ge=16,
        le=MOST_PX,
    )
