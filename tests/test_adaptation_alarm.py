"""The negative-transfer alarm: what keeps source-only, and the measures behind it."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from sklearn.metrics import cohen_kappa_score

from regraft.adaptation.alarm import (
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
)

FOR, AGAINST, OPEN = Vote(2.0, 1.0, 1.0), Vote(1.0, 2.0, 0.0), Vote(1.0, 1.0, 0.5)
SOUND: dict[str, Any] = {
    "gap": LEAST_GAP + 0.5,
    "affinity": LEAST_AFFINITY + 0.3,
    "together": LEAST_CONSENSUS + 0.1,
    "votes": {"a": FOR, "b": FOR, "c": OPEN},
    "reverse": Reverse(0.9, 0.5, 0.95, 0.2),
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
        ({"together": LEAST_CONSENSUS - 0.01}, "contradict each other", True),
        ({"collapsed": ("bee",)}, "bee", True),
        ({"reverse": Reverse(0.2 + 0.99 * LEAST_REVERSE * 0.75, 0.5, 0.95, 0.2)}, "do not fit", True),
        ({"votes": {"a": FOR, "b": OPEN, "c": OPEN}}, "only 1 of 3", False),
        ({"votes": {"a": FOR, "b": FOR, "c": AGAINST, "d": AGAINST, "e": FOR, "f": AGAINST}}, "c, d, f prefer", False),
    ],
)
def test_each_piece_of_evidence_alone_keeps_source_only(change: dict[str, Any], says: str, alarmed: bool) -> None:
    found = judge("MCC", **{**SOUND, **change})
    assert not found.keep_adapted
    assert says in found.why and bool(found.alarms) is alarmed


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


def test_agreement_and_its_vote() -> None:
    right, others = np.arange(40) % 3, [np.arange(40) % 3] * 2
    wrong = (right + (np.arange(40) < 20)) % 3
    assert agreement(wrong, others) == 0.5 and agreement(right, []) == 0.0
    found = agreement_vote(right, wrong, others)
    assert (found.adapted, found.control, found.side) == (1.0, 0.5, "adapted")
    assert agreement_vote(right, right, others).side == "open"


def test_affinity_tells_the_same_classes_from_others() -> None:
    rng = np.random.default_rng(0)
    centres = 6 * np.eye(8)[:4]
    labels = np.repeat(np.arange(4), 40)
    source = centres[labels] + rng.standard_normal((160, 8))
    same = 2 + centres[labels] + rng.standard_normal((160, 8))  # moved as a whole: each domain has its own mean
    other = 2 + (6 * np.eye(8)[4:])[labels] + rng.standard_normal((160, 8))
    assert class_affinity(source, labels, same) == pytest.approx(1, abs=0.15)
    assert class_affinity(source, labels, other) < LEAST_AFFINITY
