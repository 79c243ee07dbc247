"""The end of a fit: figures from the test pictures, the artifact, and everything that the report is drawn from."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np

from regraft.data.split import Round
from regraft.measure.bootstrap import Interval
from regraft.measure.choice import Candidate, choose
from regraft.measure.verdict import verdict
from regraft.recipes.fit.artifact import write_artifact_of
from regraft.recipes.fit.report import FIT
from regraft.recipes.fit.tables import Pooled, write_map, write_plan, write_predictions
from regraft.recipes.fit.workbench import Workbench
from regraft.recipes.frame.budget import Schedule
from regraft.recipes.frame.reporting import publish
from regraft.strategies import ProbeHead
from regraft.strategies.base import control_of
from regraft.tasks.kind import Judged, Scored, Tested
from regraft.tasks.linear import LinearTask


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
class Ended:
    """All that was trained, and what was chosen. first: the first answer. plan: None where nothing trained."""

    results: Sequence[RoundResult]
    final: Final
    chosen: str
    plan: Schedule | None
    first: Mapping[str, Any]


@dataclass(frozen=True)
class _Measured:
    """The test's figures. control: the control's name, None without one; parts: the chosen one's answers per round;
    tuning: outputs and labels that the calibration was made from; options: of the bootstrap."""

    test: Pooled
    val: Pooled
    calibration: Any
    tuning: tuple[np.ndarray, np.ndarray]
    answers: dict[str, np.ndarray]
    parts: list[Tested]
    intervals: dict[str, Interval]
    control: str | None
    gain: Interval | None
    options: dict[str, Any]


def conclude(bench: Workbench, ended: Ended, spent: Callable[[], float], command: str) -> None:
    """Write predictions, map, artifact, report.json and report.html."""
    if not bench.machine.is_first:
        return
    found = _measure(bench, ended)
    own = found.intervals[ended.chosen]
    write_artifact_of(
        bench,
        ended.final.task,
        found.calibration,
        {"metric": bench.metric, "value": own.value, "interval": own.bounds(), "candidate": ended.chosen},
    )
    write_predictions(bench, found.test, found.val, found.answers, found.calibration)
    bench.listener.progress("Drawing the report", 0, 1)
    write_map(bench, ended.final.task, found.test, found.answers[ended.chosen])
    write_plan(bench, ended.chosen)
    report = _report(bench, ended, found)
    report |= {"reproduce": command, "seed": bench.config.seed, "total_s": round(spent(), 2)}
    publish(bench.run.path, report)
    bench.listener.say(str(report["verdict"]))


def _measure(bench: Workbench, ended: Ended) -> _Measured:
    """Calibrate on validation, answer the test, and take figures with their intervals."""
    prepared, metric, config, kind = bench.prepared, bench.metric, bench.config, bench.kind
    results, final, chosen = ended.results, ended.final, ended.chosen
    test = _pool(results, "test", prepared.labels)
    val = _pool(results, "val", prepared.labels)
    if final.head is not None:  # each of its pictures was held out once in its cross-validation
        tuning = final.head.out_of_fold, prepared.labels[final.solved_on]
    else:
        tuning = val.logits[chosen], val.labels
    calibration = kind.calibrated(*tuning)
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
    control, gain = control_of(answers), None
    if control is not None:
        gain = kind.gain(metric, answers[chosen], answers[control], test.labels, **options)
    return _Measured(test, val, calibration, tuning, answers, parts, intervals, control, gain, options)


def _report(bench: Workbench, ended: Ended, found: _Measured) -> dict[str, Any]:
    """The fields of the report that are of figures and pictures."""
    prepared, metric, config, kind = bench.prepared, bench.metric, bench.config, bench.kind
    results, final, chosen, test = ended.results, ended.final, ended.chosen, found.test
    own, gain, answers = found.intervals[chosen], found.gain, found.answers[chosen]
    figures = kind.summary(answers, test.labels)
    validation = {n: float(np.mean([r.candidates[n].value for r in results])) for n in results[0].candidates}
    sentence, helped = _verdict(bench, ended, found)
    kept = chosen == found.control
    n_test = len(np.unique(test.indices))
    alarms = kind.alarms(Scored(metric, answers, test.labels, own, figures, n_test, gain, validation[chosen], kept))
    control = None if found.control is None else results[0].candidates[found.control]
    return {
        "recipe": FIT.recipe,
        "kind": bench.kind.name,
        "modality": bench.prepared.modality.name,
        "data": ", ".join(Path(r).name or str(r) for r in config.roots) or Path(config.table or "").name,
        "backbone": config.backbone,
        "created": datetime.now(UTC).isoformat(timespec="seconds"),
        "metric": metric,
        "value": own.value,
        "interval": own.bounds(),
        "candidates": [
            {
                "name": name,
                "value": found.intervals[name].value,
                "interval": found.intervals[name].bounds(),
                "validation": validation[name],
                "seconds": sum(r.candidates[name].seconds for r in results),
                "trained_parameters": results[0].candidates[name].trained_parameters,
                "chosen": name == chosen,
                "control": name == found.control,
                "stopped": results[0].candidates[name].stopped,
                "steps": results[0].candidates[name].steps,
            }
            for name in results[0].candidates
        ],
        "chosen": chosen,
        "transfer_gain": None if gain is None else {"value": gain.value, "interval": gain.bounds()},
        "verdict": sentence,
        "helped": helped,
        "alarms": [*alarms, *hurried_control(ended.plan, control, helped)],
        "first_answer_s": ended.first["seconds"],
        "first_answer": {k: ended.first[k] for k in ("value", "interval", "how")},
        "n_train": len(np.unique(results[0].part.train)) + (len(results[0].part.val) if final.refit else 0),
        "n_val": len(results[0].part.val),
        "n_test": n_test,
        "evaluated_on": prepared.splits.evaluated_on,
        "summary": figures,
        "validation_summary": kind.summary(found.calibration.answers(found.tuning[0]), found.tuning[1]),
        **kind.report(
            Judged(
                found.calibration, answers, test.logits[chosen], test.labels, found.tuning, found.parts, found.options
            )
        ),
        "audit": prepared.audit.to_json(),
        "notes": [*prepared.splits.notes, *_notes(final, results)],
    }


def _of_rounds(bench: Workbench, results: Sequence[RoundResult], names: Sequence[str]) -> list[Tested]:
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


def _verdict(bench: Workbench, ended: Ended, found: _Measured) -> tuple[str, bool | None]:
    metric, chosen = bench.metric, ended.chosen
    own = found.intervals[chosen]
    if found.control is None or found.gain is None:
        value, low, high = (bench.kind.shown(metric, number) for number in (own.value, own.low, own.high))
        return (
            f"{chosen} reached {value} [{low}, {high}] ({metric.replace('_', ' ')}); "
            "there was no control from scratch, so whether transfer helped is not known.",
            None,
        )
    said = verdict(metric, own, found.intervals[found.control], found.gain, control_kept=chosen == found.control)
    return said.sentence, said.helped


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


def _notes(final: Final, results: Sequence[RoundResult]) -> list[str]:
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
        if candidate.note:
            notes.append(f"{name}: {candidate.note}")
    return notes


def _pool(results: Sequence[RoundResult], which: str, labels: np.ndarray) -> Pooled:
    parts = [getattr(r.part, which) for r in results]
    indices = np.concatenate(parts)
    names = list(results[0].candidates)
    logits = {
        n: np.concatenate([r.test_logits[n] if which == "test" else r.candidates[n].logits for r in results])
        for n in names
    }
    rounds = np.concatenate([np.full(len(part), k) for k, part in enumerate(parts)])
    return Pooled(indices, rounds, labels[indices], logits)
