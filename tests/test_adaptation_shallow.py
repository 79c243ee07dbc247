"""Shallow adaptation against closed forms, optimal transport against an exact solver, label shift with known priors."""

from __future__ import annotations

import numpy as np
import pytest
import scipy.linalg
from numpy.typing import NDArray
from scipy.optimize import linear_sum_assignment
from scipy.spatial.distance import cdist
from scipy.special import softmax
from sklearn.decomposition import PCA
from sklearn.linear_model import LogisticRegression, Ridge

from regraft.adaptation.losses.transport import class_transport, sinkhorn
from regraft.adaptation.maps.label_shift import bbse, em_prior, importance_weights, prior_offset, reweigh
from regraft.adaptation.maps.shallow import CORAL, OT, SA, TCA, Affine, Standardise, principal_directions, shallow
from regraft.core.errors import DataError, UsageError
from regraft.strategies.heads.probe import fit_probe

Array = NDArray[np.float64]
Indices = NDArray[np.int64]


def domains(n: int, m: int, d: int, *, seed: int = 0) -> tuple[Array, Indices, Array, Indices]:
    """Three classes; the target is turned, stretched and moved, far from the origin."""
    draw = np.random.default_rng(seed)
    centres = 3 * draw.normal(size=(3, d))
    turn = np.linalg.qr(draw.normal(size=(d, d)))[0] * np.geomspace(0.5, 2, d)
    nearly = 0.7 * np.eye(d) + 0.3 * turn
    labels, hidden = np.arange(n) % 3, np.arange(m) % 3
    source = centres[labels] + draw.normal(size=(n, d)) + 20
    target = (centres[hidden] + draw.normal(size=(m, d))) @ nearly + 20 + draw.normal(size=d)
    return source, labels, target, hidden


@pytest.mark.parametrize("shape", [(60, 45, 6), (25, 30, 70)])  # more samples than coordinates, and fewer
@pytest.mark.parametrize("name", shallow.names())
def test_every_target_map_folds_into_the_head(name: str, shape: tuple[int, int, int]) -> None:
    source, labels, target, _ = domains(*shape)
    method = shallow.get(name)()
    assert method.paper
    mapped = method.fit(source.astype(np.float32), labels, target.astype(np.float32))
    assert isinstance(mapped.map_source, Affine)
    assert isinstance(mapped.map_target, Affine)
    np.testing.assert_allclose(mapped.map_source(source), mapped.source, rtol=1e-3, atol=1e-3)  # float32 came in
    head = fit_probe(mapped.source.astype(np.float32), labels, np.arange(len(labels)) % 3, 3)
    weight, bias = mapped.fold(head.weight, head.bias)
    assert weight.shape == (3, source.shape[1])
    later = target[:7] + 0.5  # rows that were not fitted
    expected = mapped.map_target(later) @ head.weight.T.astype(np.float64) + head.bias
    np.testing.assert_allclose(later @ weight.T + bias, expected, rtol=1e-7, atol=1e-7)


@pytest.mark.parametrize("name", shallow.names())
def test_degenerate_features_stay_finite_and_wrong_ones_are_told(name: str) -> None:
    method = shallow.get(name)()
    same = np.ones((5, 4))
    mapped = method.fit(same, np.arange(5) % 2, 2 * same)
    assert np.isfinite(mapped.source).all()
    assert np.isfinite(mapped.map_target(3 * same)).all()
    with pytest.raises(DataError, match="finite"):
        method.fit(same * np.nan, np.arange(5) % 2, same)
    with pytest.raises(DataError, match="2 rows"):
        method.fit(same, np.arange(5) % 2, same[:, :3])
    with pytest.raises(DataError, match="2 rows"):
        method.fit(same[:1], np.zeros(1, dtype=np.int64), same)


def test_standardise_gives_both_domains_mean_0_and_deviation_1() -> None:
    source, labels, target, _ = domains(80, 50, 5)
    mapped = Standardise().fit(source, labels, target)
    for z in (mapped.source, mapped.map_target(target)):
        np.testing.assert_allclose(z.mean(axis=0), 0, atol=1e-10)
        np.testing.assert_allclose(z.std(axis=0), 1, atol=1e-10)


def test_standardise_does_not_blow_up_a_coordinate_that_was_silent() -> None:
    source, labels, target, _ = domains(80, 50, 5)
    target[:, 2] = 7.0
    mapped = Standardise().fit(source, labels, target)
    spread = source[:, 2].std()
    later = target[:1].copy()
    later[0, 2] += spread
    assert mapped.map_target(later)[0, 2] == pytest.approx(10.0)  # a tenth of the source's deviation


@pytest.mark.parametrize("shape", [(200, 150, 8), (15, 20, 40)])
def test_coral_is_the_paper_s_formula(shape: tuple[int, int, int]) -> None:
    source, labels, target, _ = domains(*shape)
    d = shape[2]
    mapped = CORAL(identity=0.5).fit(source, labels, target)
    unit = 0.5 * (source.var(axis=0).mean() + target.var(axis=0).mean())
    c_source = np.cov(source.T) + 0.5 * unit * np.eye(d)
    c_target = np.cov(target.T) + 0.5 * unit * np.eye(d)
    whiten = scipy.linalg.inv(scipy.linalg.sqrtm(c_source))
    expected = (source - source.mean(0)) @ whiten @ scipy.linalg.sqrtm(c_target) + target.mean(0)
    np.testing.assert_allclose(mapped.source, expected, atol=1e-6)
    np.testing.assert_array_equal(mapped.map_target(target), target)


def test_coral_adds_what_white_noise_would_show() -> None:
    source, labels, target, _ = domains(300, 200, 8)
    largest = np.linalg.eigvalsh(np.cov(np.random.default_rng(0).normal(size=(200, 800)).T)).max()
    assert (1 + np.sqrt(800 / 200)) ** 2 == pytest.approx(largest, rel=0.03)
    told = CORAL(identity=(1 + np.sqrt(8 / 200)) ** 2).fit(source, labels, target)
    np.testing.assert_allclose(CORAL().fit(source, labels, target).source, told.source)


def test_coral_gives_the_source_the_target_s_covariance() -> None:
    source, labels, target, _ = domains(300, 200, 8)
    mapped = CORAL(identity=1e-8).fit(source, labels, target)
    np.testing.assert_allclose(np.cov(mapped.source.T), np.cov(target.T), atol=1e-5)
    np.testing.assert_allclose(mapped.source.mean(axis=0), target.mean(axis=0), atol=1e-9)
    assert np.abs(np.cov(source.T) - np.cov(target.T)).max() > 1


@pytest.mark.parametrize("shape", [(60, 45, 9), (12, 14, 30)])
def test_subspace_alignment_is_scikit_learn_s_pca_and_the_paper_s_product(shape: tuple[int, int, int]) -> None:
    source, labels, target, _ = domains(*shape)
    mapped = SA(dimensions=4).fit(source, labels, target)
    p, q = PCA(4).fit(source), PCA(4).fit(target)
    aligned = p.transform(source) @ (p.components_ @ q.components_.T)
    # A component's sign is free, the same for both domains.
    found = mapped.map_target(target)
    sign = np.sign((found * q.transform(target)).sum(axis=0))
    np.testing.assert_allclose(found * sign, q.transform(target), atol=1e-6)
    np.testing.assert_allclose(mapped.source * sign, aligned, atol=1e-6)


def test_subspace_alignment_keeps_no_more_than_both_domains_span() -> None:
    source, labels, target, _ = domains(30, 6, 20)
    mapped = SA(dimensions=80).fit(source, labels, target)
    assert mapped.source.shape == (30, 5)
    rows, squares = principal_directions(target - target.mean(axis=0))
    np.testing.assert_allclose(rows.T @ rows, np.eye(5), atol=1e-9)
    assert squares.sum() == pytest.approx(((target - target.mean(axis=0)) ** 2).sum())


@pytest.mark.parametrize("shape", [(30, 25, 6), (14, 12, 40)])
def test_tca_solves_the_eigenproblem_of_the_paper(shape: tuple[int, int, int]) -> None:
    source, labels, target, _ = domains(*shape)
    n, m = len(source), len(target)
    kept, penalty = 3, 1e-2
    mapped = TCA(dimensions=kept, penalty=penalty).fit(source, labels, target)
    rows = np.concatenate([source, target])
    rows = rows - rows.mean(axis=0)
    kernel = rows @ rows.T / np.square(rows).sum(axis=1).mean()
    e = np.r_[np.full(n, 1 / n), np.full(m, -1 / m)]
    centring = np.eye(n + m) - 1 / (n + m)
    left = kernel @ np.outer(e, e) @ kernel + penalty * (n + m) * np.eye(n + m)
    values, vectors = scipy.linalg.eig(np.linalg.solve(left, kernel @ centring @ kernel))
    order = np.argsort(-values.real)[:kept]
    expected = kernel @ vectors[:, order].real
    found = np.concatenate([mapped.source, mapped.map_target(target)])
    for ours, theirs in zip(found.T, expected.T, strict=True):
        assert abs(np.corrcoef(ours, theirs)[0, 1]) == pytest.approx(1, abs=1e-6)


def test_tca_brings_the_means_together_and_keeps_pca_s_proportions() -> None:
    source, labels, target, _ = domains(90, 60, 12)
    target = target + 4

    def apart(x: Array, y: Array) -> float:
        both = np.concatenate([x, y])
        return float(np.square(x.mean(0) - y.mean(0)).sum() / both.var(axis=0).sum())

    mapped = TCA(dimensions=6, penalty=1e-6).fit(source, labels, target)
    assert apart(mapped.source, mapped.map_target(target)) < 1e-3 * apart(source, target)
    # Without a gap between the means it is PCA, each component with PCA's spread.
    target = target - target.mean(0) + source.mean(0)
    mapped = TCA(dimensions=3).fit(source, labels, target)
    rows = np.concatenate([source, target])
    expected = PCA(3).fit_transform(rows)
    found = np.concatenate([mapped.source, mapped.map_target(target)])
    np.testing.assert_allclose(found.std(0) / found.std(0)[0], expected.std(0) / expected.std(0)[0], rtol=1e-6)


REPAIRED = {
    "move": ("standardise", "CORAL", "SA", "OT"),
    "stretch": ("standardise", "CORAL", "OT"),
    "move one coordinate": tuple(shallow.names()),
}


@pytest.mark.parametrize("shift", REPAIRED)
def test_a_method_repairs_the_shift_it_is_made_for(shift: str) -> None:
    draw = np.random.default_rng(3)
    centres = 4 * np.concatenate([np.eye(3), -np.eye(3)])  # equal spread whichever way one looks
    labels = np.arange(180) % 6
    source, target = (centres[labels] + 0.5 * draw.normal(size=(180, 3)) for _ in range(2))
    # A fourth coordinate that says what the first one says: TCA may give it up.
    source, target = (np.column_stack([x, x[:, 0] + 0.5 * draw.normal(size=180)]) for x in (source, target))
    by, plus = {
        "move": ([1, 1, 1, 1], [6, -6, 4, 4]),
        "stretch": ([6, 0.2, 1, 0.2], [0, 0, 0, 0]),
        "move one coordinate": ([1, 1, 1, 1], [0, 0, 0, 8]),
    }[shift]
    target = target * np.array(by) + np.array(plus)
    before = LogisticRegression(max_iter=2000).fit(source, labels).score(target, labels)
    assert before < 0.85
    for name in REPAIRED[shift]:
        mapped = shallow.get(name)().fit(source, labels, target)
        head = LogisticRegression(max_iter=2000).fit(mapped.source, labels)
        assert head.score(mapped.map_target(target), labels) > before + 0.08, name


def test_sinkhorn_has_uniform_marginals() -> None:
    draw = np.random.default_rng(0)
    cost = cdist(draw.normal(size=(40, 3)), draw.normal(size=(25, 3)) + 1, "sqeuclidean")
    for epsilon in (10.0, 0.3, 0.1):
        f, g = sinkhorn(cost, epsilon, tolerance=1e-7, rounds=2000)
        plan = np.exp((f[:, None] + g - cost) / epsilon)
        np.testing.assert_allclose(plan.sum(axis=0), 1 / 25, rtol=1e-9)
        np.testing.assert_allclose(plan.sum(axis=1), 1 / 40, atol=1e-7)


def test_little_entropy_without_classes_is_the_exact_assignment() -> None:
    draw = np.random.default_rng(1)
    x, y = draw.normal(size=(9, 2)), draw.normal(size=(9, 2)) + 3
    cost = cdist(x, y, "sqeuclidean")
    rows, columns = linear_sum_assignment(cost)
    for plan in (
        class_transport(cost, np.arange(9), 2e-4 * float(np.median(cost)), 0.0),
        class_transport(cost, np.zeros(9, dtype=np.int64), 2e-4 * float(np.median(cost)), 1.0),  # one class: no choice
    ):
        np.testing.assert_array_equal(plan.argmax(axis=1), columns)
        np.testing.assert_allclose(plan[rows, columns], 1 / 9, atol=1e-3)
        assert (plan * cost).sum() == pytest.approx(cost[rows, columns].mean(), rel=1e-3)


def test_class_regularisation_keeps_a_target_row_s_mass_in_one_class() -> None:
    # Two target clusters; the source classes overlap so that distance alone mixes them.
    draw = np.random.default_rng(0)
    labels, hidden = np.arange(60) % 2, np.arange(40) % 2
    x = 1.5 * np.eye(2)[labels] + draw.normal(size=(60, 2))
    y = 6 * np.eye(2)[hidden] + 0.3 * draw.normal(size=(40, 2))
    cost = cdist(x, y, "sqeuclidean") / float(np.median(cdist(x, y, "sqeuclidean")))

    def purity(weight: float) -> float:
        plan = class_transport(cost, labels + 7, 0.05, weight)  # classes need no numbers from 0
        np.testing.assert_allclose(plan.sum(axis=0), 1 / 40, rtol=1e-9)
        np.testing.assert_allclose(plan.sum(axis=1).sum(), 1)
        of_class = plan[labels == 0].sum(axis=0) * 40
        return float(np.maximum(of_class, 1 - of_class).mean())

    assert purity(0.0) < 0.9
    assert purity(0.5) > 0.99


def test_much_entropy_without_classes_sends_every_row_to_the_target_s_mean() -> None:
    source, labels, target, _ = domains(20, 30, 4)
    mapped = OT(entropy=1e5, class_weight=0).fit(source, labels, target)
    np.testing.assert_allclose(mapped.source, np.tile(target.mean(0), (20, 1)), atol=1e-2)


@pytest.mark.parametrize("shape", [(40, 30, 4), (20, 30, 50)])
def test_the_affine_map_is_ridge_regression_on_the_plan_s_barycentres(shape: tuple[int, int, int]) -> None:
    source, labels, target, _ = domains(*shape)
    cost = cdist(source, target, "sqeuclidean")
    cost = cost / np.median(cost)
    plan = class_transport(cost, labels, 0.2, 0.5)
    images = plan @ target / plan.sum(axis=1, keepdims=True)
    alpha = 0.1 * np.square(source - source.mean(0)).sum(axis=1).mean()
    model = Ridge(alpha=alpha, solver="svd").fit(source, images)
    mapped = OT().fit(source, labels, target)
    np.testing.assert_allclose(mapped.map_source(source + 1), model.predict(source + 1), rtol=1e-7)
    some = OT(rows=15, seed=2).fit(source, labels, target)
    assert some.source.shape == source.shape
    assert np.abs(some.source - mapped.source).max() > 1e-3


def test_options_without_meaning_are_refused() -> None:
    for make in (
        lambda: CORAL(identity=0),
        lambda: SA(dimensions=0),
        lambda: TCA(penalty=0),
        lambda: OT(entropy=0),
        lambda: OT(rows=1),
        lambda: OT(class_weight=-1),
        lambda: OT(ridge=0),
    ):
        with pytest.raises(UsageError):
            make()


def shifted(n: int, prior: Array, seed: int) -> tuple[Array, Indices]:
    """Calibrated probabilities under a uniform prior, on samples of another one: x | y is Gaussian, unit variance."""
    draw = np.random.default_rng(seed)
    labels = draw.choice(len(prior), n, p=prior)
    x = 1.5 * np.eye(len(prior))[labels] + draw.normal(size=(n, len(prior)))
    return softmax(1.5 * x, axis=1), labels


UNIFORM, SKEWED = np.full(4, 0.25), np.array([0.6, 0.25, 0.15, 0.0])


@pytest.mark.parametrize("soft", [False, True])
def test_bbse_recovers_a_known_prior(soft: bool) -> None:
    source, labels = shifted(20_000, UNIFORM, 0)
    target, hidden = shifted(20_000, SKEWED, 1)
    found = bbse(source, labels, target, soft=soft)
    np.testing.assert_allclose(found, SKEWED, atol=0.03)
    assert found.min() >= 0
    assert found.sum() == pytest.approx(1)
    counted = np.bincount(target.argmax(1), minlength=4) / len(hidden)
    assert np.abs(counted - SKEWED).max() > 0.1  # counting answers would not have done


def test_bbse_is_the_inverse_of_the_confusion_matrix_where_that_is_a_prior() -> None:
    labels = np.repeat([0, 1], 10)
    answered = np.r_[np.zeros(8), np.ones(2), np.zeros(3), np.ones(7)].astype(int)
    target = np.eye(2)[np.repeat([0, 1], [13, 7])]  # 0.8 q + 0.3 (1 − q) = 0.65
    np.testing.assert_allclose(bbse(np.eye(2)[answered], labels, target), [0.7, 0.3], atol=1e-6)


def test_em_finds_the_prior_and_its_fixed_point() -> None:
    target, _ = shifted(20_000, SKEWED, 2)
    found = em_prior(target, UNIFORM)
    np.testing.assert_allclose(found, SKEWED, atol=0.02)
    weighted = target * (found / UNIFORM)
    np.testing.assert_allclose((weighted / weighted.sum(1, keepdims=True)).mean(0), found, atol=1e-6)


def test_probabilities_and_logits_change_alike_and_better() -> None:
    target, hidden = shifted(5000, SKEWED, 3)
    prior = np.array([0.59, 0.25, 0.15, 0.01])
    changed = reweigh(target, UNIFORM, prior)
    np.testing.assert_allclose(softmax(np.log(target) + prior_offset(UNIFORM, prior), axis=1), changed, rtol=1e-9)
    assert (changed.argmax(1) == hidden).mean() > (target.argmax(1) == hidden).mean() + 0.05
    np.testing.assert_allclose(importance_weights(UNIFORM, prior), prior * 4)
    np.testing.assert_allclose(reweigh(np.eye(2)[:1], [0.5, 0.5], [0, 1]), [[0, 1]])


def test_label_shift_says_what_does_not_fit() -> None:
    p = np.full((4, 2), 0.5)
    with pytest.raises(DataError, match=r"none of \[1\]"):
        bbse(p, np.zeros(4, dtype=np.int64), p)
    with pytest.raises(DataError, match="fit"):
        bbse(p, np.zeros(3, dtype=np.int64), p)
    with pytest.raises(DataError, match=r"classes \[1\]"):
        importance_weights([1, 0], [0.5, 0.5])
    with pytest.raises(UsageError, match="prior"):
        em_prior(p, [0.5, 0.2, 0.3])
    with pytest.raises(DataError, match="finite"):
        em_prior(p * np.nan, [0.5, 0.5])
