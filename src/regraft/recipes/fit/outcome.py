"""The end of a fit: figures from the test pictures, the artifact, and everything that the report is drawn from."""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np

from regraft.core.files import write_table, write_text
from regraft.data.split import Round
from regraft.engine import predict
from regraft.measure.bootstrap import Interval
from regraft.measure.choice import Candidate, choose
from regraft.measure.embedding import tsne
from regraft.measure.verdict import verdict
from regraft.recipes.fit.report import FIT
from regraft.recipes.fit.workbench import Workbench
from regraft.recipes.frame.budget import Schedule
from regraft.recipes.frame.reporting import publish
from regraft.strategies import ProbeHead
from regraft.tasks.kind import Calibration, Judged, Tested
from regraft.tasks.linear import LinearTask

#: At most this many pictures are placed on the map of features.
MAP_LIMIT = 1000


@dataclass
class RoundResult:
    """One round's candidates, and their test logits once the choice is made."""

    part: Round
    head: ProbeHead
    candidates: dict[str, Candidate]
    test_logits: dict[str, np.ndarray] = field(default_factory=dict)


@dataclass(frozen=True)
class Final:
    """The model that is handed over. refit: it learned from training and validation pictures together.

    head, solved_on: where the probe was chosen, its head and the pictures that the head was solved on, in the order of
    its out-of-fold logits.
    """

    task: LinearTask
    refit: bool
    head: ProbeHead | None = None
    solved_on: np.ndarray | None = None


@dataclass(frozen=True)
class _Pooled:
    """Test or validation logits of all rounds, one after the other."""

    indices: np.ndarray
    rounds: np.ndarray
    labels: np.ndarray
    logits: dict[str, np.ndarray]


def write_artifact_of(bench: Workbench, task: LinearTask, calibration: Calibration, metrics: Mapping[str, Any]) -> Path:
    """The run's artifact, with where backbone and labels came from."""
    config = bench.config
    provenance = {
        "recipe": "fit",
        "run": bench.run.path.name,
        "backbone": bench.backbone.provenance,
        "data": [Path(root).name for root in config.roots] or [Path(config.table or "").name],
        "seed": config.seed,
    }
    return bench.kind.pack(bench.run.artifact, task, calibration, provenance=provenance, metrics=metrics)


def conclude(
    bench: Workbench,
    *,
    results: list[RoundResult],
    final: Final,
    chosen: str,
    plan: Schedule | None,
    first: Mapping[str, Any],
    spent: Callable[[], float],
    command: str,
) -> None:
    """Write predictions, map, artifact, report.json and report.html."""
    if not bench.machine.is_first:
        return
    prepared, metric, config, kind = bench.prepared, bench.metric, bench.config, bench.kind
    test = _pool(results, "test", prepared.labels)
    val = _pool(results, "val", prepared.labels)
    if final.head is not None:  # each of its pictures was held out once in its cross-validation
        tuning_logits, tuning_labels = final.head.out_of_fold, prepared.labels[final.solved_on]
    else:
        tuning_logits, tuning_labels = val.logits[chosen], val.labels
    calibration = kind.calibrated(tuning_logits, tuning_labels)
    groups = prepared.groups(test.indices)
    if len(results) == 1:
        answers = {name: calibration.answers(logits) for name, logits in test.logits.items()}
        parts = [Tested(calibration, answers[chosen], test.labels)]
    else:
        answers = {
            name: _joined(_of_rounds(bench, results, [name] * len(results))) for name in test.logits if name != chosen
        }
        # The procedure as a whole: in every round the candidate that its own validation picked.
        parts = _of_rounds(bench, results, [choose([r.candidates], metric, kind.losses) for r in results])
        answers[chosen] = _joined(parts)
        # A picture is scored once per repeat; its answers are no independent samples.
        groups = test.indices if groups is None else groups
    options: dict[str, Any] = {"groups": groups, "resamples": config.resamples, "seed": config.seed}
    intervals = {name: kind.bootstrap(metric, p, test.labels, **options) for name, p in answers.items()}
    gain = None
    if "scratch" in answers:
        gain = kind.gain(metric, answers[chosen], answers["scratch"], test.labels, **options)
    own = intervals[chosen]
    answer = _verdict(bench, chosen, intervals, gain)
    figures = kind.summary(answers[chosen], test.labels)
    validation = {n: float(np.mean([r.candidates[n].value for r in results])) for n in results[0].candidates}
    write_artifact_of(
        bench,
        final.task,
        calibration,
        {"metric": metric, "value": own.value, "interval": own.bounds(), "candidate": chosen},
    )
    _write_predictions(bench, test, val, answers, calibration)
    bench.listener.progress("Drawing the report", 0, 1)
    _write_map(bench, final.task, test, answers[chosen])
    _write_plan(bench, chosen)
    n_train = len(np.unique(results[0].part.train)) + (len(results[0].part.val) if final.refit else 0)
    report: dict[str, Any] = {
        "recipe": FIT.recipe,
        "kind": kind.section.name,
        "data": ", ".join(Path(r).name or str(r) for r in config.roots) or Path(config.table or "").name,
        "backbone": config.backbone,
        "created": datetime.now(UTC).isoformat(timespec="seconds"),
        "metric": metric,
        "value": own.value,
        "interval": own.bounds(),
        "candidates": [
            {
                "name": name,
                "value": intervals[name].value,
                "interval": intervals[name].bounds(),
                "validation": validation[name],
                "seconds": sum(r.candidates[name].seconds for r in results),
                "trained_parameters": results[0].candidates[name].trained_parameters,
                "chosen": name == chosen,
                "stopped": results[0].candidates[name].stopped,
                "steps": results[0].candidates[name].steps,
            }
            for name in results[0].candidates
        ],
        "chosen": chosen,
        "transfer_gain": None if gain is None else {"value": gain.value, "interval": gain.bounds()},
        "verdict": answer[0],
        "helped": answer[1],
        "alarms": [
            *kind.alarms(
                metric,
                answers[chosen],
                test.labels,
                own,
                figures,
                n_test=len(np.unique(test.indices)),
                gain=gain,
                validation=validation[chosen],
                chosen=chosen,
            ),
            *hurried_control(plan, results[0].candidates.get("scratch"), answer[1]),
        ],
        "first_answer_s": first["seconds"],
        "first_answer": {k: first[k] for k in ("value", "interval", "how")},
        "n_train": n_train,
        "n_val": len(results[0].part.val),
        "n_test": len(np.unique(test.indices)),
        "evaluated_on": prepared.splits.evaluated_on,
        "summary": figures,
        "validation_summary": kind.summary(calibration.answers(tuning_logits), tuning_labels),
        **kind.report(
            Judged(
                calibration, answers[chosen], test.logits[chosen], test.labels, (tuning_logits, tuning_labels), parts
            )
        ),
        "audit": prepared.audit.to_json(),
        "notes": [*prepared.splits.notes, *_notes(final, results)],
        "reproduce": command,
        "seed": config.seed,
        "total_s": round(spent(), 2),
    }
    publish(bench.run.path, report)
    bench.listener.say(answer[0])


def _of_rounds(bench: Workbench, results: list[RoundResult], names: list[str]) -> list[Tested]:
    """Test answers of one candidate per round, each calibrated on its own round's validation pictures."""
    parts = []
    for result, name in zip(results, names, strict=True):
        found = result.candidates[name]
        calibration = bench.kind.calibrated(found.logits, found.labels)
        answers = calibration.answers(result.test_logits[name])
        parts.append(Tested(calibration, answers, bench.labels(result.part.test)))
    return parts


def _joined(parts: list[Tested]) -> np.ndarray:
    return np.concatenate([part.answers for part in parts])


def _verdict(
    bench: Workbench, chosen: str, intervals: Mapping[str, Interval], gain: Interval | None
) -> tuple[str, bool | None]:
    metric = bench.metric
    if gain is None:
        own = intervals[chosen]
        value, low, high = (bench.kind.shown(metric, number) for number in (own.value, own.low, own.high))
        return (
            f"{chosen} reached {value} [{low}, {high}] ({metric.replace('_', ' ')}); "
            "there was no control from scratch, so whether transfer helped is not known.",
            None,
        )
    found = verdict(metric, intervals[chosen], intervals["scratch"], gain, chosen_name=chosen)
    return found.sentence, found.helped


def hurried_control(plan: Schedule | None, control: Candidate | None, helped: bool | None) -> list[str]:
    """An alarm where transfer helped, and the control had so few epochs that nothing else was to be expected."""
    if plan is None or control is None or not helped or not plan.short or control.stopped == "early":
        return []
    more = (
        "More --epochs would give it a fairer chance."
        if plan.needed_s is None
        else f"On this machine --budget {math.ceil(plan.needed_s / 60)}m would give it all of them."
    )
    return [
        f"The control from scratch had {plan.epochs:.1f} epochs where {plan.usual:.0f} are usual for so many pictures: "
        f"the gain says what transfer is worth in this time, not what training from scratch can reach. {more}"
    ]


def _notes(final: Final, results: list[RoundResult]) -> list[str]:
    notes = []
    if final.refit and len(results) == 1:
        notes.append(
            "The chosen candidate and the control learned from training and validation pictures together at the end."
        )
    if final.refit and len(results) > 1:
        notes.append("The figures are from cross-validation; the model that is handed over learned from every picture.")
    for name, candidate in results[0].candidates.items():
        if candidate.stopped in {"early", "budget", "diverged"}:
            reasons = {
                "early": "validation no longer improved",
                "budget": "its time was up",
                "diverged": "its loss diverged",
            }
            notes.append(f"{name} stopped after {candidate.steps} steps: {reasons[candidate.stopped]}.")
    return notes


def _pool(results: list[RoundResult], which: str, labels: np.ndarray) -> _Pooled:
    parts = [getattr(r.part, which) for r in results]
    indices = np.concatenate(parts)
    names = list(results[0].candidates)
    logits = {
        n: np.concatenate([r.test_logits[n] if which == "test" else r.candidates[n].logits for r in results])
        for n in names
    }
    rounds = np.concatenate([np.full(len(part), k) for k, part in enumerate(parts)])
    return _Pooled(indices, rounds, labels[indices], logits)


def _write_predictions(
    bench: Workbench, test: _Pooled, val: _Pooled, answers: Mapping[str, np.ndarray], calibration: Calibration
) -> None:
    rows: dict[str, list[Any]] = defaultdict(list)
    pictures = bench.prepared.source.samples
    for split, pooled in (("val", val), ("test", test)):
        for name in pooled.logits:
            values = answers[name] if split == "test" else calibration.answers(pooled.logits[name])
            rows["path"] += [str(pictures[i].path) for i in pooled.indices]
            rows["split"] += [split] * len(pooled.indices)
            rows["round"] += pooled.rounds.tolist()
            rows["candidate"] += [name] * len(pooled.indices)
            for column, cells in bench.kind.columns(values, pooled.labels).items():
                rows[column] += cells
    write_table(bench.run.path / "predictions.parquet", rows)


def _write_map(bench: Workbench, task: LinearTask, test: _Pooled, answers: np.ndarray) -> None:
    """Where the final model's features put the test pictures."""
    some = np.arange(len(test.indices))
    if len(some) > MAP_LIMIT:
        some = np.sort(np.random.default_rng(bench.config.seed).choice(some, MAP_LIMIT, replace=False))
    stream = bench.streams.plain(test.indices[some])
    task.to(bench.machine.device)
    features = predict(task, stream, bench.machine, call=lambda x: task.backbone(x).pooled).outputs.numpy()
    kept, xy = tsne(features, seed=bench.config.seed, limit=MAP_LIMIT)
    at = some[kept]
    pictures = bench.prepared.source.samples
    rows = {
        "path": [str(pictures[i].path) for i in test.indices[at]],
        "split": ["test"] * len(at),
        **bench.kind.map_columns(answers[at], test.labels[at]),
        "x": xy[:, 0].tolist(),
        "y": xy[:, 1].tolist(),
    }
    write_table(bench.run.path / "embedding.parquet", rows)


def _write_plan(bench: Workbench, chosen: str) -> None:
    task = bench.task(chosen, None)
    write_text(bench.run.path / "plan.txt", f"{chosen}\n{bench.plan(chosen, task, bench.config.batch_size)}\n")
