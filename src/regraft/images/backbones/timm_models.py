"""Any timm model as a backbone: groups from its own `group_matcher`, preprocessing from its own data configuration."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import timm
import torch
from timm.data.config import resolve_data_config
from timm.models import group_parameters
from torch import Tensor, nn

from regraft.core.errors import UsageError, WeightsError
from regraft.core.types import Features
from regraft.images.backbones.base import ImageBackbone, PretrainedHead, families
from regraft.images.spec import ImageSpec


class TimmBackbone(ImageBackbone):
    """pooled: what the model's classifier would see, (N, num_features); maps: intermediate features, if it has any."""

    def __init__(self, net: nn.Module, model: str, options: Mapping[str, Any], input_spec: ImageSpec) -> None:
        # Some heads (MobileNetV3, VGG) end wider than the last map; head_hidden_size says what the classifier sees.
        width: Any = getattr(net, "head_hidden_size", None) or net.num_features
        super().__init__(input_spec, int(width))
        self.net = net
        self.model = model
        self.options = dict(options)
        self.has_maps = hasattr(net, "forward_intermediates")

    def extract(self, x: Tensor) -> Features:
        net: Any = self.net
        if self.has_maps:
            final, maps = net.forward_intermediates(x)
            return Features(net.forward_head(final, pre_logits=True), tuple(maps))
        final = net.forward_features(x)
        return Features(net.forward_head(final, pre_logits=True), (final,))

    def layer_groups(self) -> dict[str, list[str]]:
        net: Any = self.net
        by_depth = group_parameters(net, net.group_matcher(coarse=True))
        seen: set[str] = set()
        groups: dict[str, list[str]] = {}
        for depth in sorted(by_depth):
            names = [f"net.{name}" for name in by_depth[depth] if name not in seen]
            seen.update(by_depth[depth])
            if names:
                groups[f"layer{len(groups)}"] = names
        return groups

    def reset_parameters(self) -> None:
        self.net = _create(self.model, self.options, pretrained=False)


def _create(model: str, options: Mapping[str, Any], pretrained: bool) -> nn.Module:
    # Building without a classifier must not disturb the global random state: the same seed gives the same run.
    net = timm.create_model(model, pretrained=pretrained, num_classes=0, **options)
    assert isinstance(net, nn.Module)
    return net


def _create_pretrained(model: str, options: Mapping[str, Any]) -> tuple[nn.Module, PretrainedHead | None]:
    """The network without its classifier, and that, where it is one linear layer."""
    net: Any = timm.create_model(model, pretrained=True, **options)
    last = net.get_classifier()
    head = None
    if isinstance(last, nn.Linear) and last.bias is not None:
        head = PretrainedHead(last.weight.detach().clone(), last.bias.detach().clone())
    net.reset_classifier(0)
    assert isinstance(net, nn.Module)
    return net, head


@families.register("timm")
def build(model: str, options: Mapping[str, Any], pretrained: bool) -> ImageBackbone:
    """A timm model name, options handed to `timm.create_model`; `size` sets another input side in px."""
    options = dict(options)
    size = options.pop("size", None)
    try:
        net, head = _create_pretrained(model, options) if pretrained else (_create(model, options, False), None)
    except TypeError as error:
        raise UsageError(f"timm's {model} does not take these options ({dict(options)}): {error}.") from error
    except (OSError, RuntimeError, ValueError) as error:
        if not pretrained:
            raise UsageError(f"timm cannot build {model} with {dict(options)}: {error}.") from error
        raise missing_download(model, error) from error
    config = resolve_data_config({}, model=net)  # type: ignore[no-untyped-call]
    side = int(size or config["input_size"][-1])
    spec = ImageSpec(
        (3, side, side),
        mean=tuple(float(v) for v in config["mean"]),
        std=tuple(float(v) for v in config["std"]),
        interpolation=str(config["interpolation"]),
        crop_pct=float(config["crop_pct"]),
    )
    backbone = TimmBackbone(net, model, options, spec)
    if head is not None and head.weight.shape[1] == backbone.feature_dim:
        backbone.pretrained_head = head
    backbone.pretrained = pretrained
    described: Any = getattr(net, "pretrained_cfg", None) or {}
    backbone.provenance = {
        "source": f"timm/{described.get('architecture', model)}" if pretrained else "none",
        "tag": described.get("tag"),
        "licence": described.get("license"),
    }
    return backbone


def missing_download(model: str, error: Exception) -> WeightsError:
    """One sentence for weights that could not be fetched: where they are looked for and how to bring them."""
    cause = str(error).strip().splitlines()[0][:160] if str(error).strip() else type(error).__name__
    try:
        from huggingface_hub.constants import HF_HUB_CACHE

        cache = HF_HUB_CACHE
    except ImportError:
        cache = torch.hub.get_dir()
    return WeightsError(
        f"The pretrained weights of {model} are neither in the cache ({cache}) nor could they be downloaded ({cause}). "
        f"On a machine with a network run  python -c \"import timm; timm.create_model('{model}', pretrained=True)\"  "
        "and copy the cache over, or pass a file with --weights FILE.safetensors; --backbone scion needs no download."
    )
