"""Options that several commands share, each with its one default. A command is composed of the groups that it has."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Literal

from pydantic import model_validator

from regraft.core.options import (
    DATA,
    MACHINE,
    MODEL,
    OUTPUT,
    TRAINING,
    Names,
    OneOrSeveral,
    Options,
    Seconds,
    altered,
    option,
    with_table,
)


class SeedOptions(Options):
    """What decides every random draw."""

    seed: int = option(0, "Decides splits, weights and batches.", panel=MACHINE, metavar="N", ge=0, lt=2**31)


class DeviceOptions(Options):
    """What is computed on."""

    device: str = option("auto", "What to compute on.", panel=MACHINE, metavar="auto|cpu|cuda|mps")


class MachineOptions(DeviceOptions, SeedOptions):
    """What is computed on, and whether twice the same command gives twice the same."""

    deterministic: bool = option(False, "Only deterministic algorithms.", panel=MACHINE)
    threads: int | None = option(None, "Threads that decode pictures.", panel=MACHINE, metavar="N", ge=1)


class PrecisionOptions(Options):
    """In what it is computed, and how often it is saved."""

    precision: str = option(
        "auto", "auto takes half precision where the machine is quicker with it.", panel=MACHINE,
        metavar="auto|fp32|bf16|fp16",
    )  # fmt: skip
    checkpoint_every_s: Seconds = option(
        30.0, "Time between checkpoints, as 30s.", panel=MACHINE, flag="--checkpoint-every", metavar="TIME", gt=0
    )


class ProcessOptions(Options):
    """How many processes share a training."""

    devices: int = option(1, "How many processes: GPUs, or CPU processes.", panel=MACHINE, metavar="N", ge=1)
    nodes: int = option(1, "How many machines, each of which starts this command.", panel=MACHINE, metavar="N", ge=1)


class BootstrapOptions(Options):
    """How intervals are made."""

    resamples: int = option(2000, "Resamples of the bootstrap.", panel=MACHINE, on_command_line=False, ge=100)


class AuditOptions(Options):
    """What the audit lets through."""

    max_bad: float = option(0.1, "Largest share of unusable pictures.", panel=DATA, metavar="SHARE", ge=0, le=1)


class GroupOptions(Options):
    """What belongs together."""

    group: str | None = option(
        None, "What belongs together: a column, or a regular expression on file names.", panel=DATA, metavar="NAME"
    )


class TableOptions(GroupOptions):
    """Labels from a table in place of folders."""

    table: Path | None = option(
        None, "Labels from a table, CSV or Parquet, in place of folders.", panel=DATA, metavar="FILE"
    )
    image: str = option("image", "The table's column of file paths.", panel=DATA, metavar="COLUMN")


class LabelOptions(TableOptions):
    """Which columns of the table are labels."""

    label: OneOrSeveral = option(
        "label", "The table's column of labels; again for several.", panel=DATA, metavar="COLUMN"
    )
    text: str | None = option(None, "The table's column of texts, in place of pictures.", panel=DATA, metavar="COLUMN")

    @model_validator(mode="before")
    @classmethod
    def _table_as_folder(cls, values: Any) -> Any:
        return with_table(values)


class BackboneOptions(Options):
    """Which pretrained network is begun with."""

    backbone: str = option(
        "scion", "The pretrained network; `regraft models` lists them. Its options come after a colon.", panel=MODEL,
        metavar="NAME",
    )  # fmt: skip
    weights: Path | None = option(
        None, "A local .safetensors or .pth file for the backbone.", panel=MODEL, metavar="FILE"
    )


class TimeOptions(Options):
    """How long a training may take."""

    budget_s: Seconds | None = option(
        None, "Time for everything, as 90s, 5m or 1h.", panel=TRAINING, flag="--budget", metavar="TIME", gt=0
    )
    epochs: float | None = option(
        None, "Epochs of each training, in place of a budget.", panel=TRAINING, metavar="N", gt=0
    )


class AugmentOptions(Options):
    """How training pictures are altered."""

    augment: Literal["crop", "affine"] = option(
        "crop", "crop: parts of a picture; affine: turned, shifted, scaled, for digits or single cells.",
        panel=TRAINING,
    )  # fmt: skip
    flip: bool = option(True, "Mirror images count as the same.", panel=TRAINING)


class StrategyOptions(Options):
    """Options that strategies read; every job that trains candidates has them among its own."""

    last: int | None = option(None, "Train only the last K layer groups.", panel=TRAINING, metavar="K", ge=1)
    norm_statistics: Literal["auto", "keep", "update"] = option(
        "auto", "Whether normalisation layers keep the pretraining's statistics.", on_command_line=False
    )
    lr: float | None = option(
        None, "Base rate of the training; the head has 10 times as much.", panel=TRAINING, metavar="RATE", gt=0
    )
    scratch_lr: float = option(1e-3, "Base rate of the control.", on_command_line=False, gt=0)
    lora_rank: int = option(8, "Rank of what LoRA adds to a layer.", panel=TRAINING, metavar="R", ge=1)


class PerceptualOptions(Options):
    """Which network measures a style."""

    perceptual_weights: Path | None = option(
        None, "A local file with that network's weights.", panel=MODEL, metavar="FILE"
    )


class ForceOptions(Options):
    """Whether files are replaced."""

    force: bool = option(False, "Replace existing files.", panel=OUTPUT)


class AdaptationOptions(
    TimeOptions, AugmentOptions, BackboneOptions, PrecisionOptions, ProcessOptions, BootstrapOptions, MachineOptions,
    AuditOptions, TableOptions,
):  # fmt: skip
    """What adapting is told. `recipes.adapt.options` says which of it goes together."""

    source: tuple[Path, ...] = option((), "Folders with labels, each a domain.", panel=DATA, on_command_line=False)
    target: tuple[Path, ...] = option((), "A folder without labels.", panel=DATA, on_command_line=False)
    source_free: Path | None = option(
        None, "A run whose model is adapted without its pictures.", panel=DATA, metavar="RUN"
    )
    table: Path | None = altered(
        TableOptions, "table", None, help="The source's labels: CSV or Parquet in place of folders."
    )
    image: str = altered(TableOptions, "image", "image", help="The tables' column of file paths.")
    label: str = option("label", "The tables' column of labels.", panel=DATA, metavar="COLUMN")
    group: str | None = altered(
        TableOptions, "group", None, help="Regex on source file names: what belongs together."
    )  # fmt: skip
    oracle: Path | None = option(
        None, "Labelled target pictures, or a table of their numbers: shown beside, never used.", panel=DATA,
        metavar="PATH",
    )  # fmt: skip
    flip: bool = altered(AugmentOptions, "flip", True, help="Mirror images count as the same class.")
    task: Literal["classification", "regression"] = option(
        "classification", "regression: a table's column of numbers.", panel=DATA
    )

    setting: Literal["closed", "partial", "open"] = option(
        "closed", "closed: same classes; partial: the target lacks some; open: it has others, too.", panel=DATA
    )
    methods: Names = option(
        ("auto",), "auto, or names with commas between them.", flag="--method", metavar="NAMES", min_length=1
    )
    validators: Names = option(
        ("auto",), "auto, or the label-free validators that choose.", flag="--validator", metavar="NAMES", min_length=1
    )
    keep: str | None = option(None, "Hand over this candidate, whatever the evidence says.", metavar="NAME")
    tune: Literal["auto", "features", "network"] = option(
        "auto", "features: an adapter on cached ones, in seconds; network: all of it."
    )
    weight: float | None = option(
        None, "Weight of the alignment; the method's own unless told.", metavar="X", gt=0
    )  # fmt: skip
    lr: float | None = altered(StrategyOptions, "lr", None, help="Base rate of the training.")
    last: int | None = altered(StrategyOptions, "last", None)
    batch_size: int = option(32, "Pictures of each domain in a step.", metavar="N", ge=2, le=4096)
    weight_decay: float = option(0.001, "Weight decay.", on_command_line=False, ge=0)
    clip_norm: float = option(1.0, "Largest norm of a gradient.", on_command_line=False, gt=0)
    smoothing: float = option(0.1, "Label smoothing of the source's classes.", on_command_line=False, ge=0, lt=1)
    restyle: float = option(0.0, "Share of source pictures in the target's colours.", metavar="SHARE", ge=0, le=1)
    crop_scale: float = option(0.5, "Least area of a training crop.", on_command_line=False, gt=0, le=1)
    colour: float = option(0.3, "How much colours are altered.", on_command_line=False, ge=0, lt=1)
    resamples: int = altered(BootstrapOptions, "resamples", 1000)


class GeneralisationOptions(BackboneOptions, BootstrapOptions, MachineOptions):
    """What generalising is told, whatever the domains were read from."""

    methods: Names = option(
        ("auto",), "auto, or ERM, Mixup, GroupDRO, IRM, SWAD with commas between them.", flag="--method",
        metavar="NAMES",
    )  # fmt: skip
    choose: Literal["validation", "leave-one-out"] = option(
        "validation", "What the choice is made by: validation of the training domains, or leave-one-out."
    )
    tune: str = option("features", "features: an adapter on cached ones; the only one so far.", metavar="features")
    steps: int = option(300, "Steps of each training.", metavar="N", ge=1)

    @property
    def names(self) -> tuple[str, ...]:
        """The methods by name, `auto` spelled out, ERM first: it is what the others are compared with."""
        asked = (n for name in self.methods for n in (GENERALISERS if name == "auto" else (name,)))
        return tuple(dict.fromkeys(("ERM", *asked)))


#: What `regraft generalise --method auto` tries, simplest first: a later one has to be credibly better to be chosen.
GENERALISERS = ("ERM", "Mixup", "GroupDRO", "IRM", "SWAD")
