"""The frame of every job: nothing is left where the data is bad, a failed run says why, the same options resume."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import yaml

from regraft.core import clock as process_clock
from regraft.core.errors import DataError, RegraftError, UsageError
from regraft.core.listener import Listener
from regraft.core.options import Options
from regraft.core.rundir import RunDirectory
from regraft.engine import Machine
from regraft.recipes.frame.clock import Clock
from regraft.recipes.frame.job import Brief, Frame, Job, launching, run_job


class Asked(Options):
    """What the job below is told."""

    data: Path
    good: bool = True
    fails: bool = False
    seed: int = 3
    device: str = "cpu"


class Counting(Job[Asked, int]):
    """Counts how often it worked, in a file that a resume finds."""

    recipe = "count"

    def check(self, options: Asked) -> None:
        if options.seed == 13:
            raise UsageError("13 is no seed.")

    def prepare(self, options: Asked, machine: Machine, listener: Listener) -> Brief[int]:
        if not options.good:
            raise DataError("There is nothing to count.")
        return Brief(7, options.data.name, "none", {"train": ["a"]})

    def work(self, options: Asked, material: int, frame: Frame) -> None:
        assert (material, frame.data) == (7, "folder-of-mine")
        path = frame.run.path / "count"
        path.write_text(path.read_text() + "x" if path.is_file() else "x")
        frame.clock.keep()
        if options.fails:
            raise RegraftError("It could not be done.")


class Beside(Counting):
    """A run that no model can be taken from."""

    as_last = False


def asked(**values: Any) -> Asked:
    return Asked(data=Path("somewhere/folder-of-mine"), **values)


class Heard(Listener):
    def __init__(self) -> None:
        self.lines: list[str] = []

    def say(self, text: str) -> None:
        self.lines.append(text)


def test_a_run_says_what_it_was_about_and_that_it_is_done(tmp_path: Path) -> None:
    path = run_job(Counting(), asked(), runs=tmp_path)
    assert {p.name for p in path.iterdir()} >= {"DONE", "config.yaml", "env.json", "split.json", "count"}
    assert not (path / "work").exists() and not (path / "FAILED").exists()
    assert json.loads((path / "env.json").read_text())["seed"] == 3
    assert json.loads((path / "split.json").read_text()) == {"train": ["a"]}
    written = yaml.safe_load((path / "config.yaml").read_text())
    assert written["data"] == str(Path("somewhere/folder-of-mine").resolve()) and written["fails"] is False
    assert (tmp_path / "LAST").resolve() == path
    assert path.name.split("-")[1:4] == ["count", "folder_of_mine", "none"]


def test_bad_options_and_bad_data_leave_no_run_behind(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="13 is no seed"):
        run_job(Counting(), asked(seed=13), runs=tmp_path)
    with pytest.raises(DataError, match="nothing to count"):
        run_job(Counting(), asked(good=False), runs=tmp_path)
    assert not list(tmp_path.iterdir())


def test_a_failed_run_keeps_the_sentence_and_is_taken_up_again(tmp_path: Path) -> None:
    for _ in range(2):
        with pytest.raises(RegraftError, match="could not be done"):
            run_job(Counting(), asked(fails=True), runs=tmp_path, listener=(heard := Heard()))
    (path,) = (p for p in tmp_path.iterdir() if p.is_dir() and not p.is_symlink())
    assert (path / "FAILED").read_text() == "It could not be done.\n" and not (path / "DONE").exists()
    assert (path / "count").read_text() == "xx" and (path / "work").is_dir()
    assert heard.lines == [f"Taking up {path} where it stopped."]
    with pytest.raises(RegraftError, match="could not be done"):
        run_job(Counting(), asked(fails=True), runs=tmp_path, fresh=True)
    assert len([p for p in tmp_path.iterdir() if p.is_dir() and not p.is_symlink()]) == 2


def test_last_goes_on_naming_the_newest_run_with_a_model(tmp_path: Path) -> None:
    first = run_job(Counting(), asked(), runs=tmp_path)
    run_job(Beside(), asked(seed=4), runs=tmp_path)
    run_job(Counting(), asked(seed=5), folder=tmp_path / "here", runs=tmp_path)
    assert (tmp_path / "LAST").resolve() == first and (tmp_path / "here" / "DONE").is_file()


def test_the_machine_is_told_what_the_options_have() -> None:
    assert launching(asked()) == {"seed": 3, "device": "cpu"}


def test_a_job_in_a_program_counts_its_own_time_alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    run = RunDirectory(tmp_path)
    now = process_clock.seconds_since_start()
    monkeypatch.setattr(process_clock, "_command", False)
    assert Clock(run, process_clock.job_began_s()).spent() < now
    process_clock.begin_command()
    assert Clock(run, process_clock.job_began_s()).spent() >= now
    monkeypatch.setattr(process_clock, "_command", False)
    first = Clock(run, process_clock.seconds_since_start() - 100)
    first.keep()
    assert 99 < Clock(run, process_clock.job_began_s()).spent() < 110
