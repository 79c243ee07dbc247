"""The probe that begins with the pretrained classifier's own rows: which rows, how far it is pulled, and when not."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.optimize import minimize

from regraft.strategies import KnownClasses, fit_probe
from regraft.strategies.heads import probe
from regraft.strategies.heads.known_classes import assigned


def world(n: int, d: int, sources: int = 12, spread: float = 1.0) -> tuple[np.ndarray, np.ndarray, KnownClasses]:
    """Samples of two classes, which are the sources 7 and 3 of a classifier that tells them apart well."""
    draw = np.random.default_rng(1)
    weight = draw.normal(size=(sources, d))
    labels = np.arange(n) % 2
    x = weight[np.array([7, 3])[labels]] * 2.0 / np.sqrt(d) + spread * draw.normal(size=(n, d)) + 3
    bias = -weight @ np.full(d, 3.0)
    return x.astype(np.float32), labels, KnownClasses(weight.astype(np.float32), bias.astype(np.float32))


def test_each_class_gets_the_source_that_says_most_of_it() -> None:
    x, labels, known = world(60, 40)
    found = assigned(known.logits(x), labels, 2)
    assert found is not None and found.tolist() == [7, 3]
    turned = assigned(known.logits(x), 1 - labels, 2)
    assert turned is not None and turned.tolist() == [3, 7]


def test_no_two_classes_get_the_same_source() -> None:
    """Both classes make source 0 speak; the one of which it says more gets it, and the other the next best."""
    logits = np.array([[5.0, 0, 0], [5.0, 0, 0], [4.0, 3.5, 0], [4.0, 3.5, 0]])
    found = assigned(logits, np.array([0, 0, 1, 1]), 2)
    assert found is not None and found.tolist() == [0, 1]


def test_too_few_sources_or_a_class_without_samples_is_none() -> None:
    assert assigned(np.zeros((4, 1)), np.array([0, 1, 0, 1]), 2) is None
    assert assigned(np.zeros((4, 9)), np.array([0, 1, 0, 1]), 3) is None


@pytest.mark.parametrize(("n", "d"), [(80, 10), (24, 60)])  # more samples than coordinates, and fewer
def test_it_minimises_cross_entropy_around_the_known_rows(n: int, d: int) -> None:
    """Against an independent solution over raw coordinates, bias apart, up to the head's one calibrating factor."""
    x, labels, known = world(n, d)
    folds, penalty = np.arange(n) // 2 % 4, 0.5
    head = fit_probe(x, labels, folds, 2, settings=(("known classes", penalty),), known=known)
    assert head.kind == "known classes"
    sources = list(head.source_classes)

    centre = x.mean(axis=0, dtype=np.float64)
    z = (x - centre) / np.sqrt(np.square(x - centre, dtype=np.float64).mean())
    prior = known.logits(x)[:, sources]

    def loss(flat: np.ndarray) -> float:
        both = flat.reshape(2, d + 1)
        logits = prior + z @ both[:, :-1].T + both[:, -1]
        logits = logits - logits.max(axis=1, keepdims=True)
        chosen = logits[np.arange(n), labels] - np.log(np.exp(logits).sum(axis=1))
        return float(-chosen.mean() + penalty / 2 * np.square(both[:, :-1]).sum())

    found = minimize(loss, np.zeros(2 * (d + 1)), method="L-BFGS-B", options={"maxiter": 400}).x.reshape(2, d + 1)
    # New samples too: what training samples do not span comes from the known rows alone.
    fresh = np.random.default_rng(5).normal(size=(30, d)).astype(np.float32) + 3
    for some in (x, fresh):
        scale = np.sqrt(np.square(x - centre, dtype=np.float64).mean())
        expected = known.logits(some)[:, sources] + (some - centre) / scale @ found[:, :-1].T + found[:, -1]
        ours = head.logits(some)
        ours, expected = ours[:, 1] - ours[:, 0], expected[:, 1] - expected[:, 0]
        factor = float(ours @ expected / (expected @ expected))
        np.testing.assert_allclose(ours, factor * expected, atol=2e-2 * float(np.abs(ours).max()))


def test_it_is_chosen_where_the_classes_are_known_and_serves_better() -> None:
    x, labels, known = world(40, 60, spread=0.7)
    folds = np.arange(40) // 2 % 5
    fresh, truth, _ = world(400, 60, spread=0.7)
    alone, pulled = (fit_probe(x, labels, folds, 2, known=k) for k in (None, known))
    assert alone.kind != "known classes" and pulled.kind == "known classes"
    right = [float((head.logits(fresh).argmax(axis=1) == truth).mean()) for head in (alone, pulled)]
    assert right[1] > right[0] + 0.02


def test_it_is_left_where_the_classifier_knows_nothing_of_them() -> None:
    x, labels, _ = world(60, 20)
    draw = np.random.default_rng(9)
    strange = KnownClasses(40 * draw.normal(size=(5, 20)).astype(np.float32), np.zeros(5, np.float32))
    assert fit_probe(x, labels, np.arange(60) // 2 % 5, 2, known=strange).kind != "known classes"


def test_a_fold_is_not_judged_by_a_source_that_its_own_labels_picked(monkeypatch: pytest.MonkeyPatch) -> None:
    x, labels, known = world(40, 20)
    folds = np.arange(40) // 2 % 4
    looked: list[np.ndarray] = []

    def noting(logits: np.ndarray, labels: np.ndarray, n_classes: int) -> np.ndarray | None:
        looked.append(logits)
        return assigned(logits, labels, n_classes)

    monkeypatch.setattr(probe, "assigned", noting)
    head = fit_probe(x, labels, folds, 2, settings=(("known classes", 10.0),), known=known)
    whole = known.logits(x)
    parts = [np.delete(whole, np.flatnonzero(folds == fold), axis=0) for fold in range(4)]
    # For the figures each fold's own training part and no more; everything for the head itself, twice.
    assert [len(part) for part in looked] == [40, 30, 30, 30, 30, 40]
    assert all(np.array_equal(a, b) for a, b in zip(looked[1:5], parts, strict=True))
    assert head.source_classes == (7, 3)
