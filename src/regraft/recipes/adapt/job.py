"""`regraft adapt`: labels in one domain, none in the other; the model for the other that the evidence supports.

Order: audit of both domains, the source-only probe (the first answer), shallow methods on cached features, then
source-only training and the methods for as many steps. Which candidate is kept is decided by label-free validators and
the negative-transfer alarm; `--oracle` is checked at the start and handed to the outcome alone, after that decision.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np

from regraft.adaptation.altered.streams import ACQUISITION, BIGAUG, RESTYLE
from regraft.adaptation.base import losses
from regraft.adaptation.domains import (
    Labelled,
    Oracle,
    Unlabelled,
    read_labelled,
    read_oracle,
    read_unlabelled,
    split_record,
)
from regraft.adaptation.evidence.choice import chosen_validators, decide, ranked
from regraft.adaptation.maps.shallow import shallow
from regraft.adaptation.maps.statistics import has_statistics
from regraft.adaptation.options import AUTO, AUTO_OPEN, OPEN_ALONE, PRIORS, AdaptConfig
from regraft.adaptation.training.answers import Adapted
from regraft.adaptation.training.bench import SOURCE_ONLY, AdaptBench
from regraft.adaptation.training.cached import ADABN, FeatureCandidates
from regraft.adaptation.training.method import is_method, parse_method, variations
from regraft.adaptation.training.sources import FOR_SEVERAL, WEIGHTING
from regraft.core.environment import command_line
from regraft.core.errors import UsageError, unknown_name
from regraft.core.files import read_json, write_json
from regraft.core.listener import Listener
from regraft.core.rundir import artifact_of
from regraft.engine import Machine
from regraft.images.backbones import create
from regraft.images.backbones.catalogue import parse
from regraft.recipes.adapt.outcome import conclude_adaptation
from regraft.recipes.frame.clock import Clock
from regraft.recipes.frame.job import Brief, Frame, Job, look_with, run_job
from regraft.tasks.classification.task import Classification
from regraft.tasks.packing import unpack

#: Without --budget and --epochs: pictures that pass per trained candidate, between 5 and 30 epochs of them.
USUAL_PICTURES = 8000
RESERVE_S = 15.0
#: How many methods are varied on cached features, and what a candidate takes of the decision and the report.
LEADING, DECISION_S = 2, 1.5


@dataclass(frozen=True)
class Domains:
    """What was read: both domains, the model to begin with, and labelled target pictures for figures alone."""

    source: Labelled | None
    target: Unlabelled
    model: Classification
    classes: tuple[str, ...]
    oracle: Oracle | None


class Adapt(Job[AdaptConfig, Domains]):
    """`regraft adapt` of classes."""

    recipe = "adapt"

    def check(self, options: AdaptConfig) -> None:
        methods = method_names(options)
        if options.keep is not None and options.keep not in (*methods, SOURCE_ONLY):
            raise UsageError(
                f"--keep {options.keep} is none of the candidates {', '.join((SOURCE_ONLY, *methods))}: "
                "name it by --method, too."
            )
        chosen_validators(options.validators, with_source=options.source_free is None, setting=options.setting)
        if options.source_free is None:
            parse(options.backbone)

    def prepare(self, options: AdaptConfig, machine: Machine, listener: Listener) -> Brief[Domains]:
        look, source = look_with(listener), None
        if options.source:
            source = read_labelled(
                options.source, table=options.table, image=options.image, label=options.label, group=options.group,
                max_bad=options.max_bad, seed=options.seed, progress=look,
            )  # fmt: skip
        target = read_unlabelled(options.target, max_bad=options.max_bad, progress=look)
        model, classes, backbone_name = _start(options, source)
        _check_priors(options, pretrained=bool(model.backbone.provenance))
        oracle = None
        if options.oracle is not None:
            keep_unknown = options.setting == "open"
            oracle = read_oracle(options.oracle, classes, max_bad=options.max_bad, keep_unknown=keep_unknown)
        domains = Domains(source, target, model, classes, oracle)
        return Brief(domains, options.data_name, backbone_name, split_record(source, target))

    def work(self, options: AdaptConfig, material: Domains, frame: Frame) -> None:
        if frame.machine.is_first:
            _tell(material.source, material.target, material.oracle, frame.listener)
        bench = AdaptBench(
            options, material.source, material.target, material.model, material.classes, frame.machine, frame.run,
            frame.listener,
        )  # fmt: skip
        _Adapting(bench, method_names(options), material.oracle, frame).everything()


def run_adapt(
    config: AdaptConfig, *, runs: Path = Path("runs"), fresh: bool = False, listener: Listener | None = None
) -> Path:
    """Do the whole job; returns the run directory. An unfinished run of the same configuration is taken up again."""
    if config.task == "regression":
        from regraft.recipes.adapt.numbers import AdaptNumbers  # the rarer way

        return run_job(AdaptNumbers(), config, runs=runs, fresh=fresh, listener=listener)
    return run_job(Adapt(), config, runs=runs, fresh=fresh, listener=listener)


def method_names(config: AdaptConfig) -> tuple[str, ...]:
    """The methods to try, `auto` spelled out; UsageError for an unknown one or one that needs what is not there."""
    several = config.table is None and len(config.source) > 1
    known = {*losses.names(), *shallow.names(), *PRIORS, ADABN, WEIGHTING, RESTYLE, BIGAUG, ACQUISITION}
    auto = (*(AUTO_OPEN if config.setting == "open" else AUTO), *(FOR_SEVERAL if several else ()))
    names = tuple(dict.fromkeys(n for name in config.methods for n in (auto if name == "auto" else (name,))))
    for name in names:
        if is_method(name):
            parse_method(name).build(4, 4)  # an option that a loss refuses is told before anything else is done
        elif name not in known:
            raise unknown_name("adaptation method", name, {*known, "auto"})
    if any(name.partition(":")[0] == OPEN_ALONE for name in names) and config.setting != "open":
        raise UsageError(f"{OPEN_ALONE} is for a target with classes that the source lacks: it takes --setting open.")
    if WEIGHTING in names and not several:
        raise UsageError(
            f"{WEIGHTING} compares sources: name two or more folders before the target, or leave it out of --method."
        )
    if WEIGHTING in config.methods and config.tune == "network":
        raise UsageError(f"{WEIGHTING} works on cached features: leave --tune network out, or the method.")
    if config.source_free is None:
        return names
    alone = [n for n in names if n == ADABN or (is_method(n) and not parse_method(n).kind.needs_source)]
    if not alone or (config.methods != ("auto",) and len(alone) < len(names)):
        able = sorted({ADABN, *(n for n in losses if not losses.get(n).needs_source)})
        raise UsageError(f"Without source pictures only {', '.join(able)} can work; {', '.join(names)} came.")
    return tuple(alone)


def _check_priors(config: AdaptConfig, *, pretrained: bool) -> None:
    """UsageError where a method that corrects a head on cached features would have none."""
    asked = [n for n in config.methods if n in (*PRIORS, RESTYLE, BIGAUG, ACQUISITION)]
    if asked and (config.tune == "network" or not pretrained):
        why = "--tune network" if config.tune == "network" else f"{config.backbone}, which has no pretrained weights"
        raise UsageError(
            f"{' and '.join(asked)} works on cached features and cannot be used with {why}: take a pretrained backbone "
            "without --tune network, or leave it out."
        )


def _start(config: AdaptConfig, source: Labelled | None) -> tuple[Classification, tuple[str, ...], str]:
    """The model to begin with, its classes, and the backbone's name."""
    if config.source_free is not None:
        packed = unpack(artifact_of(config.source_free))
        return packed.task, packed.labels, str(packed.manifest["backbone"]["name"])
    assert source is not None
    backbone = create(config.backbone, config.weights)
    return Classification(backbone, len(source.classes)), source.classes, config.backbone.partition(":")[0]


def _tell(source: Labelled | None, target: Unlabelled, oracle: Oracle | None, listener: Listener) -> None:
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


@dataclass
class _Adapting:
    """One adaptation on its way through the candidates."""

    bench: AdaptBench
    methods: tuple[str, ...]
    oracle: Oracle | None
    frame: Frame
    first_s: float | None = None

    @property
    def clock(self) -> Clock:
        return self.frame.clock

    def everything(self) -> None:
        bench = self.bench
        candidates = self._on_features()
        if bench.source is None or not bench.pretrained or bench.config.tune == "network":
            candidates += self._trained(self._steps())
        decision = decide(bench, candidates)
        for line in decision.lines:
            bench.listener.say(line)
        if bench.machine.is_first:
            # From here on nothing is chosen any more: the oracle's labels may be used.
            conclude_adaptation(
                bench, candidates, decision, self.oracle, frame=self.frame, first_s=self.first_s,
                command=command_line(),
            )  # fmt: skip

    def _on_features(self) -> list[Adapted]:
        """The first answer, and with `tune` on features every method that was asked for, in seconds each."""
        bench = self.bench
        if bench.source is None:
            found = bench.answers(SOURCE_ONLY, bench.model, 0.0, 0, 0)
            bench.keep(found, bench.model)
            return [found]
        if not bench.pretrained:
            return []
        stage = FeatureCandidates(bench)
        candidates = [stage.probe()]
        self._first_answer(candidates[0])
        if bench.config.tune == "network":
            return candidates
        unused = [f"--{n}" for n in ("epochs", "lr", "last", "restyle") if getattr(bench.config, n)]
        if unused:
            bench.listener.say(
                f"{', '.join(unused)}: not used with cached features, where a method takes a fixed number of steps; "
                "--tune network uses them."
            )
        candidates.append(self._done(stage.trained(SOURCE_ONLY)))
        for name in self.methods:
            if name in shallow:
                candidates.append(self._done(stage.shallow(name)))
            elif name == ADABN and stage.own:
                candidates.append(self._done(stage.adabn()))
            elif name == RESTYLE:
                candidates.append(self._done(stage.restyled()))
            elif name == BIGAUG:
                candidates.append(self._done(stage.stacked()))
            elif name == ACQUISITION:
                acquired = stage.acquired()
                candidates += [] if acquired is None else [self._done(acquired)]
            elif name in PRIORS:
                candidates.append(self._done(stage.corrected(name)))
            elif is_method(name) or name == WEIGHTING:
                candidates.append(self._done(stage.trained(name)))
        return candidates + self._varied(stage, candidates)

    def _varied(self, stage: FeatureCandidates, candidates: list[Adapted]) -> list[Adapted]:
        """With a budget: the two leading methods with other weights and lengths, as many as it reaches."""
        bench = self.bench
        if bench.config.budget_s is None:
            return []
        leading = [name for name in ranked(bench, candidates) if is_method(name)][:LEADING]
        seconds = {c.name: c.seconds for c in candidates}
        wanted = [(seconds[name], text) for name in leading for text in variations(name)]
        found: list[Adapted] = []
        for usual_s, text in wanted:
            if text in seconds:
                continue
            expected_s = usual_s * parse_method(text).length
            if self.clock.spent() + expected_s + DECISION_S * len(candidates + found) > bench.config.budget_s:
                break
            found.append(self._done(stage.trained(text)))
        bench.listener.say(
            f"Budget {bench.config.budget_s:.0f} s: {len(found)} of {len(wanted)} variations of "
            f"{' and '.join(leading) or 'no method'} tried."
        )
        return found

    def _first_answer(self, found: Adapted) -> None:
        assert self.bench.source is not None and found.source_logits is not None
        held = self.bench.source.labels[self.bench.source.held]
        own = float((found.source_logits.argmax(1) == held).mean())
        self.first_s = self.clock.spent()
        self.bench.listener.say(
            f"First answer after {self.first_s:.1f} s: a probe on the source, {own:.1%} on {len(held)} held-out "
            "source pictures; how it does on the target is not known."
        )
        self.clock.keep()

    def _steps(self) -> tuple[int, list[str]]:
        """Steps of each trained candidate, and the methods that the budget reaches; written down for a resume."""
        bench, config = self.bench, self.bench.config
        trained = [n for n in self.methods if is_method(n)]
        path = bench.run.path / "work" / "schedule.json"
        if bench.machine.fabric.broadcast(path.is_file()):
            plan = read_json(path)
            return int(plan["steps"]), list(plan["methods"])
        leading = "source" if bench.source is not None else "target"
        stream = bench.streams(source=bench.source is not None, target=bench.source is None)[leading]
        usual = float(np.clip(USUAL_PICTURES / max(1, len(stream) * stream.batch_size), 5, 30))
        epochs = config.epochs if config.epochs is not None else usual
        if config.budget_s is not None and config.epochs is None:
            epoch_s = bench.epoch_seconds() if bench.source is not None else 1.0
            left = config.budget_s * 0.95 - self.clock.spent() - RESERVE_S
            trained, epochs = _within(left, epoch_s, usual, trained)
            bench.listener.say(
                f"Budget {config.budget_s:.0f} s: {epochs:.1f} epochs (about {epoch_s:.1f} s each) for "
                f"{', '.join([SOURCE_ONLY, *trained]) if epochs else 'nothing: the cached features decide'}."
            )
        steps = round(epochs * len(stream))
        steps, trained = bench.machine.fabric.broadcast((steps, trained))
        if bench.machine.is_first:
            write_json(path, {"steps": steps, "methods": trained})
        return steps, trained

    def _trained(self, plan: tuple[int, list[str]]) -> list[Adapted]:
        steps, methods = plan
        if WEIGHTING in self.methods:
            self.bench.listener.say(f"{WEIGHTING} works on cached features: left out where the whole network trains.")
        bench = self.bench
        found: list[Adapted] = []
        if bench.source is None:
            start = bench.model
        elif steps > 0:
            found.append(self._done(bench.train(SOURCE_ONLY, steps, bench.model, None)))
            start = bench.load(SOURCE_ONLY)
        else:
            start = bench.model
        if "AdaBN" in self.methods and has_statistics(bench.model.backbone):
            found.append(self._done(bench.adabn(start)))
        for name in methods if steps > 0 else ():
            kind = parse_method(name).kind
            begins = start if kind.continues or kind.source_fixed else bench.model
            found.append(self._done(bench.train(name, steps, begins, None)))
        return found

    def _done(self, found: Adapted) -> Adapted:
        self.clock.keep()
        self.bench.listener.say(f"{found.name}: {found.seconds:.1f} s.")
        return found


def _within(left_s: float, epoch_s: float, usual: float, methods: list[str]) -> tuple[list[str], float]:
    """As many methods, cheap to costly, as get at least half the usual epochs; source-only costs half an epoch each."""
    for count in range(len(methods), 0, -1):
        possible = left_s / (epoch_s * (count + 0.5) * 1.1)
        if possible >= usual / 2:
            return methods[:count], min(usual, possible)
    possible = left_s / (epoch_s * 0.5 * 1.1)
    return [], min(usual, possible) if possible >= 1 else 0.0
