"""Fast features: every engine gives PyTorch's features, short batches too; one that does not is left."""

from __future__ import annotations

import logging
import os
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from regraft.core.errors import MissingExtraError, UsageError
from regraft.images.backbones import ImageBackbone, create, fast
from regraft.images.backbones.fast import cosine, fast_features
from regraft.images.backbones.folding import fold_batch_norm
from regraft.images.backbones.onnx_trace import UntranslatableError, trace_onnx

ENGINES = ["torch", "openvino", "onnxruntime"]
#: Between them: residuals, "same" padding, squeeze-and-excite, pooling that rounds up, concatenation.
NETWORKS = [
    "scion:size=64",
    "timm/test_efficientnet:pad_type=same,size=64",
    "timm/mobilenetv3_small_050:size=64",
    "torchvision/squeezenet1_1:size=64",
    "scion:size=64,readout=layers",
]


def make_backbone(name: str) -> ImageBackbone:
    torch.manual_seed(0)
    backbone = create(name, pretrained=False).eval()
    for module in backbone.modules():  # statistics that folding has to get right
        if isinstance(module, nn.BatchNorm2d):
            module.running_mean.uniform_(-0.2, 0.2)
            module.running_var.uniform_(0.2, 0.6)
            nn.init.uniform_(module.weight, 0.5, 1.5)
            nn.init.uniform_(module.bias, -0.3, 0.3)
    return backbone


def pictures(n: int, side: int = 64) -> Tensor:
    coarse = torch.rand(n, 3, 5, 5, generator=torch.Generator().manual_seed(n))
    return (nn.functional.interpolate(coarse, size=(side, side), mode="bilinear") * 255).to(torch.uint8)


def plain(backbone: ImageBackbone, x: Tensor) -> Tensor:
    with torch.no_grad():
        features: Tensor = backbone(x).pooled
    return features


def close(found: Tensor, expected: Tensor) -> None:
    """Equal to a thousandth of the largest feature: untrained networks have features of any size."""
    largest = float(expected.abs().max())
    assert largest > 0
    np.testing.assert_allclose(found.numpy() / largest, expected.numpy() / largest, atol=1e-3)


def require(engine: str) -> None:
    for package in {"openvino": ["openvino", "onnx"], "onnxruntime": ["onnxruntime", "onnx"]}.get(engine, []):
        pytest.importorskip(package)


@pytest.mark.parametrize("name", NETWORKS)
def test_engines_agree_on_every_batch_length(name: str, caplog: pytest.LogCaptureFixture) -> None:
    backbone = make_backbone(name)
    x = pictures(11)
    expected = plain(backbone, x)
    for engine in ENGINES:
        require(engine)
        features = fast_features(backbone, engine=engine, batch_size=4)
        found = features(x)
        assert found.dtype == torch.float32
        close(found, expected)
        close(features(x[2:3]), expected[2:3])
        assert features(x[:0]).shape == (0, backbone.feature_dim)
        assert features.engine == engine
    assert torch.equal(plain(backbone, x), expected), "the backbone itself is left as it was"


def test_the_backbone_keeps_its_mode_and_gradients() -> None:
    backbone = make_backbone("scion:size=64").train()
    state = {k: v.clone() for k, v in backbone.state_dict().items()}
    features = fast_features(backbone, engine="torch")
    assert not features(pictures(2)).requires_grad
    assert backbone.training
    assert all(p.requires_grad for p in backbone.parameters())
    assert all(torch.equal(v, state[k]) for k, v in backbone.state_dict().items())


@pytest.mark.parametrize(("name", "norms"), [("scion:size=64", 28), ("timm/mobilenetv3_small_050:size=64", 34)])
def test_folding_leaves_the_function_and_no_norm(name: str, norms: int) -> None:
    backbone = make_backbone(name)
    x = pictures(3)
    expected = plain(backbone, x)
    assert fold_batch_norm(backbone) == norms
    assert not any(isinstance(m, nn.BatchNorm2d) for m in backbone.modules())
    close(plain(backbone, x), expected)


def test_a_norm_whose_input_is_used_twice_stays() -> None:
    class Shared(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.conv, self.a, self.b = nn.Conv2d(3, 1280, 1), nn.BatchNorm2d(1280), nn.BatchNorm2d(1280)

        def forward_maps(self, x: Tensor) -> tuple[Tensor]:
            y = self.conv(x)
            return (self.a(y) + self.b(y),)

        def pool(self, x: Tensor) -> Tensor:
            return x.mean(dim=(2, 3))

    backbone = make_backbone("scion:size=64")
    backbone.net = Shared().eval()
    assert fold_batch_norm(backbone) == 0


def broken(run: Callable[..., Any]) -> Callable[..., Any]:
    def build(*arguments: Any) -> Any:
        engine = run(*arguments)
        return lambda x: engine(x).flip(1)

    return build


def test_an_engine_that_differs_is_left(monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture) -> None:
    require("onnxruntime")
    backbone = make_backbone("scion:size=64")
    monkeypatch.setitem(fast._COMPILERS, "onnxruntime", broken(fast._onnxruntime_engine))
    features = fast_features(backbone, engine="onnxruntime", batch_size=4)
    with caplog.at_level(logging.WARNING):
        found = features(pictures(6))
    assert features.engine == "eager"
    assert "differ from PyTorch's" in caplog.text
    close(found, plain(backbone, pictures(6)))


@pytest.mark.parametrize(("error", "engine"), [(0.02, "openvino-bf16"), (0.5, "openvino")])
def test_half_precision_is_allowed_a_little_error(
    error: float, engine: str, monkeypatch: pytest.MonkeyPatch
) -> None:  # fmt: skip
    """Each feature off by that share of itself, one way or the other; too much of it, and full precision takes over."""
    require("openvino")
    backbone = make_backbone("scion:size=64")
    whole = fast._openvino_engine

    def rough(net: ImageBackbone, batch_size: int) -> Callable[[Tensor], Tensor]:
        exact = whole(net, batch_size)
        signs = torch.randn(1, net.feature_dim, generator=torch.Generator().manual_seed(0)).sign()
        return lambda x: exact(x) * (1 + error * signs)

    monkeypatch.setitem(fast._COMPILERS, "openvino-bf16", rough)
    features = fast_features(backbone, engine="openvino-bf16", batch_size=4)
    found = features(pictures(6))
    assert features.engine == engine
    if engine == "openvino":
        close(found, plain(backbone, pictures(6)))


def test_a_network_that_cannot_be_translated_stays_with_torch(caplog: pytest.LogCaptureFixture) -> None:
    require("openvino")
    backbone = make_backbone("timm/test_vit")
    with pytest.raises(UntranslatableError, match=r"aten\."):
        trace_onnx(backbone, 2)
    features = fast_features(backbone, engine="openvino", batch_size=2)
    assert features.engine == "torch"
    assert "in place of openvino" in caplog.text
    x = pictures(3, backbone.input_spec.shape[-1])
    close(features(x), plain(backbone, x))


def test_auto_takes_an_engine_only_where_it_pays(monkeypatch: pytest.MonkeyPatch) -> None:
    require("openvino")
    backbone = make_backbone("timm/test_resnet:size=64")
    monkeypatch.setattr(fast, "_openvino_has_bf16", lambda: False)
    assert fast_features(backbone, n_pictures=fast.PAYS_FROM - 1).engine == "torch"
    assert fast_features(backbone, n_pictures=fast.PAYS_FROM).engine == "openvino"
    monkeypatch.setattr(fast, "_openvino_has_bf16", lambda: True)
    assert fast_features(backbone, n_pictures=fast.PAYS_FROM, half=True).engine == "openvino-bf16"
    assert fast_features(backbone, n_pictures=fast.PAYS_FROM).engine == "openvino"
    monkeypatch.setattr(fast, "find_spec", lambda name: None if name == "openvino" else "found")
    assert fast_features(backbone).engine == "onnxruntime"
    monkeypatch.setattr(fast, "find_spec", lambda name: None)
    assert fast_features(backbone).engine == "torch"


def test_asking_wrongly_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    backbone = make_backbone("timm/test_resnet:size=64")
    with pytest.raises(UsageError, match="openvino"):
        fast_features(backbone, engine="openvin")
    monkeypatch.setitem(sys.modules, "openvino", None)
    with pytest.raises(MissingExtraError, match=r"regraft\[openvino\]"):
        fast_features(backbone, engine="openvino")


def test_cosine_of_zero_rows() -> None:
    a = torch.tensor([[0.0, 0.0], [1.0, 0.0], [0.0, 0.0]])
    b = torch.tensor([[0.0, 0.0], [0.0, 2.0], [1.0, 0.0]])
    assert cosine(a, b).tolist() == [1.0, 0.0, 0.0]


class Everything(nn.Module):
    """One of each operator that the networks above leave out."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 8, 3, stride=2, padding=1)
        self.norm, self.wide, self.narrow = nn.LayerNorm(8), nn.Linear(8, 16), nn.Linear(16, 8, bias=False)
        self.out = nn.Linear(72, 1280)

    def forward_maps(self, x: Tensor) -> tuple[Tensor]:
        x = nn.functional.silu(self.conv(x))
        x = x + self.narrow(nn.functional.gelu(self.wide(self.norm(x.permute(0, 2, 3, 1))))).permute(0, 3, 1, 2)
        x = nn.functional.avg_pool2d(nn.functional.hardswish(x), 3, 2, padding=1, count_include_pad=False)
        x = torch.sub(x, nn.functional.hardsigmoid(x), alpha=0.5) * torch.sigmoid(x.mean(dim=(2, 3), keepdim=True))
        return (nn.functional.adaptive_avg_pool2d(x.clamp(min=-0.3), 2),)

    def pool(self, x: Tensor) -> Tensor:
        features: Tensor = self.out(nn.functional.pad(x, (1, 0, 0, 1), value=0.25).flatten(1))
        return features


def test_the_translation_of_every_operator() -> None:
    require("onnxruntime")
    backbone = make_backbone("scion:size=64")
    torch.manual_seed(1)
    backbone.net = Everything().eval()
    x = pictures(4)
    features = fast_features(backbone, engine="onnxruntime", batch_size=4)
    found = features(x)
    assert features.engine == "onnxruntime"
    close(found, plain(backbone, x))


def test_real_weights_at_full_size() -> None:
    root = Path(os.environ.get("REGRAFT_SHARED", Path(__file__).resolve().parents[2] / "shared"))
    weights = root / "weights/mobilenetv2_100_timm_same.safetensors"
    if not weights.is_file():
        pytest.skip(f"{weights} is absent")
    require("onnxruntime")
    backbone = create("mobilenetv2_100:pad_type=same", weights).eval()
    x = pictures(3, 224)
    found = fast_features(backbone, engine="onnxruntime", batch_size=3)
    assert float(cosine(found(x), plain(backbone, x)).min()) > 0.99999
    assert found.engine == "onnxruntime"
