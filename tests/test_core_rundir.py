"""Run directories: the same configuration finds its unfinished run, one process holds it, LAST names the newest."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml

from regraft.core.errors import ArtifactError, RegraftError
from regraft.core.rundir import RunDirectory, artifact_of, resolve_run

CONFIG: dict[str, Any] = {"data": "birds", "lr": 1e-3, "seed": 0}


def start(root: Path, config: dict[str, Any] = CONFIG, **options: bool) -> tuple[RunDirectory, bool]:
    return RunDirectory.open(root, "fit", "birds", "timm/resnet18:size=64", config, **options)


def test_new_run_says_what_was_asked(tmp_path: Path) -> None:
    run, resumed = start(tmp_path)
    assert not resumed and not run.finished
    assert yaml.safe_load((run.path / "config.yaml").read_text()) == CONFIG
    stamp, recipe, data, backbone, digest = run.path.name.split("-")
    assert (recipe, data, backbone) == ("fit", "birds", "timm_resnet18_size_64")
    assert len(stamp) == 15 and len(digest) == 4
    assert json.loads((run.path / "run.json").read_text())["config_hash"].startswith(digest)


def test_same_configuration_finds_its_unfinished_run(tmp_path: Path) -> None:
    first, _ = start(tmp_path)
    again, resumed = start(tmp_path, dict(reversed(CONFIG.items())))
    assert resumed and again.path == first.path


def test_other_configuration_makes_another_run(tmp_path: Path) -> None:
    first, _ = start(tmp_path)
    other, resumed = start(tmp_path, {**CONFIG, "lr": 2e-3})
    assert not resumed and other.path != first.path


def test_equal_short_hash_is_not_enough(tmp_path: Path) -> None:
    first, _ = start(tmp_path)
    described = json.loads((first.path / "run.json").read_text())
    described["config_hash"] = described["config_hash"][:4] + "0" * 60
    (first.path / "run.json").write_text(json.dumps(described))
    other, resumed = start(tmp_path)
    assert not resumed and other.path != first.path


def test_done_run_is_not_resumed_and_a_failed_one_is(tmp_path: Path) -> None:
    first, _ = start(tmp_path)
    first.failed("out of disk")
    assert (first.path / "FAILED").read_text() == "out of disk\n"
    second, resumed = start(tmp_path)
    assert resumed and second.path == first.path and not (first.path / "FAILED").exists()
    second.done()
    assert second.finished
    third, resumed = start(tmp_path)
    assert not resumed and third.path != first.path


def test_fresh_starts_a_new_run_beside_the_unfinished_one(tmp_path: Path) -> None:
    first, _ = start(tmp_path)
    second, resumed = start(tmp_path, fresh=True)
    third, _ = start(tmp_path, fresh=True)
    assert not resumed and len({first.path, second.path, third.path}) == 3


def test_last_names_the_run_and_moves_on(tmp_path: Path) -> None:
    first, _ = start(tmp_path)
    first.point_last()
    assert resolve_run(tmp_path / "LAST") == first.path.resolve()
    second, _ = start(tmp_path, fresh=True)
    second.point_last()
    assert resolve_run(tmp_path / "LAST") == second.path.resolve()
    assert [p.name for p in tmp_path.iterdir() if p.name.startswith(".")] == []
    assert first.path.is_dir() and not (first.path / second.path.name).exists()


def test_last_is_a_plain_file_where_links_are_not_allowed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object, **__: object) -> None:
        raise OSError("no links here")

    monkeypatch.setattr(Path, "symlink_to", refuse)
    run, _ = start(tmp_path)
    run.point_last()
    assert (tmp_path / "LAST").is_file() and resolve_run(tmp_path / "LAST") == run.path.resolve()


def test_missing_run_is_told(tmp_path: Path) -> None:
    with pytest.raises(ArtifactError, match=r"There is no run at .*nothing"):
        resolve_run(tmp_path / "nothing")
    (tmp_path / "LAST").write_text("../../etc")
    with pytest.raises(ArtifactError, match="There is no run at"):
        resolve_run(tmp_path / "LAST")


def test_artifact_of_a_run_of_itself_and_of_an_unfinished_one(tmp_path: Path) -> None:
    run, _ = start(tmp_path)
    with pytest.raises(ArtifactError, match="did not finish"):
        artifact_of(run.path)
    run.done()
    with pytest.raises(ArtifactError, match="has no artifact"):
        artifact_of(run.path)
    run.artifact.mkdir()
    (run.artifact / "manifest.json").write_text("{}")
    assert artifact_of(run.path) == run.artifact.resolve() == artifact_of(run.artifact)


def test_second_process_on_a_run_is_refused(tmp_path: Path) -> None:
    pytest.importorskip("fcntl", reason="this system has no file locks")
    run, _ = start(tmp_path)
    script = (
        "import sys; from pathlib import Path; from regraft.core.rundir import RunDirectory\n"
        "with RunDirectory(Path(sys.argv[1])).locked():\n"
        "    print('held', flush=True); sys.stdin.read()\n"
    )
    holder = subprocess.Popen(
        [sys.executable, "-c", script, str(run.path)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, env=os.environ
    )
    try:
        assert holder.stdout is not None and holder.stdout.readline() == b"held\n"
        with pytest.raises(RegraftError, match="Another process is working on"), run.locked():
            pass
    finally:
        holder.kill()
        holder.communicate()
    with run.locked():  # what held it is gone, and so is the lock
        pass


def test_metrics_are_one_line_each(tmp_path: Path) -> None:
    run, _ = start(tmp_path)
    run.log_metrics(step=1, loss=0.5)
    run.log_metrics(step=2, loss=0.25)
    lines = (run.path / "metrics.jsonl").read_text().splitlines()
    assert [json.loads(line) for line in lines] == [{"step": 1, "loss": 0.5}, {"step": 2, "loss": 0.25}]
    with pytest.raises(ValueError, match="JSON"):
        run.log_metrics(loss=float("nan"))
    assert len((run.path / "metrics.jsonl").read_text().splitlines()) == 2
