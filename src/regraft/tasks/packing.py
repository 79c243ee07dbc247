"""A model to an artifact and back: everything that predicting needs, and nothing else.

What differs between classes and numbers is in `PackedClassifier` and `PackedRegressor`: how outputs become answers.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, ClassVar

from torch import Tensor

from regraft.core.artifact import read_artifact, write_artifact
from regraft.core.environment import installed
from regraft.core.errors import ArtifactError
from regraft.core.types import InputSpec
from regraft.images.backbones import catalogue
from regraft.images.backbones.base import ImageBackbone
from regraft.measure.conformal import UNKNOWN, ConformalInterval
from regraft.tasks.classification.task import Classification
from regraft.tasks.linear import LinearTask
from regraft.tasks.prediction import ClassReader, NumberReader, Reader
from regraft.tasks.regression.task import Regression

KIND, NUMBER_KIND = "image-classification", "image-regression"


@dataclass(frozen=True)
class Packed:
    """A model out of its artifact, in evaluation mode.

    labels: names of the outputs, in their order. threshold: the confidence below which the answer is "not sure".
    """

    task: LinearTask
    labels: tuple[str, ...]
    manifest: Mapping[str, Any]

    threshold: float = 0.0

    #: Names of what `finish` gives, as an exported file has them; the first is the answer.
    outputs: ClassVar[tuple[str, ...]] = ()

    @property
    def input_spec(self) -> InputSpec:
        return self.task.backbone.input_spec

    def finish(self, outputs: Tensor) -> tuple[Tensor, ...]:
        """What the task's outputs (N, K) mean: the tensors (N, K) that `outputs` names."""
        raise TypeError(f"{type(self).__name__} does not define finish")

    def reader(self) -> Reader:
        """What turns rows into predictions; an exported file gets the same one from its metadata."""
        raise TypeError(f"{type(self).__name__} does not define reader")


@dataclass(frozen=True)
class PackedClassifier(Packed):
    """A classifier. temperature divides the logits before the softmax.

    unknown: whether an answer below the threshold is "none of these classes" and not "not sure".
    """

    task: Classification
    temperature: float = 1.0
    unknown: bool = False

    outputs: ClassVar[tuple[str, ...]] = ("probabilities", "logits")

    def finish(self, outputs: Tensor) -> tuple[Tensor, ...]:
        return (outputs / self.temperature).softmax(dim=1), outputs

    def reader(self) -> Reader:
        return ClassReader(self.labels, self.threshold, self.unknown)


@dataclass(frozen=True)
class PackedRegressor(Packed):
    """A regression of one output, and how far it may be off."""

    task: Regression
    interval: ConformalInterval = UNKNOWN

    outputs: ClassVar[tuple[str, ...]] = ("numbers",)

    def finish(self, outputs: Tensor) -> tuple[Tensor, ...]:
        return (outputs,)

    def reader(self) -> Reader:
        return NumberReader(self.interval)


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
    described = {
        "temperature": temperature, "threshold": threshold, "unknown": unknown, "provenance": provenance,
        "metrics": metrics,
    }  # fmt: skip
    return _write(folder, task, labels, {"kind": KIND, "n_classes": len(labels)}, described)


def pack_regression(
    folder: Path,
    task: Regression,
    name: str,
    *,
    interval: ConformalInterval,
    provenance: Mapping[str, Any],
    metrics: Mapping[str, Any],
) -> Path:
    """Write the artifact of a regression of one output, called `name`; provenance and metrics as for `pack`."""
    kind = {"kind": NUMBER_KIND, "outputs": 1, "centre": float(task.centre[0]), "scale": float(task.scale[0])}
    described = {"temperature": 1.0, "interval": interval.to_json(), "provenance": provenance, "metrics": metrics}
    return _write(folder, task, (name,), kind, described)


def _write(
    folder: Path, task: LinearTask, labels: tuple[str, ...], kind: Mapping[str, Any], described: Mapping[str, Any]
) -> Path:
    backbone = task.backbone
    plain = {key: dict(value) if isinstance(value, Mapping) else value for key, value in described.items()}
    manifest = {
        "created": datetime.now(UTC).isoformat(timespec="seconds"),
        "regraft": installed("regraft"),
        "task": dict(kind),
        "backbone": {**backbone.recipe, "feature_dim": backbone.feature_dim},
        "input_spec": backbone.input_spec.to_json(),
        "labels": list(labels),
        "licence": backbone.provenance.get("licence") or backbone.licence,
        **plain,
    }
    return write_artifact(folder, manifest, task.state_dict())


def unpack(folder: Path) -> PackedClassifier:
    """A classifier's artifact folder. Raises ArtifactError where it holds another model, or does not fit itself."""
    found = unpack_any(folder)
    if not isinstance(found, PackedClassifier):
        raise ArtifactError(f"{folder} holds a model for {NUMBER_KIND!r}; this command takes {KIND}.")
    return found


def unpack_any(folder: Path) -> PackedClassifier | PackedRegressor:
    """Load an artifact folder. Raises ArtifactError where its weights and its description do not fit each other."""
    manifest, tensors = read_artifact(folder)
    kind = manifest["task"].get("kind")
    if kind not in (KIND, NUMBER_KIND):
        raise ArtifactError(f"{folder} holds a model for {kind!r}; this version knows {KIND} and {NUMBER_KIND}.")
    labels = tuple(str(label) for label in manifest["labels"])
    backbone = _backbone(manifest)
    if kind == KIND:
        task = Classification(backbone, len(labels))
        _load(folder, task, tensors, manifest)
        threshold, temperature = float(manifest.get("threshold", 0.0)), float(manifest["temperature"])
        return PackedClassifier(task, labels, manifest, threshold, temperature, manifest.get("unknown") is True)
    regression = Regression(backbone, len(labels))
    _load(folder, regression, tensors, manifest)
    return PackedRegressor(regression, labels, manifest, interval=_interval(folder, manifest.get("interval")))


def _backbone(manifest: Mapping[str, Any]) -> ImageBackbone:
    described = manifest["backbone"]
    spec = InputSpec.from_json(manifest["input_spec"])
    backbone = catalogue.build(described["family"], described["model"], described.get("options", {}), pretrained=False)
    backbone.input_spec = spec
    for name in ("mean", "std"):
        getattr(backbone, f"input_{name}").copy_(backbone.input_mean.new_tensor(spec.options[name]).view(1, -1, 1, 1))
    return backbone


def _load(folder: Path, task: LinearTask, tensors: Mapping[str, Tensor], manifest: Mapping[str, Any]) -> None:
    try:
        task.load_state_dict(tensors)
    except RuntimeError as error:
        first = str(error).strip().splitlines()[-1].strip()
        name = manifest["backbone"]["name"]
        raise ArtifactError(f"The weights in {folder} do not fit its {name}: {first}.") from error
    task.eval()


def _interval(folder: Path, value: Any) -> ConformalInterval:
    """What a manifest says of the interval; none where it says nothing."""
    if value is None:
        return UNKNOWN
    try:
        return ConformalInterval.from_json(value)
    except (KeyError, TypeError, ValueError) as error:
        raise ArtifactError(f"The manifest in {folder} describes no interval by {value!r}: copy it again.") from error
