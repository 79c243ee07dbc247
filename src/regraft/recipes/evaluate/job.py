"""`regraft evaluate`: a trained run on labelled pictures that it has not seen."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np

from regraft.core.environment import command_line
from regraft.core.files import read_json, write_table
from regraft.core.listener import Listener
from regraft.core.rundir import artifact_of
from regraft.data.audit import Audit, audit
from regraft.data.facts import Facts, units
from regraft.data.modality import Modality
from regraft.data.reading import Reading, read_source
from regraft.data.source import Source
from regraft.deploy.predictor import Predictor
from regraft.engine import Machine
from regraft.measure.verdict import format_value
from regraft.recipes.evaluate.options import EvaluateConfig
from regraft.recipes.evaluate.report import EVALUATE
from regraft.recipes.frame.job import Brief, Frame, Job, run_job
from regraft.recipes.frame.reporting import publish
from regraft.tasks.kind import Kind, Scored


@dataclass(frozen=True)
class Judged:
    """What was read: the model with its kind of labels, and the usable samples with what the audit knows of them."""

    folder: Path
    predictor: Predictor
    kind: Kind
    usable: Source
    facts: list[Facts]
    audit: Audit
    where: str


class Evaluate(Job[EvaluateConfig, Judged]):
    """`regraft evaluate`. `LAST` goes on naming the newest run that has a model."""

    recipe = "evaluate"
    as_last = False

    def prepare(self, options: EvaluateConfig, machine: Machine, listener: Listener) -> Brief[Judged]:
        folder = artifact_of(options.model)
        predictor = Predictor.load(folder, device=options.device)
        kind = predictor.packed.kind
        modality = predictor.modality
        how = Reading(
            table=options.table,
            column=(options.text or predictor.column) if modality.inline else options.image,
            label=options.label,
            group=options.group,
            read_labels=kind.read_labels,
        )
        source = read_source(list(options.roots), modality, how)
        usable, facts, found = audit(source, modality)
        listener.say(f"{len(usable.samples)} of {len(source.samples)} {source.many} are usable.")
        where = ", ".join(str(root) for root in options.roots) or str(options.table)
        judged = Judged(folder, predictor, kind, usable, facts, found, where)
        return Brief(judged, Path(where).name, predictor.manifest["backbone"]["model"])

    def foresee(self, options: EvaluateConfig, material: Judged, machine: Machine) -> list[str]:
        seen = _seen(material.folder, [f.sha256 for f in material.facts])
        return [f"{len(material.usable.samples)} pictures, {seen} of them in the model's own training or validation."]

    def work(self, options: EvaluateConfig, material: Judged, frame: Frame) -> None:
        predictor, kind, usable, where = material.predictor, material.kind, material.usable, material.where
        labels = kind.labels_of(usable)
        seen = _seen(material.folder, [f.sha256 for f in material.facts])
        calibration = predictor.packed.calibration
        answers = calibration.scored(predictor.answers(usable.samples))
        metric = str(predictor.manifest.get("metrics", {}).get("metric", kind.usual_metric))
        names = units(usable, material.facts)
        groups = np.unique(names, return_inverse=True)[1] if options.group else None
        own = kind.bootstrap(metric, answers, labels, groups=groups)
        figures = kind.summary(answers, labels)
        warned = kind.alarms(Scored(metric, answers, labels, own, figures, len(labels)))
        if seen:
            told = f"{seen} of these {usable.many} were in the model's own training or validation"
            warned.insert(0, f"{told}: the figures are too good.")
        _write_predictions(frame.run.path, predictor.modality, usable, kind.columns(answers, labels))
        sentence = (
            f"{format_value(metric, own.value)} {metric.replace('_', ' ')} "
            f"[{format_value(metric, own.low)}, {format_value(metric, own.high)}] "
            f"on {len(labels)} {usable.many} of {frame.data}."
        )
        report: dict[str, Any] = {
            "recipe": EVALUATE.recipe,
            "kind": kind.name,
            "modality": predictor.modality.name,
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
            "total_s": round(frame.clock.spent(), 2),
            "n_test": len(labels),
            "evaluated_on": f"{where} ({len(labels)} {usable.many})",
            "summary": figures,
            **kind.evaluated(calibration, answers, labels, {"groups": groups}),
            "audit": material.audit.to_json(),
            "reproduce": command_line(),
            "model": str(material.folder),
        }
        publish(frame.run.path, report)


def run_evaluate(config: EvaluateConfig, *, runs: Path = Path("runs"), listener: Listener | None = None) -> Path:
    """Score the model; writes a run directory of its own with report.json and report.html, and returns it."""
    return run_job(Evaluate(), config, runs=runs, fresh=True, listener=listener)


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


def _write_predictions(run: Path, modality: Modality, usable: Source, columns: Mapping[str, list[Any]]) -> None:
    count = len(usable)
    quoted = [modality.excerpt(sample) for sample in usable.samples]
    rows = {
        "path": [sample.name for sample in usable.samples],
        **({"excerpt": quoted} if any(quoted) else {}),
        "split": ["test"] * count,
        "round": [0] * count,
        "candidate": ["model"] * count,
        **columns,
    }
    write_table(run / "predictions.parquet", rows)
