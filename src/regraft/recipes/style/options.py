"""What `regraft style` can be told; checked as a whole before anything is read."""

from __future__ import annotations

import math
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Final, Literal

from pydantic import BeforeValidator, Field, model_validator

from regraft.core.errors import UsageError
from regraft.core.option_groups import DeviceOptions, ForceOptions, PerceptualOptions
from regraft.core.options import DATA, MACHINE, MODEL, OUTPUT, option
from regraft.core.quantities import memory_bytes, size_px

#: What pictures as styles get where no option of the optimiser is given.
WITHOUT_OPTIONS: Final = "adain"
EVALUATION_WEIGHTS: Final = "SqueezeNet 1.1 weights for the figures; without, the cache's, else the embedded network."
STYLES: Final = "A painting or a style's name, as painting.jpg:0.7 with its weight; repeats."


def weighted(text: str) -> tuple[Path, float]:
    """ "painting.jpg:0.7" → (path, 0.7); without a number after the last colon the weight is 1."""
    head, colon, tail = text.rpartition(":")
    if colon and head:
        try:
            return Path(head), float(tail)
        except ValueError:
            pass
    return Path(text), 1.0


def mask_of(text: str, styles: tuple[tuple[Path, float], ...]) -> tuple[Path, Path]:
    """ "sky.png:a.jpg" → (mask, style), the style being one of those given, by its path or its name alone.

    With one style its name may be left out. Raises UsageError.
    """
    paths = [path for path, _ in styles]
    for path in paths:
        for name in (str(path), path.name):
            head = text.removesuffix(f":{name}")
            if head and head != text:
                return Path(head), path
    if len(paths) == 1 and ":" not in text:
        return Path(text), paths[0]
    raise UsageError(
        f"--mask {text!r} is not of the form MASK:STYLE with one of the styles that were given: "
        f"{', '.join(map(str, paths))}."
    )


def _with_weight(value: Any) -> Any:
    return weighted(str(value)) if isinstance(value, str | Path) else value


#: A style with its weight, which may be written as painting.jpg:0.7.
WeightedStyle = Annotated[tuple[Path, float], BeforeValidator(_with_weight)]


class StyleConfig(PerceptualOptions, ForceOptions, DeviceOptions):
    """Options of a style run. None leaves a value to the method; one that the method does not use is refused.

    styles: files or names of fixed styles, with their weights. method: auto means `fixed` for names, for pictures
    `adain`, or `gatys` where one of its options is given. keep, passes, refine: of one-pass methods. runtime: what runs
    fixed styles; auto takes a compiled one where it pays. masks: (mask file, style file as in styles). size: longer
    side in px, or a name as 4k. max_memory: bytes, or text as 2g.
    """

    content: tuple[str, ...] = option(..., "Photos: files, folders or globs.", panel=DATA, min_length=1)
    styles: tuple[WeightedStyle, ...] = option(..., STYLES, panel=DATA, flag="--style", metavar="STYLE", min_length=1)
    output: Path = option(..., "A file, or a folder for several photos.", panel=OUTPUT, metavar="PATH")
    method: str = option(
        "auto",
        "auto, fixed, adain, adaattn, gatys, colour, reinhard or a registered name.",
        panel=MODEL,
        metavar="NAME",
    )
    masks: tuple[tuple[Path, Path], ...] = option(
        (),
        "MASK:STYLE, as sky.png:a.jpg: where white, that style goes; repeats.",
        panel=DATA,
        flag="--mask",
        metavar="MASK:STYLE",
    )
    size: Annotated[Annotated[int, Field(ge=16, le=16384)] | None, BeforeValidator(size_px)] = option(
        None, "Longer side of the result: px, or 720p, 1080p, 4k, 8k.", panel=OUTPUT, metavar="PX"
    )
    strength: float = option(
        1.0, "0 is the photo, 1 the method's whole result.", panel=MODEL, metavar="SHARE", ge=0, le=1
    )
    ssim: float | None = option(
        None, "The most style that keeps this SSIM, as 0.85.", panel=MODEL, metavar="X", gt=0, lt=1
    )
    keep_colour: Literal["luminance", "histogram"] | None = option(
        None,
        "luminance (what --keep-colour takes) or histogram: strokes in the photo's range.",
        panel=MODEL,
        flag="--keep-colour-by",
    )

    steps: int | None = option(None, "Steps of an optimisation.", metavar="N", ge=1, le=100_000)
    optimizer: str | None = option(None, "How an optimisation takes its steps.", metavar="adam|lbfgs")
    style_loss: str | None = option(None, "gram, wasserstein, histogram; several with + between.", metavar="NAMES")
    content_weight: float | None = option(None, "How much content features hold.", metavar="X", ge=0)
    tv_weight: float | None = option(None, "Total variation: smoothness.", metavar="X", ge=0)
    edge_weight: float | None = option(None, "Laplacian term: edges stay where they are.", metavar="X", ge=0)
    start: str | None = option(None, "Where an optimisation starts.", metavar="colour|content|noise")
    keep: float | None = option(
        None,
        "How much of the photo a one-pass method holds: 0, all style, to 1.",
        panel=MODEL,
        metavar="SHARE",
        ge=0,
        le=1,
    )
    passes: int | None = option(
        None,
        "How often such a method goes over the photo: 3 times, with --ssim once.",
        panel=MODEL,
        metavar="N",
        ge=1,
        le=20,
    )
    refine: int | None = option(
        None, "Steps of optimisation after a one-pass method: none, with --ssim 20.", metavar="N", ge=0, le=1000
    )
    kept: Path | None = option(None, "A mask: where white, strokes do not run over edges.", panel=DATA, metavar="FILE")
    kept_weight: float | None = option(None, "How much the edges of --kept hold; 1 unless told.", metavar="X", ge=0)
    perceptual: str | None = option(
        None, "What measures a style: sprig, scion, squeezenet1_1, vgg16 or vgg19.", panel=MODEL, metavar="NAME"
    )
    max_memory: Annotated[Annotated[int, Field(ge=1)] | None, BeforeValidator(memory_bytes)] = option(
        None,
        "The most memory for a large picture, as 2g or 1500m; networks run in tiles.",
        panel=MACHINE,
        metavar="SIZE",
    )

    evaluation_weights: Path | None = option(None, EVALUATION_WEIGHTS, panel=MODEL, metavar="FILE")
    report: bool = option(False, "Write a page with the figures beside the result.", panel=OUTPUT, flag="--report")
    measure: bool = option(False, "Take the figures.", panel=OUTPUT, on_command_line=False)
    every: int | None = option(None, "Keep the picture of every N steps.", panel=OUTPUT, metavar="N", ge=1)
    runtime: Literal["auto", "eager", "onnxruntime", "openvino"] | None = option(
        None, "What runs fixed styles.", panel=MACHINE
    )
    seed: int | None = option(None, "For a start from noise.", panel=MACHINE, metavar="N", ge=0, lt=2**31)

    @model_validator(mode="before")
    @classmethod
    def _masks_by_name(cls, values: Any) -> Any:
        """Masks as text name one of the styles; both are given together."""
        if not isinstance(values, Mapping) or not any(isinstance(mask, str | Path) for mask in values.get("masks", ())):
            return values
        styles = tuple(_with_weight(style) for style in values.get("styles", ()))
        masks = tuple(mask_of(str(mask), styles) if isinstance(mask, str | Path) else mask for mask in values["masks"])
        return {**values, "masks": masks}

    @model_validator(mode="after")
    def _fits_together(self) -> StyleConfig:
        if self.ssim is not None and self.strength != 1.0:
            raise ValueError("takes --ssim or --strength, not both: the one searches the other")
        if self.ssim is not None and self.keep is not None:
            raise ValueError("takes --ssim or --keep, not both: the one searches the other")
        if self.runtime not in (None, "auto", "eager") and self.max_memory is not None:
            raise ValueError(f"takes --max-memory or --runtime {self.runtime}, not both: tiles are run by eager")
        if self.perceptual_weights is not None and self.perceptual is None:
            raise ValueError("needs --perceptual NAME beside --perceptual-weights: the file is for one network")
        if not all(0 <= weight < math.inf for _, weight in self.styles) or not sum(weight for _, weight in self.styles):
            raise ValueError("needs style weights of 0 or more, not all 0, as in --style a.jpg:0.7")
        return self

    @property
    def chosen_method(self) -> str:
        """The method that `auto` means. Raises UsageError where pictures and names of fixed styles are mixed."""
        from regraft.style.networks.shipped import is_fixed_style

        fixed = [is_fixed_style(str(path)) for path, _ in self.styles]
        if any(fixed) and not all(fixed):
            raise UsageError("Pictures and names of fixed styles cannot be mixed in one run: give one kind of --style.")
        if self.method != "auto":
            if all(fixed) != (self.method == "fixed"):
                wanted = "names of fixed styles" if self.method == "fixed" else "pictures as styles"
                raise UsageError(f"The method {self.method} takes {wanted}: leave --method out, or change --style.")
            return self.method
        if all(fixed):
            return "fixed"
        of_gatys = (self.steps, self.optimizer, self.style_loss, self.content_weight, self.tv_weight, self.edge_weight,
                    self.start, self.perceptual, self.every, self.kept)  # fmt: skip
        return "gatys" if any(value is not None for value in of_gatys) else WITHOUT_OPTIONS

    def settings(self) -> dict[str, Any]:
        """The values that a method is given, less those that were left to it; the network is built elsewhere."""
        names = ("steps", "optimizer", "style_loss", "content_weight", "tv_weight", "edge_weight", "start", "seed",
                 "keep", "passes", "refine", "kept_weight")  # fmt: skip
        found = {name: getattr(self, name) for name in names if getattr(self, name) is not None}
        return found if self.max_memory is None else {**found, "max_memory_bytes": self.max_memory}
