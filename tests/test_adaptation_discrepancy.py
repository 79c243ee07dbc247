"""MCD and MDD against their formulas in NumPy, both players' gradients against finite differences, and the game."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from scipy.special import log_softmax, logsumexp, softmax
from torch import nn

from regraft.adaptation.base import DomainLoss, losses
from regraft.adaptation.losses.discrepancy import MCD, MDD, OwnClassifier, log_odds
from regraft.core.errors import UsageError
from regraft.core.types import DomainView
from two_domains import Arrays, D, K, arrays, views, weights_of

HIDDEN = 6
NAMES = ("MCD", "MDD")

pytestmark = pytest.mark.usefixtures("one_thread")


def build(make: Callable[[], Any], times: float = 1.0) -> Any:
    """The same loss at every call; weights larger than at the start make classifiers that are sure of something."""
    with torch.random.fork_rng():
        torch.manual_seed(3)
        loss = make()
    with torch.no_grad():
        for parameter in loss.parameters():
            parameter.mul_(times)
    return loss


# The formulas, in float64, from arrays `a` and the classifiers' weights `w`.


def answers(w: Arrays, which: str, rows: np.ndarray) -> np.ndarray:
    hidden = np.maximum(rows @ w[f"{which}.layers.0.weight"].T + w[f"{which}.layers.0.bias"], 0)
    return hidden @ w[f"{which}.layers.2.weight"].T + w[f"{which}.layers.2.bias"]


class Formula(NamedTuple):
    """Functions of (weights, arrays): the value, which the classifiers descend, and what the features descend."""

    value: Callable[[Arrays, Arrays], float]
    moves: Callable[[Arrays, Arrays], float]


def mcd(strength: float) -> Formula:
    def supervised(w: Arrays, a: Arrays) -> float:
        rows = range(len(a["x"]))
        return -sum(
            float(np.mean(log_softmax(answers(w, which, a["x"]), axis=1)[rows, a["labels"]]))
            for which in ("first", "second")
        )

    def apart(w: Arrays, a: Arrays) -> float:
        gap = softmax(answers(w, "first", a["y"]), axis=1) - softmax(answers(w, "second", a["y"]), axis=1)
        return float(np.mean([np.abs(row).sum() / K for row in gap]))

    return Formula(
        lambda w, a: supervised(w, a) - apart(w, a),
        lambda w, a: supervised(w, a) + strength * apart(w, a),
    )


def mdd(strength: float, gamma: float = 4.0, eta: float = 0.1) -> Formula:
    def game(w: Arrays, a: Arrays) -> float:
        on_source = softmax(answers(w, "second", a["x"]), axis=1)
        on_target = softmax(answers(w, "second", a["y"]), axis=1)
        agrees = np.mean([-np.log(p[h]) for p, h in zip(on_source, a["p"].argmax(axis=1), strict=True)])
        differs = np.mean([-np.log(1 - p[h]) for p, h in zip(on_target, a["q"].argmax(axis=1), strict=True)])
        return float(gamma * agrees + differs)

    return Formula(game, lambda w, a: -strength * eta * game(w, a))


CASES: dict[str, tuple[DomainLoss, Callable[[float], Formula]]] = {
    "MCD": (build(lambda: MCD(D, K, hidden=HIDDEN), 2.5), mcd),
    "MDD": (build(lambda: MDD(D, K, hidden=HIDDEN), 2.5), mdd),
    "MDD gamma, eta": (
        build(lambda: MDD(D, K, gamma=2.0, eta=0.7, hidden=HIDDEN), 2.5),
        lambda strength: mdd(strength, 2.0, 0.7),
    ),
}


def finite_difference(function: Callable[[Arrays], float], at: Arrays, name: str) -> np.ndarray:
    slope = np.zeros_like(at[name])
    for index in np.ndindex(*slope.shape):
        step = np.zeros_like(slope)
        step[index] = 1e-6
        slope[index] = (function(at | {name: at[name] + step}) - function(at | {name: at[name] - step})) / 2e-6
    return slope


def close(found: torch.Tensor | None, slope: np.ndarray) -> None:
    assert found is not None and np.abs(slope).max() > 1e-3
    np.testing.assert_allclose(found.numpy(), slope, rtol=1e-3, atol=1e-4 * np.abs(slope).max())


@pytest.mark.parametrize("case", CASES)
@pytest.mark.parametrize(("n", "m"), [(7, 5), (1, 4), (3, 1)])
def test_the_loss_is_the_formula(case: str, n: int, m: int) -> None:
    loss, formula = CASES[case]
    a = arrays(n, m, seed=n)
    expected = formula(0.5).value(weights_of(loss), a)
    assert float(loss(*views(a), 0.3).detach()) == pytest.approx(expected, rel=1e-5)


@pytest.mark.parametrize("case", CASES)
@pytest.mark.parametrize("progress", [0.1, 0.6])
def test_both_players_get_their_gradient(case: str, progress: float) -> None:
    """The classifiers that of the value; the features that of theirs, reversed where they play against; no logits."""
    loss, formula = CASES[case]
    a, w = arrays(), weights_of(loss)
    parts = formula(2 / (1 + np.exp(-10 * progress)) - 1)
    loss.zero_grad()
    source, target = views(a)
    loss(source, target, progress).backward()
    for name, parameter in loss.named_parameters():
        close(parameter.grad, finite_difference(lambda v: parts.value(v, a), w, name))
    close(source.features.grad, finite_difference(lambda v: parts.moves(w, v), a, "x"))
    close(target.features.grad, finite_difference(lambda v: parts.moves(w, v), a, "y"))
    assert source.logits.grad is None and target.logits.grad is None


@pytest.mark.parametrize("name", NAMES)
def test_at_the_start_the_target_moves_nobody(name: str) -> None:
    loss = build(lambda: losses.get(name)(D, K))
    source, target = views(arrays())
    loss(source, target, 0.0).backward()
    assert not target.features.grad.any()
    # MCD's classifiers also train the features on the source; MDD leaves that to the head.
    assert bool(source.features.grad.any()) == (name == "MCD")
    assert all(p.grad.abs().sum() > 0 for p in loss.parameters())


@pytest.mark.parametrize("name", NAMES)
def test_contract(name: str) -> None:
    """A float32 scalar with finite gradients for every parameter and both domains, unequal batches, bfloat16 too."""
    kind = losses.get(name)
    loss = build(lambda: kind(D, K))
    assert kind.paper and kind.default_weight > 0 and kind.needs_source and kind.needs_classes
    for dtype, (n, m) in ((torch.float32, (8, 6)), (torch.bfloat16, (6, 8)), (torch.float32, (1, 3))):
        loss.zero_grad()
        source, target = views(arrays(n, m), dtype)
        found = loss(source, target, 0.7)
        assert found.shape == () and found.dtype == torch.float32 and found.isfinite()
        found.backward()
        assert all(p.grad.isfinite().all() and p.grad.abs().sum() > 0 for p in loss.parameters())
        for view in (source, target):
            assert view.features.grad.isfinite().all() and view.features.grad.abs().sum() > 0


@pytest.mark.parametrize("name", NAMES)
def test_autocast_changes_nothing(name: str) -> None:
    loss = build(lambda: losses.get(name)(D, K))
    expected = float(loss(*views(arrays()), 0.5).detach())
    with torch.autocast("cpu", torch.bfloat16):
        assert float(loss(*views(arrays()), 0.5).detach()) == expected


@pytest.mark.parametrize("name", NAMES)
def test_sure_classifiers_stay_finite(name: str) -> None:
    loss = build(lambda: losses.get(name)(D, K))
    a = arrays()
    source, target = views(a | {"x": 1e4 * a["x"], "y": -1e4 * a["y"], "p": 1e4 * a["p"], "q": 1e4 * a["q"]})
    found = loss(source, target, 1.0)
    found.backward()
    assert found.isfinite() and source.features.grad.isfinite().all() and target.features.grad.isfinite().all()
    assert all(p.grad.isfinite().all() for p in loss.parameters())


@pytest.mark.parametrize("name", NAMES)
def test_what_is_needed_is_asked_for(name: str) -> None:
    kind = losses.get(name)
    for classes in (0, 1):
        with pytest.raises(UsageError, match="2 classes"):
            kind(D, classes)
    loss = kind(D, K)
    for n, m in ((0, 5), (5, 0)):
        with pytest.raises(UsageError, match="at least 1 samples"):
            loss(*views(arrays(n, m)), 0.5)
    with pytest.raises(UsageError, match="hidden"):
        kind(D, K, hidden=0)


def test_missing_logits_and_labels_are_named() -> None:
    source, target = views(arrays())
    bare = DomainView(source.features), DomainView(target.features)
    for loss, pair, what in (
        (MCD(D, K), (bare[0], bare[1]), "the source's labels"),
        (MDD(D, K), (bare[0], target), "the source's logits"),
        (MDD(D, K), (source, bare[1]), "the target's logits"),
    ):
        with pytest.raises(UsageError, match=what):
            loss(*pair, 0.5)
    # What a method does not read may be missing.
    assert MCD(D, K)(DomainView(source.features, None, source.labels), bare[1], 0.5).isfinite()
    assert MDD(D, K)(DomainView(source.features, source.logits), target, 0.5).isfinite()


@pytest.mark.parametrize("options", [{"gamma": 0.0}, {"gamma": -4.0}, {"eta": -0.1}])
def test_impossible_options_are_refused(options: dict[str, float]) -> None:
    with pytest.raises(UsageError):
        MDD(D, K, **options)


def test_the_classifiers_of_mcd_differ_from_the_start() -> None:
    """Equal ones would agree everywhere and get the same gradient for ever."""
    loss = MCD(D, K)
    assert all(not torch.equal(a, b) for a, b in zip(loss.first.parameters(), loss.second.parameters(), strict=True))
    loss.second.load_state_dict(loss.first.state_dict())
    a = arrays()
    own = F.cross_entropy(loss.first(torch.tensor(a["x"])), torch.tensor(a["labels"]))
    assert float(loss(*views(a), 0.5).detach()) == pytest.approx(2 * float(own.detach()), rel=1e-6)


def test_log_odds_are_exact_where_a_probability_is_0_or_1() -> None:
    """The log-odds from float64, also where 1 − p is 1e-40 and less."""
    rng = np.random.default_rng(0)
    logits = np.vstack([rng.normal(size=(4, K)), [[200.0, 0, 0, 0], [-200.0, 0, 0, 0]]])
    classes = np.array([0, 1, 2, 3, 0, 0])
    expected = [z[c] - logsumexp(np.delete(z, c)) for z, c in zip(logits, classes, strict=True)]
    z = torch.tensor(logits).float().requires_grad_()
    found = log_odds(z, torch.tensor(classes))
    np.testing.assert_allclose(found.detach().numpy(), expected, rtol=1e-5, atol=1e-5)
    # A sure and wrong classifier still feels which way to go.
    F.softplus(found[4]).backward()
    torch.testing.assert_close(z.grad[4], torch.tensor([1.0, -1 / 3, -1 / 3, -1 / 3]))


def test_a_classifier_sees_its_samples_one_by_one() -> None:
    net = OwnClassifier(D, K, HIDDEN)
    rows = torch.randn(5, D)
    torch.testing.assert_close(net(rows), torch.cat([net(row[None]) for row in rows]))


@pytest.mark.slow
@pytest.mark.parametrize("name", NAMES)
def test_a_learned_shift_brings_the_target_to_the_source(name: str) -> None:
    """Two classes, a target 1.8 off, a head that knows the source alone; only the loss moves target + shift."""
    draw = torch.Generator().manual_seed(0)
    centres, offset = torch.tensor([[-2.0, 0.0], [2.0, 0.0]]), torch.tensor([1.0, 1.5])
    loss = build(lambda: losses.get(name)(2, 2, hidden=32))
    shift = nn.Parameter(torch.zeros(2))
    sides = [{"params": loss.parameters(), "lr": 0.01}, {"params": [shift], "lr": 0.02}]
    optimiser = torch.optim.Adam(sides, betas=(0.5, 0.9))
    gaps = []
    for step in range(200):
        labels = torch.arange(48) % 2
        x, y = (centres[labels[:n]] + 0.6 * torch.randn(n, 2, generator=draw) for n in (48, 32))
        y = y + offset + shift
        optimiser.zero_grad()
        source, target = DomainView(x, x @ centres.T, labels), DomainView(y, y.detach() @ centres.T)
        loss(source, target, step / 200).backward()
        optimiser.step()
        gaps.append(float((offset + shift.detach()).norm()))
    assert gaps[0] > 1.7
    assert np.mean(gaps[-60:]) < 0.6
