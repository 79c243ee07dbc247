"""The frame of a job over domains: one run directory, found again where unfinished, held while it is worked on."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from regraft.core.environment import describe
from regraft.core.errors import RegraftError
from regraft.core.files import write_json
from regraft.core.listener import Listener
from regraft.core.rundir import RunDirectory
from regraft.engine import Machine


def open_run(
    recipe: str,
    data: str,
    backbone: str,
    options: Mapping[str, Any],
    machine: Machine,
    *,
    runs: Path,
    fresh: bool,
    folder: Path | None = None,
) -> tuple[RunDirectory, bool]:
    """The run of these options, the same for all processes, and whether it is taken up again.

    folder: the run itself, in place of one below `runs`.
    """

    def open_() -> tuple[Path, bool]:
        if folder is not None:
            run, resumed = RunDirectory.at(folder, options)
        else:
            run, resumed = RunDirectory.open(runs, recipe, data, backbone, options, fresh=fresh)
        return run.path, resumed

    path, resumed = machine.fabric.broadcast(open_() if machine.is_first else (Path(), False))
    return RunDirectory(path), resumed


def inside(
    run: RunDirectory,
    resumed: bool,
    machine: Machine,
    seed: int,
    split: Mapping[str, Any],
    listener: Listener,
    work: Callable[[], None],
    *,
    as_last: bool = True,
) -> Path:
    """Do the work; the first process holds the run, and writes what it is about (`split`) or why it failed.

    as_last: `LAST` beside the run is made to name it.
    """
    if not machine.is_first:
        work()
        return run.path
    with run.locked():
        if resumed:
            listener.say(f"Taking up {run.path} where it stopped.")
        if as_last:
            run.point_last()
        write_json(run.path / "env.json", describe(seed, str(machine.device)))
        write_json(run.path / "split.json", split)
        try:
            work()
        except RegraftError as error:
            run.failed(str(error))
            raise
    return run.path
