"""Scores of a model on a domain whose labels nobody has, the choice among models by them, and a check for collapse.

Every validator reads the target's features and logits and, where it says so, the held-out source with its labels.
Higher is better. All compute in float64.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar

import numpy as np
from numpy.typing import NDArray
from scipy.special import bdtr, log_softmax, softmax
from torch import Tensor

from regraft.adaptation.base import require
from regraft.adaptation.evidence.distances import density_ratio
from regraft.adaptation.losses.confusion import SMALLEST
from regraft.core.errors import DataError, UsageError, unknown_name
from regraft.core.registry import Registry
from regraft.core.types import DomainView
from regraft.strategies.heads.probe import fit_probe
from regraft.strategies.heads.ridge import RIDGE

Array = NDArray[np.float64]
Indices = NDArray[np.int64]


class LabelFree:
    """The contract of `core.types.Validator`, without target labels.

    `score` raises UsageError for a view without samples or without what the validator reads. It is −inf where the
    features or logits are not finite: a diverged model loses to every other.
    """

    #: Where the score is from: authors, year, arXiv id or venue.
    paper: ClassVar[str] = ""
    #: Whether it reads held-out source samples with their labels.
    needs_source: ClassVar[bool] = False
    uses_target_labels: bool = False

    def score(self, source: DomainView, target: DomainView) -> float:
        name = type(self).__name__
        for view, role in [(target, "target"), (source, "source")][: 1 + self.needs_source]:
            logits = require(view.logits, f"the {role}'s logits", name)
            if len(logits) == 0:
                raise UsageError(f"{name} scores at least one sample of the {role}; there is none.")
            if not (bool(logits.isfinite().all()) and bool(view.features.isfinite().all())):
                return float("-inf")
        return float(self._score(source, target))

    def _score(self, source: DomainView, target: DomainView) -> float:
        raise TypeError(f"{type(self).__name__} does not define _score")


#: name → class
validators: Registry[type[LabelFree]] = Registry("validator")


@validators.register("source-accuracy")
class SourceAccuracy(LabelFree):
    """Accuracy on held-out source samples, in 0…1. It says nothing of the target."""

    needs_source = True

    def _score(self, source: DomainView, target: DomainView) -> float:
        return float((_numpy(source.logits).argmax(axis=1) == _labels(source, "source-accuracy")).mean())


@validators.register("entropy")
class Entropy(LabelFree):
    """Minus the mean entropy of the target's predictions, in nats, at most 0. Highest too for one class for all.

    Paper: Morerio et al., "Minimal-Entropy Correlation Alignment", ICLR 2018, arXiv:1711.10288.
    """

    paper = "Morerio et al., ICLR 2018, arXiv:1711.10288"

    def _score(self, source: DomainView, target: DomainView) -> float:
        return -float(entropy(_probabilities(target)).mean())


@validators.register("infomax")
class InfoMax(LabelFree):
    """Entropy of the mean prediction minus mean entropy of the predictions: sure and diverse, in 0…log K nats.

    Paper: Bridle et al., "Unsupervised Classifiers, Mutual Information and 'Phantom Targets'", NeurIPS 1991; for
    adaptation Shi & Sha, ICML 2012, arXiv:1206.6438. Favours equal shares of the classes in the target; where
    target.class_weights say what is expected, log K − KL(mean prediction ‖ weights over their sum) takes the first
    term's place, which is the same for equal weights.
    """

    paper = "Shi & Sha, ICML 2012, arXiv:1206.6438"

    def _score(self, source: DomainView, target: DomainView) -> float:
        p = _probabilities(target)
        mean = p.mean(axis=0)
        spread = entropy(mean)
        if target.class_weights is not None:
            shares = np.maximum(_numpy(target.class_weights), SMALLEST)
            spread = np.log(len(mean)) + spread + mean @ np.log(shares / shares.sum())
        return float(spread - entropy(p).mean())


@validators.register("SND")
class SND(LabelFree):
    """Soft neighbourhood density: mean entropy, in nats, of each sample's similarities to all others.

    Paper: Saito et al., "Tune it the Right Way", ICCV 2021, arXiv:2108.10860: cosine of the softmax outputs, divided by
    0.05, softmax over the other samples. At most log(M − 1); rises with M, so compare models on the same samples. High
    too where all classes collapse into one, as its authors note. One sample has no neighbour: 0.
    """

    paper = "Saito et al., ICCV 2021, arXiv:2108.10860"

    def __init__(self, temperature: float = 0.05) -> None:
        if not temperature > 0:
            raise UsageError(f"SND got temperature={temperature}: a number above 0 is needed.")
        self.temperature = temperature

    def _score(self, source: DomainView, target: DomainView) -> float:
        p = _probabilities(target)
        if len(p) < 2:
            return 0.0
        p = p / np.linalg.norm(p, axis=1, keepdims=True)
        total = 0.0
        for start in range(0, len(p), 1024):
            similar = p[start : start + 1024] @ p.T / self.temperature
            rows = np.arange(len(similar))
            similar[rows, start + rows] = -np.inf
            total += float(entropy(softmax(similar, axis=1)).sum())
        return total / len(p)


@validators.register("BNM")
class BNM(LabelFree):
    """Nuclear norm of the target's probability matrix (M, K) over its upper bound √(M · min(M, K)), in 0…1.

    Paper: Cui et al., "Towards Discriminability and Diversity: Batch Nuclear-norm Maximization", CVPR 2020,
    arXiv:2003.12237, which divides by M: over the bound, domains of unlike size compare. Its 1 is sure predictions
    with equal shares. Where target.class_weights are given, column k is first multiplied by weight k.
    """

    paper = "Cui et al., CVPR 2020, arXiv:2003.12237"

    def _score(self, source: DomainView, target: DomainView) -> float:
        p = _probabilities(target)
        if target.class_weights is not None:
            p = p * _numpy(target.class_weights)
        return float(np.linalg.svd(p, compute_uv=False).sum() / np.sqrt(len(p) * min(p.shape)))


@validators.register("DEV")
class DEV(LabelFree):
    """Deep embedded validation: minus the risk on the target, from the source's losses weighted by density ratios.

    Paper: You et al., "Towards Accurate Model Selection in Deep Unsupervised Domain Adaptation", ICML 2019, algorithms
    1 and 2; see `dev_risk` and `density_ratio`. loss: "zero-one", or "cross-entropy" (nats), the usual one.
    The default is another since candidates are calibrated unlike each other, and a bounded loss has the
    lesser variance under uneven weights. Valid where the target lies inside the source's features.
    """

    paper = "You et al., ICML 2019"
    needs_source = True

    def __init__(self, loss: str = "zero-one", *, seed: int = 0) -> None:
        if loss not in ("zero-one", "cross-entropy"):
            raise unknown_name("loss of DEV", loss, ("zero-one", "cross-entropy"))
        self.loss, self.seed = loss, seed

    def _score(self, source: DomainView, target: DomainView) -> float:
        labels, logits = _labels(source, "DEV"), _numpy(source.logits)
        if min(len(labels), len(target.features)) < 2:
            raise UsageError("DEV tells the domains apart by at least 2 samples of each.")
        if self.loss == "zero-one":
            losses = (logits.argmax(axis=1) != labels).astype(np.float64)
        else:
            losses = -log_softmax(logits, axis=1)[np.arange(len(labels)), labels]
        weights = density_ratio(_numpy(source.features), _numpy(target.features), seed=self.seed)
        return -dev_risk(weights, losses)


def dev_risk(weights: np.ndarray, losses: np.ndarray) -> float:
    """mean(w ℓ) + η (mean(w) − 1) with the variance-least η = −cov(w ℓ, w) / var(w), of weights and losses (N,).

    You et al., ICML 2019, algorithm 1. Where all weights are the same there is nothing to weigh, and it is mean(ℓ).
    May leave the losses' range: it is an extrapolation where mean(w) is far from 1.
    """
    weights, losses = np.asarray(weights, dtype=np.float64), np.asarray(losses, dtype=np.float64)
    weighted = weights * losses
    around = weights - weights.mean()
    spread = float(around @ around)
    if spread <= 1e-12 * float(weights @ weights):  # rounding alone
        return float(losses.mean())
    return float(weighted.mean() - (around @ weighted) / spread * (weights.mean() - 1))


@validators.register("reverse")
class ReverseValidation(LabelFree):
    """Accuracy on the source, in 0…1, of a head that learned from the target with the model's answers as labels.

    Papers: Zhong et al., "Cross Validation Framework to Choose amongst Models and Datasets for Transfer Learning",
    ECML 2010; Ganin et al., JMLR 2016, arXiv:1505.07818, §5.1.2. Differs from them: the reverse model is a linear head
    on the candidate's own features, and the whole source view is held out, since no source label teaches it.
    """

    paper = "Zhong et al., ECML 2010"
    needs_source = True

    def __init__(self, *, seed: int = 0) -> None:
        self.seed = seed

    def _score(self, source: DomainView, target: DomainView) -> float:
        x, y = _numpy(source.features), _numpy(target.features)
        return reverse_accuracy(y, _numpy(target.logits), x, _labels(source, "reverse"), seed=self.seed)


def reverse_accuracy(
    target_features: np.ndarray,
    target_logits: np.ndarray,
    source_features: np.ndarray,
    source_labels: np.ndarray,
    *,
    rows: int = 2000,
    seed: int = 0,
) -> float:
    """What `ReverseValidation` scores, of arrays (M, D), (M, K), (N, D), (N,).

    The head is ridge regression with its strength by 3-fold cross-validation on at most `rows` target rows, drawn with
    `seed`. Raises DataError for fewer than 2 target rows or no source row.
    """
    if len(target_features) < 2 or len(source_features) == 0:
        raise DataError(
            f"Reverse validation learns on 2 target samples or more and is scored on the source; "
            f"{len(target_features)} and {len(source_features)} came."
        )
    draw = np.random.default_rng(seed)
    chosen = draw.permutation(len(target_features))[:rows]
    pseudo = np.asarray(target_logits).argmax(axis=1)[chosen]
    folds = np.arange(len(chosen)) % min(3, len(chosen))
    settings = tuple(("ridge", strength) for strength in RIDGE)
    features = np.asarray(target_features, dtype=np.float32)[chosen]
    head = fit_probe(features, pseudo, folds, target_logits.shape[1], settings=settings)
    answers = head.logits(np.asarray(source_features, dtype=np.float32)).argmax(axis=1)
    return float((answers == np.asarray(source_labels)).mean())


class Oracle:
    """Accuracy with the target's labels (M,), in 0…1: for tables after the choice, and so in no registry.

    Labels come by the constructor, never from a view. Raises DataError where there is not one for each target sample.
    """

    uses_target_labels: bool = True

    def __init__(self, labels: np.ndarray | Tensor) -> None:
        self.labels = np.asarray(labels)

    def score(self, source: DomainView, target: DomainView) -> float:
        answers = _numpy(require(target.logits, "the target's logits", "the oracle")).argmax(axis=1)
        if answers.shape != self.labels.shape or len(answers) == 0:
            raise DataError(f"The oracle has labels {self.labels.shape} for {len(answers)} target samples.")
        return float((answers == self.labels).mean())


@dataclass(frozen=True)
class Choice:
    """name: the best candidate. mean_rank: by candidate, 1 = best. ranks: validator → candidate → rank.

    ignored: validator → why its scores did not count.
    """

    name: str
    mean_rank: Mapping[str, float]
    ranks: Mapping[str, Mapping[str, float]]
    ignored: Mapping[str, str]


def choose(scores: Mapping[str, Mapping[str, float]]) -> Choice:
    """The candidate of the best mean rank over validators; scores: candidate → validator → score.

    Equal scores share their ranks' mean. A score that is not finite ranks last. A validator that gives all candidates
    the same (within 1e-9 of its largest score), or none a finite score, tells nothing and is ignored. Of equal mean
    ranks the earlier candidate wins: give the cheaper first. Raises UsageError for no candidate, or validators that
    did not score all.
    """
    names = list(scores)
    if not names:
        raise UsageError("There is no candidate to choose from.")
    tools = list(scores[names[0]])
    if any(set(scores[name]) != set(tools) for name in names):
        raise UsageError("Every candidate must be scored by the same validators: ranks are compared.")
    ranks: dict[str, dict[str, float]] = {}
    ignored: dict[str, str] = {}
    for tool in tools:
        values = np.array([scores[name][tool] for name in names], dtype=np.float64)
        finite = np.isfinite(values)
        if not finite.any():
            ignored[tool] = "no finite score"
            continue
        same = 1e-9 * float(np.abs(values[finite]).max())
        if finite.all() and float(np.ptp(values)) <= same:
            ignored[tool] = "the same score for all"
            continue
        values = np.where(finite, values, values[finite].min() - 1 - 2 * same)
        better = (values[None, :] > values[:, None] + same).sum(axis=1)
        equal = (np.abs(values[None, :] - values[:, None]) <= same).sum(axis=1)
        ranks[tool] = {name: float(r) for name, r in zip(names, 1 + better + (equal - 1) / 2, strict=True)}
    nothing = (len(names) + 1) / 2
    mean = {name: float(np.mean([r[name] for r in ranks.values()])) if ranks else nothing for name in names}
    return Choice(min(names, key=lambda name: round(mean[name], 9)), mean, ranks, ignored)


def collapsed(target: np.ndarray, prior: np.ndarray, *, least: float = 0.2, doubt: float = 0.01) -> list[int]:
    """Classes that a model hardly gives in the target any more while another has taken their place, rising.

    target: logits or probabilities (M, K). prior: the shares (K,) that are expected, the source's or better an estimate
    by `label_shift`. A class collapsed if all three hold: its share of the answers is below `least` of the expected; so
    few answers would be that rare, by the binomial distribution, with a chance below doubt / K; one other class grew by
    at least half of what it lost. Answers that spread over many classes, or a class too rare for M samples to tell, are
    no collapse. Raises DataError for shapes that do not fit or no sample.
    """
    answers, expected = np.asarray(target), np.asarray(prior, dtype=np.float64)
    if answers.ndim != 2 or len(answers) == 0 or expected.shape != answers.shape[1:] or not expected.sum() > 0:
        raise DataError(
            f"Collapse is told from (M, K) answers and a prior (K,); {answers.shape}, {expected.shape} came."
        )
    m, k = answers.shape
    expected = expected / expected.sum()
    counts = np.bincount(answers.argmax(axis=1), minlength=k)
    lost = expected - counts / m
    few = (counts < least * expected * m) & (bdtr(counts, m, expected) < doubt / k)
    return np.flatnonzero(few & (float((-lost).max()) >= lost / 2)).tolist()


def entropy(probabilities: Array) -> Array:
    """In nats, over the last axis; 0 log 0 is 0."""
    return np.asarray(-(probabilities * np.log(np.where(probabilities > 0, probabilities, 1.0))).sum(axis=-1))


def _numpy(tensor: Tensor | None) -> Array:
    assert tensor is not None
    return np.asarray(tensor.detach().cpu().double().numpy())


def _probabilities(view: DomainView) -> Array:
    return np.asarray(softmax(_numpy(view.logits), axis=1))


def _labels(source: DomainView, name: str) -> Indices:
    return np.asarray(require(source.labels, "the source's labels", name).detach().cpu().numpy(), dtype=np.int64)
