"""The end of an adaptation: the oracle's figures, the artifact, and everything that the report is drawn from."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Any

import numpy as np

from regraft.adaptation.domains import Oracle
from regraft.adaptation.evidence.choice import Choice
from regraft.adaptation.sides import Judged, Side
from regraft.adaptation.training.answers import Adapted
from regraft.adaptation.training.bench import AdaptBench
from regraft.core.environment import command_line
from regraft.core.files import write_table, write_text
from regraft.measure.bootstrap import Interval
from regraft.measure.embedding import tsne
from regraft.measure.metrics import metric_of
from regraft.recipes.adapt.report import ADAPT
from regraft.recipes.frame.job import Frame
from regraft.recipes.frame.reporting import publish

#: Points of each domain on each map.
MAP_LIMIT = 400


def conclude_adaptation(
    bench: AdaptBench,
    side: Side,
    candidates: list[Adapted],
    decision: Choice,
    oracle: Oracle | None,
    *,
    frame: Frame,
    first_s: float | None,
) -> None:
    """Write predictions, maps, artifact, report.json and report.html."""
    by_name = {c.name: c for c in candidates}
    kept, control = by_name[decision.name], by_name[decision.control]
    judged = None if oracle is None else _judged(bench, side, candidates, decision, oracle)
    _pack(bench, side, decision)
    _write_predictions(bench, side.columns(side.answers(decision, kept.name, kept.target_logits)))
    bench.listener.progress("Drawing the report", 0, 1)
    if side.maps:
        _write_maps(bench, control, kept)
    write_text(bench.run.path / "plan.txt", decision.plan)
    own = None if judged is None else judged.figures[kept.name]
    config = bench.config
    report: dict[str, Any] = {
        "recipe": ADAPT.recipe,
        "kind": bench.kind.name,
        "data": frame.data,
        "backbone": config.backbone if config.source_free is None else str(bench.model.backbone.recipe.get("name")),
        "created": datetime.now(UTC).isoformat(timespec="seconds"),
        "metric": side.metric,
        "value": None if own is None else own.value,
        "interval": _bounds(own),
        "candidates": [_row(bench, side, c, decision, judged) for c in candidates],
        "chosen": decision.name,
        "kept": decision.kept,
        "why": decision.why,
        "source_only": {
            "name": control.name,
            **side.source_figure(bench, control),
            "label_free_score": decision.score(control.name),
            "oracle": None if judged is None else judged.figures[control.name].value,
        },
        "oracle_gain": None if judged is None else {"value": judged.gain.value, "interval": judged.gain.bounds()},
        "validators": decision.validators,
        "distance": decision.distance,
        "verdict": side.verdict(bench, decision, kept, judged),
        "helped": decision.helped,
        "alarms": [*decision.alarms, *_oracle_alarms(side, judged, decision)],
        "next_steps": decision.next_steps,
        "first_answer_s": None if first_s is None else round(first_s, 2),
        "n_train": None if bench.source is None else len(bench.source.source),
        "n_test": None if oracle is None else len(oracle.labels),
        "n_target": len(bench.target.source),
        "evaluated_on": "no target label" if oracle is None else f"the oracle's {side.noun}, read after the choice",
        "audit": bench.target.audit.to_json(),
        "notes": [*decision.notes, *side.notes(oracle)],
        "reproduce": command_line(),
        "seed": config.seed,
        **side.fields(bench, decision, kept, judged),
        "total_s": round(frame.clock.spent(), 2),
    }
    publish(bench.run.path, report)
    bench.listener.say(str(report["verdict"]))


def _judged(bench: AdaptBench, side: Side, candidates: list[Adapted], decision: Choice, oracle: Oracle) -> Judged:
    """Every candidate's answers for the oracle's pictures, with their figures."""
    options: dict[str, Any] = {"resamples": bench.config.resamples, "seed": bench.config.seed}
    answers = {c.name: side.answers(decision, c.name, _outputs(bench, c, oracle)) for c in candidates}
    figures = {
        name: bench.kind.bootstrap(side.metric, found, oracle.labels, **options) for name, found in answers.items()
    }
    gain = bench.kind.gain(side.metric, answers[decision.name], answers[decision.control], oracle.labels, **options)
    return Judged(oracle, answers, figures, gain)


def _outputs(bench: AdaptBench, candidate: Adapted, oracle: Oracle) -> np.ndarray:
    """A candidate's head outputs (N, K) for the oracle's pictures."""
    known = {path.resolve(): i for i, path in enumerate(bench.target.source.paths)}
    places = [known.get(path.resolve()) for path in oracle.source.paths]
    if all(place is not None for place in places):  # the same pictures: their answers are there already
        return np.asarray(candidate.target_logits[np.array(places)])
    model = bench.load(candidate.name)
    features = bench.features(model.backbone, oracle.source.paths, f"{candidate.name}: oracle")
    weight, bias = (part.numpy() for part in model.solved_head())
    return np.asarray(features @ weight.T + bias)


def _bounds(found: Interval | None) -> Sequence[float | None]:
    return (None, None) if found is None else found.bounds()


def _row(bench: AdaptBench, side: Side, c: Adapted, decision: Choice, judged: Judged | None) -> dict[str, Any]:
    found = None if judged is None else judged.figures[c.name]
    return {
        "name": c.name,
        "method": c.name,
        "label_free_score": decision.score(c.name),
        "validators": decision.scores.get(c.name),
        "value": None if found is None else found.value,
        "interval": _bounds(found),
        "oracle": None if found is None else found.value,
        **side.source_figure(bench, c),
        **side.row(bench, decision, c, judged),
        "seconds": round(c.seconds, 2),
        "trained_parameters": c.trained_parameters,
        "steps": c.steps,
        "chosen": c.name == decision.name,
        "control": c.name == decision.control,
    }


def _oracle_alarms(side: Side, judged: Judged | None, decision: Choice) -> list[str]:
    if judged is None or decision.kept == "source_only":
        return []
    gain = judged.gain
    worse = gain.high < 0 if metric_of(side.metric).higher_is_better else gain.low > 0
    return ["By the oracle the adapted model is worse than source-only: the label-free evidence misled."] * worse


def _pack(bench: AdaptBench, side: Side, decision: Choice) -> None:
    provenance = {
        "recipe": "adapt",
        "run": bench.run.path.name,
        "method": decision.name,
        "backbone": bench.model.backbone.provenance,
        "data": side.data(bench.config),
        "seed": bench.config.seed,
    }
    side.pack(bench, bench.load(decision.name), decision, provenance)


def _write_predictions(bench: AdaptBench, columns: dict[str, list[Any]]) -> None:
    paths = [str(path) for path in bench.target.source.paths]
    write_table(bench.run.path / "predictions.parquet", {"path": paths, "split": ["target"] * len(paths), **columns})


def _write_maps(bench: AdaptBench, control: Adapted, kept: Adapted) -> None:
    """Both domains in one map, before and after: source pictures by their label, target ones by their answer."""
    if bench.source is None or control.source_features is None or kept.source_features is None:
        return
    rows: dict[str, list[Any]] = {k: [] for k in ("path", "stage", "domain", "label", "x", "y")}
    rng = np.random.default_rng(bench.config.seed)
    held = bench.source.held
    a = np.sort(rng.permutation(len(held))[:MAP_LIMIT])
    b = np.sort(rng.permutation(len(bench.target.source))[:MAP_LIMIT])
    paths = [str(p) for p in (*np.array(bench.source_paths(held))[a], *np.array(bench.target.source.paths)[b])]
    for stage, found in (("before", control), ("after", kept)):
        assert found.source_features is not None
        both = np.concatenate([found.source_features[a], found.target_features[b]])
        at, xy = tsne(both, seed=bench.config.seed, limit=2 * MAP_LIMIT)
        labels = np.concatenate([bench.source.labels[held][a], found.target_logits[b].argmax(1)])
        domains = ["source"] * len(a) + ["target"] * len(b)
        rows["path"] += [paths[i] for i in at]
        rows["stage"] += [stage] * len(at)
        rows["domain"] += [domains[i] for i in at]
        rows["label"] += labels[at].tolist()
        rows["x"] += xy[:, 0].tolist()
        rows["y"] += xy[:, 1].tolist()
    write_table(bench.run.path / "domains.parquet", rows)
