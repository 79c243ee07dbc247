"""What a fit leaves for reading later: answers to every picture, where the features put them, and who trained."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from regraft.core.files import write_table, write_text
from regraft.engine import predict
from regraft.measure.embedding import tsne
from regraft.recipes.fit.workbench import Workbench
from regraft.tasks.kind import Calibration
from regraft.tasks.linear import LinearTask

#: At most this many pictures are placed on the map of features.
MAP_LIMIT = 1000


@dataclass(frozen=True)
class Pooled:
    """Test or validation logits of all rounds, one after the other."""

    indices: np.ndarray
    rounds: np.ndarray
    labels: np.ndarray
    logits: dict[str, np.ndarray]


def write_predictions(
    bench: Workbench, test: Pooled, val: Pooled, answers: Mapping[str, np.ndarray], calibration: Calibration
) -> None:
    """Every candidate's answers on validation and test pictures."""
    rows: dict[str, list[Any]] = defaultdict(list)
    samples = bench.prepared.source.samples
    quoted = [bench.prepared.modality.excerpt(sample) for sample in samples]
    for split, pooled in (("val", val), ("test", test)):
        for name in pooled.logits:
            values = answers[name] if split == "test" else calibration.answers(pooled.logits[name])
            rows["path"] += [samples[i].name for i in pooled.indices]
            if any(quoted):
                rows["excerpt"] += [quoted[i] for i in pooled.indices]
            rows["split"] += [split] * len(pooled.indices)
            rows["round"] += pooled.rounds.tolist()
            rows["candidate"] += [name] * len(pooled.indices)
            for column, cells in bench.kind.columns(values, pooled.labels).items():
                rows[column] += cells
    write_table(bench.run.path / "predictions.parquet", rows)


def write_map(bench: Workbench, task: LinearTask, test: Pooled, answers: np.ndarray) -> None:
    """Where the final model's features put the test pictures."""
    some = np.arange(len(test.indices))
    if len(some) > MAP_LIMIT:
        some = np.sort(np.random.default_rng(bench.config.seed).choice(some, MAP_LIMIT, replace=False))
    stream = bench.streams.plain(test.indices[some])
    task.to(bench.machine.device)
    features = predict(task, stream, bench.machine, call=lambda x: task.backbone(x).pooled).outputs.numpy()
    kept, xy = tsne(features, seed=bench.config.seed, limit=MAP_LIMIT)
    at = some[kept]
    samples = bench.prepared.source.samples
    rows = {
        "path": [samples[i].name for i in test.indices[at]],
        "split": ["test"] * len(at),
        **bench.kind.map_columns(answers[at], test.labels[at]),
        "x": xy[:, 0].tolist(),
        "y": xy[:, 1].tolist(),
    }
    write_table(bench.run.path / "embedding.parquet", rows)


def write_plan(bench: Workbench, chosen: str) -> None:
    """Who trained in the chosen candidate."""
    strategy = bench.strategy(chosen)
    plan = bench.plan(strategy, bench.task(strategy, None), bench.config.batch_size)
    write_text(bench.run.path / "plan.txt", f"{chosen}\n{plan}\n")
