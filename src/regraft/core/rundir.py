"""The run directory: one folder per run with everything that was asked, done and found.

`runs/<utc>-<recipe>-<data>-<backbone>-<hash4>/`. The same command finds its unfinished run again by the hash of its
configuration. `DONE` or `FAILED` says how a run ended; neither means that it can be resumed.
"""

from __future__ import annotations

import json
import logging
import os
import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import yaml

from regraft.core.errors import ArtifactError, RegraftError, UsageError
from regraft.core.files import read_json, stable_hash, write_json, write_text

log = logging.getLogger(__name__)

try:
    import fcntl
except ImportError:  # Windows has no flock: two processes on one run are then not caught
    fcntl = None  # type: ignore[assignment]


class RunDirectory:
    """Paths and atomic writes below one run's folder."""

    def __init__(self, path: Path) -> None:
        self.path = path

    @classmethod
    def open(
        cls, root: Path, recipe: str, data: str, backbone: str, config: Mapping[str, Any], *, fresh: bool = False
    ) -> tuple[RunDirectory, bool]:
        """The unfinished run of exactly this configuration, else a new one; the flag says whether it is resumed."""
        digest = stable_hash(config)
        if not fresh and root.is_dir():
            for path in sorted(root.glob(f"*-{recipe}-*-{digest[:4]}"), reverse=True):
                run = cls(path)
                if run.finished or not (path / "run.json").is_file():
                    continue
                if read_json(path / "run.json").get("config_hash") == digest:
                    (path / "FAILED").unlink(missing_ok=True)
                    return run, True
        stamp = datetime.now(UTC).strftime("%Y%m%dT%H%M%S")
        name = f"{stamp}-{recipe}-{_slug(data)}-{_slug(backbone)}-{digest[:4]}"
        path, count = root / name, 1
        while path.exists():
            count += 1
            path = root / name.replace(stamp, f"{stamp}_{count}", 1)
        return cls._begun(path, config, digest), False

    @classmethod
    def at(cls, path: Path, config: Mapping[str, Any]) -> tuple[RunDirectory, bool]:
        """The run in this very folder: a new one where nothing is, else its unfinished one; the flag says which.

        Raises UsageError where the folder holds anything but an unfinished run of exactly this configuration.
        """
        run, digest = cls(path), stable_hash(config)
        if not path.exists() or (path.is_dir() and not any(path.iterdir())):
            return cls._begun(path, config, digest), False
        if not (path / "run.json").is_file():
            raise UsageError(f"{path} is there already and is no run: give the name of a new folder.")
        if run.finished or read_json(path / "run.json").get("config_hash") != digest:
            what = "a finished run" if run.finished else "an unfinished run with other options"
            raise UsageError(f"{path} holds {what}: give the name of a new folder.")
        (path / "FAILED").unlink(missing_ok=True)
        return run, True

    @classmethod
    def _begun(cls, path: Path, config: Mapping[str, Any], digest: str) -> RunDirectory:
        path.mkdir(parents=True, exist_ok=True)
        write_text(path / "config.yaml", yaml.safe_dump(dict(config), sort_keys=False, allow_unicode=True))
        write_json(path / "run.json", {"config_hash": digest, "created": datetime.now(UTC).isoformat()})
        return cls(path)

    @property
    def finished(self) -> bool:
        return (self.path / "DONE").exists()

    @property
    def artifact(self) -> Path:
        return self.path / "artifact"

    @contextmanager
    def locked(self) -> Iterator[None]:
        """Hold the run for this process; a second process on the same run gets a RegraftError."""
        with (self.path / ".lock").open("w") as handle:
            if fcntl is not None:
                try:
                    fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
                except OSError as error:
                    raise RegraftError(
                        f"Another process is working on {self.path}. Wait for it, or start a separate run with --fresh."
                    ) from error
            yield

    def point_last(self) -> None:
        """Make `LAST` beside the run name it: a relative link, or a file with the name where links are not allowed."""
        last = self.path.parent / "LAST"
        temporary = self.path.parent / f".LAST.{os.getpid()}"
        temporary.unlink(missing_ok=True)
        try:
            temporary.symlink_to(self.path.name, target_is_directory=True)
        except OSError:
            temporary.write_text(self.path.name, encoding="utf-8")
        temporary.replace(last)

    def log_metrics(self, **values: Any) -> None:
        """Append one line to metrics.jsonl."""
        with (self.path / "metrics.jsonl").open("a", encoding="utf-8") as stream:
            stream.write(json.dumps(values, allow_nan=False) + "\n")

    def done(self) -> None:
        write_text(self.path / "DONE", datetime.now(UTC).isoformat() + "\n")

    def failed(self, reason: str) -> None:
        write_text(self.path / "FAILED", reason + "\n")


def resolve_run(path: Path) -> Path:
    """The run's or artifact's real folder for what a person typed: a run, `runs/LAST`, or an artifact folder."""
    if path.is_file():  # LAST as a plain file
        name = path.read_text(encoding="utf-8").strip()
        if re.fullmatch(r"[\w.\-]+", name):
            path = path.parent / name
    if not path.is_dir():
        raise ArtifactError(f"There is no run at {path}. `regraft fit` makes one under runs/; runs/LAST is the newest.")
    return path.resolve()


def artifact_of(path: Path) -> Path:
    """The artifact folder of a run, or the folder itself where it is one."""
    path = resolve_run(path)
    if (path / "artifact" / "manifest.json").is_file():
        return path / "artifact"
    if (path / "manifest.json").is_file():
        return path
    state = "did not finish" if not (path / "DONE").exists() else "has no artifact"
    raise ArtifactError(f"{path} {state}: run the same `regraft fit` command again; it resumes.")


def _slug(text: str) -> str:
    return re.sub(r"[^A-Za-z0-9_.]+", "_", text).strip("_.")[:40] or "data"
