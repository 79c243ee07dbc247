"""Style models on disk: what was saved comes back, and nothing else is taken for one."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from regraft.core.errors import ArtifactError, UsageError
from regraft.style.networks import model_file
from regraft.style.networks.arbitrary_net import ArbitraryNet
from regraft.style.networks.model_file import (
    FORMAT,
    StyleModel,
    arbitrary_model,
    load_style_model,
    save_style_model,
    student_model,
    teacher_model,
)
from regraft.style.networks.sprig import Sprig
from regraft.style.networks.transfer_net import TeacherNet
from small_student import small_model, small_student

pytestmark = pytest.mark.usefixtures("one_thread")


def drawn(*shape: int) -> Tensor:
    return torch.rand(shape, generator=torch.Generator().manual_seed(0))


def same_tensors(a: nn.Module, b: nn.Module, tolerance: float = 0.0) -> None:
    ours, theirs = a.state_dict(), b.state_dict()
    assert ours.keys() == theirs.keys()
    for name, value in ours.items():
        assert theirs[name].dtype == value.dtype, name
        torch.testing.assert_close(theirs[name], value, rtol=tolerance, atol=tolerance, msg=name)


def test_a_student_comes_back(tmp_path: Path) -> None:
    model = small_model()
    path = save_style_model(tmp_path / "a.safetensors", model)
    state = torch.random.get_rng_state()
    found = load_style_model(path)
    assert torch.equal(torch.random.get_rng_state(), state), "loading draws random numbers of the caller's"
    assert (found.kind, found.styles, found.card) == ("student", ("waves",), {"licence": "CC0-1.0"})
    assert not found.net.training
    same_tensors(model.net, found.net)
    pictures = drawn(1, 3, 19, 22)
    with torch.no_grad():
        assert torch.equal(found.net(pictures), model.net(pictures))


def test_half_precision_is_half_the_size_and_read_as_floats(tmp_path: Path) -> None:
    model = small_model(widths=(8, 16, 32))
    whole = save_style_model(tmp_path / "whole.safetensors", model)
    half = save_style_model(tmp_path / "half.safetensors", model, half=True)
    tensors = [sum(value.nbytes for value in load_file(path).values()) for path in (whole, half)]
    assert tensors[1] < 0.51 * tensors[0]
    same_tensors(model.net, load_style_model(half).net, 1e-3)


def test_a_teacher_keeps_its_styles_in_order(tmp_path: Path) -> None:
    net = TeacherNet(3, width=8, blocks=2)
    path = save_style_model(tmp_path / "t.safetensors", teacher_model(net, ("z", "a", "波")))
    found = load_style_model(path)
    assert found.styles == ("z", "a", "波") and isinstance(found.net, TeacherNet)
    same_tensors(net, found.net)


@pytest.mark.parametrize("attention", [False, True])
def test_an_arbitrary_network_is_joined_with_its_encoder(tmp_path: Path, attention: bool) -> None:
    encoder = Sprig()
    net = ArbitraryNet(encoder, attention=attention)
    path = save_style_model(tmp_path / "any.safetensors", arbitrary_model(net))
    found = load_style_model(path, encoder=lambda: encoder)
    assert isinstance(found.net, ArbitraryNet) and found.net.encoder is encoder
    assert (found.net.attentive is not None) is attention
    same_tensors(net, found.net)
    assert not any("encoder" in name for name in load_file(path))
    with pytest.raises(ArtifactError, match="needs its encoder"):
        load_style_model(path)


def test_what_cannot_be_read_again_is_not_saved(tmp_path: Path) -> None:
    path = tmp_path / "a.safetensors"
    net = small_student()
    for wrong, message in (
        (StyleModel("teacher", net, ("a",)), "no network of kind 'teacher'"),
        (StyleModel("student", net, ("a", "b")), "2 style names"),
        (StyleModel("student", net, ("",)), "1 to 200 printable"),
        (StyleModel("student", net, ("two\nlines",)), "1 to 200 printable"),
        (student_model(net, "a", {"text": "x" * 70_000}), "64 KiB"),
        (student_model(small_student((4, 8, 300)), "a"), "out of range"),
    ):
        with pytest.raises(UsageError, match=message):
            save_style_model(path, wrong)
    net.paint.weight.data[0, 0, 0, 0] = 1e6
    with pytest.raises(UsageError, match="half precision"):
        save_style_model(path, student_model(net, "a"), half=True)
    net.paint.weight.data[0, 0, 0, 0] = float("nan")
    with pytest.raises(UsageError, match=r"paint\.weight holds values that are not numbers"):
        save_style_model(path, student_model(net, "a"))
    assert not list(tmp_path.iterdir())


def meta(path: Path) -> dict[str, str]:
    with safe_open(path, framework="pt") as opened:
        return dict(opened.metadata())


def stated(**changes: Any) -> Callable[[dict[str, str], dict[str, Tensor]], None]:
    def change(metadata: dict[str, str], tensors: dict[str, Tensor]) -> None:
        config = json.loads(metadata["config"])
        config.update(changes)
        metadata["config"] = json.dumps(config)

    return change


def texts(**changes: str) -> Callable[[dict[str, str], dict[str, Tensor]], None]:
    return lambda metadata, tensors: metadata.update(changes)


def tensor(name: str, value: Tensor | None) -> Callable[[dict[str, str], dict[str, Tensor]], None]:
    def change(metadata: dict[str, str], tensors: dict[str, Tensor]) -> None:
        tensors.pop(name, None)
        if value is not None:
            tensors[name] = value

    return change


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (texts(regraft="regraft.style/2"), r"format 'regraft\.style/2'.*reads regraft\.style/1"),
        (texts(regraft="x" * 5000), "format"),
        (texts(kind="pickle"), "kind 'pickle'; this version knows student, teacher, arbitrary"),
        (texts(kind="teacher"), "fields styles, width, blocks"),
        (texts(config="[" * 100_000), "64 KiB"),
        (texts(config="[" * 30_000), "not a style model"),
        (texts(config="{"), "not a style model"),
        (texts(config='{"widths": [4, 8, 16]}'), "fields widths, inner and no other"),
        (stated(widths=[4, 8, 1_000_000_000]), "widths .* out of range"),
        (stated(widths=[4, 8]), "out of range"),
        (stated(widths=[4, 8, 16.0]), "out of range"),
        (stated(widths=[4, 8, True]), "out of range"),
        (stated(inner=[8] * 17), "inner .* out of range"),
        (stated(inner=[16, 0]), "out of range"),
        (stated(inner=[16, 16]), r"shape \(8,.*asks for \(16,"),
        (stated(inner=[16, 8, 8]), "missing or not of this network"),
        (texts(styles='{"a": 1}'), "styles are no list"),
        (texts(styles='["a", "a"]'), "2 style names"),
        (texts(styles="[7]"), "printable"),
        (texts(card="[]"), "card is no JSON object"),
        (tensor("paint.bias", None), r"missing .*paint\.bias"),
        (tensor("extra", torch.zeros(1)), "not of this network .*extra"),
        (tensor("paint.bias", torch.zeros(3, dtype=torch.float64)), "stored as F64"),
        (tensor("paint.bias", torch.zeros(3, dtype=torch.int64)), "stored as I64"),
        (tensor("paint.bias", torch.full((3,), float("inf"))), r"paint\.bias holds what is not a number"),
    ],
)
def test_another_description_is_refused(
    tmp_path: Path, change: Callable[[dict[str, str], dict[str, Tensor]], None], message: str
) -> None:
    path = save_style_model(tmp_path / "a.safetensors", small_model())
    metadata, tensors = meta(path), load_file(path)
    assert metadata["regraft"] == FORMAT
    change(metadata, tensors)
    save_file(tensors, path, metadata)
    with pytest.raises(ArtifactError, match=message):
        load_style_model(path)


def test_other_files_are_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = save_style_model(tmp_path / "a.safetensors", small_model())
    whole = path.read_bytes()
    with pytest.raises(ArtifactError, match="There is no style model"):
        load_style_model(tmp_path / "none.safetensors")
    torch.save(small_student().state_dict(), tmp_path / "pickled.safetensors")
    save_file({"a": torch.zeros(2)}, tmp_path / "plain.safetensors")
    (tmp_path / "cut.safetensors").write_bytes(whole[: len(whole) // 2])
    (tmp_path / "empty.safetensors").write_bytes(b"")
    (tmp_path / "huge-header.safetensors").write_bytes((1 << 40).to_bytes(8, "little") + whole[8:])
    for name in ("pickled", "plain", "cut", "empty", "huge-header"):
        with pytest.raises(ArtifactError, match=f"{name}.safetensors is not a style model"):
            load_style_model(tmp_path / f"{name}.safetensors")
    monkeypatch.setattr(model_file, "LIMIT_BYTES", len(whole) - 1)
    with pytest.raises(ArtifactError, match="larger than"):
        load_style_model(path)
