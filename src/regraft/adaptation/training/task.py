"""Adaptation as a task: the source's own loss, plus one weighted term over the features of both domains.

Streams: "source" with labels and "target" without; "target" alone where the source is gone. The two domains pass
through the network one after the other, so that in training each is normalised by its own batch statistics.
"""

from __future__ import annotations

import copy
from collections.abc import Mapping

import torch
from torch import Tensor, nn

from regraft.adaptation.altered.views import fourier_restyle, strengthen
from regraft.adaptation.base import DomainLoss
from regraft.adaptation.losses.self_training import SHOT
from regraft.adaptation.training.gathering import rows_of_all
from regraft.adaptation.training.partial import class_weights, resample
from regraft.core.types import Batch, DomainView, StepOutput, Task
from regraft.tasks.linear import LinearTask

#: The share of the teacher that stays at each step (arXiv:1706.05208 uses 0.99).
TEACHER_DECAY = 0.99


class Adaptation(Task):
    """A model (backbone and head), an alignment loss or None, and the loss's weight.

    Without a loss this is the source-only control: the same streams may be given, the target is not looked at.
    restyle: the share of the source's pictures that get the target's low-frequency amplitudes. smoothing: label
    smoothing on the source. source_weights: per source domain the weight (M,) of each of its samples in the source's
    loss, a weighted mean; None where all count the same. The model's predictions are the task's.

    partial: the target may lack some of the source's classes. Then `survey` estimates the class weights of PADA (Cao et
    al., ECCV 2018, arXiv:1808.04205, eq. 3), and the source's rows of every batch are drawn anew in proportion to the
    weights of their classes. The paper multiplies the classification loss and the discriminator's by them (eq. 4 and
    5); drawing has the same expectation up to a factor, serves the losses that have no place for weights, and gives the
    source's batch statistics the target's mixture too. The target's view carries the weights.

    shared: each process has its part of every batch, and the losses are computed on the rows of all (`gathering`).
    """

    source_weights: Tensor | None
    #: (K,), with `partial` alone; 1 before the first survey.
    target_weights: Tensor | None
    #: How often the target was surveyed; part of the state, so that a resumed training goes on counting.
    surveyed: Tensor

    def __init__(
        self,
        model: LinearTask,
        loss: DomainLoss | None,
        *,
        weight: float | None = None,
        restyle: float = 0.0,
        smoothing: float = 0.1,
        partial: bool = False,
        source_weights: Tensor | None = None,
        shared: bool = False,
    ) -> None:
        super().__init__()
        self.model = model
        self.memory_format = model.memory_format
        self.loss = loss
        self.weight = (loss.default_weight if weight is None else weight) if loss is not None else 0.0
        self.restyle, self.smoothing, self.shared = restyle, smoothing, shared
        self.register_buffer("source_weights", source_weights, persistent=False)
        self.teacher: nn.Module | None = None
        if loss is not None and loss.needs_teacher:
            self.teacher = copy.deepcopy(model).requires_grad_(False)
        self.reference: LinearTask | None = None
        if loss is not None and loss.source_fixed:
            self.reference = copy.deepcopy(model).requires_grad_(False)
        self.register_buffer("target_weights", torch.ones(model.head.out_features) if partial else None)
        self.register_buffer("surveyed", torch.zeros((), dtype=torch.int64))

    @property
    def surveys(self) -> bool:
        """Whether training looks at the whole target now and then."""
        return self.target_weights is not None or isinstance(self.loss, SHOT)

    @torch.no_grad()
    def survey(self, features: Tensor, logits: Tensor) -> float:
        """Estimate what needs the whole target, from its features (M, D) and logits (M, K); returns how often it was.

        The class weights, and SHOT's centres.
        """
        if self.target_weights is not None:
            self.target_weights.copy_(class_weights(logits.softmax(dim=1)))
        if isinstance(self.loss, SHOT):
            self.loss.find_centres(features, logits, class_weights=self.target_weights)
        self.surveyed += 1
        return float(self.surveyed)

    def layer_groups(self) -> dict[str, list[str]]:
        """The model's groups shallow → deep with "head", what the loss learns itself, a frozen teacher or reference."""
        groups = {group: [f"model.{name}" for name in names] for group, names in self.model.layer_groups().items()}
        for name, part in (("alignment", self.loss), ("teacher", self.teacher), ("reference", self.reference)):
            prefix = "loss" if name == "alignment" else name
            own = [] if part is None else [f"{prefix}.{key}" for key, _ in part.named_parameters()]
            if own:
                groups[name] = own
        return groups

    def predict(self, x: Tensor) -> Tensor:
        """Logits (N, K), or numbers (N, R)."""
        return self.model.predict(x)

    def views(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Features (N, D) and logits (N, K)."""
        features = self.model.backbone(x).pooled
        return features, self.model.head(features)

    def forward(self, batches: Mapping[str, Batch], progress: float, phase: str = "step") -> StepOutput:
        if self.training and self.teacher is not None:
            self._follow()
        source, target = batches.get("source"), batches.get("target")
        view: DomainView | None = None
        total: Tensor | None = None
        logs: dict[str, float | Tensor] = {}
        if source is not None:
            assert source.y is not None, "the source stream carries labels"
            x, labels, domains = source.x, source.y, source.domain
            if self.training and self.target_weights is not None:
                rows = resample(self.target_weights[labels], torch.rand(()))
                x, labels = x[rows], labels[rows]
                domains = None if domains is None else domains[rows]
            if self.training and self.restyle > 0 and target is not None:
                x = fourier_restyle(x, target.x, self.restyle)
            fixed = self.reference is not None
            features, logits = self._all(*(self._fixed(x) if fixed else self.views(x)))
            (labels,), domains = self._all(labels), None if domains is None else self._all(domains)[0]
            if not fixed:
                share = None if self.source_weights is None else self._share(self.source_weights, domains)
                total = self.model.supervised(logits.float(), labels, self.smoothing, share)
                logs["source_loss"] = total.detach()
            view = DomainView(features, logits, labels, domains=domains)
        if self.loss is not None and target is not None:
            term = self.loss(*self._pair(view, target.x), progress)
            logs["alignment"] = term.detach()
            total = self.weight * term if total is None else total + self.weight * term
        assert total is not None, "there is a source, or a loss over the target"
        return StepOutput(total, logs)

    @torch.no_grad()
    def _fixed(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Features and logits of the frozen source-only model, with its own statistics."""
        assert self.reference is not None
        features = self.reference.eval().backbone(x).pooled
        return features, self.reference.head(features)

    def _all(self, *rows: Tensor) -> tuple[Tensor, ...]:
        """The rows of all processes, where these share a batch."""
        return tuple(rows_of_all(part) for part in rows) if self.shared and self.training else rows

    def _pair(self, source: DomainView | None, x: Tensor) -> tuple[DomainView, DomainView]:
        assert self.loss is not None
        features, logits = self._all(*self.views(x))
        strong = self._all(self.views(strengthen(x))[1])[0] if self.loss.needs_strong else None
        teacher = None
        if self.teacher is not None:
            with torch.no_grad():
                teacher = self._all(self.teacher.predict(x))[0]  # type: ignore[operator]
        target = DomainView(features, logits, None, strong, teacher, self.target_weights)
        if source is None:
            source = DomainView(features[:0], logits[:0], None)
        return source, target

    @staticmethod
    def _share(weights: Tensor, domains: Tensor | None) -> Tensor:
        assert domains is not None, "a source with weights for its domains says which sample is from which"
        return weights[domains]

    @torch.no_grad()
    def _follow(self) -> None:
        assert self.teacher is not None
        for own, follows in zip(self.model.state_dict().values(), self.teacher.state_dict().values(), strict=True):
            if follows.is_floating_point():
                follows.lerp_(own.detach(), 1 - TEACHER_DECAY)
            else:
                follows.copy_(own)
