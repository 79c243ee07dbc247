"""The negative-transfer alarm: is the adapted model credibly better than source-only, without a single target label?

Adaptation can lose against source-only, and published tables hide it: the alarm keeps source-only unless the evidence
speaks for the adapted model. A label-free score alone cannot decide, since most methods raise some score by
construction (entropy minimisation raises "entropy"); so every piece of evidence that follows has to hold.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
import torch

from regraft.core.types import DomainView, Validator

#: Proxy A-distance (0 … 2) below which two domains count as one: there is nothing to adapt to.
LEAST_GAP = 0.3
#: Share of half-samples in which a validator must prefer the adapted model for its vote to count.
CREDIBLE = 0.95
HALVES = 20
#: Rows of each domain that a vote looks at.
ROWS = 400
#: How much of the way from chance to the source's own accuracy the reverse classifier must keep, within its error.
LEAST_REVERSE = 0.75
#: Share of the held-out source's class margin that the target must show before any training (`class_affinity`). Twelve
#: real transfers of PACS had 0.24 to 1.15 (photo to sketch lowest, the next 0.33), foreign or one-sided targets 0.16 to
#: 0.29: settled on these, so it errs towards source-only.
LEAST_AFFINITY = 0.3
#: How much of their consensus on the held-out source the adapted candidates must keep on the target. Twelve real
#: transfers of PACS had 0.75 to 1.16; of eight targets with other classes than the source's seven had 0.32 to 0.70 and
#: one 1.0; unrelated pictures and noise 0.72: settled on these.
LEAST_CONSENSUS = 0.7


@dataclass(frozen=True)
class Vote:
    """One validator's opinion: its two scores, and in what share of half-samples the adapted model's is higher."""

    adapted: float
    control: float
    share: float

    @property
    def side(self) -> str:
        """ "adapted", "source_only" or "open"."""
        if self.share >= CREDIBLE:
            return "adapted"
        return "source_only" if self.share <= 1 - CREDIBLE else "open"


@dataclass(frozen=True)
class Reverse:
    """Accuracy on held-out source pictures of a head that learned from the target's pseudo-labels alone.

    adapted, control: with whose pseudo-labels and features; own: the model's own accuracy there; chance: of guessing;
    n: of how many pictures. Zhong et al. 2010; Ganin et al. 2016, arXiv:1505.07818, §5.1.2.
    """

    adapted: float
    control: float
    own: float
    chance: float
    n: int

    @property
    def kept(self) -> float:
        """How much of the way from chance to `own` the reverse head keeps at most, in 0…1.

        At most: its accuracy is taken one standard error higher, since few held-out pictures do not tell 70 from 75 %.
        """
        error = np.sqrt(self.adapted * (1 - self.adapted) / max(1, self.n))
        return float(np.clip((self.adapted + error - self.chance) / max(1e-9, self.own - self.chance), 0, 1))


@dataclass(frozen=True)
class Alarm:
    """Whether the adapted model is kept, the reason in words, and what a reader must know."""

    keep_adapted: bool
    why: str
    alarms: tuple[str, ...] = field(default=())


def vote(
    validator: Validator,
    adapted: tuple[DomainView, DomainView],
    control: tuple[DomainView, DomainView],
    *,
    seed: int = 0,
) -> Vote:
    """Compare two models on the same pictures: over all rows, and over 20 half-samples of at most 400 rows.

    adapted, control: (source view, target view), rows in the same order. A half-sample keeps every row at most once, so
    validators that compare rows with each other see no copies.
    """
    rng = np.random.default_rng(seed)
    n, m = len(control[0].features), len(control[1].features)
    wins = 0.0
    for _ in range(HALVES):
        rows_n = torch.from_numpy(np.sort(rng.permutation(n)[: min(ROWS, max(1, n // 2))])) if n else torch.arange(0)
        rows_m = torch.from_numpy(np.sort(rng.permutation(m)[: min(ROWS, max(1, m // 2))]))
        scores = []
        for source, target in (adapted, control):
            scores.append(validator.score(_rows(source, rows_n), _rows(target, rows_m)))
        wins += 0.5 if scores[0] == scores[1] else float(scores[0] > scores[1])
    return Vote(validator.score(*adapted), validator.score(*control), wins / HALVES)


def agreement(answers: np.ndarray, others: Sequence[np.ndarray]) -> float:
    """Share of target samples (M,) to which two models answer the same, averaged over the others; 0 without any.

    Independently trained models that agree on unlabelled samples are usually right on them (Jiang et al., "Assessing
    Generalization of SGD via Disagreement", ICLR 2022, arXiv:2106.13799).
    """
    return float(np.mean([(answers == other).mean() for other in others])) if others else 0.0


def agreement_vote(adapted: np.ndarray, control: np.ndarray, others: Sequence[np.ndarray], *, seed: int = 0) -> Vote:
    """As `vote`, for which of two models' answers (M,) agree more with those of the other adapted models."""
    rng = np.random.default_rng(seed)
    wins = 0.0
    for _ in range(HALVES):
        rows = rng.permutation(len(adapted))[: max(1, len(adapted) // 2)]
        a, b = (agreement(own[rows], [other[rows] for other in others]) for own in (adapted, control))
        wins += 0.5 if a == b else float(a > b)
    return Vote(agreement(adapted, others), agreement(control, others), wins / HALVES)


def consensus(answers: Sequence[np.ndarray]) -> float | None:
    """Mean Cohen's kappa (1960) over all pairs of candidates' answers (M,) to the target; None for fewer than three.

    Where the target has the source's classes, methods that align by different means end at the same answers; where it
    has not, each ends somewhere else. Kappa and not the share of equal answers: few classes agree by chance.
    """
    if len(answers) < 3:
        return None
    return float(np.mean([_kappa(a, b) for i, a in enumerate(answers) for b in answers[i + 1 :]]))


def _kappa(a: np.ndarray, b: np.ndarray) -> float:
    same = float((a == b).mean())
    by_chance = float(sum((a == k).mean() * (b == k).mean() for k in np.union1d(a, b)))
    return (same - by_chance) / (1 - by_chance) if by_chance < 1 else 1.0


def class_affinity(source: np.ndarray, labels: np.ndarray, target: np.ndarray, *, seed: int = 0) -> float:
    """How clearly target features belong to one of the source's classes, as a share of how clearly held-out ones do.

    source (N, D) with labels (N,), target (M, D). Each domain is centred by its own mean and its rows get unit length;
    a row's margin is the cosine to the nearest source class centre minus that to the second. The median margin of the
    target over that of source rows which did not make the centres (two halves in turn). About 1 where the domains are
    the same; low where the target has other classes than the source. 1.0 where the source's own margin is none.
    """
    x, y = _directions(source), _directions(target)
    order = np.random.default_rng(seed).permutation(len(x))
    order = order[np.argsort(labels[order], kind="stable")]  # every class goes to both halves
    own, foreign = [], []
    for part in (0, 1):
        made, judged = order[part::2], order[1 - part :: 2]
        classes = np.unique(labels[made])
        if len(classes) < 2:
            return 1.0
        centres = _unit(np.stack([x[made][labels[made] == k].mean(axis=0) for k in classes]))
        own.append(_margins(x[judged] @ centres.T))
        foreign.append(_margins(y @ centres.T))
    base = float(np.median(np.concatenate(own)))
    return float(np.median(np.concatenate(foreign))) / base if base > 0 else 1.0


def _directions(features: np.ndarray) -> np.ndarray:
    return _unit(np.asarray(features, dtype=np.float64) - features.mean(axis=0))


def _unit(rows: np.ndarray) -> np.ndarray:
    return np.asarray(rows / np.maximum(np.linalg.norm(rows, axis=1, keepdims=True), 1e-12))


def _margins(cosines: np.ndarray) -> np.ndarray:
    ordered = np.sort(cosines, axis=1)
    return np.asarray(ordered[:, -1] - ordered[:, -2])


def judge(
    name: str,
    *,
    gap: float | None,
    affinity: float | None,
    together: float | None,
    votes: Mapping[str, Vote],
    reverse: Reverse | None,
    collapsed: tuple[str, ...],
) -> Alarm:
    """Keep the adapted model `name` only if nothing speaks against it and most validators credibly speak for it.

    gap: proxy A-distance between the domains, affinity: of the target with the source's classes; None where there is no
    source. together: the `consensus` of the adapted candidates on the target over theirs on the held-out source, None
    where there are too few. collapsed: names of classes that the adapted model no longer gives, or swallows, while
    source-only does not.
    """
    if gap is not None and gap < LEAST_GAP:
        return Alarm(
            False,
            f"the two domains can hardly be told apart (proxy A-distance {gap:.2f} of 2), so there is nothing to "
            "adapt to.",
        )
    if affinity is not None and affinity < LEAST_AFFINITY:
        text = (
            f"the target's pictures belong to the source's classes {affinity:.2f} times as clearly as the source's own "
            f"(below {LEAST_AFFINITY}): it may hold other classes, few of them, or something else altogether."
        )
        return Alarm(False, text, (f"Likely negative transfer: {text}",))
    if together is not None and together < LEAST_CONSENSUS:
        text = (
            f"the adapted candidates agree on the target {together:.2f} times as well as on the source (Cohen's "
            f"kappa; below {LEAST_CONSENSUS}): it may hold other classes than the source."
        )
        return Alarm(False, text, (f"Likely negative transfer: {text}",))
    if collapsed:
        names = ", ".join(collapsed[:4])
        text = f"{name} lets classes collapse ({names}) that source-only keeps."
        return Alarm(False, text, (f"Negative transfer: {text}",))
    if reverse is not None and reverse.kept < LEAST_REVERSE:
        text = (
            f"a head trained on {name}'s answers for the target reaches {reverse.adapted:.1%} on the source, whose own "
            f"head has {reverse.own:.1%}: the target's classes do not fit the source's."
        )
        return Alarm(False, text, (f"Negative transfer: {text}",))
    sides = {v: found.side for v, found in votes.items()}
    pro = [v for v, side in sides.items() if side == "adapted"]
    contra = [v for v, side in sides.items() if side == "source_only"]
    if len(pro) <= len(votes) / 2 or len(contra) >= len(pro):
        return Alarm(
            False,
            f"only {len(pro)} of {len(votes)} label-free validators credibly prefer {name}"
            + (f", and {', '.join(contra)} prefer{'s' if len(contra) == 1 else ''} source-only." if contra else "."),
        )
    against = f"; {', '.join(contra)} speak{'s' if len(contra) == 1 else ''} against it" if contra else ""
    return Alarm(True, f"{len(pro)} of {len(votes)} label-free validators credibly prefer it to source-only{against}.")


def _rows(view: DomainView, rows: torch.Tensor) -> DomainView:
    if len(view.features) == 0:
        return view
    pick = [None if t is None else t[rows] for t in (view.features, view.logits, view.labels)]
    assert pick[0] is not None
    return DomainView(pick[0], pick[1], pick[2], class_weights=view.class_weights)
