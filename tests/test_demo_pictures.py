"""The demo's patches: no neighbour of a test pixel is trained on, the same files each time, the counts."""

from __future__ import annotations

import builtins
import itertools
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from conftest import Shell
from regraft.core.errors import DataError, MissingExtraError
from regraft.images import demo

pytest.importorskip("skimage", reason="scikit-image, the extra [demo], carries the photographs")


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return demo.make_demo(tmp_path_factory.mktemp("demo"))


def cut(split: str, seed: int = 0) -> Iterator[tuple[str, demo.Box]]:
    for surface in demo.SURFACES:
        for box in demo.patch_boxes(surface, split, seed=seed):
            yield surface.picture, box


def distance_px(a: demo.Box, b: demo.Box) -> int:
    """Pixels between two boxes, on the axis where they are further apart; negative where they overlap."""
    return max(a.left - b.right, b.left - a.right, a.top - b.bottom, b.top - a.bottom)


@pytest.mark.parametrize("seed", [0, 1, 2])
def test_no_training_patch_comes_near_a_test_patch_of_any_class(seed: int) -> None:
    for (picture, box), (other, held_out) in itertools.product(cut("train", seed), cut("test", seed)):
        assert picture != other or distance_px(box, held_out) >= demo.GAP_PX, (picture, box, held_out)


def test_regions_leave_the_gap_between_train_and_test_in_every_photograph() -> None:
    for a, b in itertools.product(demo.SURFACES, demo.SURFACES):
        for region, held_out in itertools.product(a.train, b.test):
            assert a.picture != b.picture or distance_px(region, held_out) >= demo.GAP_PX, (a.name, b.name)


def test_no_two_classes_claim_the_same_pixels() -> None:
    for a, b in itertools.combinations(demo.SURFACES, 2):
        for one, other in itertools.product(a.train + a.test, b.train + b.test):
            assert a.picture != b.picture or one.shared_px(other) == 0, (a.name, b.name)


def test_patches_lie_inside_their_region() -> None:
    for surface in demo.SURFACES:
        for split, region in (("train", surface.train), ("test", surface.test)):
            for box in demo.patch_boxes(surface, split):
                assert any(box.shared_px(part) == (box.right - box.left) ** 2 for part in region)
                assert box.right - box.left == box.bottom - box.top
                assert box.right - box.left in surface.sides_px


def test_no_patch_is_cut_twice() -> None:
    for split in ("train", "test"):
        boxes = list(cut(split))
        assert len(set(boxes)) == len(boxes)


def test_counts_sizes_and_mode(made: Path) -> None:
    for split, count in (("train", demo.TRAIN_PER_CLASS), ("test", demo.TEST_PER_CLASS)):
        classes = sorted(path.name for path in (made / split).iterdir())
        assert classes == sorted(surface.name for surface in demo.SURFACES)
        for name in classes:
            files = sorted((made / split / name).glob("*.png"))
            assert len(files) == count
            with Image.open(files[0]) as picture:
                assert picture.mode == "RGB"
                assert picture.width == picture.height


def test_patches_are_the_photographs_own_pixels(made: Path) -> None:
    surface = next(s for s in demo.SURFACES if s.name == "gland")
    box = demo.patch_boxes(surface, "test")[3]
    photograph = np.asarray(Image.open(demo.photographs() / surface.picture))
    patch = np.asarray(Image.open(made / "test" / "gland" / "03.png"))
    assert np.array_equal(patch, photograph[box.top : box.bottom, box.left : box.right])


def test_same_seed_same_bytes_other_seed_other_patches(made: Path, tmp_path: Path) -> None:
    again = demo.make_demo(tmp_path / "again")
    files = sorted(path.relative_to(made) for path in made.rglob("*") if path.is_file())
    assert files == sorted(path.relative_to(again) for path in again.rglob("*") if path.is_file())
    assert all((made / file).read_bytes() == (again / file).read_bytes() for file in files)
    assert list(cut("train", 0)) != list(cut("train", 1))


def test_sources_name_every_photograph_and_licence(made: Path) -> None:
    text = (made / "SOURCES.md").read_text(encoding="utf-8")
    for surface in demo.SURFACES:
        row = next(line for line in text.splitlines() if f"`{surface.picture}`" in line)
        assert surface.name in row
        assert demo.PICTURES[surface.picture].licence in row


def test_without_scikit_image_the_sentence_names_the_extra(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(demo, "find_spec", lambda name: None)
    with pytest.raises(MissingExtraError, match=r"regraft\[demo\]"):
        demo.make_demo(tmp_path / "demo")
    assert not (tmp_path / "demo").exists()


def test_a_missing_photograph_is_named_before_anything_is_written(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(demo, "photographs", lambda: tmp_path)
    with pytest.raises(DataError, match="astronaut"):
        demo.make_demo(tmp_path / "demo")
    assert not (tmp_path / "demo").exists()


def test_nothing_of_scikit_image_is_imported_so_nothing_can_be_fetched(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    real = builtins.__import__

    def guarded(name: str, *rest: Any, **named: Any) -> Any:
        assert name.split(".")[0] not in {"skimage", "pooch"}
        return real(name, *rest, **named)

    monkeypatch.setattr(builtins, "__import__", guarded)
    demo.make_demo(tmp_path / "demo")


def test_the_command_without_time_to_train_claims_nothing(shell: Shell, tmp_path: Path) -> None:
    code, out, err = shell("demo", "--budget", "1s", "--backbone", "scion:size=64", "--json")
    assert code == 0, err
    report = json.loads(out)
    assert report["n_test"] == 425 and report["transfer_gain"] is None and "not known" in report["verdict"]
    assert report["n_train"] + report["n_val"] == 340  # no refit: the control, where there is time, has all of it
    assert (tmp_path / "runs" / "demo-pictures" / "SOURCES.md").is_file()
