"""Losses that match statistics, each against the formula written out in NumPy, and the unbiased estimator by trial."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch

from regraft.adaptation.base import DomainLoss, losses
from regraft.adaptation.losses.dynamic import DDAN
from regraft.adaptation.losses.kernels import GaussianKernel, joint_distances, squared_mmd
from regraft.adaptation.losses.moments import CMD, DAN, DDC, JAN, DeepCORAL
from regraft.core.errors import UsageError
from regraft.core.types import DomainView

D, K = 3, 4
NAMES = ("DDC", "DAN", "JAN", "DeepCORAL", "CMD", "DDAN")
Arrays = dict[str, np.ndarray]
Formula = Callable[[Arrays], float]

pytestmark = pytest.mark.usefixtures("one_thread")


def arrays(n: int = 7, m: int = 5, seed: int = 0, shift: float = 1.5) -> Arrays:
    """Features and logits of two domains that differ, float64, and the source's labels: classes 0 to 2 only."""
    rng = np.random.default_rng(seed)
    return {
        "x": rng.normal(size=(n, D)) * [1.0, 0.5, 2.0],
        "y": rng.normal(size=(m, D)) + shift,
        "p": rng.normal(size=(n, K)),
        "q": rng.normal(size=(m, K)),
        "labels": np.arange(n) % 3,
    }


def views(a: Arrays, dtype: torch.dtype = torch.float32) -> tuple[DomainView, DomainView]:
    def leaf(name: str) -> torch.Tensor:
        return torch.tensor(a[name], dtype=dtype, requires_grad=True)

    return DomainView(leaf("x"), leaf("p"), torch.tensor(a["labels"])), DomainView(leaf("y"), leaf("q"))


def value(loss: DomainLoss, a: Arrays, dtype: torch.dtype = torch.float32) -> float:
    return float(loss(*views(a, dtype), 0.5).detach())


# The formulas, pair by pair. Each first fixes what the loss detaches at the point `a`.


def all_pairs(rows: np.ndarray) -> np.ndarray:
    return np.array([np.square(rows[i] - rows[j]).sum() for i in range(len(rows)) for j in range(i)])


def lower_median(values: np.ndarray) -> float:
    return float(np.sort(values)[(len(values) - 1) // 2])


def kernel_of(rows: np.ndarray, multiples: tuple[float, ...], middle: Callable[..., Any] = lower_median) -> Any:
    scale = float(middle(all_pairs(rows)))
    return lambda u, v: np.mean([np.exp(-np.square(u - v).sum() / (m * scale)) for m in multiples])


def mmd(k: Callable[..., Any], s: list[Any], t: list[Any], *, unbiased: bool = True) -> float:
    def within(rows: list[Any]) -> Any:
        pairs = [(i, j) for i in range(len(rows)) for j in range(len(rows)) if i != j or not unbiased]
        return np.mean([k(rows[i], rows[j]) for i, j in pairs])

    return float(within(s) + within(t) - 2 * np.mean([k(u, v) for u in s for v in t]))


def softmax(z: np.ndarray) -> np.ndarray:
    e = np.exp(z - z.max(axis=1, keepdims=True))
    return e / e.sum(axis=1, keepdims=True)


def ddc(a: Arrays, *, scaled: bool = True) -> Formula:
    scale = all_pairs(np.vstack([a["x"], a["y"]])).mean() if scaled else 1.0
    return lambda b: float(np.square(b["x"].mean(0) - b["y"].mean(0)).sum() / scale)


def ddc_unbiased(a: Arrays) -> Formula:
    return lambda b: mmd(np.dot, list(b["x"]), list(b["y"]))


def ddc_gaussian(a: Arrays) -> Formula:
    k = kernel_of(np.vstack([a["x"], a["y"]]), (1.0,))
    return lambda b: mmd(k, list(b["x"]), list(b["y"]), unbiased=False)


def dan(a: Arrays, *, middle: Callable[..., Any] = lower_median, unbiased: bool = True) -> Formula:
    k = kernel_of(np.vstack([a["x"], a["y"]]), (0.25, 0.5, 1, 2, 4), middle)
    return lambda b: mmd(k, list(b["x"]), list(b["y"]), unbiased=unbiased)


def jan(a: Arrays) -> Formula:
    k = kernel_of(np.vstack([a["x"], a["y"]]), (0.25, 0.5, 1, 2, 4))
    h = kernel_of(np.vstack([softmax(a["p"]), softmax(a["q"])]), (1.0,))

    def product(u: Any, v: Any) -> Any:
        return k(u[0], v[0]) * h(u[1], v[1])

    return lambda b: mmd(
        product,
        list(zip(b["x"], softmax(b["p"]), strict=True)),
        list(zip(b["y"], softmax(b["q"]), strict=True)),
    )


def coral(a: Arrays) -> Formula:
    return lambda b: float(np.square(np.cov(b["x"].T) - np.cov(b["y"].T)).sum() / (4 * D * D))


def cmd(a: Arrays, *, order: int = 5, width: float | None = None) -> Formula:
    width = width or float(np.ptp(np.vstack([a["x"], a["y"]])))

    def formula(b: Arrays) -> float:
        x, y = b["x"], b["y"]
        total = np.linalg.norm(x.mean(0) - y.mean(0)) / width
        for k in range(2, order + 1):
            gap = ((x - x.mean(0)) ** k).mean(0) - ((y - y.mean(0)) ** k).mean(0)
            total += np.linalg.norm(gap) / width**k
        return float(total)

    return formula


def ddan(a: Arrays, *, weight: str | float = "distances") -> Formula:
    k = kernel_of(np.vstack([a["x"], a["y"]]), (0.25, 0.5, 1, 2, 4))
    guess = softmax(a["q"])

    def mean(u: np.ndarray, v: np.ndarray, wu: np.ndarray, wv: np.ndarray, *, other: bool) -> float:
        pairs = [(i, j) for i in range(len(u)) for j in range(len(v)) if i != j or not other]
        return sum(wu[i] * wv[j] * k(u[i], v[j]) for i, j in pairs) / sum(wu[i] * wv[j] for i, j in pairs)

    def both(b: Arrays) -> tuple[float, float, float]:
        total = mass = 0.0
        for c in range(K):
            w, g = (a["labels"] == c).astype(float), guess[:, c]
            if w.sum() < 2:
                continue
            distance = mean(b["x"], b["x"], w, w, other=True) + mean(b["y"], b["y"], g, g, other=True)
            distance -= 2 * mean(b["x"], b["y"], w, g, other=False)
            evidence = np.sqrt(g.sum() ** 2 - np.square(g).sum())
            total, mass = total + evidence * distance, mass + evidence
        return mmd(k, list(b["x"]), list(b["y"])), total / mass, mass

    marginal, conditional, mass = both(a)
    assert marginal > 0 and conditional > 0 and mass > 1, "the example is to exercise the plain case"
    if weight == "distances":
        mu = conditional / (marginal + conditional)
    elif weight == "mean-gap":
        mu = 1 - 1 / (1 + np.exp(-0.1 * np.linalg.norm(a["x"].mean(0) - a["y"].mean(0))))
    else:
        mu = float(weight)

    def formula(b: Arrays) -> float:
        found = both(b)
        return (1 - mu) * found[0] + mu * found[1]

    return formula


CASES: dict[str, tuple[DomainLoss, Callable[[Arrays], Formula]]] = {
    "DDC": (DDC(D, 0), ddc),
    "DDC of the paper": (DDC(D, 0, scale_free=False), lambda a: ddc(a, scaled=False)),
    "DDC unbiased": (DDC(D, 0, scale_free=False, unbiased=True), ddc_unbiased),
    "DDC gaussian": (DDC(D, 0, kernel="gaussian"), ddc_gaussian),
    "DAN": (DAN(D, 0), dan),
    "DAN mean": (DAN(D, 0, rule="mean"), lambda a: dan(a, middle=np.mean)),
    "DAN biased": (DAN(D, 0, unbiased=False), lambda a: dan(a, unbiased=False)),
    "JAN": (JAN(D, K), jan),
    "DeepCORAL": (DeepCORAL(D, 0), coral),
    "CMD": (CMD(D, 0), cmd),
    "CMD bounded": (CMD(D, 0, order=3, bounds=(-3, 5)), lambda a: cmd(a, order=3, width=8)),
    "DDAN": (DDAN(D, K), ddan),
    "DDAN mean-gap": (DDAN(D, K, weight="mean-gap"), lambda a: ddan(a, weight="mean-gap")),
    "DDAN fixed": (DDAN(D, K, weight=0.3), lambda a: ddan(a, weight=0.3)),
}


@pytest.mark.parametrize("case", CASES)
@pytest.mark.parametrize(("n", "m"), [(7, 5), (6, 9)])
def test_the_loss_is_the_formula(case: str, n: int, m: int) -> None:
    loss, formula = CASES[case]
    a = arrays(n, m, seed=n)
    assert value(loss, a) == pytest.approx(formula(a)(a), rel=2e-5, abs=1e-6)


@pytest.mark.slow
@pytest.mark.parametrize("case", CASES)
def test_the_gradient_is_the_formulas_finite_difference(case: str) -> None:
    """In float64 on the formula, whose bandwidth, range and weight stay as the loss detaches them."""
    loss, formula = CASES[case]
    a = arrays(7, 5, seed=7)
    fixed = formula(a)
    source, target = views(a)
    loss(source, target, 0.5).backward()
    leaves = {"x": source.features, "y": target.features}
    if case == "JAN":
        leaves |= {"p": source.logits, "q": target.logits}
    else:
        assert source.logits.grad is None and target.logits.grad is None
    for name, leaf in leaves.items():
        numeric = np.zeros_like(a[name])
        for index in np.ndindex(*numeric.shape):
            step = np.zeros_like(numeric)
            step[index] = 1e-5
            numeric[index] = (fixed(a | {name: a[name] + step}) - fixed(a | {name: a[name] - step})) / 2e-5
        assert np.abs(numeric).max() > 1e-4
        np.testing.assert_allclose(leaf.grad.numpy(), numeric, rtol=2e-3, atol=2e-5 * max(1, np.abs(numeric).max()))


@pytest.mark.parametrize("name", NAMES)
def test_contract(name: str) -> None:
    """A float32 scalar whose gradient reaches both domains, for unequal batches, from bfloat16 too."""
    kind = losses.get(name)
    loss = kind(D, K if kind.needs_classes else 0)
    assert kind.paper and kind.default_weight > 0 and kind.needs_source
    assert not list(loss.parameters())
    for dtype in (torch.float32, torch.bfloat16):
        source, target = views(arrays(8, 6), dtype)
        found = loss(source, target, 0.0)
        assert found.shape == () and found.dtype == torch.float32 and found.isfinite()
        found.backward()
        for view in (source, target):
            assert view.features.grad.isfinite().all() and view.features.grad.abs().sum() > 0
    a = arrays(8, 6)
    assert value(loss, a, torch.bfloat16) == pytest.approx(value(loss, a), rel=0.1, abs=0.02)


@pytest.mark.parametrize("name", NAMES)
def test_autocast_changes_nothing(name: str) -> None:
    loss = losses.get(name)(D, K)
    a = arrays()
    # Far from the origin, where a product in bfloat16 would leave nothing of the distances.
    a |= {"x": a["x"] + 50, "y": a["y"] + 50}
    with torch.autocast("cpu", torch.bfloat16):
        found = value(loss, a)
    assert found == value(loss, a)


@pytest.mark.parametrize("name", NAMES)
def test_what_is_needed_is_asked_for(name: str) -> None:
    kind = losses.get(name)
    if kind.needs_classes:
        with pytest.raises(UsageError, match="2 classes"):
            kind(D, 0)
    else:
        source, target = views(arrays())
        bare = kind(D, 0)(DomainView(source.features), DomainView(target.features), 0.0)
        assert float(bare.detach()) == value(kind(D, K), arrays())
    loss = kind(D, K)
    for n, m in ((1, 5), (5, 1), (0, 5), (5, 0)):
        with pytest.raises(UsageError, match="at least 2 samples"):
            loss(*views(arrays(n, m)), 0.0)


def test_missing_logits_and_labels_are_named() -> None:
    source, target = views(arrays())
    bare = DomainView(source.features), DomainView(target.features)
    for loss, pair, what in (
        (JAN(D, K), (bare[0], target), "source's logits"),
        (JAN(D, K), (source, bare[1]), "target's logits"),
        (DDAN(D, K), (bare[0], target), "source's labels"),
        (DDAN(D, K), (source, bare[1]), "target's logits"),
    ):
        with pytest.raises(UsageError, match=what):
            loss(*pair, 0.0)


@pytest.mark.parametrize(
    "build",
    [
        lambda: DDC(D, 0, kernel="cubic"),
        lambda: DAN(D, 0, rule="mode"),
        lambda: DAN(D, 0, multiples=()),
        lambda: DAN(D, 0, multiples=(1.0, 0.0)),
        lambda: CMD(D, 0, order=0),
        lambda: CMD(D, 0, bounds=(1.0, 1.0)),
        lambda: DDAN(D, K, weight="distance"),
        lambda: DDAN(D, K, weight=1.5),
    ],
)
def test_impossible_options_are_refused(build: Callable[[], DomainLoss]) -> None:
    with pytest.raises(UsageError):
        build()


@pytest.mark.parametrize(
    "loss",
    [DeepCORAL(D, 0), CMD(D, 0), DDC(D, 0), DAN(D, 0, unbiased=False), JAN(D, K, unbiased=False)],
    ids=lambda loss: type(loss).__name__,
)
def test_identical_samples_are_aligned(loss: DomainLoss) -> None:
    """Zero for the same rows in another order, and a gradient that is finite there."""
    a = arrays(6, 6)
    order = np.random.default_rng(1).permutation(6)
    a |= {"y": a["x"][order], "q": a["p"][order]}
    source, target = views(a)
    found = loss(source, target, 0.0)
    assert float(found.detach()) == pytest.approx(0, abs=2e-6)
    found.backward()
    assert target.features.grad.isfinite().all()
    assert value(loss, a | {"y": a["y"] * 2 + 1}) > 0.01


@pytest.mark.parametrize("name", NAMES)
def test_collapsed_features_give_no_nan(name: str) -> None:
    a = arrays()
    source, target = views(a | {"x": np.full_like(a["x"], 3.1), "y": np.full_like(a["y"], 3.1)})
    found = losses.get(name)(D, K)(source, target, 0.0)
    found.backward()
    assert found.isfinite() and source.features.grad.isfinite().all() and target.features.grad.isfinite().all()


def draws(unbiased: bool, n: int, m: int, shift: float = 0.0) -> np.ndarray:
    rng = np.random.default_rng(5)
    loss, out = DAN(2, 0, unbiased=unbiased), []
    for _ in range(600):
        rows = torch.from_numpy(rng.exponential(size=(n + m, 2)))
        out.append(float(loss(DomainView(rows[:n]), DomainView(rows[n:] + shift), 0.0)))
    return np.array(out)


def error(sample: np.ndarray) -> float:
    return float(sample.std(ddof=1) / np.sqrt(len(sample)))


@pytest.mark.slow
@pytest.mark.parametrize(("n", "m"), [(4, 4), (3, 12)])
def test_the_unbiased_estimate_is_zero_on_average_where_domains_agree(n: int, m: int) -> None:
    unbiased, biased = draws(True, n, m), draws(False, n, m)
    assert abs(unbiased.mean()) < 4 * error(unbiased)
    assert biased.mean() > 4 * error(biased)
    assert unbiased.min() < 0 <= biased.min()


def test_the_unbiased_estimate_does_not_depend_on_the_batch_size() -> None:
    """With a fixed kernel; the biased one is far larger on small batches."""
    rng = np.random.default_rng(6)

    def sample(n: int, *, unbiased: bool) -> np.ndarray:
        out = []
        for _ in range(500):
            rows = joint_distances(
                torch.from_numpy(rng.normal(size=(n, 2))), torch.from_numpy(rng.normal(1, 1, (n, 2)))
            )
            out.append(float(squared_mmd(torch.exp(-rows / 2), n, unbiased=unbiased)))
        return np.array(out)

    # E k over normals in two dimensions with bandwidth 1: 1/3 within, e^(−1/3) / 3 between means √2 apart.
    truth = 2 / 3 - 2 * np.exp(-1 / 3) / 3
    for n in (3, 15):
        small = sample(n, unbiased=True)
        assert abs(small.mean() - truth) < 4 * error(small)
    biased = sample(3, unbiased=False)
    assert biased.mean() - truth > 20 * error(biased)


def test_distances_survive_a_common_offset() -> None:
    """‖a‖² + ‖b‖² − 2 a·b in float32 would lose distances of about 6 beside squares of 4 million."""
    rows = (np.random.default_rng(0).normal(size=(9, 4)) + 1000).astype(np.float32)
    exact = np.square(rows[:, None].astype(np.float64) - rows[None].astype(np.float64)).sum(axis=2)
    found = joint_distances(torch.from_numpy(rows[:4]), torch.from_numpy(rows[4:]))
    np.testing.assert_allclose(found.numpy(), exact, rtol=1e-4, atol=1e-4)


def test_the_kernel_is_bounded_and_its_bandwidth_follows_the_features() -> None:
    rows = torch.from_numpy(np.random.default_rng(0).normal(size=(9, 4)))
    kernel, wide = (GaussianKernel()(joint_distances(s * rows[:4], s * rows[4:])) for s in (1.0, 30.0))
    torch.testing.assert_close(kernel, wide)
    torch.testing.assert_close(kernel.diagonal(), torch.ones(9), rtol=0, atol=1e-5)
    assert kernel.min() > 0
    # More than half of the samples the same: the median distance is 0, and the others still count.
    rows[:7] = rows[0]
    assert GaussianKernel()(joint_distances(rows[:4], rows[4:]))[0, 8] > 0.05


def test_ddan_leaves_out_classes_that_a_batch_lacks() -> None:
    """No class with two source samples, or none of them predicted: what is left is the marginal distance."""
    a = arrays(4, 5)
    marginal = dan(a)(a)
    assert value(DDAN(D, K, weight=0.9), a | {"labels": np.arange(4)}) == pytest.approx(marginal, rel=1e-4)
    elsewhere = np.tile([-200.0, -200.0, 0.0, 200.0], (5, 1))
    for weight in ("distances", "mean-gap", 1.0):
        source, target = views(a | {"labels": np.array([0, 0, 1, 1]), "q": elsewhere})
        found = DDAN(D, K, weight=weight)(source, target, 0.0)
        found.backward()
        assert float(found.detach()) == pytest.approx(marginal, rel=1e-4)
        assert source.features.grad.isfinite().all() and target.features.grad.isfinite().all()


def test_ddan_weighs_the_term_that_is_farther() -> None:
    """Classes swapped between equal marginals, then a shift of all classes alike."""
    rng = np.random.default_rng(3)
    labels = np.repeat([0, 1], 20)
    centres = np.array([[-3.0, 0.0], [3.0, 0.0]])
    x = centres[labels] + rng.normal(size=(40, 2)) * 0.3
    sure = 20.0 * np.eye(2)[labels]

    def share(y: np.ndarray) -> float:
        """μ, from the value at the fixed weights 0 and 1."""
        a = {"x": x, "y": y, "p": sure, "q": sure, "labels": labels}
        marginal, conditional = (value(DDAN(2, 2, weight=w), a) for w in (0.0, 1.0))
        return (value(DDAN(2, 2), a) - marginal) / (conditional - marginal)

    swapped = centres[1 - labels] + rng.normal(size=(40, 2)) * 0.3
    assert share(swapped) > 0.95
    assert 0.05 < share(x + np.array([0.0, 8.0])) < 0.95
