"""Batch normalisation into the convolution before it: the same function with fewer passes over memory.

Pairs are found by watching one forward pass rather than by tracing, so that any Python in a model's forward
will do.
"""

from __future__ import annotations

from collections import Counter
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.utils.fusion import fuse_conv_bn_eval

from regraft.images.backbones.base import ImageBackbone


def fold_batch_norm(backbone: ImageBackbone) -> int:
    """Fold every batch norm fed by just one convolution; changes `backbone`, returns how many.

    The backbone is in evaluation mode. A normalisation that carries its activation (timm's `BatchNormAct2d`)
    leaves that behind. A convolution whose raw output is used elsewhere too would change: callers compare the
    result.
    """
    pairs = _pairs(backbone)
    names = {id(module): name for name, module in backbone.named_modules()}
    for conv, norm in pairs:
        rest = [getattr(norm, part) for part in ("drop", "act") if isinstance(getattr(norm, part, None), nn.Module)]
        backbone.set_submodule(names[id(conv)], fuse_conv_bn_eval(conv, norm))
        backbone.set_submodule(names[id(norm)], nn.Sequential(*rest) if rest else nn.Identity())
    return len(pairs)


def _pairs(backbone: ImageBackbone) -> list[tuple[nn.Conv2d, nn.BatchNorm2d]]:
    made: dict[int, tuple[nn.Conv2d, Tensor]] = {}  # holding the tensors keeps their ids from being given again
    found: list[tuple[nn.Conv2d, nn.BatchNorm2d]] = []
    calls: Counter[int] = Counter()

    def after_conv(module: nn.Module, inputs: Any, output: Tensor) -> None:
        assert isinstance(module, nn.Conv2d)
        calls[id(module)] += 1
        made[id(output)] = (module, output)

    def before_norm(module: nn.Module, inputs: Any) -> None:
        assert isinstance(module, nn.BatchNorm2d)
        calls[id(module)] += 1
        if id(inputs[0]) in made:
            found.append((made[id(inputs[0])][0], module))

    handles = [m.register_forward_hook(after_conv) for m in backbone.modules() if isinstance(m, nn.Conv2d)]
    handles += [m.register_forward_pre_hook(before_norm) for m in backbone.modules() if _foldable(m)]
    try:
        with torch.no_grad():
            backbone(torch.zeros(1, *backbone.input_spec.shape, device=backbone.input_mean.device))
    finally:
        for handle in handles:
            handle.remove()
    consumers = Counter(id(conv) for conv, _ in found)
    return [
        (conv, norm)
        for conv, norm in found
        if calls[id(conv)] == calls[id(norm)] == consumers[id(conv)] == 1 and not conv.training
    ]


def _foldable(module: nn.Module) -> bool:
    """Plain batch norm, or one followed by a dropout and an activation that are modules of it."""
    if not isinstance(module, nn.BatchNorm2d) or module.running_mean is None:
        return False
    return type(module) is nn.BatchNorm2d or type(module).__name__ == "BatchNormAct2d"
