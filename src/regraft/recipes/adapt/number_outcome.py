"""The end of an adaptation of numbers: the oracle's figures, the artifact, and the report."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np

from regraft.adaptation.domains import OracleNumbers
from regraft.adaptation.evidence.choice import Choice
from regraft.adaptation.training.answers import Adapted
from regraft.adaptation.training.bench import AdaptBench
from regraft.core.files import write_table, write_text
from regraft.measure.bootstrap import Interval
from regraft.measure.conformal import UNKNOWN
from regraft.measure.regression import number_bootstrap, number_gain, number_summary
from regraft.measure.verdict import format_gain, format_number
from regraft.recipes.frame.job import Frame
from regraft.report.schema import write_report
from regraft.tasks.packing import pack_regression
from regraft.tasks.regression.task import Regression

METRIC = "mae"


def conclude_numbers(
    bench: AdaptBench,
    held: np.ndarray,
    candidates: list[Adapted],
    decision: Choice,
    oracle: OracleNumbers | None,
    *,
    frame: Frame,
    first_s: float,
    command: str,
) -> None:
    """Write predictions, artifact, report.json and report.html. held: numbers of the held-out source pictures."""
    config, target = bench.config, bench.target.source
    by_name = {c.name: c for c in candidates}
    kept, control = by_name[decision.name], by_name[decision.control]
    judged: dict[str, np.ndarray] = {}
    figures: dict[str, Interval] = {}
    gain: Interval | None = None
    options: dict[str, Any] = {"resamples": config.resamples, "seed": config.seed}
    if oracle is not None:
        judged = {c.name: _judge(bench, c, oracle) for c in candidates}
        figures = {name: number_bootstrap(METRIC, found, oracle.numbers, **options) for name, found in judged.items()}
        gain = number_gain(METRIC, judged[kept.name], judged[control.name], oracle.numbers, **options)
    _pack(bench, decision)
    rows = {
        "path": [str(path) for path in target.paths],
        "split": ["target"] * len(target),
        "predicted": kept.target_logits[:, 0].astype(float).tolist(),
    }
    write_table(bench.run.path / "predictions.parquet", rows)
    write_text(bench.run.path / "plan.txt", decision.plan)
    own = figures.get(kept.name)
    errors = {c.name: _source_error(c, held) for c in candidates}
    report: dict[str, Any] = {
        "recipe": "adapt",
        "data": frame.data,
        "backbone": config.backbone,
        "created": datetime.now(UTC).isoformat(timespec="seconds"),
        "metric": METRIC,
        "number": config.label,
        "value": None if own is None else own.value,
        "interval": (None, None) if own is None else own.bounds(),
        "candidates": [_row(c, decision, figures, errors) for c in candidates],
        "chosen": decision.name,
        "kept": decision.kept,
        "why": decision.why,
        "source_only": {
            "name": control.name,
            "source_error": errors[control.name],
            "label_free_score": decision.score(control.name),
            "oracle": None if not figures else figures[control.name].value,
        },
        "oracle_gain": None if gain is None else {"value": gain.value, "interval": gain.bounds()},
        "validators": decision.validators,
        "distance": decision.distance,
        "verdict": _verdict(decision, figures, gain),
        "helped": decision.helped,
        "alarms": [*decision.alarms, *_oracle_alarms(gain, decision)],
        "next_steps": decision.next_steps,
        "first_answer_s": round(first_s, 2),
        "total_s": round(frame.clock.spent(), 2),
        "n_train": None if bench.source is None else len(bench.source.source),
        "n_test": None if oracle is None else len(oracle.numbers),
        "n_target": len(target),
        "evaluated_on": "no target label" if oracle is None else "the oracle's numbers, read after the choice",
        "summary": None if oracle is None else number_summary(judged[kept.name], oracle.numbers),
        "audit": bench.target.audit.to_json(),
        "notes": [
            *decision.notes,
            "There is no interval around a predicted number: the source's residuals say nothing certain of the target.",
        ],
        "reproduce": command,
        "seed": config.seed,
    }
    write_report(bench.run.path, report)
    from regraft.report.page import render  # matplotlib is wanted at the end only

    render(bench.run.path)
    bench.listener.say(str(report["verdict"]))


def _judge(bench: AdaptBench, candidate: Adapted, oracle: OracleNumbers) -> np.ndarray:
    """A candidate's numbers (N,) on the oracle's pictures."""
    known = {path.resolve(): i for i, path in enumerate(bench.target.source.paths)}
    places = [known.get(path.resolve()) for path in oracle.source.paths]
    if all(place is not None for place in places):  # the same pictures: their answers are there already
        return np.asarray(candidate.target_logits[np.array(places), 0])
    model = bench.load(candidate.name)
    features = bench.features(model.backbone, oracle.source.paths, f"{candidate.name}: oracle")
    weight, bias = (part.numpy() for part in model.solved_head())
    return np.asarray((features @ weight.T + bias)[:, 0])


def _row(c: Adapted, decision: Choice, figures: Mapping[str, Interval], errors: Mapping[str, float]) -> dict[str, Any]:
    found = figures.get(c.name)
    return {
        "name": c.name,
        "method": c.name,
        "label_free_score": decision.score(c.name),
        "validators": decision.scores.get(c.name),
        "value": None if found is None else found.value,
        "interval": (None, None) if found is None else found.bounds(),
        "oracle": None if found is None else found.value,
        "source_error": errors[c.name],
        "seconds": round(c.seconds, 2),
        "trained_parameters": c.trained_parameters,
        "steps": c.steps,
        "chosen": c.name == decision.name,
    }


def _source_error(c: Adapted, held: np.ndarray) -> float:
    assert c.source_logits is not None
    return float(np.abs(c.source_logits[:, 0] - held).mean())


def _verdict(decision: Choice, figures: Mapping[str, Interval], gain: Interval | None) -> str:
    if decision.kept == "source_only":
        text = f"Source-only is kept: {decision.why}"
    else:
        text = f"Adapted with {decision.name}: {decision.why}"
    if gain is None:
        return text + " No target label was read."
    own, control = (format_number(figures[name].value) for name in (decision.name, decision.control))
    if decision.kept == "source_only":
        return text + f" By the oracle its mean absolute error is {own}."
    return (
        text
        + f" By the oracle the mean absolute error is {own} against {control} source-only, {format_gain(METRIC, gain)}."
    )


def _oracle_alarms(gain: Interval | None, decision: Choice) -> list[str]:
    if gain is None or decision.kept == "source_only" or gain.low <= 0:
        return []
    return ["By the oracle the adapted model is worse than source-only: the label-free evidence misled."]


def _pack(bench: AdaptBench, decision: Choice) -> None:
    config, model = bench.config, bench.load(decision.name)
    assert isinstance(model, Regression)
    provenance = {
        "recipe": "adapt",
        "run": bench.run.path.name,
        "method": decision.name,
        "backbone": bench.model.backbone.provenance,
        "data": [path.name for path in (Path(config.table or ""), *config.target)],
        "seed": config.seed,
    }
    pack_regression(
        bench.run.artifact, model, config.label, interval=UNKNOWN, provenance=provenance,
        metrics={"metric": METRIC, "kept": decision.kept, "method": decision.name},
    )  # fmt: skip
