"""What `regraft style` can be told; checked as a whole before anything is read."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Annotated, Any, Final, Literal

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, ValidationError, model_validator

from regraft.core.errors import UsageError
from regraft.core.options import sentence
from regraft.core.quantities import memory_bytes, size_px
from regraft.style.networks.shipped import is_fixed_style

#: What pictures as styles get where no option of the optimiser is given.
WITHOUT_OPTIONS: Final = "adain"


class StyleConfig(BaseModel):
    """Options of a style run. None leaves a value to the method; one that the method does not use is refused.

    styles: files or names of fixed styles, with their weights. method: auto means `fixed` for names, for pictures
    `adain`, or `gatys` where one of its options is given. keep, passes, refine: of one-pass methods. runtime: what runs
    fixed styles; auto takes a compiled one where it pays. masks: (mask file, style file as in styles). size: longer
    side in px, or a name as 4k. max_memory: bytes, or text as 2g.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    content: tuple[str, ...] = Field(min_length=1)
    styles: tuple[tuple[Path, float], ...] = Field(min_length=1)
    output: Path
    method: str = "auto"
    masks: tuple[tuple[Path, Path], ...] = ()
    size: Annotated[Annotated[int, Field(ge=16, le=16384)] | None, BeforeValidator(size_px)] = None
    strength: float = Field(1.0, ge=0, le=1)
    ssim: float | None = Field(None, gt=0, lt=1)
    keep_colour: Literal["luminance", "histogram"] | None = None

    steps: int | None = Field(None, ge=1, le=100_000)
    optimizer: str | None = None
    style_loss: str | None = None
    content_weight: float | None = Field(None, ge=0)
    tv_weight: float | None = Field(None, ge=0)
    edge_weight: float | None = Field(None, ge=0)
    start: str | None = None
    keep: float | None = Field(None, ge=0, le=1)
    passes: int | None = Field(None, ge=1, le=20)
    refine: int | None = Field(None, ge=0, le=1000)
    kept: Path | None = None
    kept_weight: float | None = Field(None, ge=0)
    perceptual: str | None = None
    perceptual_weights: Path | None = None
    max_memory: Annotated[Annotated[int, Field(ge=1)] | None, BeforeValidator(memory_bytes)] = None

    evaluation_weights: Path | None = None
    report: bool = False
    measure: bool = False
    every: int | None = Field(None, ge=1)
    force: bool = False
    device: str = "auto"
    runtime: Literal["auto", "eager", "onnxruntime", "openvino"] | None = None
    seed: int | None = Field(None, ge=0, lt=2**31)

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


def checked_style(**values: Any) -> StyleConfig:
    """A StyleConfig, or a UsageError with every mistake in one sentence each."""
    try:
        return StyleConfig(**values)
    except ValidationError as error:
        raise UsageError(" ".join(sentence(item) for item in error.errors())) from error


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
