"""What trains the feed-forward networks, as tasks of the one engine: a teacher of styles, its student, and any style.

Streams: `content`, pictures uint8 (N, 3, H, W); `style` as well where the network takes any style. No labels.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Final

import torch
from torch import Tensor
from torch.nn import functional as F

from regraft.core.types import Batch, StepOutput, Task
from regraft.style.base import fit_short_side, resize
from regraft.style.methods.noise import calm
from regraft.style.networks.arbitrary_net import ArbitraryNet
from regraft.style.networks.perceptual import PerceptualNetwork
from regraft.style.networks.transfer_net import StudentNet, TeacherNet
from regraft.style.training.batch_losses import BatchMoments, StyleTerms, drawn_shift, outside, select, ssim_each

#: Weights beside the style term, which counts 1.
VARIATION: Final = 0.5
OUTSIDE: Final = 10.0
#: The most noise, as a deviation of pixels in [0, 1], that a student learns to see past.
NOISE: Final = 16 / 255
#: The weight of 1 − SSIM at keep 0 and by how much keep 1 multiplies it.
LEAST_FIDELITY: Final = 0.01
MOST_FIDELITY: Final = 2000.0
#: How often one, two and three passes over a picture are trained, as shares.
PASSES: Final = (0.5, 0.25, 0.25)
#: The weight of what noise costs: by how much a noisy photo's picture differs more than the photo itself.
ROBUSTNESS: Final = 0.15
#: The weight of 1 − SSIM at which fidelity and style are about even.
BALANCE: Final = 3.0


def fidelity_weight(keep: Tensor) -> Tensor:
    """The weight of 1 − SSIM that a network learns to give for keep (N,) in [0, 1]: even steps of its logarithm."""
    return LEAST_FIDELITY * torch.pow(torch.as_tensor(MOST_FIDELITY, dtype=keep.dtype, device=keep.device), keep)


def unit(pictures: Tensor) -> Tensor:
    """uint8 → float in [0, 1]; floats as they are."""
    return pictures.float() / 255 if not pictures.is_floating_point() else pictures


class TeacherTask(Task):
    """Johnson et al. 2016 (arXiv:1603.08155, eq. 5) for several styles, one drawn for each picture.

    styles: pictures (3, h, w) in [0, 1]; they are brought to the content's short side, so that a stroke has the same
    share of both. content_weight: multiple of the style term.
    """

    memory_format = torch.channels_last

    def __init__(
        self, net: TeacherNet, network: PerceptualNetwork, styles: Sequence[Tensor], *, short_px: int,
        content_weight: float = 0.2,
    ) -> None:  # fmt: skip
        super().__init__()
        self.net, self.content_weight = net, content_weight
        self._terms = StyleTerms(network)
        self.targets = style_targets(self._terms, styles, short_px)

    def layer_groups(self) -> dict[str, list[str]]:
        names = [name for name, _ in self.named_parameters()]
        norms = [name for name in names if name.endswith((".scale", ".shift"))]
        return {"body": [name for name in names if name not in set(norms)], "styles": norms}

    def forward(self, batches: Mapping[str, Batch], progress: float, phase: str = "step") -> StepOutput:
        content = unit(batches["content"].x)
        drawn = torch.randint(self.net.styles, (len(content),), device=content.device)
        shares = F.one_hot(drawn, self.net.styles).to(content)
        painted = self.net(content, shares)
        terms = self._terms(painted, content, select(self.targets, shares), drawn_shift())
        loss = terms["style"] + self.content_weight * terms["content"] + VARIATION * terms["variation"]
        loss = loss + OUTSIDE * outside(painted)
        return StepOutput(loss.mean(), {name: value.detach().mean() for name, value in terms.items()})


class StudentTask(Task):
    """A student learns what the teacher paints, and the style itself: ‖S(x) − T(x)‖² beside the style term.

    Distillation of the output (Hinton et al. 2015, arXiv:1503.02531, in its regression form). The teacher sees the
    picture as it is, the student in training half of the time with noise of up to NOISE (as noisy students do: Xie et
    al. 2020, arXiv:1911.04252). shares: the style's mixture (K,) in the teacher.
    """

    memory_format = torch.channels_last

    def __init__(
        self, net: StudentNet, teacher: TeacherNet, shares: Tensor, network: PerceptualNetwork,
        styles: Sequence[Tensor], *, short_px: int, style_weight: float = 1.0,
    ) -> None:  # fmt: skip
        super().__init__()
        self.net, self.style_weight = net, style_weight
        self._teacher = (teacher.eval().requires_grad_(False),)
        self._terms = StyleTerms(network)
        self._shares = shares[None]
        self.targets = select(style_targets(self._terms, styles, short_px), self._shares)

    def layer_groups(self) -> dict[str, list[str]]:
        names = [name for name, _ in self.named_parameters()]
        return {"canvas": [name for name in names if name.endswith(".canvas")],
                "student": [name for name in names if not name.endswith(".canvas")]}  # fmt: skip

    def forward(self, batches: Mapping[str, Batch], progress: float, phase: str = "step") -> StepOutput:
        content = unit(batches["content"].x)
        with torch.no_grad():
            wanted = self._teacher[0](content, self._shares.to(content).expand(len(content), -1)).clamp(0, 1)
        painted = self.net(noisy(content) if self.training else content)
        terms = self._terms(painted, content, self.targets, drawn_shift())
        gap = (painted - wanted).square().mean((1, 2, 3)) / (wanted - content).square().mean((1, 2, 3)).clamp(min=1e-4)
        loss = gap + self.style_weight * terms["style"] + OUTSIDE * outside(painted)
        logs = {"gap": gap.detach().mean(), "style": terms["style"].detach().mean()}
        return StepOutput(loss.mean(), logs)


def noisy(pictures: Tensor) -> Tensor:
    """Half of the pictures (N, 3, H, W) in [0, 1] with Gaussian noise, each of its own deviation up to NOISE."""
    size = torch.rand(len(pictures), 1, 1, 1, device=pictures.device) * 2 - 1
    return (pictures + NOISE * size.clamp(min=0) * torch.randn_like(pictures)).clamp(0, 1)


def with_noise(pictures: Tensor) -> Tensor:
    """Pictures (N, 3, H, W) in [0, 1] with Gaussian noise, each of its own deviation between a quarter of NOISE and
    NOISE."""
    size = NOISE * (0.25 + 0.75 * torch.rand(len(pictures), 1, 1, 1, device=pictures.device))
    return (pictures + size * torch.randn_like(pictures)).clamp(0, 1)


class ArbitraryTask(Task):
    """Any style in one pass: the style term and what is asked to be kept, for a keep drawn for each picture.

    Huang & Belongie 2017 (arXiv:1703.06868, eq. 11) with the content term joined by 1 − SSIM, whose weight is the
    network's input `keep` (as loss-conditional training: Dosovitskiy & Djolonga, ICLR 2020). Half of the photos are
    painted again with noise, calmed as noisy photos are, and what the two pictures differ by more than the photos is a
    loss (stability training: Zheng et al. 2016, arXiv:1604.04326).
    """

    memory_format = torch.channels_last

    def __init__(
        self, net: ArbitraryNet, network: PerceptualNetwork, *, content_weight: float = 0.1,
        robustness: float = ROBUSTNESS,
    ) -> None:  # fmt: skip
        super().__init__()
        self.net, self.content_weight, self.robustness = net, content_weight, robustness
        self._terms = StyleTerms(network)

    def layer_groups(self) -> dict[str, list[str]]:
        return {"decoder": [name for name, _ in self.named_parameters()]}

    def forward(self, batches: Mapping[str, Batch], progress: float, phase: str = "step") -> StepOutput:
        content, styles = unit(batches["content"].x), unit(batches["style"].x)
        # Most of what is asked for is a painting, and it is the hardest to learn.
        keep = torch.rand(len(content), device=content.device).square()
        # A second or a third pass learns to go on from what those before painted.
        passes = int(torch.multinomial(torch.tensor(PASSES), 1)) + 1
        half = slice((len(content) + 1) // 2 if self.robustness and self.training else 0)
        grainy = twins = with_noise(content[half])
        with torch.random.fork_rng(devices=[content.device] if content.is_cuda else []):
            # The network draws the same for the photos as they are.
            if half.stop:
                twins = self.net(calm(grainy), self.net.code(styles[half]), keep[half], passes=passes)
        painted = self.net(content, self.net.code(styles), keep, passes=passes)
        terms = self._terms(painted, content, self._terms.targets(styles), drawn_shift(), moved=True)
        unlike = 1 - ssim_each(painted, content)
        asked = fidelity_weight(keep)
        # Over what is asked, so that pictures of which nearly all is to be kept do not drown the others.
        loss = (terms["style"] + self.content_weight * terms["content"] + asked * unlike) / (1 + asked / BALANCE)
        loss = loss + VARIATION * terms["variation"] + OUTSIDE * outside(painted)
        logs = {"style": terms["style"], "content": terms["content"], "unlike": unlike}
        if half.stop:
            apart = (twins - painted[half]).square().mean((1, 2, 3))
            ratio = apart / (grainy - content[half]).square().mean((1, 2, 3))
            loss = torch.cat([loss[half] + self.robustness * (ratio - 1).clamp(min=0), loss[half.stop :]])
            logs["noise"] = ratio
        return StepOutput(loss.mean(), {name: value.detach().mean() for name, value in logs.items()})


def style_targets(terms: StyleTerms, styles: Sequence[Tensor], short_px: int) -> dict[str, BatchMoments]:
    """Moments of each style at that short side, stacked over styles."""
    each = [terms.targets(resize(style, fit_short_side(style.shape[-2:], short_px))[None]) for style in styles]
    return {
        name: BatchMoments(torch.cat([found[name].mean for found in each]),
                           torch.cat([found[name].second for found in each]))
        for name in each[0]
    }  # fmt: skip
