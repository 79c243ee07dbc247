"""Two processes on a CPU (gloo) are one process with batches twice as large; and both stop where one of them breaks."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import torch

import tiny_training
from regraft.engine import fit
from tiny_training import PAIR, PAIR_RULES, Regression, numbers, one_machine, plan_of


def two(job: str, folder: Path) -> list[dict[str, Any]]:
    """Run the script, which starts its own second process, and read what both saved."""
    command = [sys.executable, tiny_training.__file__, job, folder / "out.pt"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr[-3000:]
    found = [torch.load(folder / f"out.{rank}", weights_only=True) for rank in (0, 1)]
    assert all(result["world"] == 2 for result in found)
    return found


def test_two_processes_are_one_with_double_batches(tmp_path: Path) -> None:
    """The last batch has five samples in all and three of padding, so the processes carry different weights in it."""
    first, second = two("two", tmp_path)
    alone = Regression()
    before = {name: value.clone() for name, value in alone.state_dict().items()}
    fit(alone, {"train": numbers(21)}, plan_of(alone, *PAIR_RULES), PAIR, one_machine())
    for name, value in alone.state_dict().items():
        assert torch.equal(first["task"][name], second["task"][name]), name
        torch.testing.assert_close(first["task"][name], value, rtol=0, atol=1e-6)
        assert torch.equal(first["task"][name], before[name]) == (name == "a.bias"), name


def test_number_that_breaks_in_one_process_stops_both(tmp_path: Path) -> None:
    first, second = two("nan", tmp_path)
    for result in (first, second):
        assert "DivergedError" in result["found"] and "at step 3" in result["found"]
    assert all(torch.isfinite(value).all() for value in first["task"].values())
    for name, value in first["task"].items():
        assert torch.equal(value, second["task"][name]), name
