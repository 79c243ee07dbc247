"""How long this process has lived, so that "seconds from the command's start" include interpreter and imports."""

from __future__ import annotations

import os
import time
from pathlib import Path

_IMPORTED = time.monotonic()
_command = False


def seconds_since_start() -> float:
    """Seconds since the operating system started this process; since this module's import where that is not known."""
    try:
        fields = Path("/proc/self/stat").read_text().rpartition(")")[2].split()
        uptime = float(Path("/proc/uptime").read_text().split()[0])
        return uptime - int(fields[19]) / os.sysconf("SC_CLK_TCK")
    except (OSError, ValueError, IndexError):
        return time.monotonic() - _IMPORTED


def begin_command() -> None:
    """Say that this process is there for one command: its job's time then counts from the process's own start."""
    global _command
    _command = True


def job_began_s() -> float:
    """When a job that is called now began, on the scale of `seconds_since_start`.

    For a command that is the process's start. In a program or a notebook it is now: what was done before is not the
    job's, and would eat its budget.
    """
    return 0.0 if _command else seconds_since_start()
