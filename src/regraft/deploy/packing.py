"""A classifier to an artifact and back: everything that predicting needs, and nothing else."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from regraft.backbones import catalogue
from regraft.core.artifact import read_artifact, write_artifact
from regraft.core.environment import installed
from regraft.core.errors import ArtifactError
from regraft.core.types import InputSpec
from regraft.tasks.classification import Classification

KIND = "image-classification"


@dataclass(frozen=True)
class PackedClassifier:
    """A classifier out of its artifact, in evaluation mode.

    temperature divides the logits before the softmax; threshold is the confidence below which an answer is "not sure",
    or with `unknown` "none of these classes".
    """

    task: Classification
    labels: tuple[str, ...]
    temperature: float
    threshold: float
    unknown: bool
    manifest: Mapping[str, Any]

    @property
    def input_spec(self) -> InputSpec:
        return self.task.backbone.input_spec


def pack(
    folder: Path,
    task: Classification,
    labels: tuple[str, ...],
    *,
    temperature: float,
    threshold: float,
    unknown: bool = False,
    provenance: Mapping[str, Any],
    metrics: Mapping[str, Any],
) -> Path:
    """Write the artifact of a classifier. provenance and metrics are for people; loading does not need them."""
    backbone = task.backbone
    manifest = {
        "created": datetime.now(UTC).isoformat(timespec="seconds"),
        "regraft": installed("regraft"),
        "task": {"kind": KIND, "n_classes": len(labels)},
        "backbone": {**backbone.recipe, "feature_dim": backbone.feature_dim},
        "input_spec": backbone.input_spec.to_json(),
        "labels": list(labels),
        "temperature": temperature,
        "threshold": threshold,
        "unknown": unknown,
        "licence": backbone.provenance.get("licence") or backbone.licence,
        "provenance": dict(provenance),
        "metrics": dict(metrics),
    }
    return write_artifact(folder, manifest, task.state_dict())


def unpack(folder: Path) -> PackedClassifier:
    """Load an artifact folder. Raises ArtifactError where its weights and its description do not fit each other."""
    manifest, tensors = read_artifact(folder)
    kind = manifest["task"].get("kind")
    if kind != KIND:
        raise ArtifactError(f"{folder} holds a model for {kind!r}; this command takes {KIND}.")
    described = manifest["backbone"]
    spec = InputSpec.from_json(manifest["input_spec"])
    backbone = catalogue.build(described["family"], described["model"], described.get("options", {}), pretrained=False)
    backbone.input_spec = spec
    for name in ("mean", "std"):
        getattr(backbone, f"input_{name}").copy_(backbone.input_mean.new_tensor(spec.options[name]).view(1, -1, 1, 1))
    task = Classification(backbone, len(manifest["labels"]))
    try:
        task.load_state_dict(tensors)
    except RuntimeError as error:
        first = str(error).strip().splitlines()[-1].strip()
        raise ArtifactError(f"The weights in {folder} do not fit its {described['name']}: {first}.") from error
    return PackedClassifier(
        task.eval(),
        tuple(str(label) for label in manifest["labels"]),
        float(manifest["temperature"]),
        float(manifest.get("threshold", 0.0)),
        manifest.get("unknown") is True,
        manifest,
    )
