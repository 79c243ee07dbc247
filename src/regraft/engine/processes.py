"""Who starts the processes of a run: `launch` by itself, or torchrun before it; and which of them this one is."""

from __future__ import annotations

import os
from dataclasses import dataclass

from regraft.core.errors import UsageError

#: What torchrun sets for each process that it starts. Fabric, which starts further ones itself, does not set RANK.
_TORCHRUN = ("RANK", "WORLD_SIZE", "LOCAL_RANK")


@dataclass(frozen=True)
class Processes:
    """devices: processes on each of `nodes` machines. started: whether they run already, started by torchrun."""

    devices: int
    nodes: int
    started: bool

    @property
    def several(self) -> bool:
        return self.devices * self.nodes > 1


def started_by_torchrun() -> bool:
    """Whether torchrun, or what sets the same variables, started this process."""
    return all(name in os.environ for name in _TORCHRUN)


def agree(devices: int | None, nodes: int) -> Processes:
    """What was asked for (None: this command computes in one process), brought together with what torchrun started.

    Raises UsageError for less than one, for a contradiction between the two, and where further nodes cannot find each
    other.
    """
    for option, value in (("--devices", devices), ("--nodes", nodes)):
        if value is not None and value < 1:
            raise UsageError(f"{option} takes 1 or more, not {value}.")
    if started_by_torchrun():
        return _as_started(devices, nodes)
    if nodes > 1 and not {"NODE_RANK", "GROUP_RANK"} & os.environ.keys():
        raise UsageError(
            f"--nodes {nodes} needs to know which node this is: start the same command on each of them with NODE_RANK "
            f"(0 to {nodes - 1}), MASTER_ADDR and MASTER_PORT set, or start it with torchrun."
        )
    return Processes(devices or 1, nodes, started=False)


def _as_started(devices: int | None, nodes: int) -> Processes:
    world = int(os.environ["WORLD_SIZE"])
    # torchrun says how many of them are on this node; where something else set the variables, the options do.
    local = int(os.environ.get("LOCAL_WORLD_SIZE", world // nodes))
    if devices is None and world > 1:
        raise UsageError(f"This command computes in one process, and torchrun started {world}: start it without.")
    if local < 1 or world % local:
        raise UsageError(f"torchrun started {world} processes, {local} of them here: start as many on each node.")
    found = Processes(local, world // local, started=True)
    if devices not in (None, 1, found.devices):
        raise UsageError(
            f"--devices {devices} contradicts torchrun, which started {found.devices} on each node ({world} in all): "
            f"leave --devices out, or start torchrun with --nproc_per_node {devices}."
        )
    if nodes not in (1, found.nodes):
        raise UsageError(
            f"--nodes {nodes} contradicts torchrun, which started {world} processes on {found.nodes}: "
            f"leave --nodes out, or start torchrun with --nnodes {nodes}."
        )
    return found


def is_further_process() -> bool:
    """Whether another process of this run is the one that writes and shows: this one computes, and shows nothing."""
    if started_by_torchrun():
        return int(os.environ["RANK"]) > 0
    return int(os.environ.get("LOCAL_RANK", "0")) > 0 or _node() > 0


def _node() -> int:
    return int(os.environ.get("NODE_RANK", os.environ.get("GROUP_RANK", "0")))
