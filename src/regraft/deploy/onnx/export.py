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
from regraft.deploy.inputs import read_picture
from regraft.deploy.onnx.predictor import FORMAT, OnnxPredictor
from regraft.deploy.onnx.preprocess import preprocessing
from regraft.deploy.predictor import Predictor
from regraft.tasks.packing import Packed, PackedClassifier, PackedRegressor

if TYPE_CHECKING:
    from onnx import ModelProto

log = logging.getLogger(__name__)

#: Resize has antialiasing since opset 18; newer numbers only shut out older runtimes.
OPSET = 18
#: One protobuf holds 2 GiB; the graph itself needs some of it.
LIMIT_BYTES = (2 << 30) - (64 << 20)
#: One grey level of rounding in the resize moves probabilities by far less than this, on average over the
#: pictures.
MEAN_DIFFERENCE_LIMIT = 0.02
#: Two labels whose probabilities are nearer than this are tied: one grey level decides between them.
TIE = 0.02
#: One number may be off by this share of the training numbers' deviation.
NUMBER_LIMIT = 0.1
#: Of generated pictures, where none are given.
GENERATED_SIZES_PX = ((97, 131), (240, 181), (333, 500), (64, 64), (640, 401), (50, 211))


@dataclass(frozen=True)
class ExportReport:
    """What was written and how far it agrees with the model.

    agreement: share of equal top-1 labels among the n_checked pictures; for a regression of numbers that differ by at
    most a tenth of the training numbers' deviation. max_difference, mean_difference: of each picture's largest
    probability difference; for a regression of its number, over that deviation. accuracy_*: where labels were given.
    unreadable: check pictures left out.
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
    of_classes: bool = True

    def to_json(self) -> dict[str, Any]:
        return asdict(self)


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
    ExportError where the two disagree (see `judge`) or the weights are over 2 GiB, ArtifactError for a broken
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
        }
        if isinstance(predictor.packed, PackedRegressor):
            scale = float(predictor.packed.task.scale[0])
            report = judge_numbers(found, reference, scale, described=described, started=started)
        else:
            known = None if labels is None else np.asarray(labels)[kept]
            report = judge(found, reference, known, min_agreement=min_agreement, described=described, started=started)
    log.info("%s: %d bytes, agreement %.4f", out, report.bytes, report.agreement)
    return report


def judge(
    found: np.ndarray,
    reference: np.ndarray,
    labels: np.ndarray | None,
    *,
    min_agreement: float,
    described: dict[str, Any],
    started: float,
) -> ExportReport:
    """The report on probabilities (N, K) of the file and of the model; ExportError where they disagree.

    Refused is: top-1 agreement below `min_agreement` (one picture whose two labels are tied in the model is
    excused, since among fewer than 200 pictures one alone would decide); accuracy lower by more than max(1
    picture, 0.5 %); probabilities apart by more than 0.02 on average. Agreement and accuracy are not asked of
    generated pictures, on which a model may be undecided everywhere.
    """
    n = len(reference)
    ours, theirs = reference.argmax(axis=1), found.argmax(axis=1)
    rows = np.arange(n)
    flipped = ours != theirs
    tied = reference[rows, ours] - reference[rows, theirs] < TIE
    hard = int(flipped.sum()) - min(1, int((flipped & tied).sum()))
    apart = np.abs(found - reference).max(axis=1)
    right = None if labels is None else (int((ours == labels).sum()), int((theirs == labels).sum()))
    report = ExportReport(
        **described,
        n_checked=n,
        agreement=float(1 - flipped.mean()),
        max_difference=float(apart.max()),
        mean_difference=float(apart.mean()),
        accuracy_model=right[0] / n if right else None,
        accuracy_onnx=right[1] / n if right else None,
        seconds=time.monotonic() - started,
    )
    reason = ""
    if not np.isfinite(found).all():
        reason = "it gives probabilities that are not numbers"
    elif report.mean_difference > MEAN_DIFFERENCE_LIMIT:
        reason = f"its probabilities differ by {report.mean_difference:.3f} on average (largest {apart.max():.3f})"
    elif not report.generated and 1 - hard / n < min_agreement:
        reason = f"its first label agrees on {report.agreement:.2%}, below {min_agreement:.2%}"
    elif right and right[0] - right[1] > max(1, 0.005 * n):
        reason = f"its accuracy falls from {right[0] / n:.2%} to {right[1] / n:.2%}"
    if reason:
        raise _refused(n, reason)
    return report


def judge_numbers(
    found: np.ndarray, reference: np.ndarray, scale: float, *, described: dict[str, Any], started: float
) -> ExportReport:
    """The report on numbers (N, 1) of the file and of the model; ExportError where they disagree.

    scale: deviation of the training numbers. Refused is a number that is off by more than a tenth of it, or numbers
    off by more than 0.02 of it on average. Generated pictures may only disagree on average: far from the training
    pictures a regression is steep.
    """
    apart = np.abs(found - reference).max(axis=1) / scale
    report = ExportReport(
        **described,
        n_checked=len(reference),
        agreement=float((apart <= NUMBER_LIMIT).mean()),
        max_difference=float(apart.max()),
        mean_difference=float(apart.mean()),
        accuracy_model=None,
        accuracy_onnx=None,
        seconds=time.monotonic() - started,
        of_classes=False,
    )
    reason = ""
    if not np.isfinite(found).all():
        reason = "it gives numbers that are not finite"
    elif report.mean_difference > MEAN_DIFFERENCE_LIMIT * (5 if report.generated else 1):
        reason = f"its numbers differ by {report.mean_difference:.3f} of the training numbers' deviation on average"
    elif not report.generated and report.max_difference > NUMBER_LIMIT:
        reason = f"a number differs by {report.max_difference:.3f} of the training numbers' deviation"
    if reason:
        raise _refused(len(reference), reason)
    return report


def _refused(n: int, reason: str) -> ExportError:
    return ExportError(
        f"The exported file was refused and not kept: on {n} pictures {reason}. Use the artifact itself, or try "
        "another version of torch, onnxscript or onnxruntime."
    )


def build_model(packed: Packed, *, opset: int = OPSET) -> ModelProto:
    """Preprocessing and network in one model, with metadata, valid by ONNX's own checker; nothing is written."""
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
    before = preprocessing(packed.input_spec, opset=opset, ir_version=core.ir_version)
    model = onnx.compose.merge_models(before, core, io_map=[("pixels", "network_pixels")])
    model.producer_name = "regraft"
    model.graph.name = str(packed.manifest["backbone"].get("name", "regraft"))
    onnx.helper.set_model_props(model, _metadata(packed))
    try:
        onnx.checker.check_model(model, full_check=True)
    except (onnx.checker.ValidationError, onnx.shape_inference.InferenceError) as error:
        raise ExportError(f"The exported graph is not valid ONNX: {str(error).splitlines()[0]}") from error
    return model


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
    example = torch.rand(2, *packed.input_spec.shape)
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
    if isinstance(packed, PackedClassifier):
        values["temperature"] = repr(packed.temperature)
        values["unknown"] = "true" if packed.unknown else "false"
    if isinstance(packed, PackedRegressor):
        values["interval"] = json.dumps(packed.interval.to_json())
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
