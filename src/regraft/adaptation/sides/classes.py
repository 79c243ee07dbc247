"""Classes under adaptation: every method, the class-wise evidence, and the oracle's figures per class."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from regraft.adaptation.domains import Labelled, Oracle, Unlabelled, read_oracle
from regraft.adaptation.evidence.choice import Choice, Decision, chosen_validators, decide, ranked
from regraft.adaptation.sides.base import Judged, Side, sides
from regraft.adaptation.sides.class_methods import check_priors, method_names
from regraft.adaptation.training.answers import Adapted
from regraft.adaptation.training.bench import SOURCE_ONLY, AdaptBench
from regraft.adaptation.training.prior import prior_rows
from regraft.core.errors import UsageError
from regraft.core.listener import Listener
from regraft.core.option_groups import AdaptationOptions
from regraft.data.classes import class_names
from regraft.data.labels import Cells, Labelling
from regraft.measure.metrics import score
from regraft.measure.open_set import open_set_figures
from regraft.measure.probabilities import softmax
from regraft.tasks.classification.calibration import ClassCalibration
from regraft.tasks.classification.reading import UNKNOWN
from regraft.tasks.classification.task import Classification
from regraft.tasks.linear import LinearTask
from regraft.tasks.packing import pack


@sides.register("classification")
class ClassSide(Side):
    """A class per picture; the target may lack some of the source's classes, or have others beside."""

    name = "classification"
    metric = "accuracy"
    maps = True
    varies = True

    def read_labels(self, cells: Cells | None) -> Labelling:
        return class_names(cells)

    def check(self, options: AdaptationOptions) -> None:
        methods = method_names(options)
        if options.keep is not None and options.keep not in (*methods, SOURCE_ONLY):
            raise UsageError(
                f"--keep {options.keep} is none of the candidates {', '.join((SOURCE_ONLY, *methods))}: "
                "name it by --method, too."
            )
        chosen_validators(options.validators, with_source=options.source_free is None, setting=options.setting)

    def check_model(self, options: AdaptationOptions, *, pretrained: bool) -> None:
        check_priors(options, pretrained=pretrained)

    def methods(self, options: AdaptationOptions) -> tuple[str, ...]:
        return method_names(options)

    def read_oracle(self, path: Path, names: tuple[str, ...], options: AdaptationOptions) -> Oracle:
        return read_oracle(path, names, max_bad=options.max_bad, keep_unknown=options.setting == "open")

    def tell(self, source: Labelled | None, target: Unlabelled, oracle: Oracle | None, listener: Listener) -> None:
        if source is not None:
            of = f" of {len(source.names)} domains ({', '.join(source.names)})" if source.several else ""
            listener.say(f"Source: {len(source.source)} pictures{of} in {len(source.classes)} classes.")
        listener.say(f"Target: {len(target.source)} pictures; their folders' names are not read as labels.")
        for name, report in (("source", source.audit if source else None), ("target", target.audit)):
            for finding in report.findings if report else ():
                if finding.severity != "info":
                    listener.say(f"  {finding.severity} ({name}): {finding.sentence}")
        if oracle is not None:
            counted = "count as unknown" if oracle.keeps_unknown else "are left out"
            left = f"; {oracle.unknown} of other classes {counted}" if oracle.unknown else ""
            listener.say(f"Oracle: {len(oracle.labels)} labelled target pictures, for the figures alone{left}.")

    def first(self, bench: AdaptBench, probe: Adapted) -> str:
        assert bench.source is not None and probe.source_logits is not None
        held = bench.source.labels[bench.source.held]
        own = float((probe.source_logits.argmax(1) == held).mean())
        return f"{own:.1%} on {len(held)} held-out source pictures"

    def ranked(self, bench: AdaptBench, candidates: list[Adapted]) -> list[str]:
        return ranked(bench, candidates)

    def decide(self, bench: AdaptBench, candidates: list[Adapted]) -> Choice:
        return decide(bench, candidates)

    def answers(self, choice: Choice, name: str, outputs: np.ndarray) -> np.ndarray:
        """Calibrated probabilities (N, K), with --setting open (N, K + 1)."""
        return _decision(choice).setting.probabilities(name, outputs)

    def source_figure(self, bench: AdaptBench, found: Adapted) -> dict[str, float | None]:
        if bench.source is None or found.source_logits is None:
            return {"source_accuracy": None}
        return {"source_accuracy": _accuracy(found.source_logits, bench.source.labels[bench.source.held])}

    def row(self, bench: AdaptBench, choice: Choice, found: Adapted, judged: Judged | None) -> dict[str, Any]:
        return {"open_set": _open_set(bench, _decision(choice), found, judged)}

    def fields(self, bench: AdaptBench, choice: Choice, kept: Adapted, judged: Judged | None) -> dict[str, Any]:
        decision = _decision(choice)
        setting, partial = decision.setting, decision.setting.name == "partial"
        calibration, strange = setting.calibrations[kept.name].to_json(), _open_set(bench, decision, kept, judged)
        per_class = None
        if judged is not None:
            own, labels = judged.answers[kept.name], judged.oracle.labels
            per_class = _per_class(own, judged.answers[decision.control], labels, bench.classes)
            if strange is None:
                calibration |= _calibration_errors(own, labels, calibration)
        return {
            "oracle_per_class": per_class,
            "setting": setting.name,
            "target_prior": prior_rows(bench, kept, decision.temperature, rows=setting.known, partial=partial),
            "open_set": strange,
            "sources": [source.to_json() for source in bench.sources],
            "classes": list(bench.classes),
            "temperature": decision.temperature,
            "calibration": calibration,
        }

    def verdict(self, bench: AdaptBench, choice: Choice, kept: Adapted, judged: Judged | None) -> str:
        text, strange = choice.reason, _open_set(bench, _decision(choice), kept, judged)
        if strange is not None:
            text += f" It calls {strange['unknown_share']:.1%} of the target unknown."
        if judged is None:
            return text + " No target label was read."
        own, control, gain = judged.figures[choice.name], judged.figures[choice.control], judged.gain
        if choice.kept == "source_only":
            return text + f" By the oracle it has {control.value:.1%}."
        return (
            text + f" By the oracle {own.value:.1%} against {control.value:.1%} source-only, "
            f"{100 * gain.value:+.1f} points [{100 * gain.low:.1f}, {100 * gain.high:.1f}]."
        )

    def columns(self, answers: np.ndarray) -> dict[str, list[Any]]:
        """answers: (M, K), or with unknown ones (M, K + 1); `predicted` is K for unknown."""
        return {"predicted": answers.argmax(1).tolist(), "probabilities": answers.astype(np.float32).tolist()}

    def notes(self, oracle: Oracle | None) -> list[str]:
        if oracle is None or not oracle.unknown or oracle.keeps_unknown:
            return []
        names = ", ".join(oracle.unknown_classes[:8])
        return [f"{oracle.unknown} oracle pictures of classes that the source does not have ({names}) were left out."]

    def pack(self, bench: AdaptBench, model: LinearTask, choice: Choice, provenance: Mapping[str, Any]) -> None:
        assert isinstance(model, Classification)
        decision = _decision(choice)
        rule = {"threshold": decision.threshold}
        calibration = ClassCalibration(decision.temperature, rule, unknown=decision.setting.name == "open")
        pack(
            bench.run.artifact, bench.kind, model, calibration, provenance=provenance,
            metrics={"kept": choice.kept, "method": choice.name},
        )  # fmt: skip


def _decision(choice: Choice) -> Decision:
    assert isinstance(choice, Decision), "classes are decided with what was assumed of them"
    return choice


def _accuracy(probabilities: np.ndarray, labels: np.ndarray) -> float:
    return float((probabilities.argmax(1) == labels).mean())


def _open_set(bench: AdaptBench, decision: Decision, c: Adapted, judged: Judged | None) -> dict[str, Any] | None:
    """How a candidate parts the known from the unknown; None where every picture is of a known class by assumption."""
    setting, k = decision.setting, len(bench.classes)
    if setting.name != "open":
        return None
    found = {"unknown_share": float((setting.answers(c) == k).mean()), "threshold": setting.thresholds[c.name]}
    if judged is None:
        return found
    return {**found, **open_set_figures(judged.answers[c.name].argmax(1), judged.oracle.labels, k)}


def _calibration_errors(p: np.ndarray, labels: np.ndarray, found: Mapping[str, Any]) -> dict[str, float | None]:
    """The oracle's expected calibration errors of probabilities (N, K), and with the source's temperature instead."""
    of_source = found["source_temperature"]
    logits = found["temperature"] * np.log(np.clip(p, 1e-300, 1))
    return {
        "oracle_ece": score("ece", p, labels),
        "oracle_ece_source": None if of_source is None else score("ece", softmax(logits, of_source), labels),
    }


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
