"""idx files (MNIST's form) become folders of PNG; what is not sound is refused in a sentence."""

from __future__ import annotations

import gzip
import struct
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from regraft.core.errors import DataError
from regraft.images import idx
from regraft.images.idx import expand_idx, is_idx_folder, read_idx


def write(path: Path, array: np.ndarray) -> None:
    head = bytes([0, 0, 8, array.ndim]) + struct.pack(f">{array.ndim}I", *array.shape)
    data = head + array.astype(np.uint8).tobytes()
    path.write_bytes(gzip.compress(data) if path.suffix == ".gz" else data)


@pytest.fixture
def digits(tmp_path: Path) -> Path:
    folder = tmp_path / "digits"
    folder.mkdir()
    draw = np.random.default_rng(0)
    for part, n, end in (("train", 6, ".gz"), ("t10k", 4, "")):
        write(folder / f"{part}-images-idx3-ubyte{end}", draw.integers(0, 256, (n, 5, 7)))
        write(folder / f"{part}-labels-idx1-ubyte{end}", np.arange(n) % 3)
    return folder


def test_pictures_and_labels_survive(digits: Path, tmp_path: Path) -> None:
    assert is_idx_folder(digits) and not is_idx_folder(tmp_path)
    out = expand_idx(digits, tmp_path / "cache")
    pixels = read_idx(digits / "train-images-idx3-ubyte.gz")
    for i in range(6):
        with Image.open(out / "train" / str(i % 3) / f"{i:06d}.png") as picture:
            assert np.array_equal(np.asarray(picture), pixels[i])
    assert len(list((out / "test").rglob("*.png"))) == 4
    marked = (out / "COMPLETE").stat().st_mtime_ns
    assert expand_idx(digits, tmp_path / "cache") == out
    assert (out / "COMPLETE").stat().st_mtime_ns == marked


def test_unsound_files_are_refused(digits: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = digits / "t10k-images-idx3-ubyte"
    whole = path.read_bytes()
    for data, said in ((whole[:-1], "holds"), (b"PNG!" + whole, "no idx file"), (whole[:9], "cut short")):
        path.write_bytes(data)
        with pytest.raises(DataError, match=said):
            expand_idx(digits, tmp_path / "cache")
    path.write_bytes(whole)
    packed = digits / "train-images-idx3-ubyte.gz"
    good = packed.read_bytes()
    packed.write_bytes(good[:-6])
    with pytest.raises(DataError, match="cannot be read"):
        read_idx(packed)
    packed.write_bytes(good)
    monkeypatch.setattr(idx, "MAX_BYTES", 100)
    with pytest.raises(DataError, match="unpacks to more"):
        read_idx(packed)
    (digits / "t10k-labels-idx1-ubyte").unlink()
    with pytest.raises(DataError, match="no labels file"):
        expand_idx(digits, tmp_path / "cache")
