"""ONNX export: PyTorch's answers at any size and batch, quietly; refused when it disagrees."""

from __future__ import annotations

import json
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from regraft.core.errors import ArtifactError, DataError, ExportError, MissingExtraError, UsageError
from regraft.deploy.onnx import export as onnx_export
from regraft.deploy.onnx.export import ExportReport, build_model, export_onnx, judged
from regraft.deploy.onnx.predictor import OnnxPredictor
from regraft.deploy.onnx.preprocess import preprocessing
from regraft.deploy.predictor import Predictor
from regraft.images.backbones import create
from regraft.images.spec import ImageSpec
from regraft.images.transform import EvalTransform
from regraft.tasks.classification.agreement import compare_probabilities
from regraft.tasks.classification.calibration import ClassCalibration
from regraft.tasks.classification.kind import ClassKind
from regraft.tasks.classification.reading import ClassReader
from regraft.tasks.classification.task import Classification
from regraft.tasks.kind import Check
from regraft.tasks.packing import pack, unpack

onnx = pytest.importorskip("onnx")
onnxruntime = pytest.importorskip("onnxruntime")

LABELS = ("ant", "bee", "naïve wasp")
SIZES = (
    (1, 1),
    (1, 2),
    (3, 7),
    (63, 65),
    (65, 63),
    (64, 64),
    (67, 67),
    (71, 143),
    (143, 71),
    (5, 200),
    (200, 5),
)


def make_artifact(folder: Path, backbone: str) -> Path:
    torch.manual_seed(0)
    task = Classification(create(backbone, pretrained=False), len(LABELS)).eval()
    with torch.no_grad():
        for module in task.modules():  # untrained statistics would let the features fade to nothing
            if isinstance(module, torch.nn.BatchNorm2d):
                module.running_var.fill_(0.2)
        task.head.weight.mul_(8)
    calibration = ClassCalibration(1.7, {"threshold": 0.25})
    return pack(folder, ClassKind(LABELS), task, calibration, provenance={}, metrics={})


@pytest.fixture(scope="module")
def artifact(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_artifact(tmp_path_factory.mktemp("scion") / "artifact", "scion:size=64")


@pytest.fixture(scope="module")
def pictures(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    folder, rng, paths = tmp_path_factory.mktemp("pictures"), np.random.default_rng(0), []
    for height, width in SIZES:
        coarse = Image.fromarray(rng.integers(0, 256, (4, 5, 3), dtype=np.uint8))
        coarse.resize((width, height), Image.Resampling.BICUBIC).save(folder / f"{height}x{width}.png")
        paths.append(folder / f"{height}x{width}.png")
    return paths


@pytest.fixture(scope="module")
def exported(
    artifact: Path, pictures: list[Path], tmp_path_factory: pytest.TempPathFactory
) -> tuple[Path, ExportReport]:
    out = tmp_path_factory.mktemp("onnx") / "model.onnx"
    labels = Predictor.load(artifact, device="cpu").probabilities(pictures).argmax(axis=1)
    return out, export_onnx(artifact, out, check_pictures=pictures, labels=labels)


@pytest.fixture
def ready(monkeypatch: pytest.MonkeyPatch, exported: tuple[Path, ExportReport]) -> Any:
    """The exported model once more, in place of the long part; tests alter it."""
    model = onnx.load(exported[0])
    monkeypatch.setattr(onnx_export, "build_model", lambda packed, opset: model)
    return model


@pytest.mark.parametrize("interpolation", ["bilinear", "bicubic", "nearest"])
@pytest.mark.parametrize(
    ("shape", "crop_pct", "crop_mode"),
    [((32, 32), 0.875, "center"), ((33, 33), 0.95, "center"), ((24, 40), 0.9, "center"), ((32, 32), 1.0, "squash"),
     ((32, 32), 1.15, "center")],
)  # fmt: skip
def test_preprocessing_gives_the_pixels_of_eval_transform(
    interpolation: str, shape: tuple[int, int], crop_pct: float, crop_mode: str
) -> None:
    options = {"interpolation": interpolation, "crop_pct": crop_pct, "crop_mode": crop_mode}
    spec = ImageSpec((3, *shape), **options, mean=(0.5,) * 3, std=(0.5,) * 3)
    model = preprocessing(spec, opset=18, ir_version=10)
    onnx.checker.check_model(model, full_check=True)
    session = onnxruntime.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    transform, rng = EvalTransform(spec), np.random.default_rng(0)
    for height, width in (*SIZES, (31, 33), (101, 64), (37, 36), (32, 32)):
        images = rng.integers(0, 256, (2, height, width, 3), dtype=np.uint8)
        (found,) = session.run(None, {"images": images})
        planes = torch.from_numpy(images).permute(0, 3, 1, 2)
        expected = torch.stack([transform(picture) for picture in planes]).numpy()
        assert found.shape == expected.shape
        difference = np.abs(found * 255 - expected)
        assert difference.max() <= 2.001, (height, width)
        assert (difference > 0.5).mean() < 0.08, (height, width)  # of pixels, on noise, mostly by one


def test_the_report_and_the_answers_agree(
    artifact: Path, exported: tuple[Path, ExportReport], pictures: list[Path]
) -> None:
    out, report = exported
    assert report.agreement == 1
    assert report.accuracy_model == report.accuracy_onnx == 1
    assert report.n_checked == len(pictures)
    assert report.bytes == out.stat().st_size
    json.dumps(report.to_json())
    model, runtime = Predictor.load(artifact, device="cpu"), OnnxPredictor.load(out)
    ours, theirs = model.predict(pictures, top=3), runtime.predict(pictures, top=3)
    assert len({p.label for p in ours}) > 1, "the pictures must differ for this test to see anything"
    for a, b in zip(ours, theirs, strict=True):
        assert (a.path, a.label) == (b.path, b.label)
        assert dict(a.top) == pytest.approx(dict(b.top), abs=0.02)
    worst = max(abs(dict(a.top)[k] - dict(b.top)[k]) for a, b in zip(ours, theirs, strict=True) for k in LABELS)
    assert worst == pytest.approx(report.max_difference, abs=1e-5)


def test_batch_height_and_width_are_free(exported: tuple[Path, ExportReport]) -> None:
    session = OnnxPredictor.load(exported[0]).session
    rng = np.random.default_rng(2)
    for n, height, width in ((1, 65, 97), (3, 40, 33), (7, 97, 65)):
        images = rng.integers(0, 256, (n, height, width, 3), dtype=np.uint8)
        probabilities, logits = session.run(["probabilities", "logits"], {"images": images})
        assert probabilities.shape == logits.shape == (n, len(LABELS))
        scaled = np.exp(logits.astype(np.float64) / 1.7)
        np.testing.assert_allclose(probabilities, scaled / scaled.sum(axis=1, keepdims=True), atol=1e-5)
        alone = np.concatenate([session.run(["probabilities"], {"images": i[None]})[0] for i in images])
        np.testing.assert_allclose(probabilities, alone, atol=1e-5)


def test_metadata_say_what_the_file_is(artifact: Path, exported: tuple[Path, ExportReport]) -> None:
    runtime = OnnxPredictor.load(exported[0])
    manifest = json.loads((artifact / "manifest.json").read_text(encoding="utf-8"))
    assert runtime.labels == LABELS
    assert runtime.threshold == 0.25
    assert runtime.metadata["regraft.format"] == "regraft.onnx/1"
    assert runtime.metadata["regraft.artifact_sha256"] == manifest["files"]["model.safetensors"]["sha256"]
    assert json.loads(runtime.metadata["regraft.input_spec"]) == manifest["input_spec"]


@pytest.mark.parametrize(
    "backbone", ["timm/test_efficientnet:pad_type=same,size=48", "torchvision/squeezenet1_1:size=64"]
)
def test_other_families_export_quietly(
    backbone: str, pictures: list[Path], tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    artifact = make_artifact(tmp_path / "artifact", backbone)
    report = export_onnx(artifact, tmp_path / "model.onnx", check_pictures=pictures)
    assert capfd.readouterr().out == ""
    assert report.max_difference < 0.05
    images = np.random.default_rng(0).integers(0, 256, (5, 51, 70, 3), dtype=np.uint8)
    found = OnnxPredictor.load(tmp_path / "model.onnx").run(images)
    expected = Predictor.load(artifact, device="cpu").probabilities(images)
    np.testing.assert_allclose(found, expected, atol=0.02)


def test_generated_pictures_stand_in(ready: Any, artifact: Path, tmp_path: Path) -> None:
    report = export_onnx(artifact, tmp_path / "m.onnx")
    assert report.generated
    assert report.n_checked == 6
    assert (tmp_path / "m.onnx").is_file()


def alter_head(model: Any) -> None:
    """Turn the order of the head's outputs around, as a wrong label order would."""
    (bias,) = [i for i in model.graph.initializer if list(i.dims) == [len(LABELS)]]
    values = onnx.numpy_helper.to_array(bias)
    bias.CopyFrom(onnx.numpy_helper.from_array(values + np.array([9, -9, 0], np.float32), bias.name))


def alter_channels(model: Any) -> None:
    """Blue for red, the commonest mistake in hand-written preprocessing."""
    node = next(n for n in model.graph.node if n.op_type == "Transpose" and n.input[0] == "images")
    at = list(model.graph.node).index(node)
    model.graph.initializer.append(onnx.numpy_helper.from_array(np.array([2, 1, 0]), "bgr"))
    swapped = onnx.helper.make_node("Gather", ["images", "bgr"], ["swapped"], axis=3)
    node.input[0] = "swapped"
    model.graph.node.insert(at, swapped)


@pytest.mark.parametrize("alter", [alter_head, alter_channels])
@pytest.mark.parametrize("given", [True, False])
def test_an_altered_model_is_refused_and_not_left_behind(
    ready: Any, artifact: Path, pictures: list[Path], tmp_path: Path, alter: Any, given: bool
) -> None:
    alter(ready)
    out = tmp_path / "model.onnx"
    out.write_bytes(b"an earlier export")
    with pytest.raises(ExportError, match="refused"):
        export_onnx(artifact, out, check_pictures=pictures if given else None)
    assert out.read_bytes() == b"an earlier export"
    assert list(tmp_path.iterdir()) == [out]


def test_unreadable_check_pictures_are_counted(
    ready: Any, artifact: Path, pictures: list[Path], tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    broken = tmp_path / "broken.jpg"
    broken.write_bytes(b"nothing")
    labels = Predictor.load(artifact, device="cpu").probabilities(pictures).argmax(axis=1)
    given = [pictures[0], broken, *pictures[1:]]
    report = export_onnx(artifact, tmp_path / "m.onnx", check_pictures=given, labels=np.insert(labels, 1, 99))
    assert (report.unreadable, report.n_checked, report.accuracy_model) == (1, len(pictures), 1.0)
    assert "broken.jpg" in caplog.text
    with pytest.raises(DataError, match="None of the 1"):
        export_onnx(artifact, tmp_path / "n.onnx", check_pictures=[broken])
    assert not (tmp_path / "n.onnx").exists()


def run_judge(found: np.ndarray, reference: np.ndarray, labels: np.ndarray | None = None) -> ExportReport:
    described = {"path": "m", "bytes": 1, "opset": 18, "generated": False, "unreadable": 0}
    return judged(compare_probabilities(found, reference, Check(labels)), len(reference), described, 0.0)


def test_the_rules_of_refusal() -> None:
    sure = np.tile(np.array([[0.9, 0.1]]), (400, 1))
    assert run_judge(sure, sure).agreement == 1
    for flips, fine in ((2, True), (3, False)):  # 99.5 % of 400
        found = sure.copy()
        found[:flips] = found[:flips, ::-1]
        if fine:
            assert run_judge(found, sure).agreement == pytest.approx(1 - flips / 400)
        else:
            with pytest.raises(ExportError, match=r"agrees on 99\.25%"):
                run_judge(found, sure)
    with pytest.raises(ExportError, match="differ by"):
        run_judge(sure + np.array([[-0.05, 0.05]]), sure)
    with pytest.raises(ExportError, match="not numbers"):
        run_judge(sure * np.nan, sure)


def test_one_tied_picture_of_a_small_set_is_excused() -> None:
    reference = np.tile(np.array([[0.9, 0.1]]), (20, 1))
    reference[:2] = [0.505, 0.495]
    found = reference.copy()
    found[0] = found[0, ::-1]
    report = run_judge(found, reference, np.zeros(20, int))
    assert (report.agreement, report.accuracy_model, report.accuracy_onnx) == (0.95, 1.0, 0.95)
    found[1] = found[1, ::-1]
    with pytest.raises(ExportError, match="agrees"):
        run_judge(found, reference)
    untied = np.tile(np.array([[0.6, 0.4]]), (20, 1))
    found = untied.copy()
    found[0] = found[0, ::-1]
    with pytest.raises(ExportError, match="agrees"):
        run_judge(found, untied)


def test_a_falling_metric_is_refused() -> None:
    reference = np.tile(np.array([[0.509, 0.491]]), (1000, 1))
    found = reference.copy()
    found[:6] = found[:6, ::-1]  # six of a thousand; agreement is asked less of here than the metric
    told = compare_probabilities(found, reference, Check(np.zeros(1000, int), least=0.9))
    assert "accuracy falls" in told.refused
    assert not compare_probabilities(found, reference, Check(np.ones(1000, int), least=0.9)).refused


def test_asking_wrongly_is_told(artifact: Path, pictures: list[Path], tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="18"):
        export_onnx(artifact, tmp_path / "m.onnx", opset=17)
    with pytest.raises(DataError, match="labels"):
        export_onnx(artifact, tmp_path / "m.onnx", check_pictures=pictures, labels=np.zeros(2))
    plain = tmp_path / "plain.onnx"
    spec = ImageSpec((3, 8, 8), crop_pct=1.0)
    plain.write_bytes(preprocessing(spec, opset=18, ir_version=10).SerializeToString())
    with pytest.raises(ArtifactError, match=r"regraft\.onnx/1"):
        OnnxPredictor.load(plain)
    plain.write_bytes(b"no model")
    with pytest.raises(ArtifactError, match="cannot be loaded"):
        OnnxPredictor.load(plain)
    with pytest.raises(ArtifactError, match="no file"):
        OnnxPredictor.load(tmp_path / "gone.onnx")


def test_a_missing_extra_and_too_large_weights_are_one_sentence(
    artifact: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    packed = unpack(artifact)
    with monkeypatch.context() as patch:
        patch.setitem(sys.modules, "onnxscript", None)
        with pytest.raises(MissingExtraError, match=r"regraft\[onnx\]"):
            build_model(packed)
    monkeypatch.setattr(onnx_export, "LIMIT_BYTES", 1 << 20)
    with pytest.raises(ExportError, match="GiB"):
        build_model(packed)


def test_the_runtime_abstains_and_names_unreadable_pictures(
    exported: tuple[Path, ExportReport], pictures: list[Path], tmp_path: Path
) -> None:
    runtime = OnnxPredictor.load(exported[0], threads=1)
    found = runtime.predict([tmp_path / "gone.png", pictures[0]], threshold=1.0, batch_size=1)
    assert found[0].error is not None
    assert found[1].abstained
    assert runtime.predict(pictures[0])[0].label in LABELS


def test_the_runtime_of_an_open_target_calls_it_unknown(
    exported: tuple[Path, ExportReport], artifact: Path, pictures: list[Path]
) -> None:
    plain = OnnxPredictor.load(exported[0], threads=1)
    assert plain.metadata["regraft.unknown"] == "false" and plain.reader == ClassReader(plain.labels, plain.threshold)
    packed = unpack(artifact)
    assert isinstance(packed.calibration, ClassCalibration)
    metadata = onnx_export._metadata(replace(packed, calibration=replace(packed.calibration, unknown=True)))
    (found,) = OnnxPredictor(plain.session, metadata).predict(pictures[0], threshold=1.0)
    assert found.label == "unknown" and found.unknown and not found.abstained
