"""CycleGAN as a task of the engine: two generators and two discriminators, trained in turns."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Final

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from regraft.core.errors import UsageError
from regraft.core.types import Batch, StepOutput, Task
from regraft.style.translation.cyclegan.discriminator import (
    DiscriminatorSettings,
    MultiScaleDiscriminator,
    accuracy,
    least_squares,
)
from regraft.style.translation.cyclegan.generator import Generator, GeneratorSettings
from regraft.style.translation.cyclegan.pool import ImagePool, as_signed

#: The streams, and the ways between them. "AtoB" translates pictures of A.
A, B = "a", "b"
DIRECTIONS: Final = ("AtoB", "BtoA")
GENERATORS, DISCRIMINATORS = "generators", "discriminators"


@dataclass(frozen=True)
class CycleWeights:
    """Weights of the cycle and identity losses beside the adversarial ones, which weigh 1.

    The paper's (arXiv:1703.10593) are λ = 10, and half of it for the identity. Raises UsageError.
    """

    cycle: float = 10.0
    identity: float = 5.0

    def __post_init__(self) -> None:
        if not (0 <= self.cycle < float("inf") and 0 <= self.identity < float("inf")):
            raise UsageError(f"Loss weights are 0 or more; {self.cycle} and {self.identity} came.")


class CycleGAN(Task):
    """Learns to translate between two sets of pictures of which no two belong together.

    Paper: Zhu, Park, Isola & Efros 2017, arXiv:1703.10593, eq. 3 with least-squares adversarial losses (section 4) and
    the identity loss of section 5.2. Streams "a" and "b": uint8 (N, 3, H, W), or float in [0, 1], of one size; N may
    differ. Two phases per step: the generators by the discriminators as they stand, then the discriminators by pictures
    translated anew, out of the pools.

    Differs from the paper: discriminators at several scales with spectral normalisation; generators that enlarge
    without transposed convolutions.

    Logs: gan, cycle and identity loss (unweighted, mean of both ways), discriminator loss, and accuracy, the share of
    patches that the discriminators tell right.
    """

    phases = (GENERATORS, DISCRIMINATORS)
    memory_format = torch.channels_last

    def __init__(
        self,
        generator: GeneratorSettings,
        discriminator: DiscriminatorSettings,
        *,
        side_px: int,
        weights: CycleWeights | None = None,
        pool: int = 50,
    ) -> None:
        super().__init__()
        if side_px < discriminator.least_side_px:
            raise UsageError(
                f"Pictures of {side_px} px are too small for {discriminator.scales} scales of {discriminator.layers} "
                f"layers: {discriminator.least_side_px} px or more, or fewer of them."
            )
        self.weights = weights or CycleWeights()
        self.a_to_b, self.b_to_a = Generator(generator), Generator(generator)
        self.judge_a, self.judge_b = MultiScaleDiscriminator(discriminator), MultiScaleDiscriminator(discriminator)
        self.pool_a, self.pool_b = ImagePool(pool, side_px), ImagePool(pool, side_px)

    def layer_groups(self) -> dict[str, list[str]]:
        groups: dict[str, list[str]] = {GENERATORS: [], DISCRIMINATORS: []}
        for name, _ in self.named_parameters():
            groups[DISCRIMINATORS if name.startswith("judge_") else GENERATORS].append(name)
        return groups

    def generator(self, direction: str) -> Generator:
        return self.a_to_b if direction == DIRECTIONS[0] else self.b_to_a

    def predict(self, x: Tensor) -> Tensor:
        """Pictures of A, uint8 or float in [0, 1] → their translations, float32 in [0, 1]."""
        return as_unit(self.a_to_b(as_signed(x)))

    def forward(self, batches: Mapping[str, Batch], progress: float, phase: str = GENERATORS) -> StepOutput:
        a, b = as_signed(batches[A].x), as_signed(batches[B].x)
        if phase == GENERATORS:
            with without_gradients(self.judge_a, self.judge_b):
                return self._generators(a, b)
        return self._discriminators(a, b)

    def _generators(self, a: Tensor, b: Tensor) -> StepOutput:
        fake_b, fake_a = self.a_to_b(a), self.b_to_a(b)
        gan = (least_squares(self.judge_b(fake_b), 1.0) + least_squares(self.judge_a(fake_a), 1.0)) / 2
        cycle = (F.l1_loss(self.b_to_a(fake_b), a) + F.l1_loss(self.a_to_b(fake_a), b)) / 2
        # Each loss is logged as the mean of both ways, and counts as the paper's sum of them.
        total = 2 * gan + 2 * self.weights.cycle * cycle
        logs = {"gan": gan.detach(), "cycle": cycle.detach()}
        if self.weights.identity:
            identity = (F.l1_loss(self.b_to_a(a), a) + F.l1_loss(self.a_to_b(b), b)) / 2
            total = total + 2 * self.weights.identity * identity
            logs["identity"] = identity.detach()
        return StepOutput(total, logs)

    def _discriminators(self, a: Tensor, b: Tensor) -> StepOutput:
        with torch.no_grad():
            fake_b, fake_a = self.pool_b.exchange(self.a_to_b(a)), self.pool_a.exchange(self.b_to_a(b))
        losses: list[Tensor] = []
        right: list[Tensor] = []
        for judge, real, fake in ((self.judge_a, a, fake_a), (self.judge_b, b, fake_b)):
            of_real, of_fake = judge(real), judge(fake)
            losses += [least_squares(of_real, 1.0), least_squares(of_fake, 0.0)]
            right += [accuracy(of_real, of_the_set=True), accuracy(of_fake, of_the_set=False)]
        mean = torch.stack(losses).mean()
        # Each discriminator's objective is divided by 2, so that it learns more slowly (section 7.1).
        return StepOutput(2 * mean, {"discriminator": mean.detach(), "accuracy": torch.stack(right).mean()})


@contextmanager
def without_gradients(*modules: nn.Module) -> Iterator[None]:
    """Inside, nothing that is computed asks for gradients of these modules' parameters; it may still pass them on.

    One optimiser serves both phases, and it moves whatever has a gradient.
    """
    switched = [p for module in modules for p in module.parameters() if p.requires_grad]
    for parameter in switched:
        parameter.requires_grad_(False)
    try:
        yield
    finally:
        for parameter in switched:
            parameter.requires_grad_(True)


def as_unit(pictures: Tensor) -> Tensor:
    """[−1, 1] → float32 in [0, 1]."""
    return (pictures.float() + 1) / 2
