"""What a fit can be told. One model, checked as a whole, written out in full into `config.yaml`."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

from pydantic import ValidationInfo, field_validator, model_validator

from regraft.core.errors import unknown_name
from regraft.core.option_groups import (
    AuditOptions,
    AugmentOptions,
    BackboneOptions,
    BootstrapOptions,
    LabelOptions,
    MachineOptions,
    PrecisionOptions,
    ProcessOptions,
    StrategyOptions,
    TableOptions,
    TimeOptions,
)
from regraft.core.options import DATA, OUTPUT, Names, altered, option


def usual() -> tuple[str, ...]:
    """The strategies that are tried where nobody asks for particular ones."""
    from regraft.strategies import strategies  # noqa: F401, each registers itself
    from regraft.strategies.base import usual_strategies

    return usual_strategies()


class FitConfig(
    StrategyOptions, AugmentOptions, TimeOptions, BackboneOptions, PrecisionOptions, ProcessOptions, BootstrapOptions,
    MachineOptions, AuditOptions, LabelOptions,
):  # fmt: skip
    """Options of a fit. The command line has an option for what people change; `regraft.fit` takes every field."""

    roots: tuple[Path, ...] = option((), "A folder per class, or train/ val/ test/ folders.", panel=DATA)
    group: str | None = altered(
        TableOptions, "group", None, help="Column, or regex on the file name, that keeps e.g. a patient on one side."
    )
    split: str | None = option(None, "The table's column that says train, val or test.", panel=DATA, metavar="COLUMN")
    test: Path | None = option(None, "A folder per class that is the test set.", panel=DATA, metavar="FOLDER")
    task: str = option(
        "auto", "What the labels are: classification, regression (a column of numbers), or auto.", panel=DATA,
        metavar="NAME",
    )  # fmt: skip
    strategies: Names = option(
        None,
        "Which candidates, with commas between them, as probe,finetune,scratch; the usual ones unless told.",
        default_factory=usual,
        metavar="NAMES",
    )
    metric: str = option(
        "auto",
        "What is maximised: accuracy, balanced_accuracy, macro_f1, auc, nll, ece; of numbers mae, rmse, r2, spearman.",
        metavar="NAME",
    )
    last: int | None = altered(StrategyOptions, "last", None, help="Fine-tune only the last K layer groups.")
    lr: float | None = altered(
        StrategyOptions, "lr", None, help="Base rate of fine-tuning; the head has 10 times as much."
    )
    batch_size: int = option(32, "Largest batch; small sets take smaller ones.", metavar="N", ge=1, le=4096)
    accumulate: int = option(1, "Batches per optimiser step.", metavar="N", ge=1)
    optimizer: str = option("adamw", "What takes the steps: adamw or sgd.", metavar="NAME")
    schedule: str = option("cosine", "The rate after the warm-up: cosine, constant or step.", metavar="NAME")
    weight_decay: float = option(0.02, "Weight decay.", on_command_line=False, ge=0)
    label_smoothing: float = option(0.0, "Label smoothing.", metavar="SHARE", ge=0, lt=1)
    mixup: float = option(0.0, "Beta parameter; 0 = off.", metavar="X", ge=0)
    cutmix: float = option(0.0, "Beta parameter; 0 = off.", metavar="X", ge=0)
    ema: float = option(
        0.99, "Decay of the running average of the weights; 0 = off.", metavar="X", ge=0, lt=1
    )  # fmt: skip
    clip_norm: float = option(1.0, "Largest norm of a gradient.", on_command_line=False, gt=0)
    patience: int | None = option(8, "Epochs without a better one before stopping.", metavar="N", ge=1)
    crop_scale: float | None = option(None, "Least area of a training crop.", on_command_line=False, gt=0, le=1)
    regression_loss: Literal["huber", "squared"] = option(
        "huber", "What numbers are learned by.", on_command_line=False
    )
    colour: float = option(0.2, "How much colours are altered.", on_command_line=False, ge=0, le=1)
    refit: bool = option(True, "Train the chosen one on validation too, at the end.")
    tensorboard: bool = option(False, "Write TensorBoard logs into the run.", panel=OUTPUT)

    @field_validator("task")
    @classmethod
    def _known_kind(cls, value: str) -> str:
        from regraft.tasks.kinds import kinds

        if value != "auto" and value not in kinds:
            raise ValueError(f"takes auto, {', '.join(kinds.names())}")
        return value

    @field_validator("metric")
    @classmethod
    def _known_metric(cls, value: str) -> str:
        from regraft.tasks.kinds import known_metrics

        if value != "auto" and value not in known_metrics():
            raise ValueError(f"takes auto, {', '.join(known_metrics())}")
        return value

    @field_validator("optimizer", "schedule")
    @classmethod
    def _registered(cls, value: str, info: ValidationInfo) -> str:
        from regraft.engine.optimizers import optimizers
        from regraft.engine.schedules import schedules

        (optimizers if info.field_name == "optimizer" else schedules).get(value)
        return value

    @field_validator("strategies")
    @classmethod
    def _known_strategies(cls, value: tuple[str, ...]) -> tuple[str, ...]:
        from regraft.strategies import strategies as registry
        from regraft.strategies.base import by_cost

        for name in value:
            if name not in registry:
                raise unknown_name("strategy", name, registry)
        if all(registry.get(name).control for name in value):
            controls = ", ".join(name for name in registry if registry.get(name).control)
            raise ValueError(
                f"needs at least one strategy that is not a control: {controls} alone is what transfer is measured "
                "against, there would be no transfer"
            )
        return by_cost(value)

    @model_validator(mode="after")
    def _somewhere_to_read(self) -> FitConfig:
        if not self.roots and self.table is None:
            raise ValueError("needs a folder of pictures or --table")
        if self.task == "regression" and (self.table is None or self.test is not None):
            raise ValueError("takes numbers from --table, for --task regression; folders, --test too, name classes")
        return self
