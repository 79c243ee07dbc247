"""Artifacts: what was written comes back; what was altered, cut off or is of an unknown version is refused in words."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file

from regraft.core.artifact import MANIFEST, WEIGHTS, read_artifact, read_manifest, write_artifact
from regraft.core.errors import ArtifactError
from regraft.core.files import sha256_file

DESCRIBED: dict[str, Any] = {
    "backbone": {"name": "scion"},
    "task": "classification",
    "input_spec": {"modality": "image", "shape": [3, 32, 32], "options": {}},
    "labels": ["ember", "frost"],
    "temperature": 1.5,
}


@pytest.fixture
def artifact(tmp_path: Path) -> Path:
    tensors = {"head.weight": torch.arange(6.0).reshape(2, 3), "steps": torch.tensor(7)}
    return write_artifact(tmp_path / "artifact", DESCRIBED, tensors)


def edit(folder: Path, **changes: Any) -> None:
    manifest = json.loads((folder / MANIFEST).read_text())
    for key, value in changes.items():
        if value is None:
            del manifest[key]
        else:
            manifest[key] = value
    (folder / MANIFEST).write_text(json.dumps(manifest))


def test_what_was_written_comes_back(artifact: Path) -> None:
    manifest, tensors = read_artifact(artifact)
    assert {key: manifest[key] for key in DESCRIBED} == DESCRIBED
    assert manifest["format"] == "regraft.artifact/1"
    assert torch.equal(tensors["head.weight"], torch.arange(6.0).reshape(2, 3))
    assert tensors["steps"].dtype == torch.int64 and int(tensors["steps"]) == 7
    assert sorted(p.name for p in artifact.iterdir()) == [MANIFEST, WEIGHTS]


def test_tensors_that_share_memory_or_are_no_contiguous_view(tmp_path: Path) -> None:
    base = torch.arange(12.0).reshape(3, 4)
    write_artifact(tmp_path / "a", DESCRIBED, {"tied": base, "again": base, "turned": base.T, "part": base[:, 1]})
    _, tensors = read_artifact(tmp_path / "a")
    assert torch.equal(tensors["again"], base) and torch.equal(tensors["turned"], base.T)
    assert torch.equal(tensors["part"], base[:, 1])


def test_one_changed_byte_is_refused(artifact: Path) -> None:
    weights = artifact / WEIGHTS
    content = bytearray(weights.read_bytes())
    content[-1] ^= 1
    weights.write_bytes(bytes(content))
    with pytest.raises(ArtifactError, match=r"altered or cut off"):
        read_artifact(artifact)


def test_weights_that_were_cut_off_are_refused(artifact: Path) -> None:
    weights = artifact / WEIGHTS
    weights.write_bytes(weights.read_bytes()[:-4])
    with pytest.raises(ArtifactError, match=r"altered or cut off"):
        read_artifact(artifact)


def test_weights_that_are_no_safetensors_are_refused_though_the_hash_fits(artifact: Path) -> None:
    weights = artifact / WEIGHTS
    weights.write_bytes(b"\xff" * 64)
    edit(artifact, files={WEIGHTS: {"sha256": sha256_file(weights), "bytes": 64}})
    with pytest.raises(ArtifactError, match="is not a safetensors file"):
        read_artifact(artifact)


def test_another_model_s_weights_are_refused(artifact: Path) -> None:
    save_file({"head.weight": torch.zeros(2, 3), "steps": torch.tensor(7)}, artifact / WEIGHTS)
    with pytest.raises(ArtifactError, match=r"is not the file that its manifest describes"):
        read_artifact(artifact)


def test_missing_files_are_named(artifact: Path) -> None:
    (artifact / WEIGHTS).unlink()
    assert read_manifest(artifact)["task"] == "classification"
    with pytest.raises(ArtifactError, match=r"has no model\.safetensors: copy the whole artifact folder"):
        read_artifact(artifact)
    (artifact / MANIFEST).unlink()
    with pytest.raises(ArtifactError, match=r"is not an artifact: it has no manifest\.json"):
        read_manifest(artifact)


@pytest.mark.parametrize("version", ["regraft.artifact/2", "other/1", 1, ["regraft.artifact/1"]])
def test_unknown_version_is_refused(artifact: Path, version: object) -> None:
    edit(artifact, format=version)
    with pytest.raises(ArtifactError, match=r"this version reads regraft\.artifact/1"):
        read_manifest(artifact)


@pytest.mark.parametrize("content", ["[]", "3", "null", '"manifest"'])
def test_manifest_that_is_no_object_is_refused(artifact: Path, content: str) -> None:
    (artifact / MANIFEST).write_text(content)
    with pytest.raises(ArtifactError, match="has format"):
        read_manifest(artifact)


@pytest.mark.parametrize("content", [b'{"format": "regr', b"\xff\xfe\x00", b"", b"[" * 200_000])
def test_manifest_that_is_no_json_is_refused(artifact: Path, content: bytes) -> None:
    (artifact / MANIFEST).write_bytes(content)
    with pytest.raises(ArtifactError, match="is not valid JSON"):
        read_manifest(artifact)


def test_manifest_without_a_field_is_refused(artifact: Path) -> None:
    edit(artifact, labels=None, task=None)
    with pytest.raises(ArtifactError, match="lacks task, labels"):
        read_manifest(artifact)


@pytest.mark.parametrize("files", [[], "model", {}, {WEIGHTS: None}, {WEIGHTS: "abc"}])
def test_manifest_that_does_not_describe_its_weights_is_refused(artifact: Path, files: object) -> None:
    edit(artifact, files=files)
    with pytest.raises(ArtifactError, match=r"does not describe model\.safetensors"):
        read_artifact(artifact)


def test_failed_write_leaves_the_old_artifact(artifact: Path) -> None:
    with pytest.raises(ValueError, match="JSON"):
        write_artifact(artifact.parent / "new", {**DESCRIBED, "temperature": float("nan")}, {"a": torch.ones(1)})
    assert not (artifact.parent / "new" / MANIFEST).exists()
    assert read_artifact(artifact)[0]["temperature"] == 1.5
