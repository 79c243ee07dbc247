"""What a run ran on: versions, commit, command line, device. Written to `env.json` so that a figure can be traced."""

from __future__ import annotations

import os
import platform
import shlex
import subprocess
import sys
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import torch

PACKAGES = ("regraft", "torch", "torchvision", "timm", "lightning-fabric", "numpy", "pillow", "scikit-learn")


def installed(package: str) -> str | None:
    """The installed version of a distribution, None where it is absent."""
    try:
        return version(package)
    except PackageNotFoundError:
        return None


def git_commit(folder: Path) -> str | None:
    """The commit of the checkout that holds `folder`, with "+" when it has changes; None outside one."""
    try:
        sha = subprocess.run(
            ["git", "rev-parse", "--short=12", "HEAD"],
            cwd=folder,
            capture_output=True,
            text=True,
            timeout=5,
            check=True,
        ).stdout.strip()
        dirty = subprocess.run(
            ["git", "status", "--porcelain", "-uno"], cwd=folder, capture_output=True, text=True, timeout=5, check=True
        ).stdout.strip()
    except (OSError, subprocess.SubprocessError):
        return None
    return sha + ("+" if dirty else "")


def describe(seed: int, device: str) -> dict[str, Any]:
    """JSON-ready description of this process and machine; no host name, no user name."""
    return {
        "versions": {name: installed(name) for name in PACKAGES},
        "python": platform.python_version(),
        "platform": f"{platform.system()} {platform.machine()}",
        "git": git_commit(Path(__file__).parent),
        "command": command_line(),
        "seed": seed,
        "device": device,
        "device_name": torch.cuda.get_device_name() if device.startswith("cuda") else cpu_name(),
        "threads": torch.get_num_threads(),
        "cores": os.cpu_count(),
    }


def command_line() -> str:
    """The command as a person would type it."""
    program = Path(sys.argv[0]).name
    name = "regraft" if program in {"__main__.py", "regraft", "regraft.exe"} else f"python {program}"
    return " ".join([name, *map(shlex.quote, sys.argv[1:])])


def cpu_name() -> str:
    """The processor's name as the system tells it, else its architecture."""
    try:
        for line in Path("/proc/cpuinfo").read_text().splitlines():
            if line.startswith("model name"):
                return line.split(":", 1)[1].strip()
    except OSError:
        pass
    return platform.processor() or platform.machine()
