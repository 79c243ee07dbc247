"""Checkpoints: written whole, renamed, then named in `LAST`. Only the newest is kept."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch

from regraft.core.errors import ArtifactError
from regraft.core.files import replacing, write_text


def save_checkpoint(folder: Path, step: int, state: dict[str, Any]) -> None:
    """Write `step-<n>.pt`, point `LAST` at it, and remove older ones."""
    path = folder / f"step-{step:08d}.pt"
    with replacing(path) as temporary:
        torch.save(state, temporary)
    write_text(folder / "LAST", path.name + "\n")
    for other in folder.glob("step-*.pt"):
        if other != path:
            other.unlink(missing_ok=True)


def load_checkpoint(folder: Path, device: torch.device) -> dict[str, Any] | None:
    """The newest checkpoint, None where there is none. Read as plain tensors and numbers only."""
    last = folder / "LAST"
    if not last.is_file():
        return None
    name = last.read_text(encoding="utf-8").strip()
    path = folder / Path(name).name
    if not path.is_file():
        return None
    try:
        state: dict[str, Any] = torch.load(path, map_location=device, weights_only=True)
    except Exception as error:  # the reader raises many kinds for a damaged file
        raise ArtifactError(
            f"The checkpoint {path} cannot be read ({error}): delete {folder} to start it again."
        ) from error
    return state
