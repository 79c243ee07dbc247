"""What the commands that make, shrink, write out and measure styles can be told."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Final, Literal

from regraft.core.option_groups import DeviceOptions, ForceOptions, PerceptualOptions, SeedOptions
from regraft.core.options import DATA, MODEL, OUTPUT, Options, altered, option
from regraft.recipes.style.options import EVALUATION_WEIGHTS, STYLES, WeightedStyle

_NAME: Final = r"^[A-Za-z0-9][A-Za-z0-9._-]{0,63}$"
_PERCEPTUAL: Final = "What measures the style: sprig, scion, squeezenet1_1, vgg16 or vgg19."


class StyleTrainConfig(PerceptualOptions, ForceOptions, DeviceOptions, SeedOptions):
    """What a training of a fast style is told.

    style: the painting. content: folders of photos. name: of the model, which is kept at folder/name.safetensors.
    steps, student_steps: of the teacher and of the student. side_px: of the square crops, in which the painting's
    shorter side is as long. content_weight: multiple of the style term. start: "packaged" begins from the package's
    styles, "scratch" from random weights.
    """

    style: Path = option(..., "The painting.", panel=DATA, metavar="FILE")
    content: tuple[Path, ...] = option(
        ..., "A folder of photos to train on; repeats.", panel=DATA, metavar="FOLDER", min_length=1
    )
    name: str = option(
        ..., "The style's name; regraft style PHOTO --style NAME uses it.", panel=OUTPUT, metavar="NAME", pattern=_NAME
    )
    folder: Path = option(Path("styles"), "Where models of your own are kept.", panel=OUTPUT, metavar="FOLDER")
    steps: int = option(800, "Steps of the teacher.", metavar="N", ge=1, le=1_000_000)
    student_steps: int = option(1200, "Steps of the fast student.", metavar="N", ge=1, le=1_000_000)
    side_px: int = option(
        224,
        "Side of the training crops in px; strokes are as large in them.",
        flag="--side",
        metavar="PX",
        ge=64,
        le=1024,
    )
    batch: int = option(4, "Crops a step.", metavar="N", ge=1, le=256)
    lr: float = option(1e-3, "Base rate of the teacher.", metavar="RATE", gt=0, le=1)
    content_weight: float = option(0.2, "How much content features hold.", metavar="X", ge=0)
    start: Literal["packaged", "scratch"] = option(
        "packaged", "packaged begins from the package's styles, scratch does not.", panel=MODEL
    )
    perceptual: str = option("sprig", _PERCEPTUAL, panel=MODEL, metavar="NAME")
    force: bool = altered(ForceOptions, "force", False, help="Replace an existing model.")

    @property
    def output(self) -> Path:
        return self.folder / f"{self.name}.safetensors"

    def plain(self) -> dict[str, Any]:
        """What tells two trainings apart."""
        return {k: v for k, v in super().plain().items() if k not in ("force", "device")}


class StyleExportConfig(ForceOptions):
    """What writing a student as ONNX is told. model: its file."""

    model: Path = option(..., "A style model of a student, model.safetensors.", panel=DATA)
    onnx: Path = option(..., "Where to write the ONNX file.", panel=OUTPUT, metavar="FILE")
    content: tuple[str, ...] = option(
        (), "Photos to check on, and for --int8 to measure ranges on; repeats.", panel=DATA, metavar="PHOTO"
    )
    int8: bool = option(False, "Weights and activations in 8 bits; needs --content.", panel=OUTPUT, flag="--int8")
    pixels: str = option(
        "uint8", "What the file takes: uint8 (N, H, W, 3) or float (N, 3, H, W).", panel=OUTPUT, metavar="uint8|float"
    )


class StylePruneConfig(PerceptualOptions, ForceOptions, SeedOptions):
    """What cutting a student's channels is told. model: its file."""

    model: Path = option(..., "A style model of a student, model.safetensors.", panel=DATA)
    content: tuple[str, ...] = option(
        ..., "Photos: files, folders or globs; 4 or more; repeats.", panel=DATA, metavar="PHOTO", min_length=1
    )
    style: Path = option(..., "The painting that the student was trained on.", panel=DATA, metavar="FILE")
    output: Path = option(..., "Where to write the smaller model, .safetensors.", panel=OUTPUT, metavar="FILE")
    threshold: float = option(0.05, "Cut channels whose shares of the style add up to at most this.", metavar="SHARE")
    steps: int = option(200, "Training steps after the cut; 0 for none.", metavar="N", ge=0, le=100_000)
    perceptual: str = option("scion", _PERCEPTUAL, panel=MODEL, metavar="NAME")


class StyleEvaluateConfig(Options):
    """What measuring a stylised picture is told."""

    result: Path = option(..., "The stylised picture.", panel=DATA)
    content: Path = option(..., "The photo it was made of.", panel=DATA, metavar="FILE")
    styles: tuple[WeightedStyle, ...] = option(..., STYLES, panel=DATA, flag="--style", metavar="STYLE", min_length=1)
    evaluation_weights: Path | None = option(None, EVALUATION_WEIGHTS, panel=MODEL, metavar="FILE")
    method: str | None = option(
        None, "Also run this method: latency, cost of noise and memory.", panel=MODEL, metavar="NAME"
    )
    repeats: int = option(5, "Runs of that method.", metavar="N", ge=1, le=1000)
