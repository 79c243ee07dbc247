"""A fit in two processes, by `--devices` and by torchrun: one report, one run, the same weights; and two nodes."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file

from regraft.core.errors import UsageError
from regraft.engine.processes import agree, is_further_process

OPTIONS = [
    "--backbone", "scion:size=64", "--epochs", "1", "--threads", "2", "--strategies", "probe,finetune",
    "--device", "cpu", "--precision", "fp32", "--json",
]  # fmt: skip
TORCHRUN = ["-m", "torch.distributed.run", "--nproc_per_node", "2", "--master_port"]
NAMES = (
    "RANK",
    "WORLD_SIZE",
    "LOCAL_RANK",
    "LOCAL_WORLD_SIZE",
    "NODE_RANK",
    "GROUP_RANK",
    "MASTER_ADDR",
    "MASTER_PORT",
)


def free_port() -> str:
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        return str(found.getsockname()[1])


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two classes of 12 pictures in train/, 8 in test/, one brighter than the other, with noise between them."""
    root = tmp_path_factory.mktemp("pictures")
    draw = np.random.default_rng(0)
    for part, count in (("train", 12), ("test", 8)):
        for name, light in (("dark", 0), ("light", 60)):
            (root / part / name).mkdir(parents=True)
            for index in range(count):
                pixels = (draw.integers(0, 196, (48, 48, 3)) + light).astype(np.uint8)
                Image.fromarray(pixels).save(root / part / name / f"{index}.png")
    return root


Finished = tuple[Path, "subprocess.CompletedProcess[str]"]


@pytest.fixture(scope="module")
def ways(data: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Finished]:
    """The run that each way gave, and what it printed; in processes of their own."""
    fit = ["-m", "regraft", "fit", str(data), *OPTIONS]
    found: dict[str, Finished] = {}
    for way, command in (("devices", [*fit, "--devices", "2"]), ("torchrun", [*TORCHRUN, free_port(), *fit])):
        folder = tmp_path_factory.mktemp(way)
        done = subprocess.run([sys.executable, *command], cwd=folder, capture_output=True, text=True, timeout=300)
        assert done.returncode == 0, done.stderr[-3000:]
        (run,) = (path for path in (folder / "runs").iterdir() if path.name != "LAST")
        found[way] = run, done
    return found


@pytest.mark.parametrize("way", ["devices", "torchrun"])
def test_fit_in_two_processes_gives_one_report(way: str, ways: dict[str, Finished]) -> None:
    run, done = ways[way]
    report = json.loads(done.stdout)  # two documents would not parse
    assert {c["name"] for c in report["candidates"]} == {"probe", "finetune"}
    assert report["n_test"] == 16
    assert done.stderr.count("MEMBER: 2/2") == done.stderr.count("First answer") == 1
    assert (run / "DONE").exists() and not (run / "FAILED").exists()


def test_both_ways_end_with_the_same_weights(ways: dict[str, Finished]) -> None:
    by_devices, by_torchrun = (load_file(ways[way][0] / "artifact" / "model.safetensors") for way in ways)
    assert by_devices.keys() == by_torchrun.keys()
    for name, value in by_devices.items():
        assert torch.equal(value, by_torchrun[name]), name


SCRIPT = """
import torch
from regraft.engine import is_further_process, launch
machine = launch(device="cpu", devices=1, nodes=2, precision="fp32")
total = machine.fabric.all_reduce(torch.tensor(machine.fabric.global_rank + 1.0), reduce_op="sum")
print(machine.fabric.world_size, float(total), machine.is_first, is_further_process())
"""


def test_two_nodes_of_one_process_each_are_a_world_of_two() -> None:
    """Both on this machine: local rank 0 each, and the node's rank tells them apart."""
    base = {k: v for k, v in os.environ.items() if k not in NAMES}
    base |= {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": free_port()}
    nodes = [
        subprocess.Popen([sys.executable, "-c", SCRIPT], env={**base, "NODE_RANK": str(rank)}, stdout=subprocess.PIPE,
                         text=True)
        for rank in (0, 1)
    ]  # fmt: skip
    lines = [node.communicate(timeout=180)[0].strip().splitlines()[-1] for node in nodes]
    assert lines == ["2 3.0 True False", "2 3.0 False True"]


def started(monkeypatch: pytest.MonkeyPatch, **variables: int) -> None:
    for name in NAMES:
        monkeypatch.delenv(name, raising=False)
    for name, value in variables.items():
        monkeypatch.setenv(name, str(value))


@pytest.mark.parametrize(
    ("variables", "further"),
    [
        ({}, False),
        ({"LOCAL_RANK": 0, "NODE_RANK": 0, "WORLD_SIZE": 2}, False),  # what the first process's `launch` leaves behind
        ({"LOCAL_RANK": 1, "NODE_RANK": 0, "WORLD_SIZE": 2}, True),
        ({"LOCAL_RANK": 0, "NODE_RANK": 1, "WORLD_SIZE": 2}, True),
        ({"NODE_RANK": 1}, True),
        ({"RANK": 0, "LOCAL_RANK": 0, "WORLD_SIZE": 4, "GROUP_RANK": 0}, False),
        ({"RANK": 2, "LOCAL_RANK": 0, "WORLD_SIZE": 4, "GROUP_RANK": 1}, True),
        ({"RANK": 1, "LOCAL_RANK": 1, "WORLD_SIZE": 4, "GROUP_RANK": 0}, True),
        ({"RANK": 0, "LOCAL_RANK": 1, "WORLD_SIZE": 2}, False),  # ranks may be handed out in any order
    ],
)
def test_which_process_shows(monkeypatch: pytest.MonkeyPatch, variables: dict[str, int], further: bool) -> None:
    started(monkeypatch, **variables)
    assert is_further_process() == further


def test_torchrun_s_numbers_are_taken_where_none_were_asked_for(monkeypatch: pytest.MonkeyPatch) -> None:
    started(monkeypatch, RANK=5, LOCAL_RANK=1, WORLD_SIZE=8, LOCAL_WORLD_SIZE=4)
    for devices, nodes in ((1, 1), (4, 1), (1, 2), (4, 2)):
        found = agree(devices, nodes)
        assert (found.devices, found.nodes, found.started, found.several) == (4, 2, True, True)
    with pytest.raises(
        UsageError, match=r"--devices 2 contradicts torchrun, which started 4 on each node \(8 in all\)"
    ):
        agree(2, 1)
    with pytest.raises(UsageError, match="--nodes 4 contradicts torchrun, which started 8 processes on 2"):
        agree(1, 4)
    with pytest.raises(UsageError, match="computes in one process, and torchrun started 8"):
        agree(None, 1)
    started(monkeypatch, RANK=0, LOCAL_RANK=0, WORLD_SIZE=1)
    assert not agree(None, 1).several


def test_without_torchrun_nodes_must_know_each_other(monkeypatch: pytest.MonkeyPatch) -> None:
    started(monkeypatch)
    assert (agree(None, 1).devices, agree(2, 1).devices, agree(2, 1).several) == (1, 2, True)
    with pytest.raises(UsageError, match=r"--nodes 2 needs to know which node this is: .* NODE_RANK \(0 to 1\)"):
        agree(1, 2)
    with pytest.raises(UsageError, match="--nodes takes 1 or more, not 0"):
        agree(1, 0)
    started(monkeypatch, NODE_RANK=1)
    assert agree(1, 2).several
