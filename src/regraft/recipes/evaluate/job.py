"""`regraft evaluate`: a trained run on labelled pictures that it has not seen."""

from __future__ import annotations

import time
from collections.abc import Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np

from regraft.core.environment import command_line, describe
from regraft.core.files import read_json, write_json, write_table
from regraft.core.listener import Listener
from regraft.core.rundir import RunDirectory, artifact_of
from regraft.data.reading import read_source
from regraft.deploy.predictor import Predictor
from regraft.images.audit import audit
from regraft.measure.verdict import format_value
from regraft.recipes.evaluate.report import EVALUATE
from regraft.recipes.frame.reporting import publish
from regraft.tasks.kinds import kind_for, reading
from regraft.tasks.regression.kind import NumberKind


def run_evaluate(
    model: Path,
    roots: tuple[Path, ...],
    *,
    table: Path | None,
    image: str,
    label: str,
    group: str | None,
    device: str,
    runs: Path,
    listener: Listener,
) -> Path:
    """Score the model; writes a run directory of its own with report.json and report.html, and returns it."""
    started = time.monotonic()
    folder = artifact_of(model)
    predictor = Predictor.load(folder, device=device)
    kind = kind_for(predictor.packed)
    read_labels = reading("regression" if isinstance(kind, NumberKind) else "classification")
    source = read_source(
        list(roots), table=table, image_column=image, label_column=label, group=group, read_labels=read_labels
    )
    usable, facts, found = audit(source)
    labels = kind.labels_of(usable)
    listener.say(f"{len(usable.samples)} of {len(source.samples)} pictures are usable.")
    seen = _seen(folder, [f.sha256 for f in facts])
    answers = predictor.answers([p.path for p in usable.samples])
    metric = str(predictor.manifest.get("metrics", {}).get("metric", kind.usual_metric))
    names = [p.group or f.sha256 for p, f in zip(usable.samples, facts, strict=True)]
    groups = np.unique(names, return_inverse=True)[1] if group else None
    own = kind.bootstrap(metric, answers, labels, groups=groups)
    figures = kind.summary(answers, labels)
    warned = kind.alarms(metric, answers, labels, own, figures, n_test=len(labels))
    if seen:
        warned.insert(
            0, f"{seen} of these pictures were in the model's own training or validation: the figures are too good."
        )
    where = ", ".join(str(r) for r in roots) or str(table)
    config = {"model": str(folder), "data": where, "at": datetime.now(UTC).isoformat()}
    run, _ = RunDirectory.open(
        runs, "evaluate", Path(where).name, predictor.manifest["backbone"]["model"], config, fresh=True
    )
    write_json(run.path / "env.json", describe(0, device))
    _write_predictions(run.path, [str(p.path) for p in usable.samples], kind.columns(answers, labels))
    sentence = (
        f"{format_value(metric, own.value)} {metric.replace('_', ' ')} "
        f"[{format_value(metric, own.low)}, {format_value(metric, own.high)}] "
        f"on {len(labels)} pictures of {Path(where).name}."
    )
    report: dict[str, Any] = {
        "recipe": EVALUATE.recipe,
        "kind": kind.section.name,
        "data": where,
        "backbone": str(predictor.manifest["backbone"]["name"]),
        "created": datetime.now(UTC).isoformat(timespec="seconds"),
        "metric": metric,
        "value": own.value,
        "interval": own.bounds(),
        "candidates": [{"name": "model", "value": own.value, "interval": own.bounds(), "chosen": True}],
        "chosen": "model",
        "verdict": sentence,
        "alarms": warned,
        "total_s": round(time.monotonic() - started, 2),
        "n_test": len(labels),
        "evaluated_on": f"{where} ({len(labels)} pictures)",
        "summary": figures,
        **kind.evaluated(predictor.packed, answers, labels, {"groups": groups}),
        "audit": found.to_json(),
        "reproduce": command_line(),
        "model": str(folder),
    }
    publish(run.path, report)
    run.done()
    return run.path


def _seen(folder: Path, hashes: list[str]) -> int:
    """How many of these contents the model's own run trained or chose on; 0 where its run is not beside it."""
    split = folder.parent / "split.json"
    if not split.is_file():
        return 0
    known: set[str] = set()

    def collect(value: Any, part: str) -> None:
        if isinstance(value, dict):
            for key, inner in value.items():
                collect(inner, key)
        elif isinstance(value, list):
            for inner in value:
                collect(inner, part)
        elif isinstance(value, str) and part in {"train", "val"} and len(value) == 64:
            known.add(value)

    collect(read_json(split), "")
    return sum(h in known for h in hashes)


def _write_predictions(run: Path, paths: list[str], columns: Mapping[str, list[Any]]) -> None:
    rows = {
        "path": paths,
        "split": ["test"] * len(paths),
        "round": [0] * len(paths),
        "candidate": ["model"] * len(paths),
        **columns,
    }
    write_table(run / "predictions.parquet", rows)
