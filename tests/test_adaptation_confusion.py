"""Regularisers of the target's predictions and norms, each against its formula in NumPy and against known extremes."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
import torch
from scipy.stats import entropy

from regraft.adaptation.base import DomainLoss, losses
from regraft.adaptation.losses.confusion import AFN, BNM, MCC, Entropy, InformationMaximisation
from regraft.core.errors import UsageError
from regraft.core.types import DomainView

D, K = 3, 4
ON_LOGITS = ("BNM", "MCC", "entropy", "infomax")
NAMES = ("AFN", *ON_LOGITS)
Formula = Callable[[np.ndarray], float]

pytestmark = pytest.mark.usefixtures("one_thread")


def logits(m: int = 6, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).normal(size=(m, K)) * 2


def apply(loss: DomainLoss, z: np.ndarray, dtype: torch.dtype = torch.float32) -> tuple[torch.Tensor, torch.Tensor]:
    """The loss, and the gradient that reaches the target's logits; the source is gone."""
    leaf = torch.tensor(z, dtype=dtype, requires_grad=True)
    source = DomainView(torch.zeros(0, D), torch.zeros(0, K))
    found = loss(source, DomainView(torch.zeros(len(z), D), leaf), 0.5)
    found.backward()
    assert leaf.grad is not None
    return found.detach(), leaf.grad


def softmax(z: np.ndarray) -> np.ndarray:
    e = np.exp(z - z.max(axis=1, keepdims=True))
    return e / e.sum(axis=1, keepdims=True)


# The formulas. Each first fixes what the loss detaches at the point `a`.


def mean_entropy(a: np.ndarray) -> Formula:
    return lambda z: float(np.mean([entropy(row) for row in softmax(z)]))


def information(a: np.ndarray) -> Formula:
    """Minus the mutual information of sample and class: the mean divergence of a prediction from their average."""
    return lambda z: -float(np.mean([entropy(row, softmax(z).mean(axis=0)) for row in softmax(z)]))


def class_confusion(a: np.ndarray, *, temperature: float = 2.5) -> Formula:
    raw = [1 + np.exp(-entropy(row)) for row in softmax(a / temperature)]
    weight = [len(a) * w / sum(raw) for w in raw]

    def formula(z: np.ndarray) -> float:
        p = softmax(z / temperature)
        c = np.zeros((K, K))
        for w, row in zip(weight, p, strict=True):
            c += w * np.outer(row, row)
        c /= c.sum(axis=1, keepdims=True)
        return float(sum(c[i, j] for i in range(K) for j in range(K) if i != j) / K)

    return formula


def nuclear(a: np.ndarray) -> Formula:
    """The trace of the square root of PᵀP, by its eigenvalues."""

    def formula(z: np.ndarray) -> float:
        p = softmax(z)
        gram = p.T @ p if len(p) >= K else p @ p.T
        return -float(np.sqrt(np.linalg.eigvalsh(gram).clip(min=0)).sum()) / len(z)

    return formula


CASES: dict[str, tuple[DomainLoss, Callable[[np.ndarray], Formula]]] = {
    "entropy": (Entropy(D, K), mean_entropy),
    "infomax": (InformationMaximisation(D, K), information),
    "MCC": (MCC(D, K), class_confusion),
    "MCC hot": (MCC(D, K, temperature=1.0), lambda a: class_confusion(a, temperature=1.0)),
    "BNM": (BNM(D, K), nuclear),
}


@pytest.mark.parametrize("case", CASES)
@pytest.mark.parametrize("m", [3, 6, 11])
def test_the_loss_is_the_formula(case: str, m: int) -> None:
    loss, formula = CASES[case]
    z = logits(m, seed=m)
    assert float(apply(loss, z)[0]) == pytest.approx(formula(z)(z), rel=1e-5)


@pytest.mark.parametrize("case", CASES)
@pytest.mark.parametrize("m", [3, 6])
def test_the_gradient_is_the_formulas_finite_difference(case: str, m: int) -> None:
    loss, formula = CASES[case]
    z = logits(m, seed=10)
    fixed, numeric = formula(z), np.zeros_like(z)
    for index in np.ndindex(*z.shape):
        step = np.zeros_like(z)
        step[index] = 1e-5
        numeric[index] = (fixed(z + step) - fixed(z - step)) / 2e-5
    assert np.abs(numeric).max() > 1e-3
    np.testing.assert_allclose(apply(loss, z)[1].numpy(), numeric, rtol=1e-3, atol=2e-6)


@pytest.mark.parametrize("name", NAMES)
def test_contract(name: str) -> None:
    """A float32 scalar whose gradient reaches the target's features through a linear head, from bfloat16 too."""
    kind = losses.get(name)
    loss = kind(D, K if kind.needs_classes else 0)
    assert kind.paper and kind.default_weight > 0
    assert not list(loss.parameters())
    head = torch.from_numpy(np.random.default_rng(0).normal(size=(D, K)))
    for dtype in (torch.float32, torch.bfloat16):
        x, y = (
            torch.tensor(np.random.default_rng(n).normal(size=(n, D)), dtype=dtype, requires_grad=True) for n in (8, 5)
        )
        source = DomainView(x, x @ head.to(dtype), torch.zeros(8, dtype=torch.long))
        found = loss(source, DomainView(y, y @ head.to(dtype)), 0.0)
        assert found.shape == () and found.dtype == torch.float32 and found.isfinite()
        found.backward()
        assert y.grad is not None and y.grad.isfinite().all() and y.grad.abs().sum() > 0
        assert (x.grad is not None) == kind.needs_source


@pytest.mark.parametrize("name", ON_LOGITS)
def test_bfloat16_and_autocast_agree_with_float32(name: str) -> None:
    loss, z = losses.get(name)(D, K), logits(64)
    rounded = torch.tensor(z, dtype=torch.bfloat16).double().numpy()
    exact = float(apply(loss, rounded)[0])
    assert float(apply(loss, z, torch.bfloat16)[0]) == exact
    with torch.autocast("cpu", torch.bfloat16):
        assert float(apply(loss, rounded)[0]) == exact


@pytest.mark.parametrize("name", NAMES)
def test_what_is_needed_is_asked_for(name: str) -> None:
    kind = losses.get(name)
    bare = DomainView(torch.randn(5, D))
    if name == "AFN":
        assert float(kind(D, 0)(bare, bare, 0.0)) == pytest.approx(1)
        for pair in ((bare, DomainView(torch.zeros(0, D))), (DomainView(torch.zeros(0, D)), bare)):
            with pytest.raises(UsageError, match="at least 1 samples"):
                kind(D, 0)(*pair, 0.0)
        return
    with pytest.raises(UsageError, match="2 classes"):
        kind(D, 0)
    with pytest.raises(UsageError, match="target's logits"):
        kind(D, K)(bare, bare, 0.0)
    least = 2 if name in ("MCC", "infomax") else 1
    with pytest.raises(UsageError, match=f"at least {least} target"):
        apply(kind(D, K), logits(least - 1))
    assert apply(kind(D, K), logits(least))[0].isfinite()


def test_impossible_options_are_refused() -> None:
    for value in (0.0, -1.0, float("nan")):
        with pytest.raises(UsageError, match="temperature"):
            MCC(D, K, temperature=value)
        with pytest.raises(UsageError, match="delta"):
            AFN(D, 0, delta=value)


@pytest.mark.parametrize(
    ("loss", "uniform", "diverse", "same"),
    [
        (Entropy(D, K), np.log(K), 0, 0),
        (InformationMaximisation(D, K), 0, -np.log(K), 0),
        (MCC(D, K), (K - 1) / K, 0, 0),
        (BNM(D, K), -1 / np.sqrt(2 * K * K), -1 / np.sqrt(2), -1 / np.sqrt(2 * K)),
    ],
    ids=ON_LOGITS[2:] + ON_LOGITS[1::-1],
)
def test_extremes(loss: DomainLoss, uniform: float, diverse: float, same: float) -> None:
    """Eight predictions: of no class in particular, surely two of each class, surely all of the first.

    Logits of ±1,000: probabilities underflow to 0, and nothing may become NaN.
    """
    sure = 1000.0 * (2 * np.eye(K)[np.arange(2 * K) % K] - 1)
    for z, expected in ((np.zeros((2 * K, K)), uniform), (sure, diverse), (np.tile(sure[:1], (2 * K, 1)), same)):
        found, gradient = apply(loss, z)
        assert float(found) == pytest.approx(expected, abs=1e-5)
        assert gradient.isfinite().all()


def test_afn_moves_every_norm_by_the_step() -> None:
    """Its value says nothing; the gradient is −2 delta / (N + M) along each feature, and a zero vector stays."""
    rng = np.random.default_rng(0)
    x, y = rng.normal(size=(5, D)), rng.normal(size=(3, D))
    y[1] = 0
    for delta in (1.0, 0.25):
        source, target = (DomainView(torch.tensor(f, dtype=torch.float32, requires_grad=True)) for f in (x, y))
        found = AFN(D, 0, delta=delta)(source, target, 0.5)
        found.backward()
        assert float(found.detach()) == pytest.approx(delta**2)
        for view, f in ((source, x), (target, y)):
            length = np.linalg.norm(f, axis=1, keepdims=True)
            expected = -2 * delta / 8 * f / np.where(length > 0, length, 1)
            np.testing.assert_allclose(view.features.grad.numpy(), expected, atol=1e-6)
        # A gradient step of (N + M) / 2 takes each norm up by delta.
        moved = x - 4 * source.features.grad.numpy()
        np.testing.assert_allclose(np.linalg.norm(moved, axis=1), np.linalg.norm(x, axis=1) + delta, rtol=1e-5)


def test_afn_gradient_is_the_finite_difference_with_fixed_radii() -> None:
    rng = np.random.default_rng(2)
    both = rng.normal(size=(7, D))
    radii = np.linalg.norm(both, axis=1) + 1.0
    numeric = np.zeros_like(both)
    for index in np.ndindex(*both.shape):
        step = np.zeros_like(both)
        step[index] = 1e-5
        up, down = (np.mean((np.linalg.norm(both + s, axis=1) - radii) ** 2) for s in (step, -step))
        numeric[index] = (up - down) / 2e-5
    source, target = (
        DomainView(torch.tensor(f, dtype=torch.float32, requires_grad=True)) for f in (both[:4], both[4:])
    )
    AFN(D, 0)(source, target, 0.5).backward()
    found = np.vstack([source.features.grad.numpy(), target.features.grad.numpy()])
    np.testing.assert_allclose(found, numeric, rtol=1e-4, atol=1e-6)


def test_the_sure_samples_weigh_more_in_mcc() -> None:
    """The confusion of two classes by one sample counts less where that sample is unsure of all."""
    confused = np.array([[2.0, 2.0, -9.0, -9.0]])
    sure = 9.0 * np.eye(K)
    weighted = float(apply(MCC(D, K, temperature=1.0), np.vstack([sure, confused]))[0])
    p = softmax(np.vstack([sure, confused]))
    plain = p.T @ p
    plain /= plain.sum(axis=1, keepdims=True)
    assert weighted < (K - np.trace(plain)) / K
