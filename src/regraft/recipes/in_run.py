"""The frame of an adaptation: one run directory, found again where it is unfinished, held while it is worked on."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from regraft.core.environment import describe
from regraft.core.errors import RegraftError
from regraft.core.files import write_json
from regraft.core.rundir import RunDirectory
from regraft.engine import Machine
from regraft.recipes.adapt_config import AdaptConfig
from regraft.recipes.domains import Labelled, Unlabelled, split_record
from regraft.recipes.listener import Listener


def open_run(
    config: AdaptConfig, machine: Machine, runs: Path, fresh: bool, backbone: str
) -> tuple[RunDirectory, bool]:
    """The run of this configuration, the same for all processes, and whether it is taken up again."""
    source = config.source[0].resolve().name if config.source else (config.table.stem if config.table else "run")
    data = f"{source}_to_{config.target[0].resolve().name}"

    def open_() -> tuple[Path, bool]:
        run, resumed = RunDirectory.open(runs, "adapt", data, backbone, config.plain(), fresh=fresh)
        return run.path, resumed

    path, resumed = machine.fabric.broadcast(open_() if machine.is_first else (Path(), False))
    return RunDirectory(path), resumed


def inside(
    run: RunDirectory,
    resumed: bool,
    config: AdaptConfig,
    machine: Machine,
    source: Labelled | None,
    target: Unlabelled,
    listener: Listener,
    work: Callable[[], None],
) -> Path:
    """Do the work; the first process holds the run, and writes what it is about or why it failed."""
    if not machine.is_first:
        work()
        return run.path
    with run.locked():
        if resumed:
            listener.say(f"Taking up {run.path} where it stopped.")
        run.point_last()
        write_json(run.path / "env.json", describe(config.seed, str(machine.device)))
        write_json(run.path / "split.json", split_record(source, target))
        try:
            work()
        except RegraftError as error:
            run.failed(str(error))
            raise
    return run.path
