"""The predictor: temperature, order, abstention, unreadable pictures, artifacts that were touched."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from regraft.core.errors import ArtifactError, DataError, UnreadableError, UsageError
from regraft.deploy.predictor import Prediction, Predictor, expand_inputs
from regraft.images.backbones import create
from regraft.images.stream import PictureStream
from regraft.images.transform import EvalTransform
from regraft.tasks.classification.calibration import ClassCalibration
from regraft.tasks.classification.kind import ClassKind
from regraft.tasks.classification.task import Classification
from regraft.tasks.packing import pack

LABELS = ("ant", "bee", "wasp")
TEMPERATURE = 1.7


def make_task() -> Classification:
    torch.manual_seed(0)
    task = Classification(create("scion:size=64", pretrained=False), len(LABELS)).eval()
    with torch.no_grad():
        for module in task.modules():  # untrained statistics would let the features fade to nothing
            if isinstance(module, torch.nn.BatchNorm2d):
                module.running_var.fill_(0.2)
        task.head.weight.mul_(8)
    return task


def packed(folder: Path, threshold: float = 0.0, unknown: bool = False) -> Path:
    calibration = ClassCalibration(TEMPERATURE, {"threshold": threshold}, unknown)
    return pack(folder, ClassKind(LABELS), make_task(), calibration, provenance={}, metrics={})


@pytest.fixture(scope="module")
def artifact(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("run") / "artifact"
    return packed(folder)


@pytest.fixture(scope="module")
def predictor(artifact: Path) -> Predictor:
    return Predictor.load(artifact, device="cpu")


@pytest.fixture
def pictures(tmp_path: Path) -> list[Path]:
    rng = np.random.default_rng(0)
    paths = []
    for index, (height, width) in enumerate(((71, 93), (120, 64), (33, 33), (65, 301), (64, 64))):
        path = tmp_path / f"{index}.png"
        coarse = Image.fromarray(rng.integers(0, 256, (5, 7, 3), dtype=np.uint8))
        coarse.resize((width, height), Image.Resampling.BICUBIC).save(path)
        paths.append(path)
    return paths


def reference(paths: list[Path]) -> np.ndarray:
    """Softmax of logits over temperature, in double precision, one picture at a time."""
    task = make_task()
    transform = EvalTransform(task.backbone.input_spec)
    rows = []
    for path in paths:
        pixels = torch.from_numpy(np.array(Image.open(path).convert("RGB"))).permute(2, 0, 1)
        with torch.no_grad():
            logits = task.predict(transform(pixels)[None]).double().numpy()[0] / TEMPERATURE
        weights = np.exp(logits - logits.max())
        rows.append(weights / weights.sum())
    return np.stack(rows)


def test_predictions_equal_the_formula(predictor: Predictor, pictures: list[Path]) -> None:
    expected = reference(pictures)
    assert np.ptp(expected, axis=0).max() > 0.01, "the pictures must differ for this test to see anything"
    found = predictor.predict(pictures, top=3, batch_size=2)
    assert [p.path for p in found] == [str(p) for p in pictures]
    for prediction, row in zip(found, expected, strict=True):
        assert prediction.label == LABELS[row.argmax()]
        assert prediction.confidence == pytest.approx(row.max(), abs=1e-5)
        assert dict(prediction.top) == pytest.approx(dict(zip(LABELS, row, strict=True)), abs=1e-5)
    np.testing.assert_allclose(predictor.probabilities(pictures), expected, atol=1e-5)


def test_top_is_sorted_and_cut(predictor: Predictor, pictures: list[Path]) -> None:
    (prediction,) = predictor.predict(pictures[0], top=2)
    assert len(prediction.top) == 2
    assert prediction.top[0] == (prediction.label, prediction.confidence)
    assert prediction.top[0][1] >= prediction.top[1][1]
    assert len(predictor.predict(pictures[0], top=99)[0].top) == len(LABELS)


def test_arrays_and_pillow_images_answer_like_files(predictor: Predictor, pictures: list[Path]) -> None:
    images = [Image.open(p) for p in pictures]
    arrays = [np.array(i) for i in images]
    expected = predictor.probabilities(pictures)
    np.testing.assert_allclose(predictor.probabilities(arrays), expected, atol=1e-5)
    np.testing.assert_allclose(predictor.probabilities(images), expected, atol=1e-5)
    np.testing.assert_allclose(predictor.probabilities(np.stack([arrays[4], arrays[4]]))[1], expected[4], atol=1e-5)
    assert predictor.predict(arrays)[0].path is None


def test_pillow_images_are_treated_as_files_are(predictor: Predictor, tmp_path: Path) -> None:
    rng = np.random.default_rng(1)
    colours = Image.fromarray(rng.integers(0, 256, (9, 6, 4), dtype=np.uint8)).resize((80, 60))
    turned = Image.fromarray(np.array(colours)[..., :3])
    exif = turned.getexif()
    exif[0x0112] = 6
    for name, image in {
        "alpha": colours,
        "palette": turned.quantize(16),
        "grey": turned.convert("L"),
    }.items():
        image.save(tmp_path / f"{name}.png")
        expected = predictor.probabilities([tmp_path / f"{name}.png"])
        np.testing.assert_allclose(predictor.probabilities([image]), expected, atol=1e-5, err_msg=name)
    turned.save(tmp_path / "turned.png", exif=exif)
    expected = predictor.probabilities([tmp_path / "turned.png"])
    np.testing.assert_allclose(predictor.probabilities([Image.open(tmp_path / "turned.png")]), expected, atol=1e-5)
    upright = predictor.probabilities([np.rot90(np.array(turned), -1).copy()])
    np.testing.assert_allclose(upright, expected, atol=1e-5)


def test_unreadable_pictures_keep_their_place(predictor: Predictor, pictures: list[Path], tmp_path: Path) -> None:
    broken = tmp_path / "broken.jpg"
    broken.write_bytes(b"\xff\xd8\xff\xe0 not much of a picture")
    empty = tmp_path / "empty.png"
    empty.touch()
    inputs = [broken, pictures[0], tmp_path / "gone.jpg", np.zeros((4, 4), np.uint8), empty, pictures[1], 7]
    found = predictor.predict(inputs, batch_size=3)
    assert [bool(p.error) for p in found] == [True, False, True, True, True, False, True]
    assert "gone.jpg" in str(found[2].error)
    assert found[1] == predictor.predict(pictures[0])[0]
    assert found[5].label == predictor.predict(pictures[1])[0].label
    for prediction in found:
        json.dumps(prediction.to_json())
        assert not prediction.abstained
    with pytest.raises(UnreadableError, match=r"empty\.png"):
        predictor.probabilities([pictures[0], empty])
    assert predictor.predict([]) == []


def test_abstains_below_the_threshold(
    artifact: Path, predictor: Predictor, pictures: list[Path], tmp_path: Path
) -> None:
    confidence = predictor.predict(pictures[0])[0].confidence
    assert 0.34 < confidence < 0.999
    (unsure,) = predictor.predict(pictures[0], threshold=confidence + 1e-4)
    assert unsure.label is None
    assert unsure.abstained
    assert unsure.confidence == confidence
    assert unsure.to_json()["abstained"] is True
    assert predictor.predict(pictures[0], threshold=confidence - 1e-4)[0].label is not None
    own = packed(tmp_path / "a", threshold=1.0)
    strict = Predictor.load(own, device="cpu")
    assert strict.predict(pictures[0])[0].label is None
    assert strict.predict(pictures[0], threshold=0.0)[0].label is not None


def test_a_model_of_an_open_target_calls_it_unknown(pictures: list[Path], tmp_path: Path) -> None:
    own = packed(tmp_path / "a", threshold=1.0, unknown=True)
    (found,) = Predictor.load(own, device="cpu").predict(pictures[0])
    assert (found.label, found.unknown, found.abstained) == ("unknown", True, False)
    assert found.to_json()["unknown"] is True and found.top[0][0] in LABELS
    (named,) = Predictor.load(own, device="cpu").predict(pictures[0], threshold=0.0)
    assert named.label in LABELS and not named.unknown


def test_a_stream_gives_what_the_list_gives(predictor: Predictor, pictures: list[Path]) -> None:
    stream = PictureStream(
        pictures,
        None,
        EvalTransform(predictor.packed.task.backbone.input_spec),
        batch_size=2,
        rank=0,
        world_size=2,
        threads=1,
    )  # this rank's share is padded: five pictures over two processes of two
    expected = predictor.probabilities([pictures[i] for i in (0, 1, 4)])
    np.testing.assert_allclose(predictor.probabilities(stream), expected, atol=1e-5)


@pytest.mark.parametrize("options", [{"top": 0}, {"threshold": 1.5}, {"batch_size": 0}])
def test_meaningless_options_are_refused(predictor: Predictor, options: dict[str, float]) -> None:
    with pytest.raises(UsageError, match="accepted"):
        predictor.predict([], **options)  # type: ignore[arg-type]


def test_runs_are_found_and_devices_checked(artifact: Path) -> None:
    assert Predictor.load(str(artifact.parent), device="cpu").labels == LABELS
    with pytest.raises(UsageError, match="cuda"):
        Predictor.load(artifact, device="gpu")
    with pytest.raises(ArtifactError, match="no run"):
        Predictor.load(artifact / "elsewhere")


@pytest.mark.parametrize("harm", ["altered", "cut", "missing", "labels"])
def test_touched_artifacts_are_refused(artifact: Path, tmp_path: Path, harm: str) -> None:
    folder = tmp_path / "artifact"
    folder.mkdir()
    for file in artifact.iterdir():
        (folder / file.name).write_bytes(file.read_bytes())
    weights = folder / "model.safetensors"
    data = bytearray(weights.read_bytes())
    if harm == "altered":
        data[-5] ^= 1
        weights.write_bytes(data)
    elif harm == "cut":
        weights.write_bytes(data[:-100])
    elif harm == "missing":
        weights.unlink()
    else:
        manifest = json.loads((folder / "manifest.json").read_text())
        manifest["labels"].append("hornet")
        (folder / "manifest.json").write_text(json.dumps(manifest))
    with pytest.raises(ArtifactError):
        Predictor.load(folder, device="cpu")


def test_expand_inputs(tmp_path: Path) -> None:
    for name in ("b/2.JPG", "b/1.png", "b/.hidden/3.jpg", "b/notes.txt", "a.webp", "b/c/4.jpeg"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).touch()
    base = str(tmp_path)
    below = [tmp_path / "b/1.png", tmp_path / "b/2.JPG", tmp_path / "b/c/4.jpeg"]
    assert expand_inputs([f"{base}/b"]) == below
    assert expand_inputs([f"{base}/*.webp", f"{base}/b/notes.txt"]) == [
        tmp_path / "a.webp",
        tmp_path / "b/notes.txt",
    ]
    assert expand_inputs([f"{base}/?"]) == below
    assert expand_inputs([f"{base}/gone.jpg"]) == [tmp_path / "gone.jpg"]
    (tmp_path / "x[1].jpg").touch()
    assert expand_inputs([f"{base}/x[1].jpg"]) == [tmp_path / "x[1].jpg"]
    with pytest.raises(UsageError, match="matches no file"):
        expand_inputs([f"{base}/*.bmp"])
    (tmp_path / "empty").mkdir()
    with pytest.raises(DataError, match="no pictures"):
        expand_inputs([f"{base}/empty"])


def test_prediction_is_frozen() -> None:
    prediction = Prediction("a.jpg", "ant", 0.9, (("ant", 0.9),))
    with pytest.raises(AttributeError):
        prediction.label = "bee"  # type: ignore[misc]
