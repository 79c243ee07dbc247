"""Weights from files: taken where they fit, refused in words where they do not, and never run as code."""

from __future__ import annotations

import os
import pickle
from pathlib import Path
from typing import Any
from urllib.error import URLError

import pytest
import timm
import torch
import torchvision
from safetensors.torch import save_file
from torch import Tensor

from regraft.core.errors import WeightsError
from regraft.core.tensor_files import read_tensors
from regraft.images.backbones import ImageBackbone, create
from regraft.images.backbones.weights import load_weights

NAME = "test_resnet:size=32"


@pytest.fixture(scope="module")
def donor() -> ImageBackbone:
    """A network with weights of its own."""
    torch.manual_seed(11)
    found = create(NAME, pretrained=False)
    found.reset_parameters()
    return found


@pytest.fixture
def state(donor: ImageBackbone) -> dict[str, Tensor]:
    return {name: value.clone() for name, value in donor.net.state_dict().items()}  # type: ignore[union-attr]


def same(backbone: ImageBackbone, state: dict[str, Tensor]) -> bool:
    own = backbone.net.state_dict()  # type: ignore[union-attr]
    return own.keys() == state.keys() and all(torch.equal(own[name], state[name]) for name in own)


@pytest.mark.parametrize("prefix", ["", "module.", "net.", "module.net."])
def test_safetensors_with_and_without_prefix(tmp_path: Path, state: dict[str, Tensor], prefix: str) -> None:
    path = tmp_path / "w.safetensors"
    save_file({prefix + name: value for name, value in state.items()}, path)
    backbone = create(NAME, path)
    assert same(backbone, state) and backbone.provenance["file"] == "w.safetensors"
    assert len(backbone.provenance["sha256"]) == 64


@pytest.mark.parametrize("wrapper", [None, "state_dict", "model"])
@pytest.mark.parametrize("suffix", [".pth", ".pt", ".bin"])
def test_pytorch_files(tmp_path: Path, state: dict[str, Tensor], wrapper: str | None, suffix: str) -> None:
    path = tmp_path / f"w{suffix}"
    torch.save({wrapper: state, "epoch": 3} if wrapper else state, path)
    assert same(create(NAME, path), state)


def test_classifier_of_the_whole_model_is_left_out(tmp_path: Path, state: dict[str, Tensor]) -> None:
    path = tmp_path / "w.safetensors"
    save_file({**state, "fc.weight": torch.zeros(10, 4), "fc.bias": torch.zeros(10)}, path)
    assert same(create(NAME, path), state)


def test_half_precision_and_missing_batch_counters_are_taken(tmp_path: Path, state: dict[str, Tensor]) -> None:
    path = tmp_path / "w.safetensors"
    save_file({n: v.half() for n, v in state.items() if not n.endswith("num_batches_tracked")}, path)
    weight = create(NAME, path).net.conv1[0].weight  # type: ignore[union-attr,index]
    assert weight.dtype == torch.float32
    torch.testing.assert_close(weight.detach(), state["conv1.0.weight"].half().float())


def test_wrong_shapes_are_named(tmp_path: Path, state: dict[str, Tensor]) -> None:
    path = tmp_path / "w.safetensors"
    save_file({**state, "conv1.0.weight": torch.zeros(7, 3, 3, 3)}, path)
    with pytest.raises(WeightsError, match=r"w\.safetensors does not fit test_resnet\S*: it has other shapes \(conv1"):
        create(NAME, path)


def test_missing_keys_are_counted_and_named(tmp_path: Path, state: dict[str, Tensor]) -> None:
    path = tmp_path / "w.safetensors"
    save_file({name: value for name, value in state.items() if not name.startswith("conv1.0")}, path)
    with pytest.raises(WeightsError, match=rf"lacks 1 of {len(state)} tensors \(first: conv1\.0\.weight\)"):
        create(NAME, path)


def test_file_for_another_network_is_refused_with_its_first_names(tmp_path: Path) -> None:
    path = tmp_path / "w.safetensors"
    save_file({"blocks.0.weight": torch.zeros(2)}, path)
    with pytest.raises(WeightsError, match=r"Its first names are blocks\.0\.weight: name the backbone"):
        create(NAME, path)


def test_misfit_changes_nothing(tmp_path: Path, state: dict[str, Tensor], donor: ImageBackbone) -> None:
    path = tmp_path / "w.safetensors"
    save_file({**{n: v + 1 for n, v in state.items()}, "conv1.0.weight": torch.zeros(7, 3, 3, 3)}, path)
    with pytest.raises(WeightsError):
        load_weights(donor, path)
    assert same(donor, state)


class Bomb:
    """Unpickling it would create a file."""

    def __init__(self, target: Path) -> None:
        self.target = target

    def __reduce__(self) -> tuple[Any, ...]:
        return os.mkdir, (str(self.target),)


@pytest.mark.parametrize("container", ["torch", "legacy", "pickle"])
@pytest.mark.parametrize("suffix", [".pth", ".pt", ".bin"])
def test_pickle_that_would_run_code_is_refused_and_does_not_run(tmp_path: Path, container: str, suffix: str) -> None:
    target, path = tmp_path / "executed", tmp_path / f"evil{suffix}"
    payload = {"conv1.0.weight": torch.zeros(1), "extra": Bomb(target)}
    if container == "pickle":
        path.write_bytes(pickle.dumps(payload, protocol=2))
    else:
        torch.save(payload, path, _use_new_zipfile_serialization=container == "torch")
    with pytest.raises(WeightsError, match=r"would run code\): convert it to safetensors"):
        create(NAME, path)
    assert not target.exists()
    with path.open("rb") as source:  # the bomb is live: a careless reader would have set it off
        if container == "pickle":
            pickle.load(source)
        else:
            torch.load(source, weights_only=False)
    assert target.exists()


@pytest.mark.parametrize("content", [b"", b"\xff" * 200, b"\x08\x00\x00\x00\x00\x00\x00\x00{}      "])
def test_damaged_files(tmp_path: Path, content: bytes) -> None:
    for suffix in (".safetensors", ".pth"):
        path = tmp_path / f"w{suffix}"
        path.write_bytes(content)
        with pytest.raises(WeightsError):
            create(NAME, path)


def test_safetensors_that_was_cut_off(tmp_path: Path, state: dict[str, Tensor]) -> None:
    path = tmp_path / "w.safetensors"
    save_file(state, path)
    path.write_bytes(path.read_bytes()[:-100])
    with pytest.raises(WeightsError, match="is not a readable safetensors file"):
        create(NAME, path)


def test_missing_unknown_and_empty_files(tmp_path: Path) -> None:
    with pytest.raises(WeightsError, match="There is no weight file"):
        create(NAME, tmp_path / "nothing.safetensors")
    (tmp_path / "w.h5").write_bytes(b"x")
    with pytest.raises(WeightsError, match=r"read from \.safetensors, \.pth, \.pt or \.bin, not \.h5"):
        create(NAME, tmp_path / "w.h5")
    (tmp_path / "w").write_bytes(b"x")
    with pytest.raises(WeightsError, match="not this"):
        create(NAME, tmp_path / "w")
    torch.save([torch.zeros(1)], tmp_path / "list.pth")
    with pytest.raises(WeightsError, match=r"holds no dictionary of tensors: save the model's state_dict\(\)"):
        read_tensors(tmp_path / "list.pth")
    torch.save({"a": torch.zeros(1), "b": 3}, tmp_path / "mixed.pth")
    with pytest.raises(WeightsError, match="holds no dictionary of tensors"):
        read_tensors(tmp_path / "mixed.pth")


def test_download_that_fails_says_what_to_do(monkeypatch: pytest.MonkeyPatch) -> None:
    def offline(*_: object, **__: object) -> None:
        raise OSError("[Errno 101] Network is unreachable\nwith a second line")

    monkeypatch.setattr(timm, "create_model", offline)
    with pytest.raises(WeightsError) as caught:
        create("mobilenetv2_100")
    message = str(caught.value)
    assert "weights of mobilenetv2_100 are neither in the cache" in message and "second line" not in message
    assert "Network is unreachable" in message and "--weights FILE.safetensors" in message and "scion" in message


def test_torchvision_download_that_fails_says_what_to_do(monkeypatch: pytest.MonkeyPatch) -> None:
    def offline(*_: object, **__: object) -> None:
        raise URLError("no network")

    monkeypatch.setattr(torchvision.models, "get_model", offline)
    with pytest.raises(WeightsError, match=r"torchvision/squeezenet1_1 are neither in the cache .*no network"):
        create("torchvision/squeezenet1_1")


def test_a_file_s_linear_classifier_is_the_pretrained_head(tmp_path: Path, state: dict[str, Tensor]) -> None:
    width = create(NAME, pretrained=False).feature_dim
    weight, bias = torch.randn(9, width), torch.randn(9)
    save_file({**state, "fc.weight": weight.half(), "fc.bias": bias.half()}, tmp_path / "w.safetensors")
    head = create(NAME, tmp_path / "w.safetensors").pretrained_head
    assert head is not None and head.weight.dtype == torch.float32
    torch.testing.assert_close(head.weight, weight, atol=1e-2, rtol=1e-2)
    assert not any("pretrained_head" in name for name in create(NAME, tmp_path / "w.safetensors").state_dict())


@pytest.mark.parametrize(
    "rest",
    [
        {},
        {"fc.weight": (9, 3), "fc.bias": (9,)},  # of another width
        {"fc.weight": (9, 0), "fc.bias": (8,)},  # a bias that does not fit
        {"head.weight": (9, 0), "head.bias": (9,), "head_dist.weight": (9, 0), "head_dist.bias": (9,)},
    ],
)
def test_what_may_be_no_classifier_is_none(
    tmp_path: Path, state: dict[str, Tensor], rest: dict[str, tuple[int, ...]]
) -> None:
    width = create(NAME, pretrained=False).feature_dim
    made = {name: torch.zeros(*(size or width for size in shape)) for name, shape in rest.items()}
    save_file({**state, **made}, tmp_path / "w.safetensors")
    assert create(NAME, tmp_path / "w.safetensors").pretrained_head is None


def test_a_classifier_that_is_not_finite_is_none(tmp_path: Path, state: dict[str, Tensor]) -> None:
    width = create(NAME, pretrained=False).feature_dim
    broken = torch.zeros(9, width)
    broken[0, 0] = torch.inf
    save_file({**state, "fc.weight": broken, "fc.bias": torch.zeros(9)}, tmp_path / "w.safetensors")
    assert create(NAME, tmp_path / "w.safetensors").pretrained_head is None


def test_timm_s_own_weights_bring_their_classifier(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    torch.manual_seed(2)
    whole = timm.create_model("test_resnet")
    save_file(whole.state_dict(), tmp_path / "w.safetensors")
    real = timm.create_model

    def local(model: str, **options: Any) -> Any:
        if options.get("pretrained"):
            options["pretrained_cfg_overlay"] = {"file": str(tmp_path / "w.safetensors"), "hf_hub_id": None}
        return real(model, **options)

    monkeypatch.setattr(timm, "create_model", local)
    found = create("test_resnet:size=160")
    assert found.pretrained_head is not None
    x = torch.rand(2, 3, 160, 160)
    whole.eval()
    with torch.no_grad():
        ours = found.eval()(x).pooled @ found.pretrained_head.weight.T + found.pretrained_head.bias
        torch.testing.assert_close(ours, whole(found.normalise(x)), rtol=1e-4, atol=1e-4)
