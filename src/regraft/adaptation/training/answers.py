"""What a candidate of an adaptation answers, on disk and in the views that validators get."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from safetensors.torch import load_file, save_file

from regraft.adaptation.altered.acquisition import Simulated
from regraft.core.files import read_json, replacing, write_json
from regraft.core.types import DomainView
from regraft.tasks.linear import LinearTask


@dataclass
class Adapted:
    """A candidate's answers. source_*: held-out source pictures, None where there is no source; target_*: all.

    prior: the class shares (K,) of the target that its answers there assume, where it does assume some. altered_target:
    features (C, M, D) of the target's pictures altered as the candidate's own training pictures were, where they were:
    reverse validation does to the target what was done to the source. simulated: of a candidate whose held-out source
    pictures were altered as the target's are, what they say about it and about source-only; not kept on disk.
    """

    name: str
    seconds: float
    trained_parameters: int
    target_features: np.ndarray
    target_logits: np.ndarray
    source_features: np.ndarray | None = None
    source_logits: np.ndarray | None = None
    steps: int = 0
    prior: np.ndarray | None = None
    altered_target: np.ndarray | None = None
    simulated: Simulated | None = None

    def reversed(self) -> tuple[np.ndarray, np.ndarray]:
        """What a head of the reverse way learns from: features (N, D) of the target and the answers (N, K) for them."""
        if self.altered_target is None:
            return self.target_features, self.target_logits
        copies, _, dim = self.altered_target.shape
        features = np.concatenate([self.target_features, self.altered_target.reshape(-1, dim)])
        return features, np.tile(self.target_logits, (copies + 1, 1))

    def views(self, labels: np.ndarray | None) -> tuple[DomainView, DomainView]:
        """What validators see: (source with its labels, target without any)."""
        target = DomainView(torch.from_numpy(self.target_features), torch.from_numpy(self.target_logits))
        if self.source_features is None or self.source_logits is None or labels is None:
            return DomainView(target.features[:0], target.features.new_zeros(0, self.target_logits.shape[1])), target
        return (
            DomainView(
                torch.from_numpy(self.source_features), torch.from_numpy(self.source_logits), torch.from_numpy(labels)
            ),
            target,
        )


def write_answers(folder: Path, found: Adapted, model: LinearTask) -> None:
    """The weights first, the result last: its presence says that all is there."""
    save_arrays(folder / "model.safetensors", {k: v.detach().cpu().numpy() for k, v in model.state_dict().items()})
    arrays = {k: v for k, v in found.__dict__.items() if isinstance(v, np.ndarray)}
    save_arrays(folder / "answers.safetensors", arrays)
    write_json(
        folder / "result.json",
        {k: v for k, v in found.__dict__.items() if isinstance(v, str | int | float)},
    )
    for path in (folder / "checkpoints").glob("*"):
        path.unlink()


def read_answers(folder: Path) -> Adapted:
    """What `write_answers` left."""
    arrays = {k: v.numpy() for k, v in load_file(folder / "answers.safetensors").items()}
    plain = read_json(folder / "result.json")
    return Adapted(
        str(plain["name"]),
        float(plain["seconds"]),
        int(plain["trained_parameters"]),
        arrays["target_features"],
        arrays["target_logits"],
        arrays.get("source_features"),
        arrays.get("source_logits"),
        int(plain["steps"]),
        arrays.get("prior"),
        arrays.get("altered_target"),
    )


def save_arrays(path: Path, arrays: Mapping[str, np.ndarray]) -> None:
    """Named arrays into one safetensors file, whole or not at all."""
    with replacing(path) as temporary:
        save_file({k: torch.from_numpy(np.ascontiguousarray(v)) for k, v in arrays.items()}, temporary)
