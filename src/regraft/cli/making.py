"""What every command that makes a run does with its job: does it, or says what it would do."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from regraft.cli.drawn import RunFace
from regraft.cli.screen import Screen, show_plan

if TYPE_CHECKING:
    from regraft.recipes.frame.job import Job


def make_run(
    job: Job[Any, Any],
    options: Any,
    face: RunFace,
    show: Callable[[Path, bool], None],
    *,
    folder: Path | None = None,
) -> None:
    """Run the job and show its run, in the first process alone; with --dry-run say what it would do.

    folder: the run itself, in place of one below --runs.
    """
    from regraft.engine import is_further_process
    from regraft.recipes.frame.job import dry_run, run_job

    with Screen(quiet=face.quiet) as screen:
        if face.dry_run:
            lines = dry_run(job, options, listener=screen.listener)
        else:
            run = run_job(
                job, options, runs=face.runs, fresh=face.fresh, listener=screen.listener, folder=folder
            )  # fmt: skip
    if is_further_process():
        return
    if face.dry_run:
        show_plan(lines, face.as_json)
    else:
        show(run, face.as_json)
