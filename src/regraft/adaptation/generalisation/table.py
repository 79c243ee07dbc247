"""The leave-one-domain-out table, and the choice of a method that never sees the held-out domain.

Gulrajani & Lopez-Paz, "In Search of Lost Domain Generalization", ICLR 2021, arXiv:2007.01434, §3: by validation
pictures of the training domains, or by leaving out each training domain in turn. Their third way, by the held-out
domain itself, is only shown as hindsight.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from regraft.adaptation.generalisation.models import DomainModels
from regraft.measure.bootstrap import Interval
from regraft.measure.calibration import fit_temperature
from regraft.measure.choice import Candidate, choose
from regraft.measure.over_domains import mean_over_domains

ERM = "ERM"


@dataclass(frozen=True)
class HeldOut:
    """One domain that was left out. logits: (N, K) of each method for all its pictures, by models without it.

    validation: accuracy of each method on the held-out pictures of the training domains. chosen: by these domains
    alone; temperature: of the chosen one, likewise.
    """

    domain: int
    labels: np.ndarray
    logits: Mapping[str, np.ndarray]
    validation: Mapping[str, float]
    chosen: str
    temperature: float

    def right(self, method: str) -> np.ndarray:
        """Whether the method is right, bool (N,)."""
        return np.asarray(self.logits[method].argmax(axis=1) == self.labels)

    @property
    def best(self) -> str:
        """The method with the highest accuracy here: hindsight."""
        return max(self.logits, key=lambda method: float(self.right(method).mean()))


@dataclass(frozen=True)
class Table:
    """Every domain left out once, and the method for the model of all domains."""

    held_out: tuple[HeldOut, ...]
    methods: tuple[str, ...]
    final: str
    resamples: int
    seed: int

    def accuracy(self, method: str | None) -> Interval:
        """Mean over held-out domains of a method's accuracy; None: of the method that each one's choice took."""
        return self._mean([h.right(method or h.chosen).astype(float) for h in self.held_out], paired=False)

    def gain(self, method: str | None, *, level: float = 0.95) -> Interval:
        """The same, less that of ERM, with its paired interval."""
        found = [h.right(method or h.chosen).astype(float) - h.right(ERM) for h in self.held_out]
        return self._mean(found, paired=True, level=level)

    @property
    def hindsight(self) -> float:
        """Mean over held-out domains of the best method's accuracy on each: no honest choice can give more."""
        return float(np.mean([h.right(h.best).mean() for h in self.held_out]))

    @property
    def credible(self) -> tuple[str, ...]:
        """Methods better than ERM at a level that allows for their number (Bonferroni), by hindsight."""
        others = [m for m in self.methods if m != ERM]
        level = 1 - 0.05 / max(1, len(others))
        return tuple(m for m in others if self.gain(m, level=level).low > 1e-12)

    def temperature(self) -> float:
        """For the model of all domains: fitted on its method's answers for domains that it had not seen."""
        logits = np.concatenate([h.logits[self.final] for h in self.held_out])
        return fit_temperature(logits, np.concatenate([h.labels for h in self.held_out]))

    def _mean(self, values: list[np.ndarray], *, paired: bool, level: float = 0.95) -> Interval:
        return mean_over_domains(values, paired=paired, level=level, resamples=self.resamples, seed=self.seed)


def leave_one_out(models: DomainModels) -> Table:
    """Train, choose and answer with every domain left out once; then choose for all domains together."""
    config, methods = models.config, models.config.names
    held_out = []
    for domain in models.everything:
        rest = models.without(domain)
        rows = models.rows([domain])
        trained = {m: models.train(m, rest) for m in methods}
        judged = _on_validation(models, rest)
        picked = _inner(models, rest) if config.choose == "leave-one-out" else [judged]
        chosen = choose(picked, "accuracy")
        held_out.append(
            HeldOut(
                domain, models.pictures.labels[rows],
                {m: model.logits(models.features[rows]) for m, model in trained.items()},
                {m: candidate.value for m, candidate in judged.items()}, chosen,
                fit_temperature(judged[chosen].logits, judged[chosen].labels),
            )
        )  # fmt: skip
        models.listener.say(_line(models, held_out[-1]))
    whole = models.everything
    picked = _inner(models, whole) if config.choose == "leave-one-out" else [_on_validation(models, whole)]
    return Table(tuple(held_out), methods, choose(picked, "accuracy"), config.resamples, config.seed)


def _on_validation(models: DomainModels, domains: tuple[int, ...]) -> dict[str, Candidate]:
    """Every method trained on these domains, on their held-out pictures."""
    return _judged(models, domains, models.rows(domains, held=True))


def _inner(models: DomainModels, domains: tuple[int, ...]) -> list[dict[str, Candidate]]:
    """Every method with each of these domains left out in turn, on that domain."""
    return [_judged(models, tuple(d for d in domains if d != out), models.rows([out])) for out in domains]


def _judged(models: DomainModels, domains: tuple[int, ...], rows: np.ndarray) -> dict[str, Candidate]:
    labels, found = models.pictures.labels[rows], {}
    for method in models.config.names:
        model = models.train(method, domains)
        logits = model.logits(models.features[rows])
        right = float((logits.argmax(axis=1) == labels).mean())
        found[method] = Candidate(method, logits, labels, right, right, model.seconds, model.parameters)
    return found


def _line(models: DomainModels, held: HeldOut) -> str:
    figures = ", ".join(f"{m} {held.right(m).mean():.1%}" for m in held.logits)
    return f"Without {models.pictures.names[held.domain]}: {figures}; chosen without it: {held.chosen}."
