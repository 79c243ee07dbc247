"""The audit accounts for every file, keeps copies on one side, and raises few false alarms on real sets."""

from __future__ import annotations

import json
import os
import shutil
import struct
from pathlib import Path

import numpy as np
import pytest
from PIL import Image, ImageCms, ImageFilter

from hostile_pictures import build, jpeg, scene
from regraft.core.errors import DataError
from regraft.data.audit import Audit, audit
from regraft.data.copies import clusters
from regraft.data.reading import Reading, read_source
from regraft.images.decode import decode
from regraft.images.likeness import alike, dhash
from regraft.images.modality import PICTURES

SHARED = Path(os.environ.get("REGRAFT_SHARED", Path(__file__).resolve().parents[2] / "shared"))


def put(path: Path, seed: int, **options: object) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(jpeg(scene(np.random.default_rng(seed)), **options))
    return path


def kinds(found: Audit) -> dict[str, int]:
    return {finding.kind: finding.count for finding in found.findings}


def fill(folder: Path, n: int, first: int = 0) -> None:
    for i in range(n):
        put(folder / f"{first + i:03d}.jpg", first + i)


def test_hostile_files_are_all_accounted_for(tmp_path: Path) -> None:
    made = build(tmp_path, seed=1)
    source = read_source([tmp_path], PICTURES)
    seen: list[tuple[int, int]] = []
    usable, facts, found = audit(source, PICTURES, max_bad=0.5, progress=lambda done, total: seen.append((done, total)))
    named = {path for finding in found.findings if finding.left_out for path in finding.paths}
    assert {str(p) for p in source.paths} == named | {str(p) for p in usable.paths}
    assert named == {str(one.path) for one in made if one.fate == "named"}
    assert found.n_files == 100
    assert found.n_usable == len(usable) == len(facts) == 70
    for finding in {one.finding for one in made}:
        as_well = 5 if finding == "alpha" else 0  # the palettes have a transparent entry
        assert kinds(found)[finding] == sum(one.finding == finding for one in made) + as_well
    assert all(len(finding.examples) <= 8 for finding in found.findings)
    assert seen[-1] == (100, 100)
    assert json.loads(json.dumps(found.to_json(), allow_nan=False))["n_usable"] == 70


def test_too_many_bad_files_stop_with_the_option_that_accepts_them(tmp_path: Path) -> None:
    build(tmp_path, seed=1)
    with pytest.raises(DataError, match=r"30 of 100 files.*--max-bad"):
        audit(read_source([tmp_path], PICTURES), PICTURES)


def test_exact_copies_within_across_and_against(tmp_path: Path) -> None:
    fill(tmp_path / "train/a", 6)
    fill(tmp_path / "train/b", 6, first=10)
    fill(tmp_path / "test/a", 3, first=20)
    fill(tmp_path / "test/b", 3, first=30)
    shutil.copy(tmp_path / "train/a/000.jpg", tmp_path / "train/a/copy.jpg")
    shutil.copy(tmp_path / "test/a/020.jpg", tmp_path / "train/a/leak.jpg")
    shutil.copy(tmp_path / "train/a/001.jpg", tmp_path / "train/b/conflict.jpg")
    usable, _, found = audit(read_source([tmp_path], PICTURES), PICTURES)
    names = {p.path.name for p in usable.samples}
    assert kinds(found) == {"duplicate": 1, "duplicate-across-splits": 1, "label-conflict": 2}
    assert {"000.jpg", "copy.jpg", "020.jpg"} <= names
    assert not {"leak.jpg", "conflict.jpg", "001.jpg"} & names


def near_copies_of(path: Path, folder: Path) -> None:
    picture = Image.open(path)
    folder.mkdir(parents=True, exist_ok=True)
    picture.resize((70, 52)).save(folder / "near-small.jpg")
    picture.save(folder / "near-poor.jpg", quality=25)
    picture.filter(ImageFilter.GaussianBlur(1)).save(folder / "near-blurred.png")


def test_near_copies_leave_training_where_splits_are_declared(tmp_path: Path) -> None:
    fill(tmp_path / "train/a", 6)
    fill(tmp_path / "train/b", 6, first=10)
    fill(tmp_path / "test/a", 3, first=20)
    fill(tmp_path / "test/b", 3, first=30)
    near_copies_of(tmp_path / "test/a/020.jpg", tmp_path / "train/a")
    usable, _, found = audit(read_source([tmp_path], PICTURES), PICTURES)
    assert kinds(found) == {"near-duplicate-across-splits": 3}
    assert not any(p.path.name.startswith("near") for p in usable.samples)
    assert len(usable) == 18


def test_near_copies_share_a_group_where_none_are_declared(tmp_path: Path) -> None:
    fill(tmp_path / "a", 6)
    fill(tmp_path / "b", 6, first=10)
    near_copies_of(tmp_path / "a/000.jpg", tmp_path / "b")
    usable, _, found = audit(read_source([tmp_path], PICTURES), PICTURES)
    grouped = {p.path.name for p in usable.samples if p.group is not None}
    assert grouped == {"000.jpg", "near-small.jpg", "near-poor.jpg", "near-blurred.png"}
    assert len({p.group for p in usable.samples}) == 2
    assert kinds(found) == {"near-duplicate": 4, "near-label-conflict": 4}


def test_near_copies_unite_the_groups_they_belong_to(tmp_path: Path) -> None:
    for i in range(4):
        put(tmp_path / f"a/p1_{i}.jpg", i)
        put(tmp_path / f"b/p2_{i}.jpg", 10 + i)
        put(tmp_path / f"b/p3_{i}.jpg", 20 + i)
    put(tmp_path / "b/p2_near.jpg", 0, dpi=(72, 72))
    usable, _, _ = audit(read_source([tmp_path], PICTURES, Reading(group="patient")), PICTURES)
    assert {p.group for p in usable.samples if p.path.name[:2] in ("p1", "p2")} == {"p1"}
    assert {p.group for p in usable.samples if p.path.name[:2] == "p3"} == {"p3"}


def test_a_group_on_both_sides_of_a_declared_split_leaves_training(tmp_path: Path) -> None:
    for i in range(6):
        put(tmp_path / f"train/a/p{i}_0.jpg", i)
        put(tmp_path / f"train/b/p{10 + i}_0.jpg", 10 + i)
    put(tmp_path / "test/a/p0_1.jpg", 30)
    put(tmp_path / "test/b/p99_1.jpg", 31)
    usable, _, found = audit(read_source([tmp_path], PICTURES, Reading(group="patient")), PICTURES)
    assert "p0_0.jpg" not in {p.path.name for p in usable.samples}
    assert kinds(found)["group-across-splits"] == 1


def test_classes_and_sizes(tmp_path: Path) -> None:
    fill(tmp_path / "train/a", 12)
    fill(tmp_path / "train/b", 3, first=20)
    fill(tmp_path / "test/a", 2, first=30)
    fill(tmp_path / "test/c", 6, first=40)
    Image.fromarray(scene(np.random.default_rng(60), 20, 50)).save(tmp_path / "train/a/tiny.png")
    _, _, found = audit(read_source([tmp_path], PICTURES), PICTURES)
    assert {"few-pictures", "imbalance", "test-only-class", "train-only-class", "small"} == set(kinds(found))
    severity = {finding.kind: finding.severity for finding in found.findings}
    assert severity["test-only-class"] == "error"
    assert found.findings[0].kind == "test-only-class"


def test_a_profile_other_than_srgb_is_told_and_not_applied(
    tmp_path: Path, tmp_path_factory: pytest.TempPathFactory
) -> None:
    """The other one is LittleCMS's sRGB with the red, green and blue of Adobe RGB (1998), relative to D50."""
    srgb = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
    red, green, blue = (0.60974, 0.31111, 0.01947), (0.20528, 0.62567, 0.06087), (0.14919, 0.06322, 0.74457)
    adobe = bytearray(srgb)
    for tag, xyz in ((b"rXYZ", red), (b"gXYZ", green), (b"bXYZ", blue)):
        (at,) = struct.unpack_from(">I", srgb, srgb.index(tag) + 4)
        struct.pack_into(">3i", adobe, at + 8, *(round(65_536 * value) for value in xyz))
    profiles = {"srgb": srgb, "adobe": bytes(adobe), "cut": bytes(adobe[:140]), "none": None}
    plain = tmp_path_factory.mktemp("plain")
    fill(tmp_path / "a", 6)
    for number, (name, profile) in enumerate(profiles.items()):
        path = put(tmp_path / f"b/{name}.jpg", 10 + number, icc_profile=profile)
        assert decode(path).equal(decode(put(plain / path.name, 10 + number)))
        pixels = scene(np.random.default_rng(20 + number))
        Image.fromarray(pixels).save(path.with_suffix(".png"), icc_profile=profile)
        assert (decode(path.with_suffix(".png")).permute(1, 2, 0).numpy() == pixels).all()
    _, _, found = audit(read_source([tmp_path], PICTURES), PICTURES)
    (finding,) = found.findings
    assert (finding.kind, finding.severity, finding.count) == ("colour-profile", "info", 2)
    assert [Path(name).name for name in finding.examples] == ["adobe.jpg", "adobe.png"]


def test_likeness_equals_a_plain_search() -> None:
    rng = np.random.default_rng(0)
    thumbnails = np.stack([np.asarray(Image.fromarray(scene(rng, 32, 32)).convert("L")) for _ in range(60)])
    noisy = np.clip(thumbnails[:30] + rng.normal(0, 3, thumbnails[:30].shape), 0, 255).astype(np.uint8)
    blank = np.full((2, 32, 32), 128, np.uint8)
    stack = np.concatenate([thumbnails, noisy, blank])
    hashes = [dhash(one) for one in stack]
    assert hashes[-1] is None
    found = alike(hashes, stack)
    gaps = [bin(hashes[i] ^ hashes[j]).count("1") for i, j in found]  # type: ignore[operator]
    assert all(gap <= 8 for gap in gaps)
    assert set(found) <= {(i, 60 + i) for i in range(30)}
    assert len(found) >= 28


def test_clusters_are_connected_components() -> None:
    assert clusters(7, [(5, 2), (2, 0), (3, 4)]) == [[0, 2, 5], [3, 4]]


@pytest.mark.parametrize(
    ("name", "most", "seconds"), [("hymenoptera", 0, 10), ("chest_xray", 2, 15), ("pacs/photo", 0, 15)]
)
def test_few_false_alarms_on_real_sets(name: str, most: int, seconds: float) -> None:
    folder = SHARED / "data" / name
    if not folder.is_dir():
        pytest.skip(f"no {folder}")
    usable, _, found = audit(read_source([folder], PICTURES), PICTURES)
    assert sum(n for kind, n in kinds(found).items() if "duplicate" in kind) <= most
    assert found.n_usable == found.n_files == len(usable)
    assert found.seconds < seconds
