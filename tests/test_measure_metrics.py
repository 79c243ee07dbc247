"""Metrics and intervals against independent references."""

from __future__ import annotations

import warnings

import numpy as np
import pytest
from scipy.special import softmax
from sklearn.metrics import balanced_accuracy_score, f1_score, log_loss, roc_auc_score

from regraft.core.errors import DataError, UsageError
from regraft.measure import METRICS, Interval, bootstrap, paired_gain, score, summary, tsne, wilson
from regraft.measure.resampling import draws, prepared


def sample(n: int, k: int, seed: int = 0, skill: float = 1.5) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    labels = rng.integers(0, k, n)
    return softmax(rng.normal(size=(n, k)) + skill * np.eye(k)[labels], axis=1), labels


def reference_ece(probabilities: np.ndarray, labels: np.ndarray, bins: int = 15) -> float:
    """Guo et al. 2017, eq. 3, as a loop."""
    confidence, answer = probabilities.max(1), probabilities.argmax(1)
    total = 0.0
    for b in range(bins):
        inside = (confidence > b / bins) & (confidence <= (b + 1) / bins)
        if inside.any():
            total += inside.mean() * abs((answer == labels)[inside].mean() - confidence[inside].mean())
    return total


@pytest.mark.parametrize("k", [2, 5])
def test_scores_agree_with_references(k: int) -> None:
    p, y = sample(200, k)
    answer = p.argmax(1)
    assert score("accuracy", p, y) == (answer == y).mean()
    assert score("balanced_accuracy", p, y) == pytest.approx(balanced_accuracy_score(y, answer))
    assert score("macro_f1", p, y) == pytest.approx(f1_score(y, answer, average="macro"))
    assert score("nll", p, y) == pytest.approx(log_loss(y, p))
    assert score("ece", p, y) == pytest.approx(reference_ece(p, y))
    auc = roc_auc_score(y, p[:, 1]) if k == 2 else roc_auc_score(y, p, multi_class="ovr", average="macro")
    assert score("auc", p, y) == pytest.approx(auc)


def test_lost_classes_and_bad_numbers_neither_raise_nor_warn() -> None:
    p, y = sample(60, 4)
    kept = y < 2
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        for name in METRICS:
            assert np.isfinite(score(name, p[kept], y[kept]))
        assert np.isnan(score("auc", p[y == 1], y[y == 1]))
        assert np.isnan(score("accuracy", p[:0], y[:0]))
        assert np.isnan(score("accuracy", np.full_like(p, np.nan), y))
        assert np.isnan(bootstrap("auc", p[y == 1], y[y == 1]).low)


def test_unknown_names_and_wrong_shapes_are_sentences() -> None:
    p, y = sample(10, 2)
    with pytest.raises(UsageError, match="Did you mean 'accuracy'"):
        score("acuracy", p, y)
    with pytest.raises(UsageError, match="accuracy"):
        bootstrap("f2", p, y)
    with pytest.raises(DataError, match=r"\(N, K\)"):
        score("accuracy", p, y[:5])
    with pytest.raises(DataError, match="Labels run"):
        score("accuracy", p, y - 1)


def test_summary_counts_and_marks_what_has_no_meaning() -> None:
    p = np.array([[0.9, 0.1, 0.0], [0.6, 0.4, 0.0], [0.2, 0.8, 0.0], [0.7, 0.3, 0.0]])
    out = summary(p, np.array([0, 1, 1, 0]), ["a", "b", "c"])
    assert out["confusion"] == [[2, 0, 0], [1, 1, 0], [0, 0, 0]]
    assert out["accuracy"] == 0.75
    assert out["per_class"][0] == {
        "class": "a",
        "n": 2,
        "precision": pytest.approx(2 / 3),
        "recall": 1.0,
        "f1": 0.8,
    }
    assert out["per_class"][2] == {"class": "c", "n": 0, "precision": None, "recall": None, "f1": None}
    assert summary(p[:0], np.zeros(0, int), ["a", "b", "c"])["accuracy"] is None


@pytest.mark.parametrize("name", list(METRICS))
@pytest.mark.parametrize("k", [2, 4])
def test_resampled_metrics_equal_the_metric_of_the_resample(name: str, k: int) -> None:
    p, y = sample(40, k)
    p = np.round(p, 2)  # ties
    p[:, 0] += 1 - p.sum(1)
    counts = next(draws(40, 15, None, seed=3))
    assert (counts.sum(1) == 40).all()
    for row, value in zip(counts, prepared(name, p, y)(counts), strict=True):
        index = np.repeat(np.arange(40), row.astype(int))
        assert value == pytest.approx(score(name, p[index], y[index]), abs=1e-12)


def test_bootstrap_agrees_with_a_plain_loop_and_repeats() -> None:
    p, y = sample(150, 2)
    got = bootstrap("accuracy", p, y, resamples=4000, seed=1)
    rng = np.random.default_rng(99)
    right = p.argmax(1) == y
    loop = [right[rng.integers(0, 150, 150)].mean() for _ in range(4000)]
    assert (got.low, got.high) == pytest.approx(np.quantile(loop, [0.025, 0.975]), abs=0.012)
    assert got == bootstrap("accuracy", p, y, resamples=4000, seed=1)
    assert got.value == right.mean()
    wide, narrow = bootstrap("accuracy", p, y, level=0.99), bootstrap("accuracy", p, y, level=0.8)
    assert wide.low < narrow.low
    assert wide.high > narrow.high


def test_interval_covers_the_truth_about_as_often_as_it_says() -> None:
    rng = np.random.default_rng(0)
    hits = 0
    for trial in range(300):
        right = rng.random(80) < 0.8
        p = np.where(right[:, None], [1.0, 0.0], [0.0, 1.0])
        got = bootstrap("accuracy", p, np.zeros(80, int), resamples=400, seed=trial)
        hits += got.low <= 0.8 <= got.high
    assert 0.90 <= hits / 300 <= 0.985


def test_groups_widen_the_interval() -> None:
    p, y = sample(20, 2, skill=1.0)
    p, y, groups = np.repeat(p, 10, axis=0), np.repeat(y, 10), np.repeat([f"p{i}" for i in range(20)], 10)
    single, grouped = bootstrap("accuracy", p, y), bootstrap("accuracy", p, y, groups=groups)
    assert grouped.high - grouped.low > 2 * (single.high - single.low)
    gap = paired_gain("accuracy", p, 1 - p, y, groups=groups)
    plain = paired_gain("accuracy", p, 1 - p, y)
    assert gap.high - gap.low > 2 * (plain.high - plain.low)


@pytest.mark.parametrize("name", ["accuracy", "balanced_accuracy", "macro_f1", "auc"])
def test_a_perfect_score_is_not_certain(name: str) -> None:
    y = np.arange(40) % 2
    p = np.where(np.eye(2)[y] > 0, 0.9, 0.1)
    got = bootstrap(name, p, y)
    n = 20 if name == "auc" else 40
    assert got.value == got.high == 1
    assert got.low == pytest.approx(n / (n + 1.959964**2), abs=1e-6)  # Wilson's lower bound for n of n


def test_wilson_against_the_quadratic_it_solves() -> None:
    for hits, n in ((3, 20), (0, 7), (50, 60)):
        z = 1.959963984540054
        # |p − hits/n|² = z² p (1 − p) / n
        roots = np.sort(np.roots([1 + z * z / n, -(2 * hits / n + z * z / n), (hits / n) ** 2]).real)
        assert wilson(hits, n) == pytest.approx(tuple(roots), abs=1e-9)


def test_paired_gain_uses_the_pairing() -> None:
    p, y = sample(300, 3, skill=1.5)
    q = p.copy()
    worse = np.flatnonzero(p.argmax(1) == y)[:20]
    q[worse] = np.roll(q[worse], 1, axis=1)
    got = paired_gain("accuracy", p, q, y)
    assert got.value == pytest.approx(20 / 300)
    assert 0 < got.low < got.value < got.high
    a, b = bootstrap("accuracy", p, y), bootstrap("accuracy", q, y)
    assert got.high - got.low < 0.7 * ((a.high - a.low) + (b.high - b.low)) / 2
    mirrored = paired_gain("accuracy", q, p, y)
    assert (mirrored.low, mirrored.high) == pytest.approx((-got.high, -got.low))


def test_paired_gain_of_few_disagreements_claims_nothing() -> None:
    y = np.zeros(20, int)
    good = np.tile([0.9, 0.1], (20, 1))
    bad = good.copy()
    bad[:4] = [0.1, 0.9]  # McNemar's exact test: p = 0.125
    got = paired_gain("accuracy", good, bad, y)
    assert got.value == pytest.approx(0.2)
    assert got.low < 0 < got.high
    assert paired_gain("accuracy", good, good, y) == Interval(0.0, 0.0, 0.0)
    twin = np.tile([0.8, 0.2], (20, 1))
    assert paired_gain("accuracy", good, twin, y).low < 0 < paired_gain("accuracy", good, twin, y).high


def test_interval_json_has_no_nan() -> None:
    assert Interval(0.5, float("nan"), 1.0).to_json() == {"value": 0.5, "low": None, "high": 1.0}


def test_tsne_keeps_clusters_apart_and_takes_any_size() -> None:
    rng = np.random.default_rng(0)
    group = np.arange(80) % 2
    features = rng.normal(size=(80, 60)) + 6 * group[:, None]
    index, xy = tsne(features, limit=70)
    assert len(index) == 70
    assert (np.diff(index) > 0).all()
    assert xy.dtype == np.float32
    assert np.abs(xy).max() <= 1
    distance = np.linalg.norm(xy[:, None] - xy[None], axis=2) + np.eye(70) * 9
    assert (group[index][distance.argmin(1)] == group[index]).mean() > 0.95
    assert np.array_equal(xy, tsne(features, limit=70)[1])
    for n in (0, 1, 2, 4, 6):
        assert tsne(features[:n])[1].shape == (n, 2)
    assert np.isfinite(tsne(np.ones((9, 3)))[1]).all()
    with pytest.raises(DataError):
        tsne(features[0])
