"""An artifact → one `.onnx` file with the preprocessing inside, checked against its model or not written.

The file takes `images` uint8 (N, H, W, 3) of any N, H and W, and gives `probabilities` and `logits` (N, K), or
`numbers` (N, 1) for a regression.
Its metadata hold the labels, the threshold and the input spec; `docs/formats.md` documents them.
"""

from __future__ import annotations

import contextlib
import io
import json
import logging
import time
import warnings
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor, nn

from regraft.core.artifact import WEIGHTS
from regraft.core.errors import DataError, ExportError, MissingExtraError, RegraftError, UsageError
from regraft.core.files import replacing
from regraft.core.rundir import artifact_of
from regraft.deploy.onnx.predictor import FORMAT, OnnxPredictor
from regraft.deploy.onnx.preprocess import preprocessing
from regraft.deploy.predictor import Predictor
from regraft.images.inputs import read_picture
from regraft.images.spec import ImageSpec
from regraft.tasks.kind import Agreement, Check
from regraft.tasks.packing import Packed

if TYPE_CHECKING:
    from onnx import ModelProto

log = logging.getLogger(__name__)

#: Resize has antialiasing since opset 18; newer numbers only shut out older runtimes.
OPSET = 18
#: One protobuf holds 2 GiB; the graph itself needs some of it.
LIMIT_BYTES = (2 << 30) - (64 << 20)
#: Of generated pictures, where none are given.
GENERATED_SIZES_PX = ((97, 131), (240, 181), (333, 500), (64, 64), (640, 401), (50, 211))


@dataclass(frozen=True)
class ExportReport:
    """What was written and how far it agrees with the model.

    agreement: share of equal top-1 labels among the n_checked pictures; for a regression of numbers that differ by at
    most a tenth of the training numbers' deviation. max_difference, mean_difference: of each picture's largest
    probability difference; for a regression of its number, over that deviation. accuracy_*: where labels were given.
    unreadable: check pictures left out. told: the difference in words, with a place for `max_difference`.
    """

    path: str
    bytes: int
    opset: int
    n_checked: int
    generated: bool
    unreadable: int
    agreement: float
    max_difference: float
    mean_difference: float
    accuracy_model: float | None
    accuracy_onnx: float | None
    seconds: float
    told: str = ""
    of_classes: bool = True

    def to_json(self) -> dict[str, Any]:
        return {key: value for key, value in asdict(self).items() if key != "told"}


def export_onnx(
    folder: Path,
    out: Path,
    *,
    check_pictures: Sequence[Path] | None = None,
    labels: np.ndarray | None = None,
    opset: int = OPSET,
    min_agreement: float = 0.995,
) -> ExportReport:
    """Export the run or artifact at `folder` to `out`, which appears only when the check passes.

    check_pictures: pictures to compare on, each at its own size, the validation pictures by preference; None
    compares on six generated ones. labels: their class indices (N,), for the accuracy of both. Raises
    ExportError where the two disagree (see `Kind.compare`) or the weights are over 2 GiB, ArtifactError for a broken
    artifact, MissingExtraError without the extra `onnx`.
    """
    started = time.monotonic()
    if opset < OPSET:
        raise UsageError(f"opset {opset} came; the preprocessing needs {OPSET} or newer.")
    if labels is not None and len(labels) != len(check_pictures or ()):
        raise DataError(f"{len(check_pictures or ())} pictures to check came with {len(labels)} labels.")
    predictor = Predictor.load(artifact_of(folder), device="cpu")
    model = build_model(predictor.packed, opset=opset)
    with replacing(out) as temporary:
        temporary.write_bytes(model.SerializeToString())
        pictures, kept, unreadable = _pictures(check_pictures)
        found, reference = _compare(predictor, OnnxPredictor.load(temporary), pictures)
        described = {
            "path": str(out),
            "bytes": temporary.stat().st_size,
            "opset": opset,
            "generated": check_pictures is None,
            "unreadable": unreadable,
            "of_classes": predictor.packed.kind.name == "classification",
        }
        known = None if labels is None else np.asarray(labels)[kept]
        check = Check(known, check_pictures is None, min_agreement)
        report = judged(predictor.packed.kind.compare(found, reference, check), len(reference), described, started)
    log.info("%s: %d bytes, agreement %.4f", out, report.bytes, report.agreement)
    return report


def judged(agreement: Agreement, n: int, described: dict[str, Any], started: float) -> ExportReport:
    """The report on n answers of the file and of the model; ExportError where the kind of labels refuses them."""
    if agreement.refused:
        raise _refused(n, agreement.refused)
    values = {key: value for key, value in asdict(agreement).items() if key != "refused"}
    return ExportReport(**described, **values, n_checked=n, seconds=time.monotonic() - started)


def _refused(n: int, reason: str) -> ExportError:
    return ExportError(
        f"The exported file was refused and not kept: on {n} pictures {reason}. Use the artifact itself, or try "
        "another version of torch, onnxscript or onnxruntime."
    )


def build_model(packed: Packed, *, opset: int = OPSET) -> ModelProto:
    """Preprocessing and network in one model, with metadata, valid by ONNX's own checker; nothing is written."""
    image_spec(packed)
    size_bytes = sum(p.numel() * p.element_size() for p in packed.task.parameters())
    if size_bytes > LIMIT_BYTES:
        raise ExportError(
            f"The weights take {size_bytes / 2**30:.1f} GiB, and one .onnx file holds at most 2 GiB; weights in a file "
            "beside it (external data) are not written: export a smaller backbone, or deploy the artifact itself."
        )
    try:
        import onnx
        import onnxruntime  # noqa: F401  (the check needs it; better to say so before the long part)
        import onnxscript  # noqa: F401
    except ImportError as error:
        raise MissingExtraError("ONNX export", "onnx") from error
    core = export_network(packed, opset)
    before = preprocessing(image_spec(packed), opset=opset, ir_version=core.ir_version)
    model = onnx.compose.merge_models(before, core, io_map=[("pixels", "network_pixels")])
    model.producer_name = "regraft"
    model.graph.name = str(packed.manifest["backbone"].get("name", "regraft"))
    onnx.helper.set_model_props(model, _metadata(packed))
    try:
        onnx.checker.check_model(model, full_check=True)
    except (onnx.checker.ValidationError, onnx.shape_inference.InferenceError) as error:
        raise ExportError(f"The exported graph is not valid ONNX: {str(error).splitlines()[0]}") from error
    return model


def image_spec(packed: Packed) -> ImageSpec:
    """What the network expects of a picture. Raises ExportError for a model of anything else."""
    spec = packed.input_spec
    if not isinstance(spec, ImageSpec):
        raise ExportError(
            f"This model is of modality {spec.modality!r}, and only models of pictures are written as ONNX so far: "
            "use the artifact itself, by `regraft predict` or `regraft.load`."
        )
    return spec


class _Answers(nn.Module):
    """float pixels (N, 3, h, w) in [0, 1] → what the model's outputs are called, each (N, K)."""

    def __init__(self, packed: Packed) -> None:
        super().__init__()
        self.task = packed.task
        self.finish = packed.finish

    def forward(self, network_pixels: Tensor) -> tuple[Tensor, ...]:
        return self.finish(self.task.predict(network_pixels))


def export_network(packed: Packed, opset: int) -> ModelProto:
    """The network alone by PyTorch's exporter: `network_pixels` (N, 3, h, w) → the model's outputs."""
    example = torch.rand(2, *image_spec(packed).shape)
    try:
        with _quiet(), torch.no_grad():
            program = torch.onnx.export(
                _Answers(packed).eval(),
                (example,),
                dynamo=True,
                dynamic_shapes={"network_pixels": {0: torch.export.Dim("N")}},
                input_names=["network_pixels"],
                output_names=list(packed.outputs),
                opset_version=opset,
                external_data=False,
                verbose=False,
            )
    except RegraftError:
        raise
    except Exception as error:  # the exporter raises many kinds, none of which a caller can act upon differently
        first = str(error).strip().splitlines() or [type(error).__name__]
        raise ExportError(
            f"PyTorch cannot export {packed.manifest['backbone'].get('name')} to ONNX: {first[0]}"
        ) from error
    assert program is not None, "the dynamo exporter returns a program"
    return program.model_proto


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """The exporter prints and warns; what it says goes to the log, so that stdout stays the caller's."""
    said = io.StringIO()
    with warnings.catch_warnings(record=True) as caught, contextlib.redirect_stdout(said):
        warnings.simplefilter("always")
        try:
            yield
        finally:
            for line in filter(None, map(str.strip, said.getvalue().splitlines())):
                log.debug("exporter: %s", line)
            for warning in caught:
                log.debug("exporter: %s: %s", warning.category.__name__, warning.message)


def _metadata(packed: Packed) -> dict[str, str]:
    manifest = packed.manifest
    values = {
        "format": FORMAT,
        "labels": json.dumps(list(packed.labels), ensure_ascii=False),
        "input_spec": json.dumps(packed.input_spec.to_json(), ensure_ascii=False),
        "threshold": repr(packed.threshold),
        "artifact_sha256": str(manifest["files"][WEIGHTS]["sha256"]),
        "backbone": str(manifest["backbone"].get("name", "")),
        "licence": str(manifest.get("licence") or "unknown"),
    }
    values |= {key: json.dumps(value) for key, value in packed.calibration.to_metadata().items()}
    return {f"regraft.{key}": value for key, value in values.items()}


def _pictures(paths: Sequence[Path] | None) -> tuple[list[Any], np.ndarray, int]:
    """Pictures to compare on, which of the given ones they are, and how many cannot be read."""
    if paths is None:
        return [generated_picture(height, width) for height, width in GENERATED_SIZES_PX], np.arange(0), 0
    kept = []
    for index, path in enumerate(paths):
        try:
            read_picture(path)
        except RegraftError as error:
            log.warning("left out of the export's check: %s", error)
            continue
        kept.append(index)
    if not kept:
        raise DataError(f"None of the {len(paths)} pictures to check the export on can be read.")
    return [paths[index] for index in kept], np.array(kept), len(paths) - len(kept)


def generated_picture(height_px: int, width_px: int) -> np.ndarray:
    """A smooth picture with some grain, uint8 (H, W, 3); the same every time."""
    rng = np.random.default_rng([height_px, width_px])
    y, x = np.mgrid[0 : 1 : height_px * 1j, 0 : 1 : width_px * 1j]
    waves = [np.sin(2 * np.pi * (fy * y + fx * x + shift)) for fy, fx, shift in rng.uniform(0, 4, (3, 3))]
    values = 128 + 80 * np.stack(waves, axis=2) + rng.normal(0, 12, (height_px, width_px, 3))
    return np.clip(values, 0, 255).astype(np.uint8)


def _compare(predictor: Predictor, exported: OnnxPredictor, pictures: list[Any]) -> tuple[np.ndarray, np.ndarray]:
    """Answers (N, K) of the exported file and of the model."""
    rows = []
    for picture in pictures:
        images = read_picture(picture).permute(1, 2, 0).contiguous().numpy()[None]
        rows.append(exported.run(images)[0])
    return np.stack(rows), predictor.answers(pictures)
