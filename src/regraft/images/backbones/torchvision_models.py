"""Any torchvision classification model as a backbone: its last linear (or 1×1 convolution) classifier is taken off."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torchvision
from torch import Tensor, nn

from regraft.core.errors import UsageError, unknown_name
from regraft.core.types import Features
from regraft.images.backbones.base import ImageBackbone, PretrainedHead, families, groups_by_prefix
from regraft.images.backbones.timm_models import missing_download
from regraft.images.spec import ImageSpec

IMAGENET = {"mean": (0.485, 0.456, 0.406), "std": (0.229, 0.224, 0.225)}


class TorchvisionBackbone(ImageBackbone):
    """pooled: what the removed classifier saw, (N, D); maps: the outputs of the feature stages, if it has any."""

    def __init__(self, net: nn.Module, model: str, options: Mapping[str, Any], input_spec: ImageSpec) -> None:
        width, last = _behead(net)
        super().__init__(input_spec, width)
        self.last = (last,)  # in a tuple, so that it is no part of the network
        self.net = net
        self.model = model
        self.options = dict(options)
        self._stages = _stages(net)

    def extract(self, x: Tensor) -> Features:
        maps: list[Tensor] = []
        handles = [
            self.net.get_submodule(name).register_forward_hook(lambda _m, _i, out: maps.append(out))
            for name in self._stages
        ]
        try:
            pooled = self.net(x)
        finally:
            for handle in handles:
                handle.remove()
        return Features(pooled.flatten(1), tuple(m for m in maps if isinstance(m, Tensor)))

    def layer_groups(self) -> dict[str, list[str]]:
        prefixes: list[str] = []
        for name, child in self.net.named_children():
            inner = [f"{name}.{n}" for n, _ in child.named_children()]
            prefixes += inner if isinstance(child, nn.Sequential) and name in {"features"} else [name]
        return groups_by_prefix([n for n, _ in self.named_parameters()], [f"net.{p}" for p in prefixes])

    def reset_parameters(self) -> None:
        net = torchvision.models.get_model(self.model, weights=None, **self.options)
        _behead(net)
        self.net = net


def _behead(net: nn.Module) -> tuple[int, nn.Linear | None]:
    """Replace the last classifier layer by what leaves its input as it is; the input's width, and the layer where it
    was linear."""
    for name in ("fc", "classifier", "heads", "head"):
        child = getattr(net, name, None)
        if isinstance(child, nn.Linear):
            setattr(net, name, nn.Identity())
            return child.in_features, child
        if isinstance(child, nn.Sequential):
            layers = list(child.named_children())
            for index in range(len(layers) - 1, -1, -1):
                inner, layer = layers[index]
                if isinstance(layer, nn.Linear):
                    setattr(child, inner, nn.Identity())
                    return layer.in_features, layer
                if isinstance(layer, nn.Conv2d):  # SqueezeNet: convolution, ReLU, pooling; only the pooling stays
                    for later, module in layers[index:]:
                        if not isinstance(module, nn.AdaptiveAvgPool2d):
                            setattr(child, later, nn.Identity())
                    return layer.in_channels, None
    raise UsageError(
        f"torchvision's {type(net).__name__} has no classifier that can be taken off: use a classification model."
    )


def _stages(net: nn.Module) -> list[str]:
    residual = [f"layer{i}" for i in range(1, 5) if hasattr(net, f"layer{i}")]
    if residual:
        return residual
    features = getattr(net, "features", None)
    return [f"features.{name}" for name, _ in features.named_children()] if isinstance(features, nn.Sequential) else []


@families.register("torchvision")
def build(model: str, options: Mapping[str, Any], pretrained: bool) -> ImageBackbone:
    """A torchvision model name; options go to its builder, `size` sets another input side in px."""
    options = dict(options)
    size = options.pop("size", None)
    if model not in torchvision.models.list_models(module=torchvision.models):
        raise unknown_name("torchvision model", model, torchvision.models.list_models(module=torchvision.models))
    enum = torchvision.models.get_model_weights(model)
    default = getattr(enum, "DEFAULT", None)
    weights = default if pretrained else None
    try:
        net = torchvision.models.get_model(model, weights=weights, **options)
    except TypeError as error:
        raise UsageError(f"torchvision's {model} does not take these options ({options}): {error}.") from error
    except OSError as error:
        raise missing_download(f"torchvision/{model}", error) from error
    crop, resize, mode = 224, 256, "bilinear"
    if default is not None:
        preset = default.transforms()
        crop, resize = int(preset.crop_size[0]), int(preset.resize_size[0])
        mode = str(preset.interpolation.value)
    side = int(size or crop)
    spec = ImageSpec(
        (3, side, side),
        mean=IMAGENET["mean"],
        std=IMAGENET["std"],
        interpolation=mode,
        crop_pct=min(1.0, crop / resize),
    )
    backbone = TorchvisionBackbone(net, model, options, spec)
    (last,) = backbone.last
    if weights is not None and last is not None and last.bias is not None:
        backbone.pretrained_head = PretrainedHead(last.weight.detach().clone(), last.bias.detach().clone())
    backbone.last = (None,)
    backbone.pretrained = weights is not None
    backbone.provenance = {"source": f"torchvision/{weights}" if weights else "none", "licence": "BSD-3-Clause (code)"}
    return backbone
