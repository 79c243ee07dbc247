"""Whether an adapted regression may be kept, without a single target number: scores, a reverse test, a judgement.

The validators of classes do not apply: no entropy, no neighbourhoods of classes, no collapse. What is left is the risk
from re-weighted source errors, the source's own error, the distance of the domains, and what the answers for the target
look like. That is less evidence than for classes, and so all of it has to hold.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from regraft.adaptation.base import require
from regraft.adaptation.evidence.alarm import LEAST_GAP, LEAST_REVERSE, Alarm, Vote
from regraft.adaptation.evidence.distances import density_ratio
from regraft.adaptation.evidence.validators import LabelFree, dev_risk
from regraft.core.registry import Registry
from regraft.core.types import DomainView
from regraft.strategies import fit_number_probe

#: Held-out source error of the adapted model, over that of source-only, that is still accepted.
MOST_SOURCE_ERROR = 1.2
#: Spread of the answers for the target over that of the source's numbers that is still accepted, either way.
MOST_SPREAD = 3.0

#: name → class, for models whose outputs are numbers (N, 1)
number_validators: Registry[type[LabelFree]] = Registry("number validator")


@number_validators.register("source-error")
class SourceError(LabelFree):
    """Minus the mean absolute error on held-out source samples, in the labels' unit. It says nothing of the target."""

    needs_source = True

    def _score(self, source: DomainView, target: DomainView) -> float:
        return -float(np.abs(_errors(source)).mean())


@number_validators.register("DEV")
class SquaredDEV(LabelFree):
    """Deep embedded validation with the squared error: minus the risk on the target, in the labels' unit squared.

    Paper: You et al., ICML 2019, algorithms 1 and 2; see `validators.DEV`. Valid where the target lies inside the
    source's features.
    """

    paper = "You et al., ICML 2019"
    needs_source = True

    def __init__(self, *, seed: int = 0) -> None:
        self.seed = seed

    def _score(self, source: DomainView, target: DomainView) -> float:
        weights = density_ratio(
            source.features.double().cpu().numpy(), target.features.double().cpu().numpy(), seed=self.seed
        )
        return -dev_risk(weights, np.square(_errors(source)))


def reverse_r2(source: DomainView, target: DomainView, *, seed: int = 0) -> float:
    """R² on the source of a ridge head that learned from the target, with the model's answers as its numbers.

    Reverse validation (Zhong et al., ECML 2010; Ganin et al., arXiv:1505.07818, §5.1.2) with numbers in place of
    classes. Below 0 where the head is worse than the source's mean.
    """
    labels = require(source.labels, "the source's numbers", "reverse validation").double().cpu().numpy()
    answers = require(target.logits, "the answers for the target", "reverse validation").double().cpu().numpy()
    folds = np.random.default_rng(seed).permutation(np.arange(len(answers)) % 3)
    head = fit_number_probe(target.features.float().cpu().numpy(), answers[:, 0], folds)
    found = head.logits(source.features.float().cpu().numpy())[:, 0]
    return _r2(found, labels)


def own_r2(source: DomainView) -> float:
    """R² of the model's own answers on the held-out source."""
    labels = require(source.labels, "the source's numbers", "R²").double().cpu().numpy()
    return _r2(labels + _errors(source), labels)


def judge_numbers(
    name: str,
    *,
    gap: float,
    votes: Mapping[str, Vote],
    source_error: tuple[float, float],
    reverse: tuple[float, float],
    spread: tuple[float, float],
) -> Alarm:
    """Keep the adapted model `name` only if everything speaks for it.

    gap: proxy A-distance between the domains. votes: of "DEV" at least. source_error: mean absolute error on held-out
    source pictures, (adapted, source-only). reverse: (`reverse_r2`, R² of the model itself on the source). spread:
    deviations of the answers for the target and of the source's numbers.
    """
    if gap < LEAST_GAP:
        return Alarm(
            False,
            f"the two domains can hardly be told apart (proxy A-distance {gap:.2f} of 2), so there is nothing to adapt "
            "to.",
        )
    adapted, control = source_error
    if adapted > MOST_SOURCE_ERROR * control:
        return Alarm(
            False,
            f"{name} is worse on held-out source pictures: a mean error of {adapted:.4g} in place of {control:.4g}.",
        )
    share = spread[0] / max(spread[1], 1e-12)
    if not 1 / MOST_SPREAD <= share <= MOST_SPREAD:
        text = (
            f"{name}'s answers for the target spread {share:.2g} times as far as the source's numbers: they are all "
            "but the same, or out of range."
        )
        return Alarm(False, text, (f"Likely negative transfer: {text}",))
    back, own = reverse
    if back < LEAST_REVERSE * own:
        text = (
            f"a head trained on {name}'s answers for the target has an R² of {back:.2f} on the source, where its own "
            f"has {own:.2f}: what it learned of the target does not fit the source."
        )
        return Alarm(False, text, (f"Negative transfer: {text}",))
    found = votes["DEV"]
    if found.side != "adapted":
        return Alarm(
            False,
            f"the error that is expected on the target (DEV) is not credibly lower with {name}: in {found.share:.0%} "
            "of half-samples.",
        )
    return Alarm(
        True, f"the error that is expected on the target (DEV) is credibly lower, and nothing speaks against {name}."
    )


def _errors(source: DomainView) -> np.ndarray:
    labels = require(source.labels, "the source's numbers", "the score").double().cpu().numpy()
    answers = require(source.logits, "the answers for the source", "the score").double().cpu().numpy()
    return np.asarray(answers.reshape(len(labels), -1)[:, 0] - labels)


def _r2(found: np.ndarray, labels: np.ndarray) -> float:
    spread = float(np.square(labels - labels.mean()).sum())
    return 1 - float(np.square(found - labels).sum()) / spread if spread > 0 else 0.0
