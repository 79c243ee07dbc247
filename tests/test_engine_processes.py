"""Two processes on a CPU (gloo) are one process with batches twice as large; and both stop where one of them breaks."""

from __future__ import annotations

import subprocess
import sys
from typing import Any

import pytest
import torch

import tiny_training
from regraft.engine import fit
from tiny_training import ALIGNED, PAIR, PAIR_RULES, Regression, align, numbers, one_machine, plan_of


@pytest.fixture(scope="module")
def two(tmp_path_factory: pytest.TempPathFactory) -> tuple[dict[str, Any], dict[str, Any]]:
    """What both processes saved; the script starts its own second process."""
    folder = tmp_path_factory.mktemp("two")
    command = [sys.executable, tiny_training.__file__, "two", folder / "out.pt"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=240)
    assert done.returncode == 0, done.stderr[-3000:]
    first, second = (torch.load(folder / f"out.{rank}", weights_only=True) for rank in (0, 1))
    assert first["world"] == second["world"] == 2
    return first, second


def test_two_processes_are_one_with_double_batches(two: tuple[dict[str, Any], dict[str, Any]]) -> None:
    """The last batch has five samples in all and three of padding, so the processes carry different weights in it."""
    first, second = (result["sound"]["task"] for result in two)
    alone = Regression()
    before = {name: value.clone() for name, value in alone.state_dict().items()}
    fit(alone, {"train": numbers(21)}, plan_of(alone, *PAIR_RULES), PAIR, one_machine())
    for name, value in alone.state_dict().items():
        assert torch.equal(first[name], second[name]), name
        torch.testing.assert_close(first[name], value, rtol=0, atol=1e-6)
        assert torch.equal(first[name], before[name]) == (name == "a.bias"), name


def test_number_that_breaks_in_one_process_stops_both(two: tuple[dict[str, Any], dict[str, Any]]) -> None:
    first, second = (result["broken"] for result in two)
    for result in (first, second):
        assert "DivergedError" in result["found"] and "at step 3" in result["found"]
    for name, value in first["task"].items():
        assert torch.isfinite(value).all() and torch.equal(value, second["task"][name]), name


@pytest.mark.parametrize("name", ALIGNED)
def test_alignment_over_two_processes_is_the_alignment_over_one(
    name: str, two: tuple[dict[str, Any], dict[str, Any]]
) -> None:
    """Distances between samples of both halves count: the mean of the halves' losses would be another loss."""
    alone = align(name, one_machine(), None)
    for result in two:
        for key, value in alone.items():
            torch.testing.assert_close(result["aligned"][name][key], value, rtol=1e-4, atol=1e-5, msg=f"{name} {key}")
