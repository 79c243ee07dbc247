"""Freed memory is used again."""

from __future__ import annotations

import platform
import subprocess
import sys

import pytest

CODE = """
import resource, sys, torch
from regraft.core.memory import keep_freed_memory
kept = keep_freed_memory() if sys.argv[1] == "keep" else None
def faults():
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    for _ in range(3):
        torch.ones(25_000_000)  # 100 MB, freed at once
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before
for _ in range(4):  # until the heap has holes of that size
    faults()
print(kept, faults())
"""


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="the C library is not glibc: nothing is tuned")
def test_later_tensors_of_that_size_cost_few_page_faults() -> None:
    def run(how: str) -> list[str]:
        return subprocess.run(
            [sys.executable, "-c", CODE, how], capture_output=True, text=True, check=True
        ).stdout.split()

    _, before = run("return")
    assert int(before) > 3 * 20_000  # three tensors of 24,414 pages each
    # Where the heap may grow to is drawn anew for every process; now and then there is no room for such a tensor.
    for _ in range(3):
        kept, faults = run("keep")
        assert kept == "True"
        if int(faults) < int(before) / 2:
            return
    pytest.fail(f"three processes in a row had {faults} page faults or about so many, and {before} without keeping")
