"""The negative-transfer alarm: what keeps source-only, and the measures behind it."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from sklearn.metrics import cohen_kappa_score

from regraft.adaptation.evidence.alarm import (
    LEAST_AFFINITY,
    LEAST_CONSENSUS,
    LEAST_GAP,
    LEAST_REVERSE,
    Reverse,
    Vote,
    agreement,
    agreement_vote,
    class_affinity,
    consensus,
    judge,
    vote,
)
from regraft.core.types import DomainView

K = 3

FOR, AGAINST, OPEN = Vote(2.0, 1.0, 1.0), Vote(1.0, 2.0, 0.0), Vote(1.0, 1.0, 0.5)
SOUND: dict[str, Any] = {
    "gap": LEAST_GAP + 0.5,
    "affinity": LEAST_AFFINITY + 0.3,
    "together": LEAST_CONSENSUS + 0.1,
    "votes": {"a": FOR, "b": FOR, "c": OPEN},
    "reverse": Reverse(0.9, 0.5, 0.95, 0.2, 200),
    "collapsed": (),
}


def test_sound_evidence_keeps_the_adapted_model() -> None:
    found = judge("MCC", **SOUND)
    assert found.keep_adapted and not found.alarms and "2 of 3" in found.why


@pytest.mark.parametrize(
    ("change", "says", "alarmed"),
    [
        ({"gap": LEAST_GAP - 0.01}, "hardly be told apart", False),
        ({"affinity": LEAST_AFFINITY - 0.01}, "as clearly as", True),
        ({"together": LEAST_CONSENSUS - 0.01}, "times as well as on the source", True),
        ({"collapsed": ("bee",)}, "bee", True),
        ({"reverse": Reverse(0.2 + 0.99 * LEAST_REVERSE * 0.75, 0.5, 0.95, 0.2, 100_000)}, "do not fit", True),
        ({"votes": {"a": FOR, "b": OPEN, "c": OPEN}}, "only 1 of 3", False),
        ({"votes": {"a": FOR, "b": FOR, "c": AGAINST, "d": AGAINST, "e": FOR, "f": AGAINST}}, "c, d, f prefer", False),
    ],
)
def test_each_piece_of_evidence_alone_keeps_source_only(change: dict[str, Any], says: str, alarmed: bool) -> None:
    found = judge("MCC", **{**SOUND, **change})
    assert not found.keep_adapted
    assert says in found.why and bool(found.alarms) is alarmed


def test_few_held_out_pictures_do_not_tell_a_slightly_weaker_reverse_head() -> None:
    low = 0.2 + 0.97 * LEAST_REVERSE * 0.75
    assert judge("MCC", **{**SOUND, "reverse": Reverse(low, 0.5, 0.95, 0.2, 60)}).keep_adapted
    assert not judge("MCC", **{**SOUND, "reverse": Reverse(low, 0.5, 0.95, 0.2, 6000)}).keep_adapted


def test_what_cannot_be_measured_does_not_speak() -> None:
    assert judge("MCC", **{**SOUND, "gap": None, "affinity": None, "together": None, "reverse": None}).keep_adapted


def test_consensus_is_the_mean_kappa_of_all_pairs() -> None:
    rng = np.random.default_rng(0)
    truth = rng.integers(0, 4, 200)
    answers = [np.where(rng.random(200) < 0.7, truth, rng.integers(0, 4, 200)) for _ in range(3)]
    pairs = [cohen_kappa_score(answers[i], answers[j]) for i, j in ((0, 1), (0, 2), (1, 2))]
    assert consensus(answers) == pytest.approx(np.mean(pairs), abs=1e-12)
    assert consensus(answers[:2]) is None
    assert consensus([np.zeros(9, int)] * 3) == 1.0


class Confidence:
    """Mean largest probability on the target: a validator that any sharpening pleases."""

    uses_target_labels = False

    def score(self, source: DomainView, target: DomainView) -> float:
        assert target.logits is not None
        return float(target.logits.softmax(1).max(1).values.mean())


def test_a_vote_is_credible_only_where_the_difference_is() -> None:
    draw = torch.Generator().manual_seed(0)
    logits = torch.randn(200, K, generator=draw)
    empty = DomainView(torch.zeros(0, 4))
    view = DomainView(torch.zeros(200, 4), logits)
    sharper = DomainView(torch.zeros(200, 4), 3 * logits)
    other = DomainView(torch.zeros(200, 4), torch.randn(200, K, generator=draw))
    assert vote(Confidence(), (empty, sharper), (empty, view)).side == "adapted"
    assert vote(Confidence(), (empty, view), (empty, sharper)).side == "source_only"
    assert vote(Confidence(), (empty, view), (empty, view)).side == "open"
    assert 0.0 < vote(Confidence(), (empty, other), (empty, view)).share < 1.0


def test_agreement_speaks_for_the_model_that_answers_as_the_others_do() -> None:
    draw = np.random.default_rng(0)
    truth = draw.integers(0, K, 200)

    def model(errors: int) -> np.ndarray:
        answers = truth.copy()
        answers[draw.permutation(200)[:errors]] = draw.integers(0, K, errors)
        return answers

    others = [model(30), model(30)]
    good, bad = model(20), model(120)
    assert agreement(good, others) == pytest.approx(np.mean([(good == o).mean() for o in others]))
    assert agreement_vote(good, bad, others).side == "adapted"
    assert agreement_vote(bad, good, others).side == "source_only"
    assert agreement(good, []) == 0.0


def test_affinity_is_high_for_moved_classes_and_low_for_others() -> None:
    draw = np.random.default_rng(0)
    centres = draw.normal(size=(6, 40)) * 2
    labels = np.repeat(np.arange(3), 40)
    source = centres[labels] + draw.normal(size=(120, 40))
    moved = centres[labels] + draw.normal(size=(120, 40)) + 5
    foreign = centres[labels + 3] + draw.normal(size=(120, 40)) + 5
    assert class_affinity(source, labels, moved) == pytest.approx(1.0, abs=0.15)
    assert class_affinity(source, labels, foreign) < 0.5
    assert class_affinity(source[:3], np.zeros(3, dtype=np.int64), moved) == 1.0
