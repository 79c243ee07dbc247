"""Layouts, tables, groups, and a sentence for everything that cannot be used."""

from __future__ import annotations

import csv
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from regraft.core.errors import DataError
from regraft.data.reading import Reading, read_source
from regraft.images.modality import PICTURES


def put(path: Path) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", (4, 4)).save(path, "JPEG")
    return path


def put_table(path: Path, rows: list[dict[str, object]], delimiter: str = ",") -> Path:
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, list(rows[0]), delimiter=delimiter)
        writer.writeheader()
        writer.writerows(rows)
    return path


def test_a_folder_per_class(tmp_path: Path) -> None:
    for name in (
        "b/2.JPG",
        "a/1.jpg",
        "a/deep/3.png",
        "a/.hidden.jpg",
        ".git/x.jpg",
        "a/notes.txt",
        "b/.DS_Store",
    ):
        put(tmp_path / name)
    source = read_source([tmp_path], PICTURES)
    assert source.classes == ("a", "b")
    assert [p.path.name for p in source.samples] == ["1.jpg", "3.png", "2.JPG"]
    assert source.labels().tolist() == [0, 0, 1]
    assert source.skipped == ()
    assert source.subset([2]).labels().tolist() == [1]


def test_split_folders_in_any_case_with_or_without_val_and_test(tmp_path: Path) -> None:
    for name in ("Train/a/1.jpg", "Train/b/2.jpg", "VALID/a/3.jpg", "test/b/4.jpg", "extra/c/5.jpg", "6.jpg"):
        put(tmp_path / name)
    source = read_source([tmp_path], PICTURES)
    assert {p.path.name: p.split for p in source.samples} == {
        "1.jpg": "train", "2.jpg": "train", "3.jpg": "val", "4.jpg": "test",
    }  # fmt: skip
    assert any("extra" in line for line in source.skipped)
    assert any("6.jpg" in line for line in source.skipped)


def test_a_class_may_be_called_train(tmp_path: Path) -> None:
    for name in ("train/1.jpg", "bus/2.jpg"):
        put(tmp_path / name)
    assert read_source([tmp_path], PICTURES).classes == ("bus", "train")


def test_several_roots_and_a_test_folder(tmp_path: Path) -> None:
    for name in ("one/a/1.jpg", "two/b/2.jpg", "held/a/3.jpg", "held/b/4.jpg"):
        put(tmp_path / name)
    source = read_source([tmp_path / "one", tmp_path / "two"], PICTURES, Reading(test=tmp_path / "held"))
    assert source.name == "one+two"
    assert [p.split for p in source.samples] == [None, None, "test", "test"]


def test_overlapping_roots_take_each_file_once(tmp_path: Path) -> None:
    for name in ("a/1.jpg", "b/2.jpg"):
        put(tmp_path / name)
    source = read_source([tmp_path, tmp_path], PICTURES)
    assert len(source) == 2
    assert "2 files were named more than once" in source.skipped[0]


@pytest.mark.parametrize(
    ("files", "says"),
    [
        ([], "no pictures"),
        (["a/notes.txt"], "no pictures"),
        (["a/1.jpg"], "class 'a'"),
        (["1.jpg", "2.jpg"], "no folders of them"),
        (["val/a/1.jpg", "test/b/1.jpg"], "no train/"),
    ],
)
def test_what_cannot_be_used_is_said(tmp_path: Path, files: list[str], says: str) -> None:
    for name in files:
        put(tmp_path / name)
    with pytest.raises(DataError, match=says):
        read_source([tmp_path], PICTURES)


def test_a_missing_folder_names_its_neighbours(tmp_path: Path) -> None:
    put(tmp_path / "photos/a/1.jpg")
    with pytest.raises(DataError, match="photos"):
        read_source([tmp_path / "photso"], PICTURES)


def test_links_that_leave_the_root_are_not_followed(tmp_path: Path) -> None:
    outside = put(tmp_path / "outside/secret.jpg")
    inside = put(tmp_path / "root/a/1.jpg")
    put(tmp_path / "root/b/2.jpg")
    (tmp_path / "root/a/out.jpg").symlink_to(outside)
    (tmp_path / "root/a/in.jpg").symlink_to(inside)
    (tmp_path / "root/a/nowhere.jpg").symlink_to(tmp_path / "gone.jpg")
    (tmp_path / "root/c").symlink_to(outside.parent)
    source = read_source([tmp_path / "root"], PICTURES)
    assert sorted(p.path.name for p in source.samples) == ["1.jpg", "2.jpg", "in.jpg"]
    assert len(source.skipped) == 3
    assert source.classes == ("a", "b")


def test_unlabelled_pictures(tmp_path: Path) -> None:
    for name in ("1.jpg", "deep/2.png"):
        put(tmp_path / name)
    source = read_source([tmp_path], PICTURES, Reading(labelled=False))
    assert len(source) == 2
    with pytest.raises(DataError, match="have no label"):
        source.labels()


@pytest.mark.parametrize(
    ("group", "name", "expected"),
    [
        ("patient", "00012_003.jpg", "00012"),
        ("prefix", "ab-c_d.jpg", "ab"),
        (r"id(\d+)", "x_id77_y.jpg", "77"),
        (r"^..", "xyz.jpg", "xy"),
    ],
)
def test_groups_from_file_names(tmp_path: Path, group: str, name: str, expected: str) -> None:
    put(tmp_path / "a" / name)
    put(tmp_path / "b" / name)
    assert {p.group for p in read_source([tmp_path], PICTURES, Reading(group=group)).samples} == {expected}


def test_a_group_that_does_not_match_every_name(tmp_path: Path) -> None:
    put(tmp_path / "a/p1_x.jpg")
    put(tmp_path / "b/scan.jpg")
    with pytest.raises(DataError, match=r"1 of 2 file names, such as 'scan.jpg'"):
        read_source([tmp_path], PICTURES, Reading(group=r"p(\d)"))


@pytest.mark.parametrize("delimiter", [",", ";", "\t"])
def test_a_table(tmp_path: Path, delimiter: str) -> None:
    for name in ("pics/1.jpg", "pics/2.jpg", "pics/3.jpg"):
        put(tmp_path / name)
    rows: list[dict[str, object]] = [
        {"file": "1.jpg", "y": "ant", "who": "p1", "part": "Train"},
        {"file": "2", "y": "bee", "who": "p2", "part": "test"},
        {"file": str(tmp_path / "pics/3.jpg"), "y": "", "who": "p3", "part": "test"},
    ]
    table = put_table(tmp_path / "labels.csv", rows, delimiter)
    source = read_source(
        [tmp_path / "pics"], PICTURES, Reading(table=table, column="file", label="y", group="who", split="part")
    )
    assert [(p.path.name, p.label, p.group, p.split) for p in source.samples] == [
        ("1.jpg", "ant", "p1", "train"), ("2.jpg", "bee", "p2", "test"),
    ]  # fmt: skip
    assert "1 rows" in source.skipped[0]


def test_a_parquet_table_with_numbers_for_labels(tmp_path: Path) -> None:
    arrow = pytest.importorskip("pyarrow")
    parquet = pytest.importorskip("pyarrow.parquet")
    put(tmp_path / "1.jpg")
    put(tmp_path / "2.jpg")
    parquet.write_table(arrow.table({"image": ["1.jpg", "2.jpg"], "label": [0.0, 1.0]}), tmp_path / "t.parquet")
    assert read_source([], PICTURES, Reading(table=tmp_path / "t.parquet")).classes == ("0", "1")


@pytest.mark.parametrize(
    ("rows", "options", "says"),
    [
        ([{"img": "1.jpg", "label": "a"}], {}, "no column 'image'.*'img'"),
        ([{"image": "../1.jpg", "label": "a"}], {}, "leaves its folder"),
        ([{"image": "none.jpg", "label": "a"}], {}, "do not exist, such as 'none.jpg'"),
        ([{"image": "1.jpg", "label": "a", "s": "dev"}], {"split": "s"}, "'dev' is no split"),
        ([{"image": "1.jpg", "label": "a", "g": ""}], {"group": "g"}, "needs its group"),
    ],
)
def test_tables_that_cannot_be_used(
    tmp_path: Path, rows: list[dict[str, object]], options: dict[str, Any], says: str
) -> None:
    put(tmp_path / "1.jpg")
    with pytest.raises(DataError, match=says):
        read_source([tmp_path], PICTURES, Reading(table=put_table(tmp_path / "t.csv", rows), **options))
