"""`regraft fit`: from a folder of pictures to the best model that transfer gives, with the evidence.

Order: audit, split, cached features, the probe (the first answer), then every strategy that trains, the control from
scratch among them, for equal time. Every choice is made on validation pictures; the test pictures are scored once,
after the choice.
"""

from __future__ import annotations

import shutil
from pathlib import Path

from regraft.core.environment import command_line, describe
from regraft.core.errors import RegraftError, UsageError
from regraft.core.files import write_json
from regraft.core.listener import Listener
from regraft.core.rundir import RunDirectory
from regraft.engine import Machine, launch
from regraft.images.backbones import create
from regraft.images.backbones.catalogue import parse
from regraft.measure.choice import choose
from regraft.recipes.fit.beginning import begin
from regraft.recipes.fit.options import FitConfig
from regraft.recipes.fit.outcome import Ended, conclude
from regraft.recipes.fit.pictures import Prepared, prepare
from regraft.recipes.fit.remarks import tell_audit, unseen_edges
from regraft.recipes.fit.rounds import Rounds, share_time
from regraft.recipes.fit.workbench import Setup, Workbench
from regraft.recipes.frame.budget import Clock
from regraft.tasks.kinds import kind_of


def run_fit(
    config: FitConfig, *, runs: Path = Path("runs"), fresh: bool = False, listener: Listener | None = None
) -> Path:
    """Do the whole job; returns the run directory. An unfinished run of the same configuration is taken up again."""
    listener = listener or Listener()
    # A name that does not exist is told before anything else is done.
    if parse(config.backbone)[0] == "small" and config.weights is None:
        raise UsageError(
            f"{config.backbone} has no pretrained weights, so there is nothing to transfer: give --weights or another "
            "backbone. `regraft adapt` can train it from scratch."
        )
    machine = launch(
        device=config.device,
        devices=config.devices,
        precision=config.precision,
        seed=config.seed,
        deterministic=config.deterministic,
    )
    listener = listener if machine.is_first else Listener()
    # Pictures that cannot be used leave no run behind.
    prepared = prepare(config, lambda done, total: listener.progress("Looking at the pictures", done, total))
    opened: tuple[Path, bool] = machine.fabric.broadcast(
        _open(config, runs, fresh) if machine.is_first else (Path(), False)
    )
    path, resumed = opened
    run = RunDirectory(path)
    if not machine.is_first:
        _work(config, prepared, run, machine, listener)
        return path
    with run.locked():
        if resumed:
            listener.say(f"Taking up {run.path} where it stopped.")
        run.point_last()
        write_json(run.path / "env.json", describe(config.seed, str(machine.device)))
        try:
            _work(config, prepared, run, machine, listener)
        except RegraftError as error:
            run.failed(str(error))
            raise
    return path


def _open(config: FitConfig, runs: Path, fresh: bool) -> tuple[Path, bool]:
    data = config.roots[0].resolve().name if config.roots else (config.table or Path("table")).stem
    run, resumed = RunDirectory.open(runs, "fit", data, config.backbone.partition(":")[0], config.plain(), fresh=fresh)
    return run.path, resumed


def who_trains(config: FitConfig) -> str:
    """The who-trains table of every candidate, without training: what `--print-plan` shows."""
    prepared = prepare(config)
    machine = launch(device=config.device, precision=config.precision, seed=config.seed)
    backbone = create(config.backbone, config.weights)
    kind = kind_of(prepared.source, prepared.labels[prepared.known()])
    metric = kind.metric(config.metric, prepared.labels)
    setup = Setup(config, kind, metric, prepared)
    bench = Workbench(setup, backbone, machine, RunDirectory(Path(".")), Listener())
    batch = bench.streams.train(prepared.splits.rounds[0].train).batch_size
    texts = []
    for name in config.strategies:
        strategy = bench.strategy(name)
        texts.append(f"{name}\n{bench.plan(strategy, bench.task(strategy, None), batch)}")
    return "\n\n".join(texts)


def _work(config: FitConfig, prepared: Prepared, run: RunDirectory, machine: Machine, listener: Listener) -> None:
    clock = Clock(run)
    kind = kind_of(prepared.source, prepared.labels[prepared.known()])
    tell_audit(prepared, kind, listener)
    if machine.is_first:
        write_json(run.path / "split.json", prepared.splits.to_json(prepared.source, prepared.facts))
    backbone = create(config.backbone, config.weights).to(machine.device)
    if edges := unseen_edges(prepared.facts, backbone):
        listener.say(f"  {edges}")
    metric = kind.metric(config.metric, prepared.labels)
    bench = Workbench(Setup(config, kind, metric, prepared), backbone, machine, run, listener)
    _everything(bench, clock)


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
    if bench.machine.is_first:
        shutil.rmtree(bench.run.path / "work", ignore_errors=True)
        bench.run.done()
