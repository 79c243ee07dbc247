"""The beginning of a fit: features of every picture but the test ones, and on them the probe: the first answer."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from regraft.core.files import read_json, write_json
from regraft.core.types import Backbone, Layered
from regraft.data.split import Round
from regraft.measure.choice import lower_by_an_error
from regraft.recipes.fit.artifact import write_artifact_of
from regraft.recipes.fit.features import extract_features
from regraft.recipes.fit.workbench import Workbench
from regraft.recipes.frame.clock import Clock
from regraft.strategies import ProbeHead
from regraft.strategies.base import first_solved

#: With more pictures than this readout=auto takes the last layer's: a head over all layers takes minutes then.
MOST_FOR_LAYERS = 3000


@dataclass(frozen=True)
class Beginning:
    """Features (N, D) of all usable pictures, test rows zero; the probe on the known ones; and what it promises.

    answer: the first answer as the report has it, with its seconds. of_training: the probe of the one round's training
    part, where choosing the features has solved it already.
    """

    features: np.ndarray
    head: ProbeHead
    answer: dict[str, Any]
    of_training: ProbeHead | None = None


def begin(bench: Workbench, clock: Clock, rounds: Sequence[Round]) -> Beginning:
    """Features of the known pictures and the probe on them: the last layer's, or with readout=auto all, where these
    serve better.

    Both are there after one pass over the pictures; the training part alone decides, so validation still judges what
    was chosen. With folds every picture is a test picture in turn, and the last layer's are taken. It has to be asked
    for: where training pictures overlap, as the demo's do, early layers know them again, and the loss out of fold
    misleads.
    """
    known = bench.prepared.known()
    narrow = bench.backbone
    if isinstance(narrow, Layered):
        raw = whole_features(bench, known, "choose")
        features = np.zeros_like(raw)
        features[known] = narrow.scale_by(raw[known])
        bench.use(narrow)
        return _answered(bench, clock, features, known)
    few = len(rounds) == 1 and len(known) <= MOST_FOR_LAYERS
    asked = bench.backbone.recipe.get("options", {}).get("readout") == "auto"
    wide = bench.prepared.modality.with_layers(narrow) if few and asked else None
    if wide is None:
        return _answered(bench, clock, whole_features(bench, known, "choose"), known)
    return _readout(bench, clock, narrow, wide, rounds[0].train)


def _readout(bench: Workbench, clock: Clock, narrow: Backbone, wide: Backbone, train: np.ndarray) -> Beginning:
    """The beginning with the last layer's features, or with all layers' where these serve better in training."""
    assert isinstance(wide, Layered)
    known = bench.prepared.known()
    bench.use(wide)
    raw = whole_features(bench, known, "choose")
    bench.use(narrow)
    begun = _answered(bench, clock, np.ascontiguousarray(raw[:, : narrow.feature_dim]), known)
    layered = np.zeros_like(raw)
    layered[known] = wide.scale_by(raw[known])
    labels = bench.labels(train)
    narrow_head = bench.probe(begun.features[train], train)
    bench.use(wide)
    wide_head = bench.probe(layered[train], train)
    of_last, of_all = (bench.kind.losses(h.out_of_fold, labels) for h in (narrow_head, wide_head))
    if lower_by_an_error(of_all, of_last):
        bench.listener.say(
            f"All layers serve better than the last one (loss out of fold {of_last.mean():.3f} → "
            f"{of_all.mean():.3f}): they are the features from here."
        )
        return Beginning(layered, bench.probe(layered[known], known), begun.answer, wide_head)
    bench.use(narrow)
    return Beginning(begun.features, begun.head, begun.answer, narrow_head)


def whole_features(bench: Workbench, indices: np.ndarray, name: str, *, half: bool = True) -> np.ndarray:
    """Pooled features of all usable pictures in their numbering; rows outside `indices` stay zero."""
    kept = bench.run.path / "work" / f"features-{name}.safetensors"
    rows = extract_features(bench, indices, kept, half=half)
    whole = np.zeros((len(bench.prepared.labels), rows.shape[1]), dtype=np.float32)
    whole[indices] = rows
    return whole


def _answered(bench: Workbench, clock: Clock, features: np.ndarray, known: np.ndarray) -> Beginning:
    """Solve the probe on everything but the test pictures; its out-of-fold figure is the first answer."""
    head = bench.probe(features[known], known)
    kept = bench.run.path / "work" / "first.json"
    if kept.is_file():
        return Beginning(features, head, read_json(kept))
    estimate = bench.kind.bootstrap(
        bench.metric,
        bench.kind.uncalibrated.answers(head.out_of_fold),
        bench.labels(known),
        groups=bench.prepared.groups(known),
        resamples=500,
        seed=bench.config.seed,
    )
    name = first_solved()
    answer = {
        "seconds": round(clock.spent(), 2),
        "value": estimate.value,
        "interval": [estimate.low, estimate.high],
        "how": f"{name} ({head.kind}), cross-validated on {len(known)} pictures",
    }
    if head.source_classes:
        of = ", ".join(
            f"{name} as {source}"
            for name, source in zip(bench.prepared.source.classes, head.source_classes, strict=True)
        )
        bench.listener.say(
            f"The weights' own classifier knows classes like these, by their numbers there: {of}. If they are the "
            "very same, the pretraining may have seen such pictures with their labels."
        )
    value, low, high = (
        bench.kind.shown(bench.metric, number) for number in (estimate.value, estimate.low, estimate.high)
    )
    bench.listener.say(
        f"First answer after {answer['seconds']:.1f} s: {bench.metric.replace('_', ' ')} "
        f"{value} [{low}, {high}], {answer['how']}."
    )
    if bench.machine.is_first:
        # The probe can be used at once; a better candidate replaces it at the end.
        task, metrics = bench.task(bench.strategy(name), head), {"candidate": name, "preliminary": True}
        write_artifact_of(bench, task, bench.kind.uncalibrated, metrics)
        write_json(kept, answer)
    clock.keep()
    return Beginning(features, head, answer)
