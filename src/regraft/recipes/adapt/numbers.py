"""`regraft adapt --task regression`: numbers in one domain, none in the other, on cached features.

As with classes: the source-only probe is the first answer; shallow maps, own statistics and the losses that need no
classes follow; the target's numbers, if there is an oracle, are handed to the outcome after the choice.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch

from regraft.adaptation.base import losses
from regraft.adaptation.domains import (
    Labelled,
    OracleNumbers,
    Unlabelled,
    read_labelled,
    read_oracle_numbers,
    read_unlabelled,
    split_record,
)
from regraft.adaptation.evidence.alarm import Alarm, Vote, vote
from regraft.adaptation.evidence.choice import Choice, next_steps
from regraft.adaptation.evidence.distances import domain_distance
from regraft.adaptation.evidence.number_evidence import judge_numbers, number_validators, own_r2, reverse_r2
from regraft.adaptation.evidence.validators import choose
from regraft.adaptation.maps.adapter import FeatureAdapter
from regraft.adaptation.maps.shallow import shallow
from regraft.adaptation.options import PRIORS, AdaptConfig
from regraft.adaptation.training.answers import Adapted
from regraft.adaptation.training.bench import PROBE, SOURCE_ONLY, AdaptBench
from regraft.adaptation.training.cached import ADABN, FeatureCandidates
from regraft.adaptation.training.method import is_method, parse_method
from regraft.adaptation.training.sources import WEIGHTING
from regraft.core.environment import command_line
from regraft.core.errors import UsageError, unknown_name
from regraft.core.listener import Listener
from regraft.core.rundir import RunDirectory
from regraft.data.split import fold_of
from regraft.engine import Machine
from regraft.images.backbones import create
from regraft.images.backbones.base import ImageBackbone
from regraft.recipes.adapt.number_outcome import conclude_numbers
from regraft.recipes.frame.clock import Clock
from regraft.recipes.frame.job import Brief, Frame, Job, look_with
from regraft.strategies import ProbeHead, fit_number_probe
from regraft.tasks.linear import LinearTask
from regraft.tasks.regression.labels import number_column
from regraft.tasks.regression.numbers import quantile_bins
from regraft.tasks.regression.task import Regression

#: What `--method auto` tries.
AUTO = ("standardise", "CORAL", ADABN, "DeepCORAL", "DAN")


class NumberBench(AdaptBench):
    """The bench of a source whose labels are numbers; there are no classes, and only cached features."""

    def __init__(
        self,
        config: AdaptConfig,
        source: Labelled,
        target: Unlabelled,
        backbone: ImageBackbone,
        machine: Machine,
        run: RunDirectory,
        listener: Listener,
    ) -> None:
        numbers = source.labels[source.train]
        self.centre, self.scale = float(numbers.mean()), float(numbers.std()) or 1.0
        super().__init__(config, source, target, self.blank(backbone), (), machine, run, listener)

    def head(self, features: np.ndarray, indices: np.ndarray) -> ProbeHead:
        labels = self.numbers[indices]
        folds = fold_of(self.units(indices), quantile_bins(labels), 5, self.config.seed)
        return fit_number_probe(features, labels, folds)

    def blank(self, backbone: ImageBackbone) -> LinearTask:
        return Regression(backbone, centre=torch.tensor([self.centre]), scale=torch.tensor([self.scale]))

    def on_features(self, features: np.ndarray) -> LinearTask:
        return self.blank(FeatureAdapter.scaled_to(features))  # type: ignore[arg-type]

    @property
    def numbers(self) -> np.ndarray:
        assert self.source is not None
        return self.source.labels

    @property
    def held(self) -> np.ndarray:
        """The numbers of held-out source pictures."""
        assert self.source is not None
        return self.source.labels[self.source.held]


@dataclass(frozen=True)
class NumberDomains:
    """What was read: a source with numbers, a target without, a pretrained network, and numbers for figures alone."""

    source: Labelled
    target: Unlabelled
    backbone: ImageBackbone
    oracle: OracleNumbers | None


class AdaptNumbers(Job[AdaptConfig, NumberDomains]):
    """`regraft adapt --task regression`."""

    recipe = "adapt"

    def check(self, options: AdaptConfig) -> None:
        number_methods(options.methods)
        number_tools(options.validators)

    def prepare(self, options: AdaptConfig, machine: Machine, listener: Listener) -> Brief[NumberDomains]:
        look = look_with(listener)
        source = read_labelled(
            options.source, table=options.table, image=options.image, label=options.label, group=options.group,
            max_bad=options.max_bad, seed=options.seed, progress=look,
            read_labels=number_column,
        )  # fmt: skip
        target = read_unlabelled(options.target, max_bad=options.max_bad, progress=look)
        backbone = create(options.backbone, options.weights)
        if not backbone.provenance:
            raise UsageError(
                f"{options.backbone} has no pretrained weights; a regression is adapted on a pretrained network's "
                "features: give --weights or another backbone."
            )
        oracle = None
        if options.oracle is not None:
            oracle = read_oracle_numbers(
                options.oracle, options.target, image=options.image, label=options.label, max_bad=options.max_bad
            )
        domains = NumberDomains(source, target, backbone, oracle)
        return Brief(domains, options.data_name, options.backbone.partition(":")[0], split_record(source, target))

    def work(self, options: AdaptConfig, material: NumberDomains, frame: Frame) -> None:
        source, target, listener = material.source, material.target, frame.listener
        bench = NumberBench(options, source, target, material.backbone, frame.machine, frame.run, listener)
        listener.say(f"Source: {len(source.source)} pictures with a number. Target: {len(target.source)} without.")
        candidates, first_s = _candidates(bench, number_methods(options.methods), frame.clock)
        decision = decide_numbers(bench, candidates, number_tools(options.validators))
        for line in decision.lines:
            listener.say(line)
        if frame.machine.is_first:
            # From here on nothing is chosen any more: the oracle's numbers may be used.
            conclude_numbers(
                bench, bench.held, candidates, decision, material.oracle, frame=frame, first_s=first_s,
                command=command_line(),
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


def _candidates(bench: NumberBench, methods: tuple[str, ...], clock: Clock) -> tuple[list[Adapted], float]:
    stage = FeatureCandidates(bench)
    found = [stage.probe()]
    first_s = clock.spent()
    error = _source_error(bench, found[0])
    bench.listener.say(
        f"First answer after {first_s:.1f} s: a probe on the source, mean absolute error {error:.4g} on "
        f"{len(bench.held)} held-out source pictures; how it does on the target is not known."
    )
    makers: list[tuple[str, Callable[[str], Adapted]]] = [(SOURCE_ONLY, stage.trained)]
    for name in methods:
        if name in shallow:
            makers.append((name, stage.shallow))
        elif name == ADABN and stage.own:
            makers.append((name, lambda _: stage.adabn()))
        elif is_method(name):
            makers.append((name, stage.trained))
    for name, make in makers:
        found.append(make(name))
        clock.keep()
        bench.listener.say(f"{name}: {found[-1].seconds:.1f} s.")
    return found, first_s


@dataclass(frozen=True)
class _Compared:
    """The best-ranked challenger against the better of the two source-only models."""

    best: Adapted
    control: Adapted
    votes: dict[str, Vote]
    found: Alarm


def decide_numbers(bench: NumberBench, candidates: list[Adapted], names: tuple[str, ...]) -> Choice:
    """Rank by the validators, compare the best with source-only, keep one.

    Source-only is the one of the two, probe or adapter, that errs less on the held-out source.
    """
    tools = {name: number_validators.get(name)() for name in names}
    views = {c.name: c.views(bench.held) for c in candidates}
    scores = {c: {v: tool.score(*views[c]) for v, tool in tools.items()} for c in views}
    ranking = choose(scores)
    by_name = {c.name: c for c in candidates}
    control = min((by_name[n] for n in (PROBE, SOURCE_ONLY)), key=lambda c: _source_error(bench, c))
    challengers = [c for c in candidates if c.name not in (PROBE, SOURCE_ONLY)]
    assert control.source_features is not None
    distances = {"before": domain_distance(control.source_features, control.target_features, seed=bench.config.seed)}
    if not challengers:
        compared = _Compared(control, control, {}, Alarm(False, "no method was tried."))
    else:
        best = min(challengers, key=lambda c: ranking.mean_rank[c.name])
        votes = {v: vote(t, views[best.name], views[control.name], seed=bench.config.seed) for v, t in tools.items()}
        found = judge_numbers(
            best.name,
            gap=distances["before"]["a_distance"],
            votes=votes,
            source_error=(_source_error(bench, best), _source_error(bench, control)),
            reverse=(reverse_r2(*views[best.name], seed=bench.config.seed), own_r2(views[best.name][0])),
            spread=(float(best.target_logits.std()), float(bench.numbers.std())),
        )
        compared = _Compared(best, control, votes, found)
        assert best.source_features is not None
        distances["after"] = domain_distance(best.source_features, best.target_features, seed=bench.config.seed)
    kept = compared.best if compared.found.keep_adapted else control
    ignored = "; ".join(f"{name} ({why})" for name, why in ranking.ignored.items())
    return Choice(
        name=kept.name,
        control=control.name,
        best=compared.best.name,
        kept="adapted" if compared.found.keep_adapted else "source_only",
        why=compared.found.why,
        scores=scores,
        ranks=dict(ranking.mean_rank),
        votes=compared.votes,
        distance=distances,
        alarms=compared.found.alarms,
        notes=(f"Not counted in the ranks: {ignored}.",) if ignored else (),
        next_steps=next_steps(compared.found, compared.best.name, numbers=True),
        plan=f"{kept.name}\nno parameter of the backbone is trained; the head is solved on the source's features\n",
    )


def _source_error(bench: NumberBench, found: Adapted) -> float:
    assert found.source_logits is not None
    return float(np.abs(found.source_logits[:, 0] - bench.held).mean())
