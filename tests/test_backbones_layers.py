"""All layers as features: the statistics, their scale, the pretrained head over them, and the same network again."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from regraft.core.errors import UsageError
from regraft.images.backbones import create
from regraft.images.backbones.base import PretrainedHead
from regraft.images.backbones.catalogue import build
from regraft.images.backbones.layers import LayeredBackbone, with_layers

pytestmark = pytest.mark.usefixtures("one_thread")


@pytest.fixture
def layered() -> LayeredBackbone:
    torch.manual_seed(3)
    found = create("scion:size=64,readout=layers", pretrained=False).eval()
    assert isinstance(found, LayeredBackbone)
    return found


def pictures(n: int) -> torch.Tensor:
    return torch.randint(0, 256, (n, 3, 64, 64), dtype=torch.uint8, generator=torch.Generator().manual_seed(n))


@torch.no_grad()
def test_the_statistics_are_numpy_s(layered: LayeredBackbone) -> None:
    x = pictures(3)
    inner, found = layered.inner(x), layered(x).pooled.numpy()
    parts = [inner.pooled.numpy()]
    for index in layered.chosen:
        maps = inner.maps[index].numpy()
        # Every pixel four times along each side, so that the borders of the cells fall between pixels.
        fine = maps.repeat(4, axis=2).repeat(4, axis=3)
        side = maps.shape[2]
        cells = fine.reshape(3, -1, 4, side, 4, side).mean(axis=(3, 5))
        values = maps.reshape(3, maps.shape[1], -1)
        parts += [cells.reshape(3, -1), values.max(axis=2), np.maximum(values.std(axis=2), 1e-3)]
    np.testing.assert_allclose(found, np.concatenate(parts, axis=1), atol=2e-5)
    assert found.shape[1] == layered.feature_dim == 1280 + 18 * (32 + 96 + 320)  # the first of four maps is left out


@torch.no_grad()
def test_the_scale_gives_every_part_the_same_weight_and_travels(layered: LayeredBackbone) -> None:
    draw = np.random.default_rng(0)
    raw = (draw.normal(size=(40, layered.feature_dim)) * draw.uniform(0.1, 9, layered.feature_dim) + 3).astype("f4")
    raw[:, 5] = 1.0  # a coordinate of the pooled part that never changes
    scaled = layered.scale_by(raw)
    for part in np.split(scaled, np.cumsum(layered.widths)[:-1], axis=1):
        assert float(np.square(part).sum(axis=1).mean()) == pytest.approx(1.0, rel=1e-3)
    assert np.isfinite(scaled).all() and not scaled[:, 5].any()
    again = build("embedded", "scion", {"size": 64, "readout": "layers"}, pretrained=False).eval()
    again.load_state_dict(layered.state_dict())
    assert torch.equal(again(pictures(2)).pooled, layered(pictures(2)).pooled)


@torch.no_grad()
def test_the_pretrained_head_says_the_same_over_all_layers(layered: LayeredBackbone) -> None:
    draw = torch.Generator().manual_seed(0)
    layered.inner.pretrained_head = PretrainedHead(torch.randn(7, 1280, generator=draw), torch.arange(7.0))
    layered.scale_by(layered(pictures(40)).pooled.numpy())
    x = pictures(4)
    head = layered.pretrained_head
    assert head is not None
    theirs = layered.inner(x).pooled @ layered.inner.pretrained_head.weight.T + layered.inner.pretrained_head.bias
    torch.testing.assert_close(layered(x).pooled @ head.weight.T + head.bias, theirs, rtol=1e-3, atol=1e-3)


def test_fresh_weights_take_the_scale_back(layered: LayeredBackbone) -> None:
    layered.scale_by(np.random.default_rng(0).normal(size=(9, layered.feature_dim)).astype(np.float32))
    layered.reset_parameters()
    assert (
        float(layered.centre.abs().max()) == 0.0 and float(layered.spread.min()) == float(layered.spread.max()) == 1.0
    )


def test_a_wrapped_network_is_the_named_one() -> None:
    plain = create("test_resnet:size=32", pretrained=False).eval()
    wide = with_layers(plain)
    assert wide is not None and wide.recipe["options"] == {"size": 32, "readout": "layers"}
    recipe = wide.recipe
    again = build(recipe["family"], recipe["model"], recipe["options"], pretrained=False)
    assert again.feature_dim == wide.feature_dim
    assert with_layers(wide) is None and plain.recipe["options"] == {"size": 32}


@pytest.mark.parametrize("option", ["readout=all", "crop_pct=0.1", "crop_pct=wide", "crop_pct=true"])
def test_options_that_mean_nothing_are_told(option: str) -> None:
    with pytest.raises(UsageError, match=option.partition("=")[0]):
        create(f"scion:{option}", pretrained=False)


def test_the_crop_is_the_input_s() -> None:
    assert create("scion:crop_pct=1.0", pretrained=False).input_spec.crop_pct == 1.0
