"""The backbone contract, over every family: groups, features, inputs, fresh weights, and names to backbones."""

from __future__ import annotations

import random

import numpy as np
import pytest
import torch

from regraft.core.errors import UsageError
from regraft.core.types import Backbone, Features
from regraft.images.backbones import ImageBackbone, create, families, known_models
from regraft.images.backbones.catalogue import build, parse

pytestmark = pytest.mark.usefixtures("one_thread")
NAMES = (
    "scion:size=32",
    "test_resnet:size=32",
    "test_efficientnet:size=32",
    "test_convnext:size=32",
    "test_byobnet:size=32",
    "test_nfnet:size=32",
    "test_vit:img_size=32,size=32",
    "lenet",
    "torchvision/squeezenet1_1:size=64",
    "mobilenet_v3_small:size=64",
    "torchvision/resnet18:size=64",
)


@pytest.fixture(scope="module", params=NAMES)
def backbone(one_thread: None, request: pytest.FixtureRequest) -> ImageBackbone:
    return create(request.param, pretrained=False).eval()


def images(backbone: ImageBackbone, count: int = 2) -> torch.Tensor:
    """uint8 (N, 3, H, W)."""
    shape = (count, *backbone.input_spec.shape)
    return torch.randint(0, 256, shape, dtype=torch.uint8, generator=torch.Generator().manual_seed(0))


@torch.no_grad()
def features(backbone: ImageBackbone, x: torch.Tensor) -> Features:
    found: Features = backbone(x)
    return found


def distance(a: torch.Tensor, b: torch.Tensor) -> float:
    """Largest difference relative to the spread of `a`: random weights let features fade to almost nothing."""
    return float((a - b).abs().max() / a.std())


def test_every_family_is_in_the_list() -> None:
    """A new family needs a row in NAMES."""
    assert {parse(name)[0] for name in NAMES} == set(families.names()) - {"speck"}  # tests/speck.py adds that one


def test_groups_are_total_disjoint_and_ordered(backbone: ImageBackbone) -> None:
    groups = backbone.layer_groups()
    names = [name for members in groups.values() for name in members]
    assert len(names) == len(set(names))
    assert set(names) == {name for name, _ in backbone.named_parameters()}
    assert all(groups.values()) and len(groups) > 1
    # Shallow → deep: the groups come in the order in which the network defines its layers.
    order = [name for name, _ in backbone.named_parameters()]
    first = [min(order.index(name) for name in members) for members in groups.values()]
    assert first == sorted(first)


def test_features_are_as_wide_as_told(backbone: ImageBackbone) -> None:
    found = features(backbone, images(backbone, 3))
    assert isinstance(backbone, Backbone) and isinstance(found, Features)
    assert found.pooled.shape == (3, backbone.feature_dim) and torch.isfinite(found.pooled).all()
    assert found.maps and all(len(m) == 3 and m.dim() in (3, 4) for m in found.maps)
    sides = [m.shape[-1] for m in found.maps if m.dim() == 4]
    if backbone.recipe["family"] != "timm" or backbone.recipe["model"] != "test_vit":
        assert sides == sorted(sides, reverse=True)


def test_bytes_and_floats_are_the_same_picture(backbone: ImageBackbone) -> None:
    x = images(backbone)
    a, b = features(backbone, x).pooled, features(backbone, x.float() / 255).pooled
    assert distance(a, b) < 1e-3
    assert distance(a, features(backbone, 255 - x).pooled) > 0.01


def test_normalisation_is_that_of_the_spec(backbone: ImageBackbone) -> None:
    spec = backbone.input_spec
    x = images(backbone)
    mean, std = (np.asarray(getattr(spec, name)).reshape(1, 3, 1, 1) for name in ("mean", "std"))
    expected = (x.numpy() / 255 - mean) / std
    np.testing.assert_allclose(backbone.normalise(x).numpy(), expected, rtol=1e-4, atol=1e-5)
    assert spec.modality == "image" and spec.interpolation in {"bilinear", "bicubic"}
    assert 0 < spec.crop_pct <= 1


def test_pictures_do_not_look_at_each_other(backbone: ImageBackbone) -> None:
    x = images(backbone, 3)
    alone = torch.cat([features(backbone, one).pooled for one in x.split(1)])
    assert distance(alone, features(backbone, x).pooled) < 1e-3
    assert distance(alone[:1], alone[1:2]) > 0.01


def test_fresh_weights_are_other_weights_in_the_same_network(backbone: ImageBackbone) -> None:
    before = {name: p.detach().clone() for name, p in backbone.named_parameters()}
    groups, x = backbone.layer_groups(), images(backbone)
    old = features(backbone, x).pooled
    torch.manual_seed(5)
    backbone.reset_parameters()
    after = dict(backbone.named_parameters())
    assert {n: p.shape for n, p in before.items()} == {n: p.shape for n, p in after.items()}
    assert backbone.layer_groups() == groups
    matrices = [name for name, p in before.items() if p.dim() > 1 and float(p.std()) > 0]
    assert matrices and all(not torch.equal(before[name], after[name]) for name in matrices)
    backbone.eval()
    new = features(backbone, x).pooled
    assert new.shape == old.shape
    torch.manual_seed(5)
    backbone.reset_parameters()
    again = dict(backbone.named_parameters())
    assert all(torch.equal(after[name], again[name]) for name in after)
    backbone.eval()


def test_recipe_builds_the_same_network_again(backbone: ImageBackbone) -> None:
    recipe = backbone.recipe
    again = build(recipe["family"], recipe["model"], recipe["options"], pretrained=False).eval()
    again.load_state_dict(backbone.state_dict())
    assert again.input_spec == backbone.input_spec and again.feature_dim == backbone.feature_dim
    x = images(backbone)
    assert distance(features(again, x).pooled, features(backbone, x).pooled) < 1e-3


@pytest.mark.parametrize("name", ["scion", "test_resnet", "torchvision/squeezenet1_1"])
def test_building_leaves_the_random_state_as_it_was(name: str) -> None:
    states = torch.get_rng_state(), random.getstate(), np.random.get_state()[1].tolist()  # type: ignore[index]
    create(name, pretrained=False)
    assert torch.equal(torch.get_rng_state(), states[0]) and random.getstate() == states[1]
    assert np.random.get_state()[1].tolist() == states[2]  # type: ignore[index]


def test_embedded_weights_are_there_without_a_network() -> None:
    backbone = create("scion:size=64").eval()
    assert backbone.provenance["source"] == "regraft" and len(backbone.provenance["sha256"]) == 64
    random_one = create("scion:size=64", pretrained=False).eval()
    x = images(backbone)
    assert all(p.dtype == torch.float32 for p in backbone.parameters())
    assert distance(features(backbone, x).pooled, features(random_one, x).pooled) > 0.1
    again = create("scion:size=64").eval()
    assert torch.equal(features(backbone, x).pooled, features(again, x).pooled)


def test_names_with_family_and_options() -> None:
    assert parse("scion") == ("embedded", "scion", {})
    assert parse("resnet18") == ("timm", "resnet18", {})
    assert parse("torchvision/resnet18") == ("torchvision", "resnet18", {})
    assert parse("mobilenet_v3_small")[0] == "torchvision"  # timm has none of that name
    found = parse("timm/mobilenetv2_100:pad_type=same,size=192,drop_rate=0.5,aa=true,x=False")
    assert found[2] == {"pad_type": "same", "size": 192, "drop_rate": 0.5, "aa": True, "x": False}
    assert {type(v) for v in found[2].values()} == {str, int, float, bool}
    assert {"scion", "test_resnet", "squeezenet1_1"} <= set(known_models())


def test_options_reach_the_network() -> None:
    narrow = create("torchvision/mobilenet_v3_small:size=64,reduced_tail=true", pretrained=False)
    assert narrow.feature_dim == 512 and narrow.input_spec.shape == (3, 64, 64)
    same = create("test_efficientnet:pad_type=same,size=32", pretrained=False)
    assert "Same" in type(same.net.conv_stem).__name__  # type: ignore[union-attr]
    assert same.recipe["options"] == {"pad_type": "same", "size": 32}


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("scoin", r"There is no backbone 'scoin'\. Did you mean 'scion'\?"),
        ("resnet81", r"There is no backbone 'resnet81'\. Did you mean 'resnet\d+'"),
        ("timm/resnet81", "There is no timm model 'resnet81'"),
        ("torchvision/resnet81", "There is no torchvision model 'resnet81'"),
        ("embedded/scoin", "There is no embedded model 'scoin'"),
        ("scion:size", r"'size' is not of the form key=value, as in scion:size=192"),
        ("scion:=3", "is not of the form key=value"),
        ("scion:size=big", "whole number as in scion:size=192, not 'big'"),
        ("test_resnet:size=1.5", "whole number"),
        ("test_resnet:size=-3", "whole number"),
        ("test_resnet:size=true", "whole number"),
        ("scion:size=100", "32 to 512 px in steps of 32; 100 came"),
        ("scion:width=2", r"scion has no option width; it takes size=<px>"),
        ("test_resnet:wings=2", "timm's test_resnet does not take these options"),
        ("torchvision/resnet18:wings=2", "torchvision's resnet18 does not take these options"),
        ("torchvision/fasterrcnn_resnet50_fpn", "There is no torchvision model"),
    ],
)
def test_names_and_options_that_mean_nothing(name: str, message: str) -> None:
    with pytest.raises(UsageError, match=message):
        create(name, pretrained=False)
