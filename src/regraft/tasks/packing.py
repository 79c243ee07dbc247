"""A model to an artifact and back: everything that predicting needs, and nothing else.

What differs between kinds of labels is asked of the kind that the manifest names, as "<modality>-<kind>".
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from torch import Tensor

from regraft.core.artifact import read_artifact, read_companions, write_artifact
from regraft.core.environment import installed
from regraft.core.errors import ArtifactError
from regraft.core.types import Backbone, InputSpec
from regraft.tasks.kind import Calibration, Kind
from regraft.tasks.kinds import kinds
from regraft.tasks.linear import LinearTask
from regraft.tasks.modalities import modality_named
from regraft.tasks.reading import Reader


@dataclass(frozen=True)
class Packed:
    """A model out of its artifact, in evaluation mode. labels: names of the outputs, in their order."""

    task: LinearTask
    labels: tuple[str, ...]
    manifest: Mapping[str, Any]
    kind: Kind
    calibration: Calibration

    @property
    def input_spec(self) -> InputSpec:
        return self.task.backbone.input_spec

    @property
    def threshold(self) -> float:
        """The confidence below which the model abstains."""
        return self.calibration.threshold

    @property
    def outputs(self) -> tuple[str, ...]:
        """Names of what `finish` gives, as an exported file has them; the first is the answer."""
        return self.calibration.outputs

    def finish(self, outputs: Tensor) -> tuple[Tensor, ...]:
        """What the task's outputs (N, K) mean: the tensors (N, K) that `outputs` names."""
        return self.calibration.finish(outputs)

    def reader(self) -> Reader:
        """What turns rows into predictions; an exported file gets the same one from its metadata."""
        return self.calibration.reader(self.labels)


def pack(
    folder: Path,
    kind: Kind,
    task: LinearTask,
    calibration: Calibration,
    *,
    provenance: Mapping[str, Any],
    metrics: Mapping[str, Any],
) -> Path:
    """Write the artifact. provenance and metrics are for people; loading does not need them."""
    backbone = task.backbone
    described = {**calibration.to_manifest(), "provenance": provenance, "metrics": metrics}
    plain = {key: dict(value) if isinstance(value, Mapping) else value for key, value in described.items()}
    manifest = {
        "created": datetime.now(UTC).isoformat(timespec="seconds"),
        "regraft": installed("regraft"),
        "task": {"kind": f"{backbone.input_spec.modality}-{kind.name}", **kind.described_task(task)},
        "backbone": {**backbone.recipe, "feature_dim": backbone.feature_dim},
        "input_spec": backbone.input_spec.to_json(),
        "labels": list(kind.labels),
        "licence": backbone.provenance.get("licence") or backbone.licence,
        **plain,
    }
    return write_artifact(folder, manifest, task.state_dict(), backbone.companions())


def unpack(folder: Path, kind: str | None = None) -> Packed:
    """Load an artifact folder. kind: the only one that is taken.

    Raises ArtifactError where it holds a model of another or of an unknown kind, or where its weights and its
    description do not fit each other.
    """
    manifest, tensors = read_artifact(folder)
    named = str(manifest["task"].get("kind"))
    name = named.partition("-")[2]
    if name not in kinds:
        raise ArtifactError(f"{folder} holds a model for {named!r}; this version knows {', '.join(kinds.names())}.")
    if kind is not None and name != kind:
        raise ArtifactError(f"{folder} holds a model for {named!r}; this command takes {kind}.")
    labels = tuple(str(label) for label in manifest["labels"])
    found = kinds.get(name)
    task = found.blank(rebuilt_backbone(folder, manifest), labels)
    _load(folder, task, tensors, manifest)
    try:
        calibration = found.calibration_of(manifest)
    except (KeyError, TypeError, ValueError) as error:
        raise ArtifactError(
            f"The manifest in {folder} does not say what the model's outputs mean ({type(error).__name__}: {error}): "
            "copy the artifact again from its run."
        ) from error
    return Packed(task, labels, manifest, found.of_task(task, labels), calibration)


def rebuilt_backbone(folder: Path, manifest: Mapping[str, Any]) -> Backbone:
    """The backbone that a manifest describes, of its own modality, before the weights are loaded."""
    modality = modality_named(str(manifest["input_spec"]["modality"]))
    spec = modality.spec.from_json(manifest["input_spec"])
    return modality.build(manifest["backbone"], spec, read_companions(folder, manifest))


def _load(folder: Path, task: LinearTask, tensors: Mapping[str, Tensor], manifest: Mapping[str, Any]) -> None:
    try:
        task.load_state_dict(tensors)
    except RuntimeError as error:
        first = str(error).strip().splitlines()[-1].strip()
        name = manifest["backbone"]["name"]
        raise ArtifactError(f"The weights in {folder} do not fit its {name}: {first}.") from error
    task.eval()
