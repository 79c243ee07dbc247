"""Perceptual networks: what their layers are, that weights are checked, and what offline says."""

from __future__ import annotations

from pathlib import Path
from urllib.error import URLError

import pytest
import torch
import torchvision
from safetensors.torch import save_file
from torch import nn

from regraft.core.errors import UsageError, WeightsError
from regraft.images.backbones import create
from regraft.style import networks, perceptual
from regraft.style.networks.perceptual import INPUT, PerceptualNetwork

pytestmark = pytest.mark.usefixtures("one_thread")


@pytest.fixture(scope="module")
def squeezenet_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """SqueezeNet 1.1 with random weights, whole model."""
    torch.manual_seed(0)
    path = tmp_path_factory.mktemp("weights") / "squeezenet.safetensors"
    save_file(torchvision.models.squeezenet1_1().state_dict(), path)
    return path


def test_the_registry_has_them_all() -> None:
    assert {"scion", "sprig", "squeezenet1_1", "vgg16", "vgg19"} <= set(networks.names())


def test_scion_is_the_backbone_computed_at_every_position() -> None:
    net = perceptual("scion")
    assert not net.training and not any(p.requires_grad for p in net.parameters())
    backbone = create("scion").eval()
    pictures = torch.rand(1, 3, 64, 96, generator=torch.Generator().manual_seed(0))
    found = net(pictures, ("stem", "stage1.0.widen", "stage3.0.widen"))
    assert {name: tuple(value.shape[1:]) for name, value in found.items()} == {
        "stem": (24, 64, 96), "stage1.0.widen": (48, 32, 48), "stage3.0.widen": (128, 8, 12),
    }  # fmt: skip
    with torch.no_grad():
        strided = backbone.net.stem(backbone.normalise(pictures))
    # At the even positions it is the backbone's own output; only the last row and column see another padding.
    torch.testing.assert_close(found["stem"][:, :, :-2:2, :-2:2], strided[:, :, :-1, :-1], atol=1e-5, rtol=1e-4)
    assert not torch.allclose(found["stem"][:, :, 1::2, 1::2], strided)


def test_the_input_is_a_layer_of_every_network() -> None:
    net = perceptual("scion")
    pictures = torch.rand(2, 3, 40, 40)
    found = net(pictures, (INPUT,))
    mean, std = torch.tensor([0.485, 0.456, 0.406]), torch.tensor([0.229, 0.224, 0.225])
    torch.testing.assert_close(found[INPUT], (pictures - mean.view(3, 1, 1)) / std.view(3, 1, 1))
    assert list(found) == [INPUT]


def test_layers_are_not_changed_by_those_after_them(squeezenet_file: Path) -> None:
    net = perceptual("squeezenet1_1", squeezenet_file)
    pictures = torch.rand(1, 3, 64, 64)
    together = net(pictures, ("1", "3", "4", "7"))
    for layer in ("1", "3", "4"):
        torch.testing.assert_close(net(pictures, (layer,))[layer], together[layer])
    reference = torchvision.models.squeezenet1_1().eval()
    from safetensors.torch import load_file

    reference.load_state_dict(load_file(squeezenet_file))
    with torch.no_grad():
        x = (pictures - net.mean) / net.std
        for index, layer in enumerate(reference.features[:8]):
            x = layer(x)
            if index in (1, 4, 7):
                torch.testing.assert_close(together[str(index)], x)


@pytest.mark.parametrize(("name", "layers"), [("vgg16", 13), ("vgg19", 16)])
def test_vgg_has_the_layers_of_the_paper_and_average_pooling(name: str, layers: int, tmp_path: Path) -> None:
    from torchvision.models import vgg

    features = vgg.make_layers(vgg.cfgs[{"vgg16": "D", "vgg19": "E"}[name]], batch_norm=False)
    save_file({f"features.{k}": v for k, v in features.state_dict().items()}, tmp_path / "vgg.safetensors")
    net = perceptual(name, tmp_path / "vgg.safetensors")
    assert sum(layer.startswith("relu") for layer in net.order) == layers
    assert not any(isinstance(m, nn.MaxPool2d) for m in net.modules())
    assert list(net.style_layers) == [f"relu{block}_1" for block in range(1, 6)]
    found = net(torch.rand(1, 3, 32, 32), net.style_layers)
    assert [tuple(value.shape[1:]) for value in found.values()] == [
        (64, 32, 32), (128, 16, 16), (256, 8, 8), (512, 4, 4), (512, 2, 2),
    ]  # fmt: skip
    x = (torch.zeros(1, 3, 32, 32) - net.mean) / net.std
    with torch.no_grad():
        first = features[1](features[0](x))
        torch.testing.assert_close(net(torch.zeros(1, 3, 32, 32), ("relu1_1",))["relu1_1"], first)


def test_weights_of_another_network_are_refused(squeezenet_file: Path) -> None:
    with pytest.raises(WeightsError, match=r"does not fit vgg19: \d\d of 32 tensors"):
        perceptual("vgg19", squeezenet_file)
    with pytest.raises(WeightsError, match="no weight file"):
        perceptual("vgg19", squeezenet_file.with_name("none.pth"))


def test_offline_is_one_sentence(monkeypatch: pytest.MonkeyPatch) -> None:
    def offline(*_: object, **__: object) -> None:
        raise URLError("no network")

    monkeypatch.setattr("torchvision.models.VGG19_Weights.get_state_dict", offline)
    with pytest.raises(WeightsError, match=r"weights of vgg19 are neither .* --perceptual-weights FILE"):
        perceptual("vgg19")


def test_what_cannot_be_is_said() -> None:
    net = perceptual("scion")
    with pytest.raises(UsageError, match=r"no layer of scion 'stemm'\. Did you mean 'stem'"):
        net(torch.rand(1, 3, 64, 64), ("stemm",))
    with pytest.raises(UsageError, match="20 × 64 px is too small for scion"):
        net(torch.rand(1, 3, 64, 20), ("stem",))
    with pytest.raises(UsageError, match=r"no perceptual network 'vgg-19'\. Did you mean 'vgg19'"):
        perceptual("vgg-19")
    with pytest.raises(UsageError, match="no layer of tiny 'b'"):
        PerceptualNetwork("tiny", {"a": nn.Identity()}, {"b": 1.0}, {})


def test_building_a_network_leaves_the_random_state_alone(squeezenet_file: Path) -> None:
    torch.manual_seed(7)
    expected = torch.rand(3)
    torch.manual_seed(7)
    perceptual("squeezenet1_1", squeezenet_file)
    perceptual("scion")
    assert torch.equal(torch.rand(3), expected)
