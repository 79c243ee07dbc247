"""Channels cut out of a network for good: which ones a threshold lets go, and the layers without them."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from regraft.core.errors import UsageError


def dispensable(contributions: Sequence[Tensor], threshold: float, *, multiple: int = 1) -> list[Tensor]:
    """Per layer the indices (ascending) of the channels that stay, from every channel's contribution (C,).

    The channels of all layers are ranked together, and the least are cut as long as their contributions add up to at
    most `threshold`; a negative one counts as 0. multiple: a layer keeps a multiple of this many channels, and at
    least that many, the strongest of those that would go being kept, because processors compute in groups. Raises
    UsageError for a threshold below 0, a multiple below 1, or contributions that are not finite.
    """
    if not threshold >= 0:
        raise UsageError(f"The threshold {threshold} came; it is a share of 0 or more, as 0.05.")
    if multiple < 1:
        raise UsageError(f"Channels in multiples of {multiple} came; it is 1 or more.")
    if not all(bool(each.isfinite().all()) for each in contributions):
        raise UsageError("A channel's contribution is not a number: the network or the pictures are damaged.")
    harm = [each.double().clamp(min=0) for each in contributions]
    together = torch.cat([torch.empty(0, dtype=torch.double), *harm])
    order = together.argsort(stable=True)
    lost = torch.zeros(len(order), dtype=torch.bool)
    lost[order[together[order].cumsum(0) <= threshold]] = True
    kept, first = [], 0
    for each in harm:
        stays = int((~lost[first : first + len(each)]).sum())
        first += len(each)
        count = min(len(each), max(1, -(-stays // multiple)) * multiple)
        kept.append(each.argsort(descending=True, stable=True)[:count].sort().values)
    return kept


def cut_convolution(
    convolution: nn.Conv2d, *, outputs: Tensor | None = None, inputs: Tensor | None = None
) -> nn.Conv2d:
    """A new convolution with these output and input channels alone; None keeps all.

    A depthwise one takes `outputs` for both. Raises ValueError for other groups.
    """
    depthwise = convolution.groups == convolution.in_channels == convolution.out_channels
    if convolution.groups != 1 and (not depthwise or inputs is not None):
        raise ValueError("only plain and depthwise convolutions are cut, a depthwise one by its outputs")
    weight, bias = convolution.weight.detach(), convolution.bias
    if outputs is not None:
        weight, bias = weight[outputs], None if bias is None else bias.detach()[outputs]
    if inputs is not None:
        weight = weight[:, inputs]
    groups = len(weight) if depthwise else 1
    found = nn.Conv2d(
        len(weight) if depthwise else weight.shape[1], len(weight), convolution.kernel_size,  # type: ignore[arg-type]
        convolution.stride, convolution.padding, convolution.dilation, groups, bias is not None,  # type: ignore[arg-type]
        convolution.padding_mode,
    )  # fmt: skip
    with torch.no_grad():
        found.weight.copy_(weight)
        if bias is not None and found.bias is not None:
            found.bias.copy_(bias)
    return found


def cut_norm(norm: nn.BatchNorm2d, channels: Tensor) -> nn.BatchNorm2d:
    """A new batch norm of these channels alone, with their statistics."""
    found = nn.BatchNorm2d(len(channels), norm.eps, norm.momentum, norm.affine, norm.track_running_stats)
    own = norm.state_dict()
    found.load_state_dict({key: value if value.ndim == 0 else value[channels] for key, value in own.items()})
    return found
