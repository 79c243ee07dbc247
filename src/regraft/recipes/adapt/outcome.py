"""The end of an adaptation: the oracle's figures, the artifact, and everything that the report is drawn from."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any

import numpy as np

from regraft.adaptation.domains import Oracle
from regraft.adaptation.evidence.choice import Decision
from regraft.adaptation.training.answers import Adapted
from regraft.adaptation.training.bench import AdaptBench
from regraft.adaptation.training.prior import prior_rows
from regraft.core.files import write_table, write_text
from regraft.measure.bootstrap import Interval, bootstrap, paired_gain
from regraft.measure.embedding import tsne
from regraft.measure.metrics import score
from regraft.measure.open_set import open_set_figures
from regraft.measure.probabilities import softmax
from regraft.recipes.frame.job import Frame
from regraft.report.schema import write_report
from regraft.tasks.classification.task import Classification
from regraft.tasks.packing import pack
from regraft.tasks.prediction import UNKNOWN

#: Points of each domain on each map.
MAP_LIMIT = 400


def conclude_adaptation(
    bench: AdaptBench,
    candidates: list[Adapted],
    decision: Decision,
    oracle: Oracle | None,
    *,
    frame: Frame,
    first_s: float | None,
    command: str,
) -> None:
    """Write predictions, maps, artifact, report.json and report.html."""
    config, classes = bench.config, bench.classes
    model = bench.load(decision.name)
    assert isinstance(model, Classification)
    kept = next(c for c in candidates if c.name == decision.name)
    control = next(c for c in candidates if c.name == decision.control)
    setting = decision.setting
    judged = {}
    if oracle is not None:
        judged = {c.name: setting.probabilities(c.name, _judge(bench, c, oracle)) for c in candidates}
    strange = _open_set(bench, decision, kept, oracle, judged)
    temperature = decision.temperature
    calibration = setting.calibrations[kept.name].to_json()
    _pack(bench, model, decision)
    _write_predictions(bench, setting.probabilities(kept.name, kept.target_logits))
    bench.listener.progress("Drawing the report", 0, 1)
    _write_maps(bench, control, kept)
    write_text(bench.run.path / "plan.txt", decision.plan)
    gain, per_class = None, None
    if oracle is not None:
        options: dict[str, Any] = {"resamples": config.resamples, "seed": config.seed}
        gain = paired_gain("accuracy", judged[kept.name], judged[control.name], oracle.labels, **options)
        per_class = _per_class(judged[kept.name], judged[control.name], oracle.labels, classes)
        if strange is None:
            calibration |= _calibration_errors(judged[kept.name], oracle.labels, calibration)
    report: dict[str, Any] = {
        "recipe": "adapt",
        "data": frame.data,
        "backbone": config.backbone if config.source_free is None else str(bench.model.backbone.recipe.get("name")),
        "created": datetime.now(UTC).isoformat(timespec="seconds"),
        "metric": "accuracy",
        "value": None if oracle is None else _accuracy(judged[kept.name], oracle.labels),
        "interval": (None, None) if oracle is None else _interval(bench, judged[kept.name], oracle).bounds(),
        "candidates": [_row(bench, c, decision, oracle, judged) for c in candidates],
        "chosen": decision.name,
        "kept": decision.kept,
        "why": decision.why,
        "source_only": {
            "name": control.name,
            "source_accuracy": _source_accuracy(bench, control),
            "label_free_score": decision.score(control.name),
            "oracle": None if oracle is None else _accuracy(judged[control.name], oracle.labels),
        },
        "oracle_gain": None if gain is None else {"value": gain.value, "interval": gain.bounds()},
        "oracle_per_class": per_class,
        "setting": setting.name,
        "target_prior": prior_rows(
            bench, kept, temperature, rows=setting.known, partial=setting.name == "partial"
        ),
        "open_set": strange,
        "validators": decision.validators,
        "distance": decision.distance,
        "verdict": _verdict(decision, control.name, judged, oracle, gain, strange),
        "helped": decision.helped,
        "alarms": [*decision.alarms, *_oracle_alarms(gain, decision)],
        "next_steps": decision.next_steps,
        "first_answer_s": None if first_s is None else round(first_s, 2),
        "total_s": round(frame.clock.spent(), 2),
        "n_train": None if bench.source is None else len(bench.source.source),
        "n_test": None if oracle is None else len(oracle.labels),
        "n_target": len(bench.target.source),
        "sources": [source.to_json() for source in bench.sources],
        "evaluated_on": "no target label" if oracle is None else "the oracle's labels, read after the choice",
        "classes": list(classes),
        "temperature": temperature,
        "calibration": calibration,
        "audit": bench.target.audit.to_json(),
        "notes": list(decision.notes) + _notes(oracle),
        "reproduce": command,
        "seed": config.seed,
    }  # fmt: skip
    write_report(bench.run.path, report)
    from regraft.report.page import render  # matplotlib is wanted at the end only

    render(bench.run.path)
    bench.listener.say(str(report["verdict"]))


def _calibration_errors(p: np.ndarray, labels: np.ndarray, found: Mapping[str, Any]) -> dict[str, float | None]:
    """The oracle's expected calibration errors of probabilities (N, K), and with the source's temperature instead."""
    of_source = found["source_temperature"]
    logits = found["temperature"] * np.log(np.clip(p, 1e-300, 1))
    return {
        "oracle_ece": score("ece", p, labels),
        "oracle_ece_source": None if of_source is None else score("ece", softmax(logits, of_source), labels),
    }


def _judge(bench: AdaptBench, candidate: Adapted, oracle: Oracle) -> np.ndarray:
    """Logits (N, K) of a candidate on the oracle's pictures."""
    model = bench.load(candidate.name)
    known = {path.resolve(): i for i, path in enumerate(bench.target.source.paths)}
    places = [known.get(path.resolve()) for path in oracle.source.paths]
    if all(place is not None for place in places):  # the same pictures: their answers are there already
        return candidate.target_logits[np.array(places)]
    features = bench.features(model.backbone, oracle.source.paths, f"{candidate.name}: oracle")
    weight, bias = (part.numpy() for part in model.solved_head())
    return np.asarray(features @ weight.T + bias)


def _row(
    bench: AdaptBench, c: Adapted, decision: Decision, oracle: Oracle | None, judged: Mapping[str, np.ndarray]
) -> dict[str, Any]:
    found = None if oracle is None else _interval(bench, judged[c.name], oracle)
    return {
        "name": c.name,
        "method": c.name,
        "label_free_score": decision.score(c.name),
        "validators": decision.scores.get(c.name),
        "value": None if found is None else found.value,
        "interval": (None, None) if found is None else found.bounds(),
        "oracle": None if found is None else found.value,
        "source_accuracy": _source_accuracy(bench, c),
        "open_set": _open_set(bench, decision, c, oracle, judged),
        "seconds": round(c.seconds, 2),
        "trained_parameters": c.trained_parameters,
        "steps": c.steps,
        "chosen": c.name == decision.name,
    }


def _open_set(
    bench: AdaptBench, decision: Decision, c: Adapted, oracle: Oracle | None, judged: Mapping[str, np.ndarray]
) -> dict[str, Any] | None:
    """How a candidate parts the known from the unknown; None where every picture is of a known class by assumption."""
    setting, k = decision.setting, len(bench.classes)
    if setting.name != "open":
        return None
    found = {"unknown_share": float((setting.answers(c) == k).mean()), "threshold": setting.thresholds[c.name]}
    if oracle is None:
        return found
    return {**found, **open_set_figures(judged[c.name].argmax(1), oracle.labels, k)}


def _interval(bench: AdaptBench, probabilities: np.ndarray, oracle: Oracle) -> Interval:
    options: dict[str, Any] = {"resamples": bench.config.resamples, "seed": bench.config.seed}
    return bootstrap("accuracy", probabilities, oracle.labels, **options)


def _accuracy(probabilities: np.ndarray, labels: np.ndarray) -> float:
    return float((probabilities.argmax(1) == labels).mean())


def _source_accuracy(bench: AdaptBench, c: Adapted) -> float | None:
    if bench.source is None or c.source_logits is None:
        return None
    return _accuracy(c.source_logits, bench.source.labels[bench.source.held])


def _per_class(
    kept: np.ndarray, control: np.ndarray, labels: np.ndarray, classes: tuple[str, ...]
) -> list[dict[str, Any]]:
    rows = []
    for index in np.unique(labels):
        of = labels == index
        before, after = _accuracy(control[of], labels[of]), _accuracy(kept[of], labels[of])
        scores = {"source_only": before, "kept": after}
        scores |= {"source_only_f1": _f1(control, labels, index), "kept_f1": _f1(kept, labels, index)}
        name = classes[index] if index < len(classes) else UNKNOWN
        rows.append({"name": name, "n": int(of.sum()), **scores})
    return rows


def _f1(probabilities: np.ndarray, labels: np.ndarray, index: int) -> float:
    """F1 of one class that is among the labels: 2 TP / (answers + samples)."""
    answers = probabilities.argmax(1) == index
    return float(2 * (answers & (labels == index)).sum() / (answers.sum() + (labels == index).sum()))


def _verdict(
    decision: Decision, control: str, judged: Mapping[str, np.ndarray], oracle: Oracle | None, gain: Interval | None,
    strange: dict[str, Any] | None,
) -> str:  # fmt: skip
    if decision.kept == "source_only":
        text = f"Source-only is kept: {decision.why}"
    else:
        text = f"Adapted with {decision.name}: {decision.why}"
    if strange is not None:
        text += f" It calls {strange['unknown_share']:.1%} of the target unknown."
    if oracle is None or gain is None:
        return text + " No target label was read."
    if decision.kept == "source_only":
        return text + f" By the oracle it has {_accuracy(judged[control], oracle.labels):.1%}."
    return (
        text + f" By the oracle {_accuracy(judged[decision.name], oracle.labels):.1%} against "
        f"{_accuracy(judged[control], oracle.labels):.1%} source-only, {100 * gain.value:+.1f} points "
        f"[{100 * gain.low:.1f}, {100 * gain.high:.1f}]."
    )


def _oracle_alarms(gain: Interval | None, decision: Decision) -> list[str]:
    if gain is None or decision.kept == "source_only" or gain.high >= 0:
        return []
    return ["By the oracle the adapted model is worse than source-only: the label-free evidence misled."]


def _notes(oracle: Oracle | None) -> list[str]:
    if oracle is None or not oracle.unknown or oracle.keeps_unknown:
        return []
    names = ", ".join(oracle.unknown_classes[:8])
    return [f"{oracle.unknown} oracle pictures of classes that the source does not have ({names}) were left out."]


def _pack(bench: AdaptBench, model: Classification, decision: Decision) -> None:
    provenance = {
        "recipe": "adapt",
        "run": bench.run.path.name,
        "method": decision.name,
        "backbone": bench.model.backbone.provenance,
        "data": [path.name for path in (*bench.config.source, *bench.config.target)],
        "seed": bench.config.seed,
    }
    pack(
        bench.run.artifact, model, bench.classes, temperature=decision.temperature, threshold=decision.threshold,
        unknown=decision.setting.name == "open", provenance=provenance,
        metrics={"kept": decision.kept, "method": decision.name},
    )  # fmt: skip


def _write_predictions(bench: AdaptBench, probabilities: np.ndarray) -> None:
    """probabilities: (M, K), or with unknown ones (M, K + 1); `predicted` is K for unknown."""
    rows = {
        "path": [str(path) for path in bench.target.source.paths],
        "split": ["target"] * len(probabilities),
        "predicted": probabilities.argmax(1).tolist(),
        "probabilities": probabilities.astype(np.float32).tolist(),
    }
    write_table(bench.run.path / "predictions.parquet", rows)


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
