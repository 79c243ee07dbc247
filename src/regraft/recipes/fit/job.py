"""`regraft fit`: from a folder of pictures to the best model that transfer gives, with the evidence.

Order: audit, split, cached features, the probe (the first answer), then every strategy that trains, the control from
scratch among them, for equal time. Every choice is made on validation pictures; the test pictures are scored once,
after the choice.
"""

from __future__ import annotations

from pathlib import Path

from regraft.core.environment import command_line
from regraft.core.listener import Listener
from regraft.core.rundir import RunDirectory
from regraft.engine import Machine, launch
from regraft.measure.choice import choose
from regraft.recipes.fit.beginning import begin
from regraft.recipes.fit.options import FitConfig
from regraft.recipes.fit.outcome import Ended, conclude
from regraft.recipes.fit.prepared import Prepared, modality_of, prepare
from regraft.recipes.fit.remarks import tell_audit
from regraft.recipes.fit.rounds import Rounds, share_time
from regraft.recipes.fit.workbench import Setup, Workbench
from regraft.recipes.frame.budget import told_time, usual_epochs
from regraft.recipes.frame.clock import Clock
from regraft.recipes.frame.job import Brief, Frame, Job, look_with, run_job
from regraft.tasks.kinds import kind_of


class Fit(Job[FitConfig, Prepared]):
    """`regraft fit`."""

    recipe = "fit"

    def check(self, options: FitConfig) -> None:
        # A name that does not exist is told before anything else is done.
        modality_of(options).check(options.backbone, options.weights)

    def prepare(self, options: FitConfig, machine: Machine, listener: Listener) -> Brief[Prepared]:
        prepared = prepare(options, look_with(listener, modality_of(options).words.many))
        data = options.roots[0].resolve().name if options.roots else (options.table or Path("table")).stem
        split = prepared.splits.to_json(prepared.source, prepared.facts)
        return Brief(prepared, data, prepared.modality.label(options.backbone), split)

    def foresee(self, options: FitConfig, material: Prepared, machine: Machine) -> list[str]:
        backbone = material.modality.create(options.backbone, options.weights)
        setup = _setup(options, material)
        bench = Workbench(setup, backbone, machine, RunDirectory(Path(".")), Listener())
        rounds = material.splits.rounds
        first = rounds[0]
        parts = f"{len(first.train)} to train, {len(first.val)} to validate, {len(first.test)} to test"
        folds = f"{len(rounds)} folds, the first with {parts}" if len(rounds) > 1 else parts
        return [
            f"{len(material.labels)} usable pictures: {folds}.",
            f"Candidates: {', '.join(options.strategies)}, chosen by {setup.metric}.",
            f"Time: {told_time(options)}; usual are {usual_epochs(len(first.train)):g} epochs a training.",
            *_plans(bench),
        ]

    def work(self, options: FitConfig, material: Prepared, frame: Frame) -> None:
        setup = _setup(options, material)
        tell_audit(material, setup.kind, frame.listener)
        backbone = material.modality.create(options.backbone, options.weights).to(frame.machine.device)
        for remark in material.modality.remarks(backbone, material.facts):
            frame.listener.say(f"  {remark}")
        _everything(Workbench(setup, backbone, frame.machine, frame.run, frame.listener), frame.clock)


def run_fit(
    config: FitConfig, *, runs: Path = Path("runs"), fresh: bool = False, listener: Listener | None = None
) -> Path:
    """Do the whole job; returns the run directory. An unfinished run of the same configuration is taken up again."""
    return run_job(Fit(), config, runs=runs, fresh=fresh, listener=listener)


def who_trains(config: FitConfig) -> str:
    """The who-trains table of every candidate, without training: what `--print-plan` shows."""
    machine = launch(device=config.device, precision=config.precision, seed=config.seed)
    prepared = prepare(config)
    backbone = prepared.modality.create(config.backbone, config.weights)
    bench = Workbench(_setup(config, prepared), backbone, machine, RunDirectory(Path(".")), Listener())
    return "\n\n".join(_plans(bench))


def _setup(config: FitConfig, prepared: Prepared) -> Setup:
    kind = kind_of(prepared.source, prepared.labels[prepared.known()])
    return Setup(config, kind, kind.metric(config.metric, prepared.labels), prepared)


def _plans(bench: Workbench) -> list[str]:
    """Who trains in each candidate, and at which rate."""
    batch = bench.streams.train(bench.prepared.splits.rounds[0].train).batch_size
    texts = []
    for name in bench.config.strategies:
        strategy = bench.strategy(name)
        texts.append(f"{name}\n{bench.plan(strategy, bench.task(strategy, None), batch)}")
    return texts


def _everything(bench: Workbench, clock: Clock) -> None:
    """From features to the report."""
    parts = bench.prepared.splits.rounds
    begun = begin(bench, clock, parts)
    plan = share_time(bench, clock, parts)
    rounds = Rounds(bench, clock, plan, begun)
    results = [rounds.candidates(index, part) for index, part in enumerate(parts)]
    best = choose([result.candidates for result in results], bench.metric, bench.kind.losses)
    bench.listener.say(f"Chosen on validation: {best}.")
    # From here on nothing is chosen any more: the test pictures may be looked at.
    if len(parts) > 1:
        rounds.score(results)
        final = rounds.final_of_all(best, results)
    else:
        final = rounds.final(best, results[0])
    conclude(bench, Ended(results, final, best, plan, begun.answer), clock.spent, command_line())
