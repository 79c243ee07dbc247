"""What a fit can be told. One model, checked as a whole, written out in full into `config.yaml`."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Literal

from pydantic import Field, ValidationInfo, field_validator, model_validator

from regraft.core.errors import nearest
from regraft.core.options import OneOrSeveral, with_table
from regraft.strategies import StrategyOptions
from regraft.strategies import strategies as registry
from regraft.strategies.base import by_cost, usual_strategies
from regraft.tasks.kinds import kinds, known_metrics


class FitConfig(StrategyOptions):
    """Options of a fit. The command line has an option for what people change; `regraft.fit` takes every field."""

    roots: tuple[Path, ...] = ()
    table: Path | None = None
    image: str = "image"
    text: str | None = None
    label: OneOrSeveral = "label"
    group: str | None = None
    split: str | None = None
    test: Path | None = None
    max_bad: float = Field(0.1, ge=0, le=1)

    backbone: str = "scion"
    weights: Path | None = None

    task: str = "auto"
    strategies: tuple[str, ...] = Field(default_factory=usual_strategies)
    metric: str = "auto"
    budget_s: float | None = Field(None, gt=0)
    epochs: float | None = Field(None, gt=0)
    batch_size: int = Field(32, ge=1, le=4096)
    accumulate: int = Field(1, ge=1)
    optimizer: str = Field("adamw", description="What takes the steps: adamw or sgd.")
    schedule: str = Field("cosine", description="How the rate falls after the warm-up: cosine, constant or step.")
    weight_decay: float = Field(0.02, ge=0)
    label_smoothing: float = Field(0.0, ge=0, lt=1)
    mixup: float = Field(0.0, ge=0)
    cutmix: float = Field(0.0, ge=0)
    ema: float = Field(0.99, ge=0, lt=1)
    clip_norm: float = Field(1.0, gt=0)
    patience: int | None = Field(8, ge=1)
    augment: Literal["crop", "affine"] = "crop"
    crop_scale: float | None = Field(None, gt=0, le=1)
    regression_loss: Literal["huber", "squared"] = "huber"
    flip: bool = True
    colour: float = Field(0.2, ge=0, le=1)
    refit: bool = True

    seed: int = Field(0, ge=0, lt=2**31)
    deterministic: bool = False
    device: str = "auto"
    devices: int = Field(1, ge=1)
    nodes: int = Field(
        1, ge=1, description="How many machines, each with that many processes. The same command is started on each."
    )
    precision: str = "auto"
    threads: int | None = Field(None, ge=1)
    resamples: int = Field(2000, ge=100)
    checkpoint_every_s: float = Field(30.0, gt=0)
    tensorboard: bool = False

    @field_validator("task")
    @classmethod
    def _known_kind(cls, value: str) -> str:
        if value != "auto" and value not in kinds:
            raise ValueError(f"takes auto, {', '.join(kinds.names())}")
        return value

    @field_validator("metric")
    @classmethod
    def _known_metric(cls, value: str) -> str:
        if value != "auto" and value not in known_metrics():
            raise ValueError(f"takes auto, {', '.join(known_metrics())}")
        return value

    @field_validator("optimizer", "schedule")
    @classmethod
    def _registered(cls, value: str, info: ValidationInfo) -> str:
        # Imported when asked: the registries come with PyTorch, which a look at the options does not need.
        from regraft.engine.optimizers import optimizers
        from regraft.engine.schedules import schedules

        (optimizers if info.field_name == "optimizer" else schedules).get(value)
        return value

    @field_validator("strategies")
    @classmethod
    def _known_strategies(cls, value: tuple[str, ...]) -> tuple[str, ...]:
        for name in value:
            if name not in registry:
                near = nearest(name, registry)
                meant = f"; did you mean {near!r} by {name!r}?" if near else ""
                raise ValueError(f"takes {', '.join(by_cost(registry))}{meant}")
        if all(registry.get(name).control for name in value):
            controls = ", ".join(name for name in registry if registry.get(name).control)
            raise ValueError(
                f"needs at least one strategy that is not a control: {controls} alone is what transfer is measured "
                "against, there would be no transfer"
            )
        return by_cost(value)

    @model_validator(mode="before")
    @classmethod
    def _table_as_folder(cls, values: Any) -> Any:
        return with_table(values)

    @model_validator(mode="after")
    def _somewhere_to_read(self) -> FitConfig:
        if not self.roots and self.table is None:
            raise ValueError("needs a folder of pictures or --table")
        if self.task == "regression" and (self.table is None or self.test is not None):
            raise ValueError("takes numbers from --table, for --task regression; folders, --test too, name classes")
        return self


def checked(**values: Any) -> FitConfig:
    """A FitConfig, or a UsageError with every mistake in one sentence each."""
    return FitConfig.checked(**values)
