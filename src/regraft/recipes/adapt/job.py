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
from regraft.adaptation.domains import Labelled, Oracle, Unlabelled, read_labelled, read_unlabelled, split_record
from regraft.adaptation.maps.shallow import shallow
from regraft.adaptation.maps.statistics import has_statistics
from regraft.adaptation.options import PRIORS
from regraft.adaptation.sides import Side, sides
from regraft.adaptation.training.answers import Adapted
from regraft.adaptation.training.bench import SOURCE_ONLY, AdaptBench, Domains, Plain
from regraft.adaptation.training.cached import ADABN, FeatureCandidates
from regraft.adaptation.training.method import is_method, parse_method, variations
from regraft.adaptation.training.sources import WEIGHTING
from regraft.core.files import read_json, write_json
from regraft.core.listener import Listener
from regraft.core.rundir import artifact_of
from regraft.engine import Machine
from regraft.images.backbones import create
from regraft.images.backbones.catalogue import parse
from regraft.recipes.adapt.options import AdaptConfig
from regraft.recipes.adapt.outcome import conclude_adaptation
from regraft.recipes.frame.budget import told_time
from regraft.recipes.frame.clock import Clock
from regraft.recipes.frame.job import Brief, Frame, Job, look_with, run_job
from regraft.tasks.kinds import kind_of
from regraft.tasks.packing import unpack

#: Without --budget and --epochs: pictures that pass per trained candidate, between 5 and 30 epochs of them.
USUAL_PICTURES = 8000
RESERVE_S = 15.0
#: How many methods are varied on cached features, and what a candidate takes of the decision and the report.
LEADING, DECISION_S = 2, 1.5


@dataclass(frozen=True)
class Material:
    """What was read, and labelled target pictures for figures alone."""

    domains: Domains
    oracle: Oracle | None


class Adapt(Job[AdaptConfig, Material]):
    """`regraft adapt`, of any kind of labels that can be adapted."""

    recipe = "adapt"

    def __init__(self, side: Side) -> None:
        self.side = side

    def check(self, options: AdaptConfig) -> None:
        self.side.check(options)
        if options.source_free is None:
            parse(options.backbone)

    def prepare(self, options: AdaptConfig, machine: Machine, listener: Listener) -> Brief[Material]:
        side, look, source = self.side, look_with(listener), None
        if options.source_free is None:
            source = read_labelled(
                options.source, table=options.table, image=options.image, label=options.label, group=options.group,
                max_bad=options.max_bad, seed=options.seed, progress=look, read_labels=side.read_labels,
            )  # fmt: skip
        target = read_unlabelled(options.target, max_bad=options.max_bad, progress=look)
        domains, backbone_name = _start(options, source, target)
        side.check_model(options, pretrained=domains.model.backbone.pretrained)
        oracle = None
        if options.oracle is not None:
            oracle = side.read_oracle(options.oracle, domains.classes, options)
        return Brief(Material(domains, oracle), options.data_name, backbone_name, split_record(source, target))

    def foresee(self, options: AdaptConfig, material: Material, machine: Machine) -> list[str]:
        domains = material.domains
        source = 0 if domains.source is None else len(domains.source.source)
        whole = source == 0 or not domains.model.backbone.provenance or options.tune == "network"
        return [
            f"{source} labelled source pictures, {len(domains.target.source)} target pictures without labels.",
            f"Candidates: {', '.join((SOURCE_ONLY, *self.side.methods(options)))}.",
            "The whole network is trained." if whole else "On cached features: some seconds a candidate.",
            f"Time: {told_time(options)}.",
        ]

    def work(self, options: AdaptConfig, material: Material, frame: Frame) -> None:
        domains, side = material.domains, self.side
        if frame.machine.is_first:
            side.tell(domains.source, domains.target, material.oracle, frame.listener)
        bench = AdaptBench(options, domains, frame.machine, frame.run, frame.listener)
        _Adapting(bench, side, side.methods(options), material.oracle, frame).everything()


def run_adapt(
    config: AdaptConfig, *, runs: Path = Path("runs"), fresh: bool = False, listener: Listener | None = None
) -> Path:
    """Do the whole job; returns the run directory. An unfinished run of the same configuration is taken up again."""
    return run_job(job_for(config), config, runs=runs, fresh=fresh, listener=listener)


def job_for(config: AdaptConfig) -> Adapt:
    """The job for the labels that these options are about."""
    return Adapt(sides.get(config.task)())


def _start(config: AdaptConfig, source: Labelled | None, target: Unlabelled) -> tuple[Domains, str]:
    """Both domains with the model to begin with, and the backbone's name."""
    if config.source_free is not None:
        packed = unpack(artifact_of(config.source_free), config.task)
        domains = Domains(source, target, packed.kind, packed.task, packed.labels)
        return domains, str(packed.manifest["backbone"]["name"])
    assert source is not None
    backbone = create(config.backbone, config.weights)
    kind = kind_of(source.source, source.labels[source.train])
    model = kind.task(backbone, Plain(), None)
    return Domains(source, target, kind, model, source.classes), config.backbone.partition(":")[0]


@dataclass
class _Adapting:
    """One adaptation on its way through the candidates."""

    bench: AdaptBench
    side: Side
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
        decision = self.side.decide(bench, candidates)
        for line in decision.lines:
            bench.listener.say(line)
        if bench.machine.is_first:
            # From here on nothing is chosen any more: the oracle's labels may be used.
            conclude_adaptation(
                bench, self.side, candidates, decision, self.oracle, frame=self.frame, first_s=self.first_s
            )

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
        if bench.config.budget_s is None or not self.side.varies:
            return []
        leading = [name for name in self.side.ranked(bench, candidates) if is_method(name)][:LEADING]
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
        self.first_s = self.clock.spent()
        self.bench.listener.say(
            f"First answer after {self.first_s:.1f} s: a probe on the source, {self.side.first(self.bench, found)}; "
            "how it does on the target is not known."
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
