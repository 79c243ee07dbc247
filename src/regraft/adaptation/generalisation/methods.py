"""Domain generalisation: several labelled domains, no target at all, and a model for a domain that none has seen.

A method sees, per training domain, logits and targets, and says what is minimised; one that mixes inputs may change
them before. Nothing here can read a further domain: there is none.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import ClassVar, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from regraft.core.errors import UsageError
from regraft.core.registry import Registry
from regraft.core.types import Batch, StepOutput, Task
from regraft.tasks.classification.task import Classification


class Environment(NamedTuple):
    """One training domain's part of a step. x: (N, …); targets: (N, K), rows that sum to 1."""

    x: Tensor
    targets: Tensor


class GeneralisationMethod(nn.Module):
    """What is minimised over E training domains: (logits per domain, targets per domain, progress) → scalar.

    n_domains: E ≥ 1; every call gets the domains in the same order. Raises UsageError for fewer.
    """

    #: Where the method is from: authors, year, arXiv id or venue.
    paper: ClassVar[str] = ""
    #: Whether the answer is a dense average of the weights along training (`dense_average.py`), at a constant rate.
    averages: ClassVar[bool] = False

    def __init__(self, n_domains: int) -> None:
        super().__init__()
        if n_domains < 1:
            raise UsageError(f"{type(self).__name__} got n_domains={n_domains}: there is at least one to learn from.")
        self.n_domains = n_domains

    def mix(self, environments: list[Environment]) -> list[Environment]:
        """The environments that training sees in place of these."""
        return environments

    def forward(self, logits: Sequence[Tensor], targets: Sequence[Tensor], progress: float) -> Tensor:
        raise TypeError(f"{type(self).__name__} does not define forward")


#: name (the paper's) → class
generalisers: Registry[type[GeneralisationMethod]] = Registry("generalisation method")


def risks(logits: Sequence[Tensor], targets: Sequence[Tensor]) -> Tensor:
    """The mean cross-entropy of each domain (E,), from logits and targets (N, K) each, in float32."""
    return torch.stack([F.cross_entropy(z.float(), t) for z, t in zip(logits, targets, strict=True)])


@generalisers.register("ERM")
class ERM(GeneralisationMethod):
    """The mean of the domains' risks: empirical risk minimisation, the control of every other method.

    Paper: Gulrajani & Lopez-Paz, "In Search of Lost Domain Generalization", ICLR 2021, arXiv:2007.01434, who find that
    few methods beat it once the choice is honest. Domains count alike, whatever their size.
    """

    paper = "Vapnik 1998; Gulrajani & Lopez-Paz, ICLR 2021, arXiv:2007.01434"

    def forward(self, logits: Sequence[Tensor], targets: Sequence[Tensor], progress: float) -> Tensor:
        return risks(logits, targets).mean()


@generalisers.register("IRM")
class IRM(GeneralisationMethod):
    """Invariant risk minimisation, IRMv1: one head that is optimal in each domain at once.

    Paper: Arjovsky et al., "Invariant Risk Minimization", 2019, arXiv:1907.02893, eq. IRMv1:
    Σₑ Rᵉ(w·Φ) + λ ‖∇_w Rᵉ(w·Φ)‖² at w = 1, a scalar that multiplies the logits. For cross-entropy that gradient is
    the mean over samples of Σₖ (softmax(z)ₖ − tₖ) zₖ, so no second differentiation is needed.

    Differs from the paper: means over domains in place of sums; λ is 1 for the first `anneal` of training and then
    `penalty`, and the sum is divided by a λ above 1, both as in the authors' program for coloured digits. Raises
    UsageError for a negative penalty.
    """

    paper = "Arjovsky et al., 2019, arXiv:1907.02893"

    def __init__(self, n_domains: int, *, penalty: float = 100.0, anneal: float = 0.1) -> None:
        super().__init__(n_domains)
        if penalty < 0:
            raise UsageError(f"IRM got penalty={penalty}: a number from 0 on is needed.")
        self.penalty, self.anneal = penalty, anneal

    def forward(self, logits: Sequence[Tensor], targets: Sequence[Tensor], progress: float) -> Tensor:
        weight = self.penalty if progress >= self.anneal else 1.0
        pull = torch.stack([scale_gradient(z, t) for z, t in zip(logits, targets, strict=True)]).square().mean()
        return (risks(logits, targets).mean() + weight * pull) / max(1.0, weight)


def scale_gradient(logits: Tensor, targets: Tensor) -> Tensor:
    """d/dw of the mean cross-entropy of w · logits at w = 1, a scalar; logits and targets (N, K)."""
    z = logits.float()
    return ((z.softmax(dim=1) - targets) * z).sum(dim=1).mean()


@generalisers.register("GroupDRO")
class GroupDRO(GeneralisationMethod):
    """Distributionally robust optimisation over domains: the worse a domain does, the more it counts.

    Paper: Sagawa et al., "Distributionally Robust Neural Networks", ICLR 2020, arXiv:1911.08731, Algorithm 1:
    q_g ← q_g exp(step · risk_g), q ← q / Σ q, and the loss Σ q_g risk_g. Domains are the groups. Differs from the
    algorithm: every step sees all groups, not one drawn at random, and updates all of q. Raises UsageError for a step
    below 0.
    """

    paper = "Sagawa et al., ICLR 2020, arXiv:1911.08731"
    #: How much each domain counts (E,); sums to 1.
    q: Tensor

    def __init__(self, n_domains: int, *, step: float = 0.01) -> None:
        super().__init__(n_domains)
        if step < 0:
            raise UsageError(f"GroupDRO got step={step}: a number from 0 on is needed.")
        self.step = step
        self.register_buffer("q", torch.full((n_domains,), 1.0 / n_domains))

    def forward(self, logits: Sequence[Tensor], targets: Sequence[Tensor], progress: float) -> Tensor:
        found = risks(logits, targets)
        if self.training:
            self.q.copy_((self.q.log() + self.step * found.detach()).softmax(dim=0))
        return (self.q * found).sum()


@generalisers.register("Mixup")
class InterDomainMixup(ERM):
    """Each domain mixed with another one, inputs and targets alike, and the risk on these mixtures.

    Papers: Zhang et al., "mixup", ICLR 2018, arXiv:1710.09412, eq. 1; between domains: Yan et al., 2020,
    arXiv:2001.00677, there a source with a target, here two training domains. Domains are put into a random ring, each
    is mixed with the next one by one share of Beta(alpha, alpha). Here the inputs are cached features, not pictures.
    With one domain there is no other, and this is ERM. Raises UsageError for an alpha that is not positive.
    """

    paper = "Zhang et al., ICLR 2018, arXiv:1710.09412; Yan et al., 2020, arXiv:2001.00677"

    def __init__(self, n_domains: int, *, alpha: float = 0.2) -> None:
        super().__init__(n_domains)
        if not alpha > 0:
            raise UsageError(f"Mixup got alpha={alpha}: a number above 0 is needed.")
        self.alpha = alpha

    def mix(self, environments: list[Environment]) -> list[Environment]:
        if len(environments) < 2:
            return environments
        ring = torch.randperm(len(environments)).tolist()
        found = list(environments)
        for place, index in enumerate(ring):
            own, other = environments[index], environments[ring[(place + 1) % len(ring)]]
            share = float(torch.distributions.Beta(self.alpha, self.alpha).sample())
            n = min(len(own.x), len(other.x))
            found[index] = Environment(
                share * own.x[:n] + (1 - share) * other.x[:n], share * own.targets[:n] + (1 - share) * other.targets[:n]
            )
        return found


@generalisers.register("SWAD")
class SWAD(ERM):
    """ERM at a constant rate, whose answer is the dense average of the weights over a flat stretch of training.

    Paper: Cha et al., "SWAD: Domain Generalization by Seeking Flat Minima", NeurIPS 2021, arXiv:2102.08604; the stretch
    is chosen by the training domains' validation loss (`dense_average.swad_window`).
    """

    paper = "Cha et al., NeurIPS 2021, arXiv:2102.08604"
    averages = True


class Generalisation(Task):
    """A model and a method over domains. Streams: one per training domain, each with labels, in a fixed order.

    All domains pass through the network together, so that batch statistics are those of their mixture.
    """

    def __init__(self, model: Classification, method: GeneralisationMethod) -> None:
        super().__init__()
        self.model, self.method = model, method
        self.memory_format = model.memory_format

    def layer_groups(self) -> dict[str, list[str]]:
        return {group: [f"model.{name}" for name in names] for group, names in self.model.layer_groups().items()}

    def predict(self, x: Tensor) -> Tensor:
        """Logits (N, K)."""
        return self.model.predict(x)

    def forward(self, batches: Mapping[str, Batch], progress: float, phase: str = "step") -> StepOutput:
        environments = []
        for batch in batches.values():
            assert batch.y is not None, "every training domain has labels"
            environments.append(Environment(batch.x, F.one_hot(batch.y, self.model.n_classes).float()))
        if self.training:
            environments = self.method.mix(environments)
        together = self.predict(torch.cat([e.x for e in environments]))
        logits = together.split([len(e.x) for e in environments])
        loss = self.method(logits, [e.targets for e in environments], progress)
        return StepOutput(loss, {"train_loss": loss.detach()})
