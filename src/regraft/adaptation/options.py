"""What an adaptation can be told; checked as a whole, written out in full into `config.yaml`."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Literal

from pydantic import Field, field_validator, model_validator

from regraft.core.options import Options

#: What `--method auto` tries, cheap to costly; the trained ones as far as the budget reaches.
AUTO = ("standardise", "CORAL", "AdaBN", "MCC", "SHOT", "CDAN+E", "DAN", "acquisition")
#: What is for a target with classes that the source lacks alone, and `auto` there. MCC and SHOT make every answer for
#: the target sure, those for unknown pictures too: then confidence no longer tells them.
OPEN_ALONE = "OSBP"
AUTO_OPEN = ("standardise", "CORAL", "AdaBN", OPEN_ALONE, "CDAN+E", "DAN")
#: The methods that correct a solved head for other class shares; for cached features alone.
PRIORS = ("BBSE", "EM-prior")


class AdaptConfig(Options):
    """Options of `regraft adapt`; `regraft.adapt` takes every field."""

    source: tuple[Path, ...] = ()
    target: tuple[Path, ...] = ()
    source_free: Path | None = None
    table: Path | None = None
    image: str = "image"
    label: str = "label"
    group: str | None = None
    oracle: Path | None = None
    #: Whether the target has the source's classes, only some of them, or others beside.
    setting: Literal["closed", "partial", "open"] = "closed"
    max_bad: float = Field(0.1, ge=0, le=1)

    task: Literal["classification", "regression"] = "classification"
    backbone: str = "scion"
    weights: Path | None = None

    methods: tuple[str, ...] = ("auto",)
    validators: tuple[str, ...] = ("auto",)
    #: A candidate that is handed over whatever the evidence says; the evidence is then about it.
    keep: str | None = None
    tune: Literal["auto", "features", "network"] = "auto"
    weight: float | None = Field(None, gt=0)
    budget_s: float | None = Field(None, gt=0)
    epochs: float | None = Field(None, gt=0)
    lr: float | None = Field(None, gt=0)
    last: int | None = Field(None, ge=1)
    batch_size: int = Field(32, ge=2, le=4096)
    weight_decay: float = Field(0.001, ge=0)
    clip_norm: float = Field(1.0, gt=0)
    smoothing: float = Field(0.1, ge=0, lt=1)
    restyle: float = Field(0.0, ge=0, le=1)
    augment: Literal["crop", "affine"] = "crop"
    crop_scale: float = Field(0.5, gt=0, le=1)
    flip: bool = True
    colour: float = Field(0.3, ge=0, lt=1)

    seed: int = Field(0, ge=0, lt=2**31)
    deterministic: bool = False
    device: str = "auto"
    devices: int = Field(1, ge=1)
    nodes: int = Field(
        1, ge=1, description="How many machines, each with that many processes. The same command is started on each."
    )
    precision: str = "auto"
    threads: int | None = Field(None, ge=1)
    resamples: int = Field(1000, ge=100)
    checkpoint_every_s: float = Field(30.0, gt=0)

    @field_validator("methods", "validators")
    @classmethod
    def _named(cls, value: tuple[str, ...]) -> tuple[str, ...]:
        if not value:
            raise ValueError("takes auto or names with commas between them")
        return value

    @model_validator(mode="after")
    def _two_domains(self) -> AdaptConfig:
        if not self.target:
            raise ValueError("needs the folder of the target's pictures")
        if self.task == "regression":
            self._numbers()
        elif self.source_free is None and not self.source:
            raise ValueError("needs the source's folder before the target's, or --source-free with a run")
        if self.source_free is not None and (self.source or self.weights):
            raise ValueError("takes --source-free in place of a source folder and of --weights, not beside them")
        return self

    def _numbers(self) -> None:
        if self.table is None:
            raise ValueError("takes the source's numbers from --table, with --label, for --task regression")
        if self.source_free is not None or self.tune == "network":
            raise ValueError("adapts numbers on cached features alone: leave out --source-free and --tune network")
        if self.keep is not None:
            raise ValueError("takes --keep for classes alone: leave it out with --task regression")
        if self.setting != "closed":
            raise ValueError(f"has no classes with --task regression: --setting {self.setting} is about classes")

    @property
    def data_name(self) -> str:
        """What the run is called after: its domains."""
        source = "+".join(path.resolve().name for path in self.source) or (self.table.stem if self.table else "run")
        return f"{source}_to_{self.target[0].resolve().name}"


def checked_adapt(**values: Any) -> AdaptConfig:
    """An AdaptConfig, or a UsageError with every mistake in one sentence each."""
    return AdaptConfig.checked(**values)
