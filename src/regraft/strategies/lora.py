"""Low-rank adaptation: the network stays as it is, and a product of two thin matrices is learned beside its layers.

Paper: Hu et al., "LoRA: Low-Rank Adaptation of Large Language Models", ICLR 2022, arXiv:2106.09685, section 4.1.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from regraft.core.errors import PlanError
from regraft.core.types import Rule, Task
from regraft.strategies.base import HEAD_RATE, Finished, Judge, Strategy, head_of, register

#: The update is scaled by ALPHA / rank, so that the rank can be changed without the rate.
ALPHA = 16.0
#: Thin matrices of no weights yet take a higher rate than weights that are refined: this multiple of the base rate.
RATE = 10.0


@register
class LoRA(Strategy):
    """The head, and W + (ALPHA / r) · B A beside every frozen linear layer and 1×1 convolution W; merged at the end.

    A (r, in) begins as a linear layer does, B (out, r) at zero: training begins with the pretrained function. Differs
    from the paper: all linear layers are adapted, not attention's alone, and pointwise convolutions, which are linear
    layers over channels. Depthwise and larger convolutions have no such form to be merged into and stay frozen.
    """

    name = "lora"
    cost = 20

    def prepare(self, task: Task, seed: int) -> Task:
        """Raises PlanError where the network has no layer that can be adapted."""
        heads = {name.rpartition(".")[0] for name in task.layer_groups()[head_of(task)]}
        layers = [layer for name, layer in task.named_modules() if name not in heads and _fits(layer)]
        if not layers:
            raise PlanError(
                "LoRA found no linear layer and no 1×1 convolution below the head of this network, so there is nothing "
                "to adapt: leave it out of --strategies."
            )
        for layer in layers:
            adapt(layer, self.options.lora_rank)
        return task

    def rules(self, task: Task) -> Sequence[Rule]:
        return [Rule(f"group:{head_of(task)}", HEAD_RATE), Rule(r"\.lora_(a|b)$", RATE), Rule(".*", None)]

    def finish(self, task: Task, judge: Judge | None, known: Sequence[Mapping[str, Any]]) -> Finished:
        for layer in list(task.modules()):
            if isinstance(layer, Adapted):
                merge(layer)
        return Finished(task)


class Adapted(nn.Module):
    """A layer with the two thin matrices: lora_a (r, in), lora_b (out, r)."""

    lora_a: nn.Parameter
    lora_b: nn.Parameter

    @property
    def scale(self) -> float:
        return ALPHA / len(self.lora_a)


class AdaptedLinear(Adapted, nn.Linear):
    def forward(self, x: Tensor) -> Tensor:
        return nn.Linear.forward(self, x) + self.scale * F.linear(F.linear(x, self.lora_a), self.lora_b)


class AdaptedPointwise(Adapted, nn.Conv2d):
    def forward(self, x: Tensor) -> Tensor:
        thin = F.conv2d(x, self.lora_a[:, :, None, None], stride=self.stride)
        return nn.Conv2d.forward(self, x) + self.scale * F.conv2d(thin, self.lora_b[:, :, None, None])


_FORMS: dict[type[nn.Module], type[Adapted]] = {nn.Linear: AdaptedLinear, nn.Conv2d: AdaptedPointwise}


def _fits(layer: nn.Module) -> bool:
    """Whether it is such a layer itself; a subclass may do something else with its weight."""
    if type(layer) is nn.Conv2d:
        return layer.kernel_size == (1, 1) and layer.groups == 1 and layer.padding == (0, 0)
    return type(layer) is nn.Linear


def adapt(layer: nn.Module, rank: int) -> None:
    """Put the thin matrices into a linear layer or 1×1 convolution, of the given rank or the layer's smaller side.

    The layer stays the same object with the same names and only changes its class: whoever holds it, and the layer
    groups, which go by names, need not know.
    """
    weight = layer.get_parameter("weight")
    out, into = weight.shape[:2]
    rank = min(rank, out, into)
    form = _FORMS[type(layer)]
    layer.lora_a = nn.Parameter(torch.empty(rank, into, dtype=weight.dtype))
    nn.init.kaiming_uniform_(layer.lora_a, a=math.sqrt(5))
    layer.lora_a.data = layer.lora_a.data.to(weight.device)
    layer.lora_b = nn.Parameter(weight.new_zeros(out, rank))
    layer.__class__ = form


def merge(layer: Adapted) -> None:
    """Add the product to the weight, and make the layer what it was before."""
    with torch.no_grad():
        weight = layer.get_parameter("weight")
        weight.add_(layer.scale * (layer.lora_b @ layer.lora_a).view_as(weight))
    form = next(plain for plain, adapted in _FORMS.items() if type(layer) is adapted)
    del layer.lora_a, layer.lora_b
    layer.__class__ = form  # type: ignore[assignment]
