"""Distances between domains against scikit-learn, loops over pairs and closed forms."""

from __future__ import annotations

import numpy as np
import pytest
from numpy.typing import NDArray
from scipy.spatial.distance import cdist, pdist
from sklearn.linear_model import Ridge

from regraft.adaptation.evidence.distances import (
    a_distance,
    class_distance,
    density_ratio,
    domain_distance,
    gaussian_divergence,
    kernel_scale,
    leading_coordinates,
    out_of_fold,
    squared_distances,
    squared_mmd,
)
from regraft.core.errors import DataError, UsageError

Array = NDArray[np.float64]


def normal(n: int, d: int, seed: int, mean: float = 0.0, deviation: float = 1.0) -> Array:
    return mean + deviation * np.random.default_rng(seed).normal(size=(n, d))


@pytest.mark.parametrize("shape", [(40, 5), (24, 60)])  # more rows than coordinates, and fewer
def test_one_decomposition_gives_every_fold_s_ridge(shape: tuple[int, int]) -> None:
    x = normal(*shape, seed=0, mean=3)
    wanted = np.where(np.arange(len(x)) % 2, 1.0, -1.0) + x[:, 0]
    folds = np.random.default_rng(1).permutation(len(x)) % 4
    unit = np.square(x - x.mean(axis=0)).sum(axis=1).mean()
    for penalty, found in zip((0.1, 10.0), out_of_fold(x, wanted, folds, (0.1, 10.0)), strict=True):
        for fold in range(4):
            model = Ridge(alpha=penalty * unit, solver="svd").fit(x[folds != fold], wanted[folds != fold])
            np.testing.assert_allclose(found[folds == fold], model.predict(x[folds == fold]), rtol=1e-8)


@pytest.mark.parametrize("shape", [(400, 6), (60, 200)])
def test_a_distance_is_0_for_one_distribution_and_2_for_two_apart(shape: tuple[int, int]) -> None:
    x = normal(*shape, seed=0)
    assert a_distance(x, normal(*shape, seed=1)) < 0.45
    assert a_distance(x, normal(*shape, seed=1, mean=8)) == 2
    assert a_distance(x, normal(shape[0] // 3, shape[1], seed=1, mean=8)) == 2


@pytest.mark.slow
def test_a_distance_lies_between_by_the_best_linear_error() -> None:
    # Two unit Gaussians whose means are 2 apart: the best classifier errs at Φ(−1) = 0.1587.
    x, y = normal(3000, 2, seed=0), normal(3000, 2, seed=1)
    y[:, 0] += 2
    assert a_distance(x, y) == pytest.approx(2 * (1 - 2 * 0.1587), abs=0.06)


@pytest.mark.parametrize("scale", [None, 0.7])
def test_squared_mmd_is_the_sum_over_pairs(scale: float | None) -> None:
    x, y = normal(9, 3, seed=0), normal(7, 3, seed=1, mean=0.5)
    median = float(np.median(pdist(np.concatenate([x, y]), "sqeuclidean")))
    assert kernel_scale(x, y) == pytest.approx(median)
    bandwidth = median if scale is None else scale

    def mean_kernel(a: Array, b: Array, same: bool) -> float:
        values = [
            np.exp(-((p - q) ** 2).sum() / bandwidth)
            for i, p in enumerate(a)
            for j, q in enumerate(b)
            if not (same and i == j)
        ]
        return float(np.mean(values))

    expected = mean_kernel(x, x, True) + mean_kernel(y, y, True) - 2 * mean_kernel(x, y, False)
    assert squared_mmd(x, y, scale=scale) == pytest.approx(expected, rel=1e-9)


def test_squared_mmd_is_0_on_average_for_one_distribution() -> None:
    values = [squared_mmd(normal(40, 4, seed=2 * i), normal(30, 4, seed=2 * i + 1)) for i in range(60)]
    assert abs(np.mean(values)) < 3 * np.std(values) / np.sqrt(60)
    assert min(values) < 0  # unbiased, so it may be
    assert squared_mmd(normal(40, 4, seed=0), normal(30, 4, seed=1, mean=2)) > 0.3


def test_gaussian_divergence_is_the_closed_form() -> None:
    x, y = normal(50, 3, seed=0, deviation=2), normal(70, 3, seed=1, mean=1)
    p, q = np.diag(np.diag(np.cov(x.T))), np.diag(np.diag(np.cov(y.T)))
    gap = x.mean(0) - y.mean(0)

    def kl(mean: Array, a: Array, b: Array) -> float:
        inverse = np.linalg.inv(b)
        log_ratio = np.log(np.linalg.det(b) / np.linalg.det(a))
        return float((np.trace(inverse @ a) + mean @ inverse @ mean - len(a) + log_ratio) / 2)

    expected = (kl(gap, p, q) + kl(-gap, q, p)) / 3
    assert gaussian_divergence(x, y, shrinkage=0) == pytest.approx(expected, rel=1e-9)
    assert gaussian_divergence(x, x) == 0
    x[:, 1] = 5.0
    assert np.isfinite(gaussian_divergence(x, y))
    assert gaussian_divergence(x, y) > gaussian_divergence(y, y + 0.1)
    assert np.isfinite(gaussian_divergence(np.ones((3, 2)), np.zeros((3, 2))))


def test_class_distance_of_means_that_can_be_counted() -> None:
    source = np.array([[0, 1], [0, -1], [4, 0], [4, 0], [9, 9]], dtype=np.float64)
    target = np.array([[0, 3], [4, 3], [4, 3], [-9, 0]], dtype=np.float64)
    labels, answers = np.array([0, 0, 1, 1, 2]), np.array([0, 1, 1, 3])
    # Classes 0 and 1 are in both; each moved by 3, and 0 → 1 and 1 → 0 are 5 apart.
    assert class_distance(source, labels, target, answers) == pytest.approx(3 / 5)
    assert class_distance(source[:2], labels[:2], target, answers) is None
    assert class_distance(np.ones((4, 2)), np.arange(4) % 2, np.ones((4, 2)), np.arange(4) % 2) is None


def test_squared_distances_are_scipy_s_far_from_the_origin_too() -> None:
    x, y = normal(8, 5, seed=0, mean=1e4), normal(6, 5, seed=1, mean=1e4)
    np.testing.assert_allclose(squared_distances(x, y), cdist(x, y, "sqeuclidean"), rtol=1e-9)


def test_density_ratio_is_that_of_two_known_gaussians() -> None:
    x, y = normal(4000, 1, seed=0), normal(2000, 1, seed=1, mean=0.7)
    found = density_ratio(x, y)
    exact = np.exp(0.7 * x[:, 0] - 0.7**2 / 2)
    assert found.mean() == pytest.approx(1, abs=0.1)
    assert np.corrcoef(np.log(found), np.log(exact))[0, 1] > 0.99
    assert np.abs(found - exact).mean() < 0.1
    # The same distribution: no row counts more than another, although a classifier could learn the rows by heart.
    # The same where the domains differ in size alone.
    alike = density_ratio(normal(80, 300, seed=2), normal(50, 300, seed=3))
    np.testing.assert_allclose(alike, 1, atol=0.1)


def test_the_sketch_finds_the_leading_coordinates() -> None:
    x = normal(90, 120, seed=0) * np.geomspace(10, 1e-6, 120)
    x = x - x.mean(axis=0)
    found = leading_coordinates(x, 5, np.random.default_rng(0))
    left, values, _ = np.linalg.svd(x, full_matrices=False)
    np.testing.assert_allclose(found @ found.T, (left[:, :5] * values[:5] ** 2) @ left[:, :5].T, atol=0.02)
    np.testing.assert_array_equal(leading_coordinates(x[:, :4], 5, np.random.default_rng(0)), x[:, :4])


def test_domain_distance_gathers_what_is_possible_and_draws_by_seed() -> None:
    x, y = normal(60, 4, seed=0).astype(np.float32), normal(50, 4, seed=1, mean=1).astype(np.float32)
    labels = np.arange(60) % 3
    x[:, 0] += 5 * labels
    y[:, 0] += 5 * (np.arange(50) % 3)
    found = domain_distance(x, y, labels=labels, pseudo_labels=np.arange(50) % 3)
    assert set(found) == {"a_distance", "mmd2", "gaussian_kl", "cid"}
    assert all(isinstance(value, float) and np.isfinite(value) for value in found.values())
    assert found["mmd2"] == pytest.approx(squared_mmd(x, y))
    assert 0 < found["cid"] < 0.6
    assert set(domain_distance(x, y)) == {"a_distance", "mmd2", "gaussian_kl"}
    assert "cid" not in domain_distance(x, y, labels=labels, pseudo_labels=np.full(50, 2))
    few = [domain_distance(x, y, rows=20, seed=seed)["mmd2"] for seed in (0, 0, 1)]
    assert few[0] == few[1] != few[2]
    with pytest.raises(UsageError, match="rows=1"):
        domain_distance(x, y, rows=1)
    with pytest.raises(DataError, match="2 rows"):
        domain_distance(x[:1], y)
    with pytest.raises(DataError, match="finite"):
        domain_distance(x * np.nan, y)
