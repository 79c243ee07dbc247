"""Validators against the formulas written out, that none of them sees a target label, the choice, and collapse."""

from __future__ import annotations

from typing import Any, NoReturn

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from scipy.stats import binom, rankdata
from sklearn.linear_model import LinearRegression, RidgeClassifier

from regraft.adaptation.evidence.validators import (
    BNM,
    DEV,
    SND,
    Choice,
    Oracle,
    choose,
    collapsed,
    dev_risk,
    reverse_accuracy,
    validators,
)
from regraft.core.errors import DataError, UsageError
from regraft.core.types import DomainView, Validator

Array = NDArray[np.float64]


class Untouchable:
    """Stands where a label would be; to look at it in any way is an error."""

    def _refuse(self, *args: Any, **kwargs: Any) -> NoReturn:
        raise AssertionError("a validator looked at the target's labels")

    __getattribute__ = _refuse
    __len__ = __iter__ = __getitem__ = __eq__ = __bool__ = __array__ = __str__ = __repr__ = __hash__ = _refuse


def views(n: int = 60, m: int = 50, k: int = 3, *, shift: float = 0.0, seed: int = 0) -> tuple[DomainView, DomainView]:
    """Class clusters in 8 coordinates with the logits of a good, not perfect, linear head."""
    draw = torch.Generator().manual_seed(seed)
    centres = 2 * torch.eye(k, 8)
    labels, hidden = torch.arange(n) % k, torch.arange(m) % k
    x = centres[labels] + torch.randn(n, 8, generator=draw)
    y = centres[hidden] + torch.randn(m, 8, generator=draw) + shift
    target = DomainView(y, y @ centres.T, Untouchable())  # type: ignore[arg-type]
    return DomainView(x, x @ centres.T, labels), target


def probabilities(view: DomainView) -> Array:
    assert view.logits is not None
    exp = np.exp(view.logits.double().numpy())
    return np.asarray(exp / exp.sum(axis=1, keepdims=True))


@pytest.mark.parametrize("name", validators.names())
def test_no_validator_touches_target_labels(name: str) -> None:
    source, target = views()
    with pytest.raises(AssertionError, match="looked at"):
        np.asarray(target.labels)  # the trap works
    tool: Validator = validators.get(name)()
    assert tool.uses_target_labels is False
    score = tool.score(source, target)
    assert isinstance(score, float)
    assert np.isfinite(score)
    assert score == tool.score(source, target)
    # It reads the target's answers, unless it says that it looks at the source alone.
    assert target.logits is not None
    other = DomainView(target.features, target.logits.flip(1) / 3)
    if name in ("source-accuracy", "DEV"):  # DEV reads the target's features
        other = DomainView(target.features, target.logits * 0)
        assert score == tool.score(source, other)
    else:
        assert score != tool.score(source, other)


@pytest.mark.parametrize("name", validators.names())
def test_views_that_lack_something_are_told_and_divergence_loses(name: str) -> None:
    tool = validators.get(name)()
    source, target = views()
    nothing = DomainView(target.features[:0], torch.zeros(0, 3))
    with pytest.raises(UsageError, match="target"):
        tool.score(source, DomainView(target.features))
    with pytest.raises(UsageError, match="at least one sample"):
        tool.score(source, nothing)
    assert target.logits is not None
    diverged = DomainView(target.features, target.logits * torch.nan)
    assert tool.score(source, diverged) == float("-inf")
    if tool.needs_source:
        with pytest.raises(UsageError):
            tool.score(nothing, target)
        with pytest.raises(UsageError, match="source's labels"):
            tool.score(DomainView(source.features, source.logits), target)
    else:
        assert np.isfinite(tool.score(nothing, target))


def test_bfloat16_views_give_the_same_scores() -> None:
    source, target = views()
    assert source.logits is not None and target.logits is not None
    half = DomainView(target.features.bfloat16(), target.logits.bfloat16())
    back = DomainView(half.features.float(), None if half.logits is None else half.logits.float())
    for name in validators:
        assert validators.get(name)().score(source, half) == validators.get(name)().score(source, back)


def test_entropy_and_infomax_are_their_formulas() -> None:
    source, target = views()
    p = probabilities(target)
    mean_entropy = -np.mean([sum(q * np.log(q) for q in row) for row in p])
    diversity = -sum(q * np.log(q) for q in p.mean(axis=0))
    assert validators.get("entropy")().score(source, target) == pytest.approx(-mean_entropy)
    assert validators.get("infomax")().score(source, target) == pytest.approx(diversity - mean_entropy)
    sure = DomainView(torch.zeros(6, 2), 1e3 * torch.eye(3).repeat(2, 1))
    assert validators.get("entropy")().score(source, sure) == 0  # 0 log 0 is 0
    assert validators.get("infomax")().score(source, sure) == pytest.approx(np.log(3))
    one = DomainView(torch.zeros(6, 2), 1e3 * torch.eye(3)[[0]].repeat(6, 1))
    assert validators.get("infomax")().score(source, one) == pytest.approx(0)


def test_soft_neighbourhood_density_is_its_formula_and_chunks_do_not_show() -> None:
    source, target = views(m=1100)  # more than one chunk
    p = probabilities(target)
    unit = p / np.sqrt((p**2).sum(axis=1, keepdims=True))
    expected = []
    for i in range(len(p)):
        similar = np.exp(np.delete(unit @ unit[i], i) / 0.05)
        similar = similar / similar.sum()
        expected.append(-(similar * np.log(similar)).sum())
    assert SND().score(source, target) == pytest.approx(np.mean(expected))
    same = DomainView(torch.zeros(7, 2), torch.ones(7, 3))
    assert SND().score(source, same) == pytest.approx(np.log(6))
    assert SND().score(source, DomainView(torch.zeros(1, 2), torch.ones(1, 3))) == 0


@pytest.mark.parametrize("m", [2, 9, 90])
def test_bnm_reaches_1_for_sure_and_diverse_answers_of_any_number(m: int) -> None:
    source, target = views(m=m)
    singular = np.sqrt(np.maximum(np.linalg.eigvalsh(probabilities(target).T @ probabilities(target)), 0))
    assert BNM().score(source, target) == pytest.approx(singular.sum() / np.sqrt(m * min(m, 3)), abs=1e-6)
    balanced = DomainView(torch.zeros(m, 2), 1e3 * torch.eye(3)[torch.arange(m) % 3])
    assert BNM().score(source, balanced) == pytest.approx(1)
    one = DomainView(torch.zeros(m, 2), 1e3 * torch.eye(3)[torch.zeros(m, dtype=torch.long)])
    assert BNM().score(source, one) == pytest.approx(1 / np.sqrt(min(m, 3)))


def test_dev_is_the_source_risk_where_the_domains_are_one() -> None:
    source, target = views(n=900, m=700)
    assert source.logits is not None and source.labels is not None
    error = float((source.logits.argmax(1) != source.labels).float().mean())
    assert 0.05 < error < 0.3
    assert DEV().score(source, target) == pytest.approx(-error, abs=0.02)
    nll = float(torch.nn.functional.cross_entropy(source.logits, source.labels))
    assert DEV("cross-entropy").score(source, target) == pytest.approx(-nll, abs=0.03)


def test_dev_finds_the_target_s_risk_under_covariate_shift() -> None:
    # The error depends on x alone; the target has more of the hard samples.
    draw = np.random.default_rng(0)

    def sample(n: int, mean: float) -> tuple[Array, NDArray[np.int64]]:
        x = draw.normal(size=(n, 2)) + np.array([mean, 0])
        wrong = draw.random(n) < 1 / (1 + np.exp(-2 * x[:, 0]))
        return x, wrong.astype(np.int64)

    (x, wrong), (y, hidden) = sample(4000, 0.0), sample(4000, 0.8)
    logits = torch.tensor([[1.0, 0.0]]).repeat(4000, 1)  # always says class 0
    source = DomainView(torch.from_numpy(x), logits, torch.from_numpy(wrong))
    found = -DEV().score(source, DomainView(torch.from_numpy(y), logits))
    assert abs(wrong.mean() - hidden.mean()) > 0.15
    assert found == pytest.approx(hidden.mean(), abs=0.04)


def test_dev_risk_is_the_regression_on_the_weights_at_1() -> None:
    draw = np.random.default_rng(0)
    weights, losses = draw.exponential(size=50), draw.random(50)
    line = LinearRegression().fit(weights[:, None], weights * losses)
    assert dev_risk(weights, losses) == pytest.approx(line.predict([[1.0]])[0])
    assert dev_risk(np.full(50, 1e-20), losses) == pytest.approx(losses.mean())


def test_reverse_validation_is_a_head_on_pseudo_labels() -> None:
    source, target = views(n=200, m=150)
    assert source.logits is not None and source.labels is not None and target.logits is not None
    found = validators.get("reverse")().score(source, target)
    model = RidgeClassifier(alpha=1.0).fit(target.features.numpy(), target.logits.argmax(1).numpy())
    expected = model.score(source.features.numpy(), source.labels.numpy())
    assert found == pytest.approx(expected, abs=0.03)
    wrong = target.logits.numpy()[:, [1, 2, 0]]
    x, y = source.features.numpy(), target.features.numpy()
    assert reverse_accuracy(y, wrong, x, source.labels.numpy()) < 0.2
    one_class = np.eye(3)[np.zeros(150, dtype=int)]
    assert reverse_accuracy(y, one_class, x, source.labels.numpy()) == pytest.approx(
        float((source.labels == 0).float().mean())
    )
    with pytest.raises(DataError):
        reverse_accuracy(y[:1], wrong[:1], x, source.labels.numpy())


def test_the_oracle_takes_labels_apart_from_the_view() -> None:
    source, target = views()
    assert target.logits is not None
    labels = target.logits.argmax(1)
    tool: Validator = Oracle(labels)
    assert tool.uses_target_labels is True
    assert tool.score(source, target) == 1
    changed = labels.numpy().copy()
    changed[:10] = (changed[:10] + 1) % 3
    assert Oracle(changed).score(source, target) == pytest.approx(0.8)
    assert not any(issubclass(validators.get(name), Oracle) for name in validators)
    with pytest.raises(DataError):
        Oracle(changed[:5]).score(source, target)


def test_the_choice_has_the_best_mean_rank() -> None:
    scores = {
        "a": {"x": 0.1, "y": 5.0, "z": 1.0, "w": float("nan")},
        "b": {"x": 0.3, "y": 5.0, "z": 1.0, "w": float("nan")},
        "c": {"x": 0.2, "y": 9.0, "z": 1.0, "w": float("nan")},
    }
    found = choose(scores)
    expected = {v: rankdata([-scores[c][v] for c in scores]) for v in ("x", "y")}
    assert {v: list(found.ranks[v].values()) for v in found.ranks} == {v: list(r) for v, r in expected.items()}
    assert found.mean_rank == {"a": 2.75, "b": 1.75, "c": 1.5}
    assert found.name == "c"
    assert found.ignored == {"z": "the same score for all", "w": "no finite score"}


def test_ties_go_to_the_earlier_candidate_and_what_diverged_ranks_last() -> None:
    tied = {"x": {"v": 1.0, "w": 2.0}, "y": {"v": 2.0, "w": 1.0}}
    assert choose(tied).name == "x"
    assert choose(dict(reversed(tied.items()))).name == "y"
    broken = {"x": {"v": float("-inf")}, "y": {"v": -5.0}, "z": {"v": -5.0}}
    assert choose(broken).ranks["v"] == {"x": 3.0, "y": 1.5, "z": 1.5}
    assert choose({"only": {"v": 1.0}}) == Choice("only", {"only": 1.0}, {}, {"v": "the same score for all"})
    with pytest.raises(UsageError, match="no candidate"):
        choose({})
    with pytest.raises(UsageError, match="same validators"):
        choose({"x": {"v": 1.0}, "y": {"w": 1.0}})


def answers(*counts: int) -> Array:
    return np.eye(len(counts))[np.repeat(np.arange(len(counts)), counts)]


def test_collapse_names_the_class_that_was_swallowed() -> None:
    prior = np.array([0.4, 0.3, 0.2, 0.1])
    assert collapsed(answers(40, 30, 20, 10), prior) == []
    assert collapsed(np.log(answers(40, 2, 48, 10) + 1e-3), prior) == [1]  # logits as well as probabilities
    assert collapsed(answers(89, 5, 3, 3), prior) == [1, 2]  # 3 of 10 are more than a fifth
    assert collapsed(answers(100, 0, 0, 0), prior) == [1, 2, 3]
    # Class 1 vanishes, but into all others alike: each grows by a third of it.
    assert collapsed(answers(50, 0, 30, 20), prior) == []
    # A label shift that is expected is no collapse.
    assert collapsed(answers(60, 4, 26, 10), [0.6, 0.05, 0.25, 0.1]) == []


def test_collapse_of_a_rare_class_needs_samples_enough_to_tell() -> None:
    prior = np.array([0.9, 0.1])
    assert binom.cdf(0, 50, 0.1) > 0.01 / 2 > binom.cdf(0, 51, 0.1)
    assert collapsed(answers(50, 0), prior) == []
    assert collapsed(answers(51, 0), prior) == [1]


def test_domains_that_are_one_collapse_in_one_draw_of_hundreds_at_most() -> None:
    draw = np.random.default_rng(0)
    prior = np.array([0.4, 0.3, 0.15, 0.1, 0.05])
    found = [collapsed(np.eye(5)[draw.choice(5, 80, p=prior)], prior) for _ in range(500)]
    assert sum(map(bool, found)) <= 5
    with pytest.raises(DataError):
        collapsed(np.eye(5), prior[:3])
    with pytest.raises(DataError):
        collapsed(np.eye(5)[:0], prior)
