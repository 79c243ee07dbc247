"""The frame of every job that makes a run: processes, reading, one run directory, a lock, DONE or FAILED.

A job is what differs: what it refuses, what it reads before a run exists, and its work. `run_job` is the rest, once.
"""

from __future__ import annotations

import shutil
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar, Generic, TypeVar

from regraft.core.clock import job_began_s
from regraft.core.environment import describe
from regraft.core.errors import RegraftError
from regraft.core.files import write_json
from regraft.core.listener import Listener
from regraft.core.options import Options
from regraft.core.rundir import RunDirectory
from regraft.engine import Machine, launch
from regraft.recipes.frame.clock import Clock

C = TypeVar("C", bound=Options)
P = TypeVar("P")

#: The options that decide what is computed on; a job has those of them that mean something for it.
OF_MACHINE = ("device", "devices", "nodes", "precision", "seed", "deterministic")


@dataclass(frozen=True)
class Brief(Generic[P]):
    """What a job has read before its run exists.

    data, backbone: what the run is called after; data is the data's name in the report, too. split: what split.json
    says; None where nothing is split.
    """

    material: P
    data: str
    backbone: str
    split: Mapping[str, Any] | None = None


@dataclass(frozen=True)
class Frame:
    """What a job works in. data: the data's name. listener: silent in every process but the first."""

    machine: Machine
    run: RunDirectory
    listener: Listener
    clock: Clock
    data: str


class Job(ABC, Generic[C, P]):
    """One verb that makes a run. C: its options; P: what it reads before the run exists.

    as_last: whether `LAST` beside the run is made to name it, as for a run that a model can be taken from.
    """

    recipe: ClassVar[str]
    as_last: ClassVar[bool] = True

    def check(self, options: C) -> None:
        """Refuse what can be refused at once, before any process is started. Raises UsageError."""

    @abstractmethod
    def prepare(self, options: C, machine: Machine, listener: Listener) -> Brief[P]:
        """Read and audit. What cannot be used is refused here, and leaves no run behind."""

    def foresee(self, options: C, material: P, machine: Machine) -> list[str]:
        """What `work` would do, in lines for --dry-run: candidates, plan, time where it is known."""
        return []

    @abstractmethod
    def work(self, options: C, material: P, frame: Frame) -> None:
        """Do everything, in every process; the first one alone writes into the run."""


def run_job(
    job: Job[C, P],
    options: C,
    *,
    runs: Path = Path("runs"),
    fresh: bool = False,
    listener: Listener | None = None,
    folder: Path | None = None,
) -> Path:
    """Do the whole job; returns the run directory. An unfinished run of the same options is taken up again.

    fresh: begin anew in any case. folder: the run itself, in place of one below `runs`; `LAST` then stays as it is.
    Raises UsageError, DataError and what else the job raises; a run that failed says why in its file FAILED.
    """
    began_s = job_began_s()
    job.check(options)
    machine = launch(**launching(options))
    heard = listener if listener is not None and machine.is_first else Listener()
    brief = job.prepare(options, machine, heard)

    def opened() -> tuple[Path, bool]:
        if folder is not None:
            run, resumed = RunDirectory.at(folder, options.plain())
        else:
            run, resumed = RunDirectory.open(
                runs, job.recipe, brief.data, brief.backbone, options.plain(), fresh=fresh
            )  # fmt: skip
        return run.path, resumed

    path, resumed = machine.fabric.broadcast(opened() if machine.is_first else (Path(), False))
    run = RunDirectory(path)
    frame = Frame(machine, run, heard, Clock(run, began_s), brief.data)
    if not machine.is_first:
        job.work(options, brief.material, frame)
        return run.path
    with run.locked():
        if resumed:
            heard.say(f"Taking up {run.path} where it stopped.")
        if job.as_last and folder is None:
            run.point_last()
        write_json(run.path / "env.json", describe(int(getattr(options, "seed", 0)), str(machine.device)))
        if brief.split is not None:
            write_json(run.path / "split.json", brief.split)
        try:
            job.work(options, brief.material, frame)
        except RegraftError as error:
            run.failed(str(error))
            raise
        shutil.rmtree(run.path / "work", ignore_errors=True)
        run.done()
    return run.path


def dry_run(job: Job[C, P], options: C, *, listener: Listener | None = None) -> list[str]:
    """What `run_job` would do, in lines: everything is read and audited, and nothing is written."""
    job.check(options)
    machine = launch(**launching(options))
    heard = listener if listener is not None and machine.is_first else Listener()
    brief = job.prepare(options, machine, heard)
    first = f"Would make a run of {job.recipe}: data {brief.data}, network {brief.backbone}, on {machine.device}."
    return [first, *job.foresee(options, brief.material, machine)]


def launching(options: Options) -> dict[str, Any]:
    """What `engine.launch` is told by these options."""
    return {name: getattr(options, name) for name in OF_MACHINE if name in type(options).model_fields}


def look_with(listener: Listener, many: str = "pictures") -> Callable[[int, int], None]:
    """Progress of an audit, for the listener: called with how many samples were looked at, of how many."""
    return lambda done, total: listener.progress(f"Looking at the {many}", done, total)
