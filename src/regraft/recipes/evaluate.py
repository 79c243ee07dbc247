"""`regraft evaluate`: a trained run on labelled pictures that it has not seen."""

from __future__ import annotations

import time
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from regraft.core.environment import command_line, describe
from regraft.core.errors import DataError
from regraft.core.files import read_json, replacing, write_json
from regraft.core.rundir import RunDirectory, artifact_of
from regraft.data.audit import audit
from regraft.data.source import read_source
from regraft.deploy.predictor import Predictor
from regraft.measure.bootstrap import bootstrap
from regraft.measure.calibration import reliability
from regraft.measure.metrics import summary
from regraft.measure.verdict import alarms, format_value
from regraft.recipes.listener import Listener
from regraft.report.page import render
from regraft.report.schema import write_report


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
    source = read_source(list(roots), table=table, image_column=image, label_column=label, group=group)
    usable, facts, found = audit(source)
    strange = sorted(set(usable.classes) - set(predictor.labels))
    if strange:
        raise DataError(
            f"The pictures have classes that the model does not know ({', '.join(strange[:5])}); it knows "
            f"{', '.join(predictor.labels[:20])}. Rename the folders, or leave these out."
        )
    listener.say(f"{len(usable.pictures)} of {len(source.pictures)} pictures are usable.")
    seen = _seen(folder, [f.sha256 for f in facts])
    index = {name: i for i, name in enumerate(predictor.labels)}
    labels = np.asarray([index[str(p.label)] for p in usable.pictures], dtype=np.int64)
    probabilities = predictor.probabilities([p.path for p in usable.pictures])
    metric = str(predictor.manifest.get("metrics", {}).get("metric", "accuracy"))
    names = [p.group or f.sha256 for p, f in zip(usable.pictures, facts, strict=True)]
    groups = np.unique(names, return_inverse=True)[1] if group else None
    own = bootstrap(metric, probabilities, labels, groups=groups)
    figures = summary(probabilities, labels, predictor.labels)
    intervals = {
        name: bootstrap(name, probabilities, labels, groups=groups).to_json()
        for name in ("accuracy", "balanced_accuracy", "macro_f1", "auc", "ece")
    }
    warned = alarms(metric_name=metric, chosen=own, summary=figures, n_test=len(labels))
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
    _write_predictions(run.path, [str(p.path) for p in usable.pictures], labels, probabilities)
    sentence = (
        f"{format_value(metric, own.value)} {metric.replace('_', ' ')} "
        f"[{format_value(metric, own.low)}, {format_value(metric, own.high)}] "
        f"on {len(labels)} pictures of {Path(where).name}."
    )
    report: dict[str, Any] = {
        "recipe": "evaluate",
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
        "classes": list(predictor.labels),
        "summary": figures,
        "reliability_after": reliability(probabilities, labels),
        "temperature": float(predictor.manifest["temperature"]),
        "audit": found.to_json(),
        "reproduce": command_line(),
        "intervals": intervals,
        "model": str(folder),
    }
    write_report(run.path, report)
    render(run.path)
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


def _write_predictions(run: Path, paths: list[str], labels: np.ndarray, probabilities: np.ndarray) -> None:
    rows = {
        "path": paths,
        "split": ["test"] * len(paths),
        "round": [0] * len(paths),
        "candidate": ["model"] * len(paths),
        "label": labels.tolist(),
        "probabilities": probabilities.astype(np.float32).tolist(),
    }
    with replacing(run / "predictions.parquet") as temporary:
        pq.write_table(pa.table(rows), temporary)
