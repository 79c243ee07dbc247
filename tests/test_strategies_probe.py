"""The probe against scikit-learn, its folding into one linear layer, and that no fold is judged by its own samples."""

from __future__ import annotations

import numpy as np
import pytest
from numpy.typing import NDArray
from sklearn.linear_model import LogisticRegression, Ridge

from regraft.strategies import ProbeHead, fit_probe

Matrix = NDArray[np.float32]
Indices = NDArray[np.int64]


def problem(n: int, d: int, k: int = 3, *, noise: float = 1.0, seed: int = 0) -> tuple[Matrix, Indices, Indices]:
    """Classes around random centres, far from the origin and of very unequal spread per coordinate."""
    draw = np.random.default_rng(seed)
    labels = np.arange(n) % k
    spread = np.geomspace(0.1, 3, d)
    x = (draw.normal(size=(k, d))[labels] + noise * draw.normal(size=(n, d))) * spread + 5
    return x.astype(np.float32), labels, draw.permutation(np.arange(n) % 5)


def standard(x: Matrix) -> NDArray[np.float64]:
    centred = x.astype(np.float64) - x.mean(axis=0, dtype=np.float64)
    return np.asarray(centred / np.sqrt(np.square(centred).mean()))


def up_to_scale(found: NDArray[np.float64], expected: NDArray[np.float64], rtol: float) -> None:
    """The head carries one positive factor, its calibration; differences between classes are what a logit means."""
    found = found - found.mean(axis=1, keepdims=True)
    expected = expected - expected.mean(axis=1, keepdims=True)
    factor = float((found * expected).sum() / (expected * expected).sum())
    assert 0.04 < factor < 51
    np.testing.assert_allclose(found, factor * expected, atol=rtol * float(np.abs(found).max()))


@pytest.mark.parametrize(("n", "d"), [(60, 8), (20, 50)])  # more samples than coordinates, and fewer
@pytest.mark.parametrize("strength", [0.001, 1.0])
def test_ridge_is_scikit_learn_s_ridge_on_one_hot(n: int, d: int, strength: float) -> None:
    x, labels, folds = problem(n, d)
    head = fit_probe(x, labels, folds, 3, settings=(("ridge", strength),))
    z = standard(x)
    alpha = strength * float(np.square(z).sum()) / n  # relative to the trace of the Gram matrix over N
    model = Ridge(alpha=alpha, solver="svd").fit(z, np.eye(3)[labels])
    up_to_scale(head.logits(x), model.predict(z), 1e-4)


@pytest.mark.parametrize(("n", "d"), [(60, 8), (20, 50)])
@pytest.mark.parametrize("classes", [2, 3])
def test_logistic_is_scikit_learn_s_logistic_regression(n: int, d: int, classes: int) -> None:
    x, labels, folds = problem(n, d, classes)
    head = fit_probe(x, labels, folds, classes, settings=(("logistic", 0.1),))
    z = standard(x)
    if classes == 2:
        # Two rows of weights ±w/2 cost w²/4 each: half of what the one row of the binary form costs.
        model = LogisticRegression(C=2 / (0.1 * n), tol=1e-10, max_iter=10_000).fit(z, labels)
        score = model.decision_function(z)
        expected = np.stack([-score / 2, score / 2], axis=1)
    else:
        model = LogisticRegression(C=1 / (0.1 * n), tol=1e-10, max_iter=10_000).fit(z, labels)
        expected = model.decision_function(z)
    up_to_scale(head.logits(x), expected, 5e-3)
    assert (head.logits(x).argmax(1) == model.predict(z)).all()


def held_out(x: Matrix, labels: Indices, folds: Indices, classes: int, strength: float) -> NDArray[np.float64]:
    """Every sample's ridge scores from scikit-learn, fitted without its fold."""
    z = standard(x)
    found = np.zeros((len(x), classes))
    for fold in np.unique(folds):
        train = folds != fold
        centred = z[train] - z[train].mean(axis=0)
        model = Ridge(alpha=strength * float(np.square(centred).sum()) / train.sum(), solver="svd")
        found[~train] = model.fit(z[train], np.eye(classes)[labels[train]]).predict(z[~train])
    return found


@pytest.mark.parametrize(("n", "d"), [(60, 8), (25, 60)])
def test_out_of_fold_is_a_fit_without_the_fold(n: int, d: int) -> None:
    x, labels, folds = problem(n, d)
    head = fit_probe(x, labels, folds, 3, settings=(("ridge", 0.1),))
    expected = held_out(x, labels, folds, 3, 0.1)
    up_to_scale(head.out_of_fold, expected, 1e-4)
    assert head.scores["ridge 0.1"] == pytest.approx((expected.argmax(1) == labels).mean())


@pytest.mark.parametrize("setting", [("ridge", 0.001), ("logistic", 0.001)])
def test_labels_of_noise_are_learnt_by_heart_but_not_out_of_fold(setting: tuple[str, float]) -> None:
    """200 coordinates can fit 80 random labels: a head that saw its fold would score near 1 there too."""
    draw = np.random.default_rng(1)
    x = draw.normal(size=(80, 200)).astype(np.float32)
    labels = draw.integers(0, 2, 80)
    head = fit_probe(x, labels, np.arange(80) % 5, 2, settings=(setting,))
    assert (head.logits(x).argmax(1) == labels).mean() > 0.95
    assert (head.out_of_fold.argmax(1) == labels).mean() < 0.7
    assert head.scores[f"{setting[0]} {setting[1]:g}"] < 0.7


def test_group_that_shares_a_fold_cannot_help_itself() -> None:
    """Each picture is there twice with a label of its own: only folds that part the twins can look right."""
    draw = np.random.default_rng(2)
    x = np.repeat(draw.normal(size=(40, 100)), 2, axis=0).astype(np.float32)
    labels = np.repeat(draw.integers(0, 2, 40), 2)
    together, parted = np.arange(80) // 2 % 5, np.arange(80) % 2
    settings = (("ridge", 0.01),)
    assert fit_probe(x, labels, together, 2, settings=settings).scores["ridge 0.01"] < 0.75
    assert fit_probe(x, labels, parted, 2, settings=settings).scores["ridge 0.01"] > 0.95


@pytest.mark.parametrize("d", [8, 100])
def test_centre_scale_and_calibration_are_folded_into_one_linear_layer(d: int) -> None:
    """Shifted and stretched features give a head with other weights and the same logits."""
    x, labels, folds = problem(40, d)
    head = fit_probe(x, labels, folds, 3)
    assert head.weight.shape == (3, d) and head.bias.shape == (3,)
    assert head.weight.dtype == head.bias.dtype == np.float32
    by_hand = x.astype(np.float64) @ head.weight.T.astype(np.float64) + head.bias
    np.testing.assert_allclose(head.logits(x), by_hand, rtol=1e-4, atol=1e-4)
    moved = fit_probe(x * 8 - 32, labels, folds, 3)
    assert (moved.kind, moved.strength) == (head.kind, head.strength)
    np.testing.assert_allclose(moved.logits(x * 8 - 32), head.logits(x), rtol=1e-2, atol=1e-2)
    np.testing.assert_allclose(moved.weight * 8, head.weight, rtol=1e-2, atol=1e-3)


def log_loss(logits: NDArray[np.float64], labels: Indices) -> float:
    shifted = logits - logits.max(axis=1, keepdims=True)
    return float(np.mean(np.log(np.exp(shifted).sum(1)) - shifted[np.arange(len(labels)), labels]))


def test_choice_is_the_least_log_loss_out_of_fold_and_is_calibrated() -> None:
    x, labels, folds = problem(60, 20, noise=2.0)
    settings = (("ridge", 0.001), ("ridge", 1.0), ("logistic", 0.001), ("logistic", 0.1))
    losses = {s: log_loss(fit_probe(x, labels, folds, 3, settings=(s,)).out_of_fold, labels) for s in settings}
    head = fit_probe(x, labels, folds, 3, settings=settings)
    assert (head.kind, head.strength) == min(losses, key=lambda s: losses[s])
    assert log_loss(head.out_of_fold, labels) == pytest.approx(min(losses.values()))
    assert min(losses.values()) < max(losses.values()) - 0.01
    assert all(log_loss(head.out_of_fold * f, labels) > min(losses.values()) for f in (0.5, 0.79, 1.27, 2))
    assert set(head.scores) == {"ridge 0.001", "ridge 1", "logistic 0.001", "logistic 0.1"}


def finite(head: ProbeHead) -> bool:
    return all(bool(np.isfinite(part).all()) for part in (head.weight, head.bias, head.out_of_fold))


def test_class_that_is_missing_in_a_fold_s_training_part() -> None:
    """All of class 2 lies in fold 0: its samples are judged by a head that never saw the class."""
    x, labels, _ = problem(45, 6, noise=0.2)
    folds = np.where(labels == 2, 0, np.arange(45) % 4 + 1)
    head = fit_probe(x, labels, folds, 3)
    assert finite(head)
    assert (head.out_of_fold[labels == 2].argmax(1) != 2).all()
    assert (head.logits(x).argmax(1) == labels).mean() > 0.95


def test_class_without_any_sample_is_never_the_answer() -> None:
    x, labels, folds = problem(40, 6, 2, noise=0.2)
    head = fit_probe(x, labels, folds, 4)
    assert finite(head) and head.weight.shape == (4, 6)
    assert set(head.logits(x).argmax(1)) == {0, 1}


@pytest.mark.filterwarnings("error")
def test_features_that_are_all_the_same_give_a_finite_head() -> None:
    labels = np.array([0, 0, 0, 1] * 5)
    for d in (3, 50):
        head = fit_probe(np.full((20, d), 2.5, np.float32), labels, np.arange(20) % 5, 2)
        assert finite(head) and (head.logits(np.full((1, d), 2.5, np.float32)).argmax(1) == 0).all()


def test_same_samples_give_the_same_head() -> None:
    x, labels, folds = problem(40, 60)
    first, second = (fit_probe(x, labels, folds, 3) for _ in range(2))
    assert first.weight.tobytes() == second.weight.tobytes() and first.bias.tobytes() == second.bias.tobytes()
