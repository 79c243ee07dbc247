"""Losses with a domain discriminator, each against its formula in NumPy, and every gradient against finite differences.

The features' gradient is not that of the value: it is reversed, or of another term. So a formula has three parts: the
value, what the discriminator descends, and what the features descend.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
import pytest
import torch
from torch import nn

from regraft.adaptation.base import DomainLoss, losses
from regraft.adaptation.losses.adversarial import ADDA, BSP, DANN, Adversarial, DomainConfusion, spectrum
from regraft.adaptation.losses.conditional import CDAN, CDANE
from regraft.adaptation.losses.discriminator import DomainDiscriminator, domain_cross_entropy, gradient_penalty
from regraft.core.errors import UsageError
from regraft.core.types import DomainView
from two_domains import Arrays, D, K, arrays, views, weights_of

HIDDEN = 5
NAMES = ("DANN", "DomainConfusion", "ADDA", "BSP", "CDAN", "CDAN+E")
NO_SOURCE_GRADIENT = {"ADDA"}
OPTIONS: dict[str, dict[str, Any]] = {
    "plain": {},
    "norms": {"spectral_norm": True, "layer_norm": True},
    "penalty": {"gradient_penalty": 2.0},
    "both": {"spectral_norm": True, "gradient_penalty": 1.0},
}

pytestmark = pytest.mark.usefixtures("one_thread")


def build(make: Callable[[], Any], seed: int = 3) -> Any:
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        return make()


def steep(make: Callable[[], Any]) -> Any:
    """With larger weights than at the start: a discriminator that is far from saying one half everywhere."""
    loss = build(make)
    with torch.no_grad():
        for parameter in loss.parameters():
            parameter.mul_(2.5)
    return loss


# The formulas, in float64, from arrays `a` and the discriminator's weights `w`.


def discriminator(w: Arrays, rows: np.ndarray) -> np.ndarray:
    for layer in (0, 2):
        rows = rows @ w[f"discriminator.layers.{layer}.weight"].T + w[f"discriminator.layers.{layer}.bias"]
        rows = np.maximum(rows, 0)
    return (rows @ w["discriminator.layers.4.weight"].T + w["discriminator.layers.4.bias"])[:, 0]


def chance(z: np.ndarray) -> np.ndarray:
    return 1 / (1 + np.exp(-z))


def softmax(z: np.ndarray) -> np.ndarray:
    e = np.exp(z - z.max(axis=1, keepdims=True))
    return e / e.sum(axis=1, keepdims=True)


def outer(a: Arrays, rows: str, logits: str, fixed: Arrays) -> np.ndarray:
    """Row by row the outer product with the probabilities at the point `fixed`, where they are detached."""
    return np.stack([np.outer(f, g).ravel() for f, g in zip(a[rows], softmax(fixed[logits]), strict=True)])


def cross_entropy(w: Arrays, x: np.ndarray, y: np.ndarray, u: Any = None, v: Any = None) -> float:
    of_source = np.average(-np.log(chance(discriminator(w, x))), weights=u)
    of_target = np.average(-np.log(1 - chance(discriminator(w, y))), weights=v)
    return float(of_source + of_target) / 2


def sure(logits: np.ndarray) -> np.ndarray:
    return np.array([1 + np.exp(sum(p * np.log(p) for p in row)) for row in softmax(logits)])


class Formula(NamedTuple):
    """Functions of (weights, arrays): the value, what the discriminator descends, what the features descend."""

    value: Callable[[Arrays, Arrays], float]
    learns: Callable[[Arrays, Arrays], float]
    moves: Callable[[Arrays, Arrays], float]


def reversed_game(game: Callable[[Arrays, Arrays], float], strength: float) -> Formula:
    return Formula(game, game, lambda w, a: -strength * game(w, a))


def dann(fixed: Arrays, strength: float) -> Formula:
    return reversed_game(lambda w, a: cross_entropy(w, a["x"], a["y"]), strength)


def cdan(fixed: Arrays, strength: float) -> Formula:
    return reversed_game(lambda w, a: cross_entropy(w, outer(a, "x", "p", fixed), outer(a, "y", "q", fixed)), strength)


def cdan_e(fixed: Arrays, strength: float) -> Formula:
    u, v = sure(fixed["p"]), sure(fixed["q"])
    return reversed_game(
        lambda w, a: cross_entropy(w, outer(a, "x", "p", fixed), outer(a, "y", "q", fixed), u, v), strength
    )


def bsp(fixed: Arrays, strength: float, k: int = 1, beta: float = 1e-4) -> Formula:
    game = dann(fixed, strength)

    def penalty(a: Arrays) -> float:
        # Squared singular values are the eigenvalues of the Gram matrix.
        return beta * sum(float(np.linalg.eigvalsh(a[n].T @ a[n])[-k:].sum()) for n in ("x", "y"))

    return Formula(lambda w, a: game.value(w, a) + penalty(a), game.learns, lambda w, a: game.moves(w, a) + penalty(a))


def confusion(fixed: Arrays, strength: float) -> Formula:
    def uniform(w: Arrays, a: Arrays) -> float:
        each = [np.mean([-0.5 * np.log(d) - 0.5 * np.log(1 - d) for d in chance(discriminator(w, a[n]))]) for n in "xy"]
        return float(np.mean(each))

    learns = dann(fixed, strength).value
    return Formula(lambda w, a: learns(w, a) + uniform(w, a), learns, uniform)


def adda(fixed: Arrays, strength: float) -> Formula:
    learns = dann(fixed, strength).value

    def inverted(w: Arrays, a: Arrays) -> float:
        return float(np.mean(-np.log(chance(discriminator(w, a["y"])))))

    return Formula(lambda w, a: learns(w, a) + inverted(w, a), learns, inverted)


CASES: dict[str, tuple[DomainLoss, Callable[[Arrays, float], Formula]]] = {
    "DANN": (steep(lambda: DANN(D, 0, hidden=HIDDEN)), dann),
    "DomainConfusion": (steep(lambda: DomainConfusion(D, 0, hidden=HIDDEN)), confusion),
    "ADDA": (steep(lambda: ADDA(D, 0, hidden=HIDDEN)), adda),
    "BSP": (steep(lambda: BSP(D, 0, hidden=HIDDEN)), bsp),
    "BSP k=2": (
        steep(lambda: BSP(D, 0, k=2, beta=0.1, hidden=HIDDEN)),
        lambda fixed, strength: bsp(fixed, strength, 2, 0.1),
    ),
    "CDAN": (steep(lambda: CDAN(D, K, hidden=HIDDEN)), cdan),
    "CDAN+E": (steep(lambda: CDANE(D, K, hidden=HIDDEN)), cdan_e),
}


def finite_difference(function: Callable[[Arrays], float], at: Arrays, name: str) -> np.ndarray:
    slope = np.zeros_like(at[name])
    for index in np.ndindex(*slope.shape):
        step = np.zeros_like(slope)
        step[index] = 1e-6
        slope[index] = (function(at | {name: at[name] + step}) - function(at | {name: at[name] - step})) / 2e-6
    return slope


def close(found: torch.Tensor | None, slope: np.ndarray) -> None:
    assert found is not None
    np.testing.assert_allclose(found.numpy(), slope, rtol=1e-3, atol=1e-4 * max(1e-2, np.abs(slope).max()))


@pytest.mark.parametrize("case", CASES)
@pytest.mark.parametrize(("n", "m"), [(7, 5), (1, 4), (3, 1)])
def test_the_loss_is_the_formula(case: str, n: int, m: int) -> None:
    loss, formula = CASES[case]
    a = arrays(n, m, seed=n)
    expected = formula(a, 0.5).value(weights_of(loss), a)
    assert float(loss(*views(a), 0.3).detach()) == pytest.approx(expected, rel=1e-5)


@pytest.mark.parametrize("case", CASES)
@pytest.mark.parametrize("progress", [0.05, 0.4])
def test_both_sides_get_their_gradient(case: str, progress: float) -> None:
    """One call: the discriminator gets the gradient of its term, the features of theirs, the logits none."""
    loss, formula = CASES[case]
    a, w = arrays(), weights_of(loss)
    parts = formula(a, 2 / (1 + np.exp(-10 * progress)) - 1)
    loss.zero_grad()
    source, target = views(a)
    loss(source, target, progress).backward()
    for name, parameter in loss.named_parameters():
        close(parameter.grad, finite_difference(lambda v: parts.learns(v, a), w, name))
    largest = 0.0
    for name, leaf in (("x", source.features), ("y", target.features)):
        slope = finite_difference(lambda v: parts.moves(w, v), a, name)
        if name == "x" and case in NO_SOURCE_GRADIENT:
            assert leaf.grad is None and not slope.any()
        else:
            close(leaf.grad, slope)
        largest = max(largest, np.abs(slope).max())
    assert largest > 1e-3
    assert source.logits.grad is None and target.logits.grad is None


@pytest.mark.parametrize("case", ["DANN", "CDAN", "CDAN+E"])
def test_at_the_start_only_the_discriminator_learns(case: str) -> None:
    loss = CASES[case][0]
    loss.zero_grad()
    source, target = views(arrays())
    loss(source, target, 0.0).backward()
    assert not source.features.grad.any() and not target.features.grad.any()
    assert all(p.grad.abs().sum() > 0 for p in loss.parameters())


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("options", OPTIONS.values(), ids=OPTIONS)
def test_contract(name: str, options: dict[str, Any]) -> None:
    """A float32 scalar with finite gradients for every parameter and both domains, unequal batches, bfloat16 too."""
    kind = losses.get(name)
    loss = build(lambda: kind(D, K if kind.needs_classes else 0, **options))
    assert kind.paper and kind.default_weight > 0 and kind.needs_source
    for dtype, (n, m) in ((torch.float32, (8, 6)), (torch.bfloat16, (6, 8)), (torch.float32, (1, 3))):
        loss.zero_grad()
        source, target = views(arrays(n, m), dtype)
        found = loss(source, target, 0.7)
        assert found.shape == () and found.dtype == torch.float32 and found.isfinite()
        found.backward()
        assert all(p.grad is not None and p.grad.isfinite().all() for p in loss.parameters())
        assert sum(float(p.grad.abs().sum()) for p in loss.parameters()) > 0
        reached = [target] if name in NO_SOURCE_GRADIENT else [source, target]
        for view in reached:
            assert view.features.grad.isfinite().all() and view.features.grad.abs().sum() > 0


@pytest.mark.parametrize("name", NAMES)
def test_autocast_and_eval_mode_and_no_grad_change_nothing(name: str) -> None:
    loss = build(lambda: losses.get(name)(D, K, gradient_penalty=0.5))

    def value() -> float:
        torch.manual_seed(1)
        return float(loss(*views(arrays()), 0.5).detach())

    expected = value()
    with torch.autocast("cpu", torch.bfloat16):
        assert value() == expected
    with torch.no_grad():
        assert value() == pytest.approx(expected, rel=1e-6)
    loss.eval()
    assert value() == expected


@pytest.mark.parametrize("name", NAMES)
def test_a_saturated_discriminator_stays_finite(name: str) -> None:
    loss = build(lambda: losses.get(name)(D, K))
    a = arrays()
    source, target = views(a | {"x": 1e4 * a["x"], "y": -1e4 * a["y"], "p": 1e4 * a["p"], "q": 1e4 * a["q"]})
    found = loss(source, target, 1.0)
    found.backward()
    assert found.isfinite() and target.features.grad.isfinite().all()
    assert all(p.grad.isfinite().all() for p in loss.parameters())


@pytest.mark.parametrize("name", NAMES)
def test_what_is_needed_is_asked_for(name: str) -> None:
    kind = losses.get(name)
    source, target = views(arrays())
    bare = DomainView(source.features), DomainView(target.features)
    if kind.needs_classes:
        for classes in (0, 1):
            with pytest.raises(UsageError, match="2 classes"):
                kind(D, classes)
        loss = kind(D, K)
        with pytest.raises(UsageError, match="the source's logits"):
            loss(bare[0], target, 0.5)
        with pytest.raises(UsageError, match="the target's logits"):
            loss(source, bare[1], 0.5)
    else:
        assert kind(D, 0)(*bare, 0.5).isfinite()
    for n, m in ((0, 5), (5, 0)):
        with pytest.raises(UsageError, match="at least 1 samples"):
            kind(D, K)(*views(arrays(n, m)), 0.5)
    for wrong in ({"gradient_penalty": -1.0}, {"hidden": 0}):
        with pytest.raises(UsageError):
            kind(D, K, **wrong)


@pytest.mark.parametrize(
    "make", [lambda: BSP(D, 0, k=0), lambda: BSP(D, 0, beta=-1.0), lambda: CDAN(D, K, random_dim=0)]
)
def test_impossible_options_are_refused(make: Callable[[], DomainLoss]) -> None:
    with pytest.raises(UsageError):
        make()


def test_adda_says_that_its_source_is_fixed() -> None:
    assert ADDA.source_fixed
    assert not any(getattr(losses.get(name), "source_fixed", False) for name in NAMES if name != "ADDA")


def test_entropy_weights_are_between_the_bounds_and_count() -> None:
    """Weight 2 for a sure sample, 1 + 1 / K for one that knows nothing: the sure ones rule the weighted mean."""
    loss = build(lambda: CDANE(D, K, hidden=HIDDEN))
    rows = torch.tensor([[1.0, 0.0, 0.0, 0.0], [0.25, 0.25, 0.25, 0.25]])
    found = loss.weights(rows, rows[:1])
    torch.testing.assert_close(found[0], torch.tensor([2.0, 1.25]))
    torch.testing.assert_close(found[1], torch.tensor([2.0]))
    z = torch.tensor([3.0, -3.0])
    even, weighted = (float(domain_cross_entropy(z, z, w)) for w in (None, (torch.tensor([3.0, 1.0]), torch.ones(2))))
    soft = np.logaddexp(0, [-3.0, 3.0])
    assert even == pytest.approx(soft.mean(), rel=1e-5)
    assert weighted == pytest.approx((0.75 * soft[0] + 0.25 * soft[1] + soft.mean()) / 2, rel=1e-5)


def test_cdan_randomises_a_map_that_is_too_large() -> None:
    exact, randomised = CDAN(1024, 4), build(lambda: CDAN(1025, 4, random_dim=8))
    assert exact.of_features is None and exact.discriminator.layers[0].in_features == 4096
    assert randomised.discriminator.layers[0].in_features == 8
    assert {"of_features", "of_classes"} <= set(randomised.state_dict())
    assert "of_features" not in dict(randomised.named_parameters())
    rng = np.random.default_rng(0)
    f, g = rng.normal(size=(3, 1025)), softmax(rng.normal(size=(3, 4)))
    r, s = (b.double().numpy() for b in (randomised.of_features, randomised.of_classes))
    expected = [[(f[i] @ r[:, d]) * (g[i] @ s[:, d]) / np.sqrt(8) for d in range(8)] for i in range(3)]
    found = randomised.joint(torch.tensor(f).float(), torch.tensor(g).float())
    np.testing.assert_allclose(found.numpy(), expected, rtol=1e-3, atol=1e-3)
    # The state carries the maps to another instance: the same values, from another seed.
    other = build(lambda: CDAN(1025, 4, random_dim=8), seed=4)
    assert not torch.equal(other.of_features, randomised.of_features)
    other.load_state_dict(randomised.state_dict())
    assert torch.equal(other.of_features, randomised.of_features)


@pytest.mark.slow
def test_the_randomised_map_keeps_inner_products_on_average() -> None:
    """⟨T(f, g), T(f', g')⟩ has mean ⟨f, f'⟩⟨g, g'⟩; with many coordinates it is near."""
    loss = build(lambda: CDAN(2049, 2, random_dim=40_000, hidden=1))
    rng = np.random.default_rng(1)
    f, g = np.zeros((2, 2049)), np.array([[0.9, 0.1], [0.4, 0.6]])
    f[:, :3] = rng.normal(size=(2, 3))
    t = loss.joint(torch.tensor(f).float(), torch.tensor(g).float()).double().numpy()
    truth = (f @ f.T) * (g @ g.T)
    # The variance of a product of four normals is below 9 times the product of the squared norms.
    scale = np.sqrt(np.diag(truth)[:, None] * np.diag(truth)[None])
    assert (np.abs(t @ t.T - truth) < 4 * 3 * scale / np.sqrt(40_000)).all()


def test_the_penalty_of_a_linear_discriminator_is_known() -> None:
    """Its slope is w everywhere: (‖w‖ − 1)², with gradient 2 (‖w‖ − 1) w / ‖w‖; the features get none."""
    linear = nn.Linear(D, 1)
    x, y = torch.randn(6, D, requires_grad=True), torch.randn(4, D, requires_grad=True)
    for w in ([3.0, 0.0, 4.0], [0.1, 0.2, 0.2], [0.6, 0.8, 0.0]):
        with torch.no_grad():
            linear.weight.copy_(torch.tensor([w]))
        linear.zero_grad()
        found = gradient_penalty(lambda rows: linear(rows)[:, 0], x, y)
        norm = np.linalg.norm(w)
        assert float(found.detach()) == pytest.approx((norm - 1) ** 2, abs=1e-6)
        found.backward()
        np.testing.assert_allclose(linear.weight.grad[0], 2 * (norm - 1) * np.array(w) / norm, atol=1e-5)
        assert x.grad is None and y.grad is None


def test_the_penalty_looks_between_the_domains() -> None:
    """D(x) = ‖x‖² / 2 has slope x: the mean of (‖x̂‖ − 1)² along the segment from 0 to 3 is 1 by integration."""

    def bowl(a: torch.Tensor, b: torch.Tensor) -> float:
        return float(gradient_penalty(lambda rows: rows.square().sum(1) / 2, a, b).detach())

    source, target = torch.zeros(4000, 2), torch.tensor([[3.0, 0.0]])
    torch.manual_seed(0)
    found = [bowl(source, target), bowl(target, source)]
    assert found == pytest.approx([1.0, 1.0], abs=0.08)
    torch.manual_seed(0)
    assert bowl(source, target) == found[0]
    assert found[0] != found[1]
    # The slope depends on the place, and still the features get nothing: the penalty is the discriminator's alone.
    leaf, scale = torch.ones(5, 2, requires_grad=True), torch.tensor(2.0, requires_grad=True)
    gradient_penalty(lambda rows: scale * rows.square().sum(1), leaf, leaf).backward()
    assert leaf.grad is None and scale.grad is not None and scale.grad > 0
    # A slope of nothing is a penalty of 1, and its own gradient is finite.
    flat = nn.Linear(2, 1)
    nn.init.zeros_(flat.weight)
    penalty = gradient_penalty(lambda rows: flat(rows)[:, 0], source[:3], target)
    penalty.backward()
    assert float(penalty.detach()) == 1.0 and flat.weight.grad.isfinite().all()
    with pytest.raises(UsageError, match="both domains"):
        gradient_penalty(lambda rows: rows.sum(1), source[:0], target)


def test_the_penalty_is_added_with_its_weight() -> None:
    """In double: the slope of the network is the product of its matrices with the inactive units left out."""
    plain, penalised = (build(lambda g=g: DANN(D, 0, hidden=HIDDEN, gradient_penalty=g)) for g in (0.0, 2.5))
    a, w = arrays(6, 6), weights_of(plain)
    torch.manual_seed(9)
    difference = float((penalised(*views(a), 0.5) - plain(*views(a), 0.5)).detach())
    torch.manual_seed(9)
    share = torch.rand(6, 1).double().numpy()
    total = 0.0
    for row in share * a["x"] + (1 - share) * a["y"]:
        first = w["discriminator.layers.0.weight"] @ row + w["discriminator.layers.0.bias"]
        second = w["discriminator.layers.2.weight"] @ np.maximum(first, 0) + w["discriminator.layers.2.bias"]
        slope = w["discriminator.layers.4.weight"][0] * (second > 0) @ w["discriminator.layers.2.weight"]
        total += (np.linalg.norm(slope * (first > 0) @ w["discriminator.layers.0.weight"]) - 1) ** 2 / 6
    assert total > 0.1
    assert difference == pytest.approx(2.5 * total, rel=1e-4)


def test_spectral_norm_bounds_the_slope() -> None:
    torch.manual_seed(0)
    net = DomainDiscriminator(6, hidden=16, spectral_norm=True)
    with torch.no_grad():
        for layer in (0, 2, 4):
            net.layers[layer].parametrizations.weight.original.mul_(20)
        for _ in range(60):  # power iteration, in training mode
            net(torch.randn(2, 6))
    net.eval()
    for layer in (0, 2, 4):
        assert np.linalg.norm(net.layers[layer].weight.detach().numpy(), 2) == pytest.approx(1, abs=0.02)
    x, y = 5 * torch.randn(200, 6), 5 * torch.randn(200, 6)
    assert ((net(x) - net(y)).abs() <= 1.05 * (x - y).norm(dim=1)).all()


def test_a_sample_does_not_depend_on_its_batch() -> None:
    for options in ({}, {"layer_norm": True}, {"spectral_norm": True}):
        net = DomainDiscriminator(D, **options).eval()
        rows = torch.randn(5, D)
        torch.testing.assert_close(net(rows), torch.cat([net(row[None]) for row in rows]))
        assert not any(isinstance(m, nn.Dropout | nn.modules.batchnorm._BatchNorm) for m in net.modules())


def test_the_spectrum_of_any_features() -> None:
    """Of more directions than there are; of rows that are the same; and not an error where a number is missing."""
    rng = np.random.default_rng(2)
    x = rng.normal(size=(4, 6))
    assert float(spectrum(torch.tensor(x), 9)) == pytest.approx(np.square(x).sum(), rel=1e-5)
    same = torch.ones(5, 4, requires_grad=True)
    found = spectrum(same, 1)
    found.backward()
    assert float(found.detach()) == pytest.approx(20, rel=1e-5)
    torch.testing.assert_close(same.grad, 2 * torch.ones(5, 4))
    assert spectrum(torch.tensor([[1.0, float("inf")]]), 1).isnan()


@pytest.mark.slow
@pytest.mark.parametrize("name", ["DANN", "DomainConfusion", "ADDA"])
def test_a_learned_shift_closes_the_gap_between_two_clouds(name: str) -> None:
    """The two sides in play: clouds 2 apart, a fresh batch at every step, and the features are target + shift."""
    draw = torch.Generator().manual_seed(0)
    loss: Adversarial = build(lambda: losses.get(name)(2, 0, hidden=16))
    shift = nn.Parameter(torch.zeros(2))
    sides = [{"params": loss.parameters(), "lr": 0.01}, {"params": [shift], "lr": 0.02}]
    optimiser = torch.optim.Adam(sides, betas=(0.5, 0.9))
    gaps = []
    for step in range(300):
        optimiser.zero_grad()
        x, y = torch.randn(48, 2, generator=draw), torch.randn(32, 2, generator=draw) + torch.tensor([2.0, 0.0])
        loss(DomainView(x), DomainView(y + shift), step / 300).backward()
        optimiser.step()
        gaps.append(float((shift.detach() + torch.tensor([2.0, 0.0])).norm()))
    assert gaps[0] > 1.9
    # Such games circle around their end: what counts is where, on average.
    assert np.mean(gaps[-100:]) < 0.8
