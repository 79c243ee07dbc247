"""Registry, errors, whole-or-not-at-all files and the nouns' own conversions."""

from __future__ import annotations

import json
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch

from regraft.core import registry as registry_module
from regraft.core.errors import UsageError, unknown_name
from regraft.core.files import read_json, replacing, sha256_file, stable_hash, write_json, write_text
from regraft.core.registry import Registry
from regraft.core.types import Batch
from regraft.images.spec import ImageSpec


def losses() -> Registry[str]:
    registry: Registry[str] = Registry("test loss")
    registry.register("coral")("A")
    registry.register("mmd")("B")
    return registry


def test_registry_gives_what_was_registered_and_the_nearest_name() -> None:
    registry = losses()
    assert registry.get("coral") == "A" and list(registry) == ["coral", "mmd"]
    assert "mmd" in registry and "cdan" not in registry
    with pytest.raises(
        UsageError, match=r"There is no test loss 'corall'\. Did you mean 'coral'\? Known: coral, mmd\."
    ):
        registry.get("corall")


def test_registering_a_name_twice_is_an_error_and_keeps_the_first() -> None:
    registry = losses()
    with pytest.raises(ValueError, match="test loss 'coral' is registered twice"):
        registry.register("coral")("C")
    assert registry.get("coral") == "A"


def test_other_packages_add_by_entry_point(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[str] = []

    def points(group: str) -> list[SimpleNamespace]:
        asked.append(group)
        return [
            SimpleNamespace(name="cdan", load=lambda: "from outside"),
            SimpleNamespace(name="coral", load=lambda: "an impostor"),
        ]

    monkeypatch.setattr(registry_module, "entry_points", points)
    registry = losses()
    assert asked == []  # nothing is imported before a name is looked up
    assert registry.get("cdan") == "from outside"
    assert registry.get("coral") == "A"
    assert asked == ["regraft.test_loss"]


def test_unknown_name_without_anything_near_and_with_a_long_list() -> None:
    message = str(unknown_name("task", "zzz", ["b", "a"]))
    assert message == "There is no task 'zzz'. Known: a, b."
    long = str(unknown_name("model", "net7x", [f"net{i:03d}" for i in range(100)]))
    assert "net039" in long and "net040" not in long.split("Known:")[1] and "(100 in all)" in long
    assert unknown_name("task", "zzz", []).exit_code == 2


def test_replacing_leaves_the_old_file_when_the_block_raises(tmp_path: Path) -> None:
    path = tmp_path / "deep" / "figures.json"
    write_text(path, "old")

    def interrupted() -> None:
        with replacing(path) as temporary:
            temporary.write_text("half of the n")
            raise RuntimeError("power cut")

    with pytest.raises(RuntimeError, match="power cut"):
        interrupted()
    assert path.read_text() == "old"
    assert [p.name for p in path.parent.iterdir()] == ["figures.json"]
    with replacing(path) as temporary:
        assert temporary.parent == path.parent  # a rename across file systems would not be atomic
        temporary.write_text("new")
        assert path.read_text() == "old"
    assert path.read_text() == "new" and [p.name for p in path.parent.iterdir()] == ["figures.json"]


def test_json_is_exact_and_refuses_what_is_no_json(tmp_path: Path) -> None:
    write_json(tmp_path / "a.json", {"größe": 1.5})
    assert read_json(tmp_path / "a.json") == {"größe": 1.5}
    with pytest.raises(ValueError, match="JSON"):
        write_json(tmp_path / "a.json", {"loss": float("nan")})
    assert read_json(tmp_path / "a.json") == {"größe": 1.5}


def test_hashes() -> None:
    assert stable_hash({"a": 1, "b": [2]}) == stable_hash({"b": [2], "a": 1}) != stable_hash({"a": 1, "b": [3]})
    # Known answer: the hash names runs across versions and machines.
    assert stable_hash({}) == "44136fa355b3678a1146ad16f7e8649e94fb4fc21fe77e8310c060f61caaff8a"


def test_file_hash(tmp_path: Path) -> None:
    (tmp_path / "empty").write_bytes(b"")
    assert sha256_file(tmp_path / "empty") == "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"


def test_input_spec_survives_json() -> None:
    spec = ImageSpec((3, 160, 128), mean=(0.1, 0.2, 0.3), interpolation="bicubic", crop_pct=0.95)
    again = ImageSpec.from_json(json.loads(json.dumps(spec.to_json())))
    assert again == spec and isinstance(again.mean, tuple)
    assert again.to_json() == spec.to_json()


def test_batch_moves_whatever_it_holds() -> None:
    batch = Batch({"ids": torch.ones(2, 3), "name": "x"}, torch.zeros(2), None).to("meta")
    assert batch.x["ids"].device.type == "meta" and batch.x["name"] == "x" and batch.weight is None
    assert batch.y is not None and batch.y.device.type == "meta"
