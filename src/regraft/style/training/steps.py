"""Training feed-forward style networks with the one engine: their pictures, their steps, their checkpoints."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from regraft.core.types import Rule, Stream, Task
from regraft.data.audit import Audit, audit
from regraft.data.reading import Reading, read_source
from regraft.engine import FitResult, FitSettings, Machine, StepRecord, fit
from regraft.images.modality import PICTURES
from regraft.images.spec import ImageSpec
from regraft.images.stream import PictureStore, PictureStream
from regraft.images.transform import TrainTransform
from regraft.strategies import RuleStrategy

#: Crops are cut from pictures shrunk to this many times their side, so that whole scenes and details are both seen.
_ROOM = 1.6
#: Parts of a picture that a crop may cover.
_SCALE = (0.3, 1.0)


#: A student's canvas is drawn, as a picture would be, at a higher rate than its weights.
STUDENT_RULES = (Rule("group:canvas", 10.0), Rule(".*", 1.0))


@dataclass(frozen=True)
class TrainingSize:
    """One stretch of a training: steps at a crop of side_px and that many pictures a step."""

    steps: int
    side_px: int
    batch: int


def training_pictures(roots: Sequence[Path]) -> tuple[list[Path], Audit]:
    """All pictures below folders that can be read, and what was found about them; class folders mean nothing here.

    Raises DataError where nothing is left.
    """
    source, _, found = audit(read_source(roots, PICTURES, Reading(labelled=False)), PICTURES)
    return [picture.path for picture in source.samples], found


def crops(paths: Sequence[Path], size: TrainingSize, seed: int) -> PictureStream:
    """Random crops of size.side_px in batches; decoded pictures stay in memory."""
    spec = ImageSpec((3, size.side_px, size.side_px))
    # Fewer pictures than one batch are repeated, so that there is at least one batch.
    repeated = list(paths) * -(-size.batch // len(paths))
    store = PictureStore(repeated, short_side_px=round(_ROOM * size.side_px))
    return PictureStream(
        repeated, None, TrainTransform(spec, scale=_SCALE, colour=0.0), batch_size=size.batch, shuffle=True, seed=seed,
        drop_last=True, store=store,
    )  # fmt: skip


@dataclass(frozen=True)
class Course:
    """How long a style network trains, and at which rates. limit_s: seconds of training, None = as long as it takes."""

    steps: int
    lr: float
    seed: int
    rules: Sequence[Rule] = (Rule(".*", 1.0),)
    limit_s: float | None = None


def train(
    task: Task,
    streams: Mapping[str, Stream],
    course: Course,
    machine: Machine,
    *,
    checkpoints: Path | None = None,
    on_step: Callable[[StepRecord], None] | None = None,
) -> FitResult:
    """Adam without decay, a short warm-up, a running average of the weights that is kept at the end."""
    settings = FitSettings(
        steps=course.steps,
        warmup=0.02,
        weight_decay=0.0,
        ema=0.995,
        seed=course.seed,
        limit_s=course.limit_s,
        checkpoint_every_s=60.0,
    )
    plan = RuleStrategy(course.rules).plan(task, course.lr)
    return fit(task, streams, plan, settings, machine, on_step=on_step, checkpoints=checkpoints)
