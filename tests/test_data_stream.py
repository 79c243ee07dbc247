"""Transforms against Pillow's pixels; streams that give the same batches however they are read."""

from __future__ import annotations

import os
import threading
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torchvision import transforms

import regraft.images.stream as stream_module
from hostile_pictures import jpeg, scene
from regraft.core.errors import DataError, UnreadableError, UsageError
from regraft.core.types import Batch, InputSpec
from regraft.images.decode import decode
from regraft.images.spec import ImageSpec
from regraft.images.stream import PictureStore, PictureStream
from regraft.images.transform import EvalTransform, TrainTransform

SHARED = Path(os.environ.get("REGRAFT_SHARED", Path(__file__).resolve().parents[2] / "shared"))
SMALL = ImageSpec((3, 32, 32), interpolation="bilinear", crop_pct=0.875)


@pytest.fixture(scope="module")
def paths(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    folder = tmp_path_factory.mktemp("pictures")
    rng = np.random.default_rng(0)
    made = [folder / f"{i:02d}.jpg" for i in range(22)]
    for path in made:
        path.write_bytes(jpeg(scene(rng, int(rng.integers(40, 90)), int(rng.integers(40, 90)))))
    return made


def reference(picture: Image.Image, spec: ImageSpec) -> np.ndarray:
    """The evaluation preprocessing of timm and torchvision, on Pillow."""
    size, crop_pct = spec.shape[1], float(spec.crop_pct)
    mode = transforms.InterpolationMode(spec.interpolation)
    chain = transforms.Compose([transforms.Resize(int(size / crop_pct), mode), transforms.CenterCrop(size)])
    return np.asarray(chain(picture)).astype(int)


@pytest.mark.parametrize("interpolation", ["bilinear", "bicubic"])
@pytest.mark.parametrize("crop_pct", [0.875, 1.0, 0.95, 1.2])
@pytest.mark.parametrize("size", [(300, 200), (201, 333), (50, 40), (96, 96), (97, 600), (120, 1500)])
def test_eval_pixels_are_pillows(interpolation: str, crop_pct: float, size: tuple[int, int]) -> None:
    pixels = scene(np.random.default_rng(1), *size)
    spec = ImageSpec((3, 96, 96), interpolation=interpolation, crop_pct=crop_pct)
    seen = EvalTransform(spec)(torch.from_numpy(pixels.copy()).permute(2, 0, 1))
    assert seen.dtype == torch.uint8
    assert seen.is_contiguous()
    assert np.abs(seen.permute(1, 2, 0).numpy() - reference(Image.fromarray(pixels), spec)).max() <= 2


def test_eval_pixels_of_real_photographs_are_pillows() -> None:
    files = sorted((SHARED / "data/hymenoptera/val").rglob("*.jpg"))[::25]
    if not files:
        pytest.skip(f"no shared pictures in {SHARED}")
    for interpolation in ("bilinear", "bicubic"):
        spec = ImageSpec((3, 224, 224), interpolation=interpolation, crop_pct=0.875)
        for path in files:
            seen = EvalTransform(spec)(decode(path)).permute(1, 2, 0).numpy()
            assert np.abs(seen - reference(Image.open(path).convert("RGB"), spec)).max() <= 2, path


def test_eval_of_an_oblong_input_is_timms() -> None:
    timm_data = pytest.importorskip("timm.data")
    pixels = scene(np.random.default_rng(2), 150, 260)
    spec = ImageSpec((3, 64, 96), interpolation="bicubic", crop_pct=0.9)
    chain = timm_data.create_transform((3, 64, 96), interpolation="bicubic", crop_pct=0.9, normalize=False)
    right = np.asarray(chain(Image.fromarray(pixels))).astype(int)
    seen = EvalTransform(spec)(torch.from_numpy(pixels.copy()).permute(2, 0, 1)).numpy()
    assert np.abs(seen - right).max() <= 2


def test_a_very_long_picture_costs_little_and_keeps_its_middle() -> None:
    pixels = torch.zeros(3, 2, 20_000, dtype=torch.uint8)
    pixels[:, :, 9_990:10_010] = 200
    assert int(EvalTransform(SMALL)(pixels)[0, 16, 16]) == 200


def test_specs_that_mean_nothing_are_said() -> None:
    with pytest.raises(UsageError, match="bilinear"):
        EvalTransform(ImageSpec((3, 8, 8), interpolation="bilinaer"))
    with pytest.raises(DataError, match="image"):
        EvalTransform(InputSpec("audio"))  # type: ignore[arg-type]
    with pytest.raises(DataError, match="colour"):
        TrainTransform(SMALL, colour=2.0)


def test_training_pictures_follow_their_generator_alone() -> None:
    picture = torch.from_numpy(scene(np.random.default_rng(3)).copy()).permute(2, 0, 1)
    transform = TrainTransform(SMALL)
    np.random.seed(0)
    torch.manual_seed(0)
    first = transform(picture, np.random.default_rng(7))
    np.random.seed(1)
    torch.manual_seed(1)
    assert torch.equal(first, transform(picture, np.random.default_rng(7)))
    assert not torch.equal(first, transform(picture, np.random.default_rng(8)))
    assert first.shape == (3, 32, 32)
    assert first.dtype == torch.uint8


def test_training_colours_equal_the_three_steps_one_after_the_other() -> None:
    picture = torch.from_numpy(scene(np.random.default_rng(4), 32, 32).copy()).permute(2, 0, 1) // 4 + 96
    plain = TrainTransform(SMALL, scale=(1, 1), ratio=(1, 1), flip=False, colour=0.0)
    jittered = TrainTransform(SMALL, scale=(1, 1), ratio=(1, 1), flip=False, colour=0.2)
    assert torch.equal(plain(picture, np.random.default_rng(0)), picture)
    rng = np.random.default_rng(5)
    jittered._crop(32, 32, rng)
    brightness, contrast, saturation = rng.uniform(0.8, 1.2, size=3)

    def grey(p: np.ndarray) -> np.ndarray:
        return 0.299 * p[0] + 0.587 * p[1] + 0.114 * p[2]

    right = picture.numpy() * brightness
    right = contrast * right + (1 - contrast) * grey(right).mean()
    right = saturation * right + (1 - saturation) * grey(right)
    seen = jittered(picture, np.random.default_rng(5)).numpy()
    assert np.abs(seen - np.clip(right, 0, 255)).max() <= 0.51


def same(a: Batch, b: Batch) -> bool:
    return torch.equal(a.x, b.x) and torch.equal(a.y, b.y) and torch.equal(a.weight, b.weight)  # type: ignore[arg-type]


def train_stream(paths: list[Path], **options: object) -> PictureStream:
    labels = np.arange(len(paths)) % 3
    return PictureStream(paths, labels, TrainTransform(SMALL), shuffle=True, seed=5, **{"batch_size": 4, **options})  # type: ignore[arg-type]


def test_the_same_batches_whatever_the_threads_and_the_start(paths: list[Path]) -> None:
    one, four = list(train_stream(paths, threads=1).epoch(2)), list(train_stream(paths, threads=4).epoch(2))
    late = list(train_stream(paths, threads=3).epoch(2, start=3))
    assert [len(b.x) for b in one] == [4, 4, 4, 4, 4, 2]
    assert all(same(a, b) for a, b in zip(one, four, strict=True))
    assert all(same(a, b) for a, b in zip(one[3:], late, strict=True))
    assert not torch.equal(one[0].x, next(train_stream(paths).epoch(3)).x)
    assert one[0].y is not None
    assert one[0].y.dtype == torch.int64
    assert one[0].weight is not None
    assert one[0].weight.dtype == torch.float32


def test_starting_late_decodes_nothing_before(paths: list[Path], monkeypatch: pytest.MonkeyPatch) -> None:
    read: list[Path] = []
    monkeypatch.setattr(stream_module, "decode", lambda path: read.append(path) or decode(path))
    stream = PictureStream(paths, None, EvalTransform(SMALL), batch_size=4)
    assert len(list(stream.epoch(0, start=4))) == 2
    assert sorted(read) == paths[16:]


@pytest.mark.parametrize("n", [16, 21, 22])
def test_two_ranks_are_one(paths: list[Path], n: int) -> None:
    whole = train_stream(paths[:n], batch_size=8)
    halves = [train_stream(paths[:n], rank=rank, world_size=2) for rank in (0, 1)]
    assert len(whole) == len(halves[0]) == len(halves[1])
    for both, a, b in zip(whole.epoch(1), *(half.epoch(1) for half in halves), strict=True):
        assert len(a.x) == len(b.x)
        keep = torch.cat([a.weight, b.weight]) > 0  # type: ignore[list-item]
        assert torch.equal(torch.cat([a.x, b.x])[keep], both.x)
        assert torch.equal(torch.cat([a.y, b.y])[keep], both.y)  # type: ignore[list-item, arg-type]


def test_every_sample_once_per_epoch_and_dropping_the_last(paths: list[Path]) -> None:
    stream = PictureStream(paths, np.arange(22), TrainTransform(SMALL), batch_size=4, shuffle=True)
    assert stream.samples == 22
    assert sorted(int(y) for b in stream.epoch(0) for y in b.y) == list(range(22))  # type: ignore[union-attr]
    short = train_stream(paths, drop_last=True)
    assert len(short) == len(list(short.epoch(0))) == 5


def test_withheld_labels_stay_withheld(paths: list[Path]) -> None:
    assert next(PictureStream(paths, None, EvalTransform(SMALL), batch_size=4).epoch(0)).y is None


def test_stopping_early_and_failing_leave_no_threads(paths: list[Path], tmp_path: Path) -> None:
    def pictures() -> list[threading.Thread]:
        return [t for t in threading.enumerate() if t.name.startswith("pictures")]

    batches = train_stream(paths, threads=3).epoch(0)
    next(batches)
    assert pictures()
    batches.close()  # type: ignore[attr-defined]
    assert not pictures()
    bad = tmp_path / "bad.jpg"
    bad.write_bytes(b"")
    with pytest.raises(UnreadableError):
        list(PictureStream([*paths, bad], None, EvalTransform(SMALL), batch_size=4).epoch(0))
    assert not pictures()


def test_prefetch_is_bounded(paths: list[Path], monkeypatch: pytest.MonkeyPatch) -> None:
    read: list[Path] = []
    monkeypatch.setattr(stream_module, "decode", lambda path: read.append(path) or decode(path))
    batches = PictureStream(paths, None, EvalTransform(SMALL), batch_size=2, threads=4).epoch(0)
    next(batches)
    batches.close()  # type: ignore[attr-defined]
    assert len(read) <= 2 * stream_module.PREFETCH


def test_cached_scoring_reads_each_file_once(paths: list[Path], monkeypatch: pytest.MonkeyPatch) -> None:
    read: list[Path] = []
    monkeypatch.setattr(stream_module, "decode", lambda path: read.append(path) or decode(path))
    stream = PictureStream(paths, None, EvalTransform(SMALL), batch_size=4, cache=True)
    first, second = list(stream.epoch(0)), list(stream.epoch(1))
    assert sorted(read) == paths
    assert all(torch.equal(a.x, b.x) for a, b in zip(first, second, strict=True))
    with pytest.raises(DataError, match="exact"):
        train_stream(paths, cache=True)


def test_a_store_decodes_once_shrinks_and_stays_within_its_bytes(
    paths: list[Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    read: list[Path] = []
    monkeypatch.setattr(stream_module, "decode", lambda path: read.append(path) or decode(path))
    store = PictureStore(paths, short_side_px=36)
    stream = train_stream(paths, store=store, threads=4)
    list(stream.epoch(0))
    list(stream.epoch(1))
    assert sorted(read) == paths
    assert all(min(store.get(i).shape[1:]) == 36 for i in range(len(paths)))
    tight = PictureStore(paths, short_side_px=36, cache_bytes=36 * 100 * 3)
    for _ in range(2):
        for i in range(len(paths)):
            tight.get(i)
    assert tight._cache._held_bytes <= 36 * 100 * 3
    assert len(read) > len(paths) + 22
    with pytest.raises(DataError, match="scoring"):
        PictureStream(paths, None, EvalTransform(SMALL), batch_size=4, store=store)


@pytest.mark.parametrize("options", [{"batch_size": 0}, {"rank": 2, "world_size": 2}, {"threads": 0}])
def test_arguments_that_mean_nothing_are_said(paths: list[Path], options: dict[str, int]) -> None:
    with pytest.raises(DataError, match="accepted"):
        train_stream(paths, **options)
