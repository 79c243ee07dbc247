"""Numbers under adaptation: on cached features alone, with the methods and the evidence that need no classes."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from regraft.adaptation.base import losses
from regraft.adaptation.domains import Labelled, Oracle, Unlabelled, read_oracle_numbers
from regraft.adaptation.evidence.choice import Choice
from regraft.adaptation.evidence.number_choice import decide_numbers, held_numbers, mean_error
from regraft.adaptation.evidence.number_evidence import number_validators
from regraft.adaptation.maps.shallow import shallow
from regraft.adaptation.options import PRIORS
from regraft.adaptation.sides.base import Judged, Side, sides
from regraft.adaptation.training.answers import Adapted
from regraft.adaptation.training.bench import AdaptBench
from regraft.adaptation.training.cached import ADABN
from regraft.adaptation.training.method import is_method, parse_method
from regraft.adaptation.training.sources import WEIGHTING
from regraft.core.errors import UsageError, unknown_name
from regraft.core.listener import Listener
from regraft.core.option_groups import AdaptationOptions
from regraft.data.labels import Cells, Labelling
from regraft.measure.conformal import UNKNOWN
from regraft.measure.regression import number_summary
from regraft.measure.verdict import format_gain, format_number
from regraft.tasks.linear import LinearTask
from regraft.tasks.packing import pack
from regraft.tasks.regression.calibration import NumberCalibration
from regraft.tasks.regression.labels import number_column
from regraft.tasks.regression.task import Regression

#: What `--method auto` tries.
AUTO = ("standardise", "CORAL", ADABN, "DeepCORAL", "DAN")


@sides.register("regression")
class NumberSide(Side):
    """A number per picture. Source-only is the probe or the adapter, whichever errs less on the held-out source."""

    name = "regression"
    metric = "mae"
    noun = "numbers"

    def read_labels(self, cells: Cells | None) -> Labelling:
        return number_column(cells)

    def check(self, options: AdaptationOptions) -> None:
        number_methods(options.methods)
        number_tools(options.validators)

    def check_model(self, options: AdaptationOptions, *, pretrained: bool) -> None:
        if not pretrained:
            raise UsageError(
                f"{options.backbone} has no pretrained weights; a regression is adapted on a pretrained network's "
                "features: give --weights or another backbone."
            )

    def methods(self, options: AdaptationOptions) -> tuple[str, ...]:
        return number_methods(options.methods)

    def read_oracle(self, path: Path, names: tuple[str, ...], options: AdaptationOptions) -> Oracle:
        return read_oracle_numbers(
            path, options.target, image=options.image, label=options.label, max_bad=options.max_bad
        )

    def tell(self, source: Labelled | None, target: Unlabelled, oracle: Oracle | None, listener: Listener) -> None:
        assert source is not None
        listener.say(f"Source: {len(source.source)} pictures with a number. Target: {len(target.source)} without.")

    def first(self, bench: AdaptBench, probe: Adapted) -> str:
        error, held = mean_error(bench, probe), held_numbers(bench)
        return f"mean absolute error {error:.4g} on {len(held)} held-out source pictures"

    def decide(self, bench: AdaptBench, candidates: list[Adapted]) -> Choice:
        return decide_numbers(bench, candidates, number_tools(bench.config.validators))

    def answers(self, choice: Choice, name: str, outputs: np.ndarray) -> np.ndarray:
        return np.asarray(outputs[:, 0])

    def source_figure(self, bench: AdaptBench, found: Adapted) -> dict[str, float | None]:
        return {"source_error": mean_error(bench, found)}

    def fields(self, bench: AdaptBench, choice: Choice, kept: Adapted, judged: Judged | None) -> dict[str, Any]:
        summary = None if judged is None else number_summary(judged.answers[kept.name], judged.oracle.labels)
        return {"number": bench.config.label, "summary": summary}

    def verdict(self, bench: AdaptBench, choice: Choice, kept: Adapted, judged: Judged | None) -> str:
        text = choice.reason
        if judged is None:
            return text + " No target label was read."
        own, control = (format_number(judged.figures[name].value) for name in (choice.name, choice.control))
        if choice.kept == "source_only":
            return text + f" By the oracle its mean absolute error is {own}."
        return (
            text + f" By the oracle the mean absolute error is {own} against {control} source-only, "
            f"{format_gain(self.metric, judged.gain)}."
        )

    def columns(self, answers: np.ndarray) -> dict[str, list[Any]]:
        return {"predicted": answers.astype(float).tolist()}

    def data(self, options: AdaptationOptions) -> list[str]:
        return [path.name for path in (options.table or Path(), *options.target)]

    def notes(self, oracle: Oracle | None) -> list[str]:
        return [
            "There is no interval around a predicted number: the source's residuals say nothing certain of the target."
        ]

    def pack(self, bench: AdaptBench, model: LinearTask, choice: Choice, provenance: Mapping[str, Any]) -> None:
        assert isinstance(model, Regression)
        pack(
            bench.run.artifact, bench.kind, model, NumberCalibration(UNKNOWN), provenance=provenance,
            metrics={"metric": self.metric, "kept": choice.kept, "method": choice.name},
        )  # fmt: skip


def number_methods(asked: tuple[str, ...]) -> tuple[str, ...]:
    """The methods to try, `auto` spelled out; UsageError for one that is unknown or about classes."""
    able = {ADABN, *(n for n in shallow if not shallow.get(n).reads_labels)}
    able |= {n for n in losses if not losses.get(n).needs_classes and not losses.get(n).continues}
    names = tuple(dict.fromkeys(n for name in asked for n in (AUTO if name == "auto" else (name,))))
    for name in names:
        base = name.partition(":")[0]
        if base in able:
            if is_method(name):
                parse_method(name).build(4, 0)  # an option that a loss refuses is told before anything else is done
            continue
        if name == WEIGHTING:
            raise UsageError(
                f"{WEIGHTING} compares source folders, and a table of numbers is one source: leave it out."
            )
        if base in losses or name in shallow or name in PRIORS:
            raise UsageError(f"{name} is about classes. With numbers these can work: {', '.join(sorted(able))}.")
        raise unknown_name("adaptation method", name, {*able, "auto"})
    return names


def number_tools(asked: tuple[str, ...]) -> tuple[str, ...]:
    """The validators that rank; DEV is always among them, since it decides."""
    known = number_validators.names()
    names = tuple(dict.fromkeys(n for name in asked for n in (known if name == "auto" else (name,))))
    for name in names:
        if name not in known:
            raise UsageError(
                f"The validator {name} is about classes. With numbers these can score: {', '.join(known)}."
            )
    return tuple(dict.fromkeys(("DEV", *names)))
