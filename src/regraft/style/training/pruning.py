"""Channels of a style student that the style does not need: measured one by one, cut for good, and healed.

What a channel contributes is measured by exact ablation, not by the first-order estimate of Molchanov et al. 2017
(arXiv:1611.06440, eq. 8): a student has few hundred channels and runs in milliseconds, so that leaving each out once is
affordable, and a batch norm makes channels that are nearly dead look alive to the estimate.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import torch
from torch import Tensor, nn

from regraft.compress.channels import cut_convolution, cut_norm, dispensable
from regraft.core.errors import UsageError
from regraft.core.types import Batch, StepOutput, Task
from regraft.style.networks.transfer_net import DepthwiseBlock, StudentNet
from regraft.style.training.batch_losses import BatchMoments, StyleTerms, outside, ssim_each
from regraft.style.training.task import OUTSIDE, unit

#: Channels cut together may hold at most this share of what the student does.
THRESHOLD = 0.05
#: A layer keeps a multiple of this many: 8 floats are one vector of common processors.
MULTIPLE = 8


@dataclass(frozen=True)
class Contributions:
    """Per block the share (inner,) of each inner channel, and what they are shares of.

    style: how much less the style loss falls without the channel, over how much it falls with all. painted: mean
    squared change of the picture without it, over that of the whole network. Channels are ranked by the larger of
    both, so that none is cut that the style or the picture depends on.
    """

    style: tuple[Tensor, ...]
    painted: tuple[Tensor, ...]

    @property
    def shares(self) -> list[Tensor]:
        return [torch.maximum(a, b) for a, b in zip(self.style, self.painted, strict=True)]


@dataclass(frozen=True)
class PruningReport:
    """What was cut, and what that does to pictures that had no part in the choice.

    inner_*: channels of each block. lost_share: sum of the cut channels' shares. style_*: style loss of the photos as
    they are, of the student before, of the cut one, and of the healed one (equal to the cut one's where nothing
    healed). ssim_*: mean SSIM of its results to those before.
    """

    threshold: float
    inner_before: tuple[int, ...]
    inner_after: tuple[int, ...]
    parameters_before: int
    parameters_after: int
    lost_share: float
    n_pictures: int
    n_held_out: int
    style_photo: float
    style_before: float
    style_cut: float
    style_after: float
    ssim_cut: float
    ssim_after: float

    @property
    def style_kept(self) -> float:
        """The share of the fall of the style loss that is left; above 1 it is better than before."""
        return (self.style_photo - self.style_after) / (self.style_photo - self.style_before)

    def to_json(self) -> dict[str, Any]:
        return {**asdict(self), "style_kept": self.style_kept}


@torch.no_grad()
def contributions(
    net: StudentNet, pictures: Tensor, terms: StyleTerms, targets: Mapping[str, BatchMoments],
    on_channel: Callable[[int, int], None] | None = None,
) -> Contributions:  # fmt: skip
    """What each inner channel contributes on pictures (N, 3, H, W) in [0, 1]; the net is left as it was.

    on_channel: told (done, of). Raises UsageError for a student that brings these pictures no nearer to the style, and
    for one that changes nothing.
    """
    net = copy.deepcopy(net).eval()
    whole = net(pictures)
    painted = float((whole - pictures).square().mean())
    before = style_loss(whole, terms, targets)
    fall = style_loss(pictures, terms, targets) - before
    if not fall > 0 or not painted > 0:
        raise UsageError(
            "The student brings these photos no nearer to this style, so nothing can be said of its channels: "
            "give the painting that it was trained on."
        )
    done, total = 0, sum(net.inner)
    style, change = [], []
    for last in (_last(block) for block in net.blocks):
        rows = []
        for channel in range(last.in_channels):
            column = last.weight[:, channel].clone()
            last.weight[:, channel] = 0
            found = net(pictures)
            last.weight[:, channel] = column
            lost = (style_loss(found, terms, targets) - before) / fall
            rows.append((lost, float((found - whole).square().mean()) / painted))
            done += 1
            if on_channel is not None:
                on_channel(done, total)
        style.append(torch.tensor([row[0] for row in rows]))
        change.append(torch.tensor([row[1] for row in rows]))
    return Contributions(tuple(style), tuple(change))


def cut(net: StudentNet, kept: Sequence[Tensor]) -> StudentNet:
    """A student whose blocks have these inner channels alone: the function of `net` with the others at zero."""
    found = StudentNet(net.widths, tuple(len(channels) for channels in kept))
    tensors = {name: value for name, value in net.state_dict().items() if not name.startswith("blocks.")}
    found.load_state_dict(tensors, strict=False)
    for own, block, channels in zip(found.blocks, net.blocks, kept, strict=True):
        assert isinstance(block, DepthwiseBlock)
        depth, norm, inner, inner_norm, relu, second, second_norm, last, last_norm = block.body
        assert isinstance(inner, nn.Conv2d) and isinstance(second, nn.Conv2d) and isinstance(last, nn.Conv2d)
        assert isinstance(inner_norm, nn.BatchNorm2d) and isinstance(second_norm, nn.BatchNorm2d)
        own.body = nn.Sequential(
            copy.deepcopy(depth), copy.deepcopy(norm),
            cut_convolution(inner, outputs=channels), cut_norm(inner_norm, channels), copy.deepcopy(relu),
            cut_convolution(second, outputs=channels), cut_norm(second_norm, channels),
            cut_convolution(last, inputs=channels), copy.deepcopy(last_norm),
        )  # fmt: skip
    return found.train(net.training)


@dataclass(frozen=True)
class Photos:
    """Photos (N, 3, h, w) in [0, 1]: those that channels are measured on, and those that the outcome is."""

    measured: Tensor
    held_out: Tensor


def prune(
    net: StudentNet, photos: Photos, terms: StyleTerms, targets: Mapping[str, BatchMoments], *,
    threshold: float = THRESHOLD, multiple: int = MULTIPLE,
    heal: Callable[[StudentNet], object] | None = None, on_channel: Callable[[int, int], None] | None = None,
) -> tuple[StudentNet, PruningReport]:  # fmt: skip
    """`net` without the channels whose contributions on the measured photos add up to at most `threshold`.

    heal: trains the smaller network in place, for a short while. The report is of the held-out photos,
    of the same size, that the choice did not see. `net` is left as it was. Raises UsageError as `contributions` does.
    """
    net = net.eval()
    held_out = photos.held_out
    measured = contributions(net, photos.measured, terms, targets, on_channel)
    shares = measured.shares
    kept = dispensable(shares, threshold, multiple=multiple)
    found = cut(net, kept).eval()
    with torch.no_grad():
        results = [held_out, net(held_out), found(held_out)]
    if heal is not None:
        heal(found)
        found.eval()
    with torch.no_grad():
        results.append(found(held_out))
    losses = [style_loss(result, terms, targets) for result in results]
    likeness = [float(ssim_each(result.clamp(0, 1), results[1].clamp(0, 1)).mean()) for result in results[2:]]
    lost = sum(float(share.clamp(min=0).sum() - share.clamp(min=0)[channels].sum())
               for share, channels in zip(shares, kept, strict=True))  # fmt: skip
    report = PruningReport(
        threshold, net.inner, found.inner, _parameters(net), _parameters(found), lost,
        len(photos.measured), len(held_out), *losses, *likeness,
    )  # fmt: skip
    return found, report


class HealTask(Task):
    """A cut student learns again what it painted before: ‖S(x) − S₀(x)‖² over ‖S₀(x) − x‖², for streams of content."""

    memory_format = torch.channels_last

    def __init__(self, net: StudentNet, before: StudentNet) -> None:
        super().__init__()
        self.net = net
        self._before = (copy.deepcopy(before).eval().requires_grad_(False),)

    def layer_groups(self) -> dict[str, list[str]]:
        return {"student": [name for name, _ in self.named_parameters()]}

    def forward(self, batches: Mapping[str, Batch], progress: float, phase: str = "step") -> StepOutput:
        content = unit(batches["content"].x)
        with torch.no_grad():
            wanted = self._before[0].to(content.device)(content)
        found = self.net(content)
        gap = (found - wanted).square().mean((1, 2, 3)) / (wanted - content).square().mean((1, 2, 3)).clamp(min=1e-4)
        loss = gap + OUTSIDE * outside(found)
        return StepOutput(loss.mean(), {"gap": gap.detach().mean()})


@torch.no_grad()
def style_loss(pictures: Tensor, terms: StyleTerms, targets: Mapping[str, BatchMoments]) -> float:
    """Mean style term of pictures (N, 3, H, W), as they would be shown."""
    network = terms.network
    features = network(pictures.clamp(0, 1), network.style_layers)
    return float(terms.style(terms.moments(features), targets).mean())


def _last(block: nn.Module) -> nn.Conv2d:
    """The 1 × 1 that reads a block's inner channels: a zero column of it is what cutting the channel does."""
    assert isinstance(block, DepthwiseBlock)
    last = block.body[7]
    assert isinstance(last, nn.Conv2d)
    return last


def _parameters(net: nn.Module) -> int:
    return sum(parameter.numel() for parameter in net.parameters())
