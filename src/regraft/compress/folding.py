"""A convolution and the batch norm after it as one convolution, and its bias moved on, in double precision."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn


@dataclass(frozen=True)
class Folded:
    """weight (O, I / groups, k, k), bias (O,) and the rest of a plain convolution."""

    weight: Tensor
    bias: Tensor
    stride: int = 1
    padding: int = 0
    groups: int = 1


@torch.no_grad()
def folded(convolution: nn.Module, norm: nn.Module | None = None) -> Folded:
    """What the two compute in evaluation mode, as one convolution (Jacob et al. 2018, arXiv:1712.05877, section 3.2).

    Raises TypeError for other layers or a norm without statistics, ValueError for a convolution that is dilated, not
    square, or padded with anything but zeros.
    """
    if not isinstance(convolution, nn.Conv2d) or not (norm is None or isinstance(norm, nn.BatchNorm2d)):
        raise TypeError(f"{type(convolution).__name__} and {type(norm).__name__} do not fold.")
    square = len(set(convolution.stride)) == len(set(convolution.padding)) == len(set(convolution.kernel_size)) == 1
    if not square or set(convolution.dilation) != {1} or convolution.padding_mode != "zeros":
        raise ValueError("only square convolutions with a padding of zeros and without dilation are folded")
    weight = convolution.weight.double()
    bias = weight.new_zeros(len(weight)) if convolution.bias is None else convolution.bias.double()
    if norm is not None:
        if norm.running_mean is None or norm.running_var is None:
            raise TypeError("A batch norm without running statistics does not fold.")
        scale = (norm.running_var.double() + norm.eps).rsqrt()
        shift = -norm.running_mean.double() * scale
        if norm.affine:
            shift = shift * norm.weight.double() + norm.bias.double()
            scale = scale * norm.weight.double()
        weight, bias = weight * scale.view(-1, 1, 1, 1), bias * scale + shift
    stride, padding = int(convolution.stride[0]), int(convolution.padding[0])
    return Folded(weight, bias, stride, padding, convolution.groups)


def bias_moved(first: Folded, following: Folded) -> tuple[Folded, Folded]:
    """The same function of both in a row, with the first one's bias in the second, a plain 1 × 1 without padding.

    Nothing may stand between them. Saves an addition, and in 8 bits a constant per channel.
    """
    if following.groups != 1 or following.padding or following.weight.shape[2:] != (1, 1):
        raise ValueError("a bias moves into a plain 1 × 1 convolution without padding alone")
    moved = following.bias + following.weight[:, :, 0, 0] @ first.bias
    return (
        Folded(first.weight, torch.zeros_like(first.bias), first.stride, first.padding, first.groups),
        Folded(following.weight, moved, following.stride),
    )
