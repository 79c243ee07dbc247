"""Partial and open targets and other class shares: each formula against NumPy, and the extremes that are known."""

from __future__ import annotations

from itertools import pairwise
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from scipy.special import log_softmax, logsumexp, softmax
from torch import nn

from regraft.adaptation.evidence.choice import _collapsed
from regraft.adaptation.evidence.setting import look
from regraft.adaptation.evidence.validators import validators
from regraft.adaptation.losses.confusion import BNM, InformationMaximisation, information_loss
from regraft.adaptation.losses.open_set import OSBP, split
from regraft.adaptation.losses.self_training import SHOT, PseudoLabel, balanced_cross_entropy
from regraft.adaptation.maps.label_shift import reweigh
from regraft.adaptation.training.answers import Adapted
from regraft.adaptation.training.partial import class_weights, present, resample
from regraft.adaptation.training.prior import corrected_shares
from regraft.adaptation.training.task import Adaptation
from regraft.core.errors import DataError, UsageError
from regraft.core.types import Batch, DomainView, Features, InputSpec
from regraft.measure.calibration import fit_temperature
from regraft.measure.open_set import open_set_figures
from regraft.tasks.classification.task import Classification
from two_domains import D, K, arrays, views, weights_of

pytestmark = pytest.mark.usefixtures("one_thread")

WEIGHTS = torch.tensor([1.0, 0.6, 0.0, 0.1])


class Given(nn.Module):
    """A backbone whose features are its input."""

    feature_dim = D
    input_spec = InputSpec("features")

    def forward(self, x: torch.Tensor) -> Features:
        return Features(x)

    def layer_groups(self) -> dict[str, list[str]]:
        return {}


def task(loss: nn.Module | None = None) -> Adaptation:
    torch.manual_seed(0)
    return Adaptation(Classification(Given(), K), loss, smoothing=0.0, partial=True)  # type: ignore[arg-type]


def weighted(target: DomainView, weights: torch.Tensor | None = WEIGHTS) -> DomainView:
    return DomainView(target.features, target.logits, class_weights=weights)


# Partial: the weights, and the rows that they draw.


def test_class_weights_are_the_mean_prediction_over_its_largest() -> None:
    p = softmax(np.random.default_rng(0).normal(size=(9, K)) * 2, axis=1)
    mean = p.mean(axis=0)
    found = class_weights(torch.from_numpy(p))
    np.testing.assert_allclose(found, mean / mean.max(), rtol=1e-6)
    assert class_weights(torch.zeros(0, K)).tolist() == [1.0] * K
    assert present(torch.tensor([1.0, 0.2, 0.19])).tolist() == [True, True, False]


def test_a_row_is_drawn_in_proportion_to_its_weight() -> None:
    weights = np.random.default_rng(0).uniform(size=30)
    weights[4] = 0.0
    expected = 30 * weights / weights.sum()
    counts = []
    for offset in (np.arange(400) + 0.5) / 400:
        rows = resample(torch.from_numpy(weights), torch.tensor(offset))
        counts.append(np.bincount(rows.numpy(), minlength=30))
        assert len(rows) == 30
        assert (counts[-1] >= np.floor(expected)).all() and (counts[-1] <= np.floor(expected) + 1).all()
    np.testing.assert_allclose(np.mean(counts, axis=0), expected, atol=0.005)
    assert not np.array(counts)[:, 4].any()
    for offset in (0.0, 0.5, 0.999999):
        assert resample(torch.full((64,), 0.3), torch.tensor(offset)).tolist() == list(range(64))


def test_the_sources_loss_is_the_weighted_one_on_average(monkeypatch: pytest.MonkeyPatch) -> None:
    """arXiv:1808.04205, eq. 4: every source sample's cross-entropy times its class's weight; here over their sum."""
    a, whole = arrays(n=40), task().train()
    whole.survey(torch.zeros(6, D), torch.tensor(arrays(m=6)["q"]))
    mean = softmax(arrays(m=6)["q"], axis=1).mean(axis=0)
    np.testing.assert_allclose(whole.target_weights, mean / mean.max(), rtol=1e-6)
    x, labels = torch.from_numpy(a["x"]).float(), torch.from_numpy(a["labels"])
    head = weights_of(whole.model.head)
    each = -log_softmax(a["x"] @ head["weight"].T + head["bias"], axis=1)[np.arange(40), a["labels"]]
    w = (mean / mean.max())[a["labels"]]
    found = []
    for offset in (np.arange(500) + 0.5) / 500:
        monkeypatch.setattr(torch, "rand", lambda *_, at=offset: torch.tensor(at))
        found.append(float(whole({"source": Batch(x, labels)}, 0.5).loss.detach()))
    assert np.mean(found) == pytest.approx((w * each).sum() / w.sum(), rel=1e-3)
    assert np.mean(found) != pytest.approx(each.mean(), rel=1e-2)
    assert float(whole.eval()({"source": Batch(x, labels)}, 0.5).loss.detach()) == pytest.approx(each.mean(), rel=1e-5)


def test_the_losses_get_the_drawn_rows_and_the_weights() -> None:
    class Seen(InformationMaximisation):
        def forward(self, source: DomainView, target: DomainView, progress: float) -> torch.Tensor:
            self.source, self.target = source, target
            return target.features.sum() * 0.0

    a, loss = arrays(n=12), Seen(D, K)
    whole = task(loss).train()
    assert whole.target_weights is not None and whole.surveys
    whole.target_weights.copy_(torch.tensor([1.0, 0.0, 1.0, 0.0]))
    source = Batch(torch.from_numpy(a["x"]).float(), torch.from_numpy(a["labels"]))
    whole({"source": source, "target": Batch(torch.from_numpy(a["y"]).float())}, 0.5)
    assert loss.source.labels is not None and set(loss.source.labels.tolist()) == {0, 2}
    assert len(loss.source.features) == len(loss.source.labels) == 12
    for row, label in zip(loss.source.features.detach(), loss.source.labels, strict=True):
        (place,) = np.flatnonzero((source.x == row).all(1).numpy())
        assert int(source.y[place]) == int(label)  # type: ignore[index]
    assert loss.target.class_weights is not None and loss.target.class_weights.tolist() == [1.0, 0.0, 1.0, 0.0]
    assert loss.target.labels is None


# Partial: what asked for every class.


def test_the_diversity_term_is_the_divergence_from_the_expected_shares() -> None:
    a = arrays(m=8)
    q = softmax(a["q"], axis=1)
    shares = np.maximum(WEIGHTS.numpy().astype(float), 1e-6)
    shares /= shares.sum()
    mean = q.mean(axis=0)
    expected = float(-(q * np.log(q)).sum(1).mean() + (mean * np.log(mean / shares)).sum() - np.log(K))
    _, target = views(a)
    loss = InformationMaximisation(D, K)
    assert float(loss(target, weighted(target), 0.5).detach()) == pytest.approx(expected, rel=1e-5)
    validator = validators.get("infomax")()
    assert validator.score(target, weighted(target)) == pytest.approx(-expected, rel=1e-5)
    for equal in (torch.ones(K), torch.full((K,), 0.3)):
        plain = float(loss(target, target, 0.5).detach())
        assert float(loss(target, weighted(target, equal), 0.5).detach()) == pytest.approx(plain, rel=1e-5)
        assert validator.score(target, weighted(target, equal)) == pytest.approx(validator.score(target, target))


def test_no_class_is_asked_for_that_seems_absent() -> None:
    """Sure answers of two classes are the least of the weighted loss, and can be bettered in the plain one."""
    two = torch.tensor([[20.0, 0, 0, 0], [0, 20.0, 0, 0]]).repeat(4, 1)
    four = 20 * torch.eye(K).repeat(2, 1)
    here = torch.tensor([1.0, 1.0, 0.0, 0.0])
    log_two, log_four = two.log_softmax(1), four.log_softmax(1)
    assert information_loss(log_four) < information_loss(log_two)
    assert information_loss(log_two, here) < information_loss(log_four, here)
    empty = DomainView(torch.zeros(8, D))
    for tool in (
        lambda view: -float(BNM(D, K)(empty, view, 0.5)),
        lambda view: validators.get("BNM")().score(view, view),
    ):
        plain, known = [
            [tool(DomainView(empty.features, z, class_weights=w)) for z in (two, four)] for w in (None, here)
        ]
        assert plain[0] < plain[1] and known[0] > known[1]


def test_bnm_weighs_columns() -> None:
    a = arrays(m=7)
    p = softmax(a["q"], axis=1) * WEIGHTS.numpy()
    expected = np.sqrt(np.linalg.eigvalsh(p.T @ p).clip(min=0)).sum()
    _, target = views(a)
    assert float(BNM(D, K)(target, weighted(target), 0.5).detach()) == pytest.approx(-expected / 7, rel=1e-4)
    found = validators.get("BNM")().score(target, weighted(target))
    assert found == pytest.approx(expected / np.sqrt(7 * K), rel=1e-4)


def test_pseudo_labels_are_balanced_by_the_weights() -> None:
    logits = torch.tensor([[9.0, 0, 0, 0], [9.0, 1, 0, 0], [0, 0, 8.0, 0], [0, 0, 0, 7.0]])
    own, everything = logits.argmax(1), torch.ones(4, dtype=torch.bool)
    each = -log_softmax(logits.numpy(), axis=1)[np.arange(4), own.numpy()]
    w = np.array([0.5, 0.5, 1e-6, 0.1])  # class 0 occurs twice, class 2 seems absent
    found = float(balanced_cross_entropy(logits, own, everything, WEIGHTS))
    assert found == pytest.approx((w * each).sum() / w.sum(), rel=1e-5)
    target = DomainView(torch.zeros(4, D), logits, class_weights=WEIGHTS)
    assert float(PseudoLabel(D, K, threshold=0.0)(target, target, 1.0)) == pytest.approx(found, rel=1e-3)


def test_shot_has_no_centre_for_a_class_that_seems_absent() -> None:
    logits = 5 * torch.eye(K)[torch.tensor([0, 0, 1, 2, 3])]
    features = torch.randn(5, D, generator=torch.Generator().manual_seed(0))
    loss = SHOT(D, K)
    loss.find_centres(features, logits)
    assert (loss.centres.abs().sum(1) > 0).all()
    loss.find_centres(features, logits, class_weights=WEIGHTS)
    assert (loss.centres.abs().sum(1) > 0).tolist() == [True, True, False, False]


# Open: a class more, and the confidence that tells it.


def test_osbp_is_its_formula() -> None:
    a = arrays()
    loss = OSBP(D, K, t=0.3, hidden=5)
    w = weights_of(loss.classifier)

    def own(x: np.ndarray) -> np.ndarray:
        hidden = np.maximum(x @ w["layers.0.weight"].T + w["layers.0.bias"], 0)
        return log_softmax(hidden @ w["layers.2.weight"].T + w["layers.2.bias"], axis=1)

    def adversarial(y: np.ndarray) -> float:
        log_p = own(y)
        return float(-(0.3 * log_p[:, K] + 0.7 * logsumexp(log_p[:, :K], axis=1)).mean())

    supervised = float(-own(a["x"])[np.arange(7), a["labels"]].mean())
    source, target = views(a)
    found = loss(source, target, 1.0)
    assert float(found.detach()) == pytest.approx(supervised + adversarial(a["y"]), rel=1e-5)
    found.backward()
    assert source.features.grad is not None and target.features.grad is not None
    for index in ((0, 0), (2, 1), (4, 2)):
        step = np.zeros_like(a["y"])
        step[index] = 1e-5
        slope = (adversarial(a["y"] + step) - adversarial(a["y"] - step)) / 2e-5
        reversed_ = -slope * (2 / (1 + np.exp(-10)) - 1)
        assert float(target.features.grad[index]) == pytest.approx(reversed_, rel=1e-3, abs=1e-6)
    assert all(p.grad is not None and p.grad.abs().sum() > 0 for p in loss.parameters())


def test_osbps_classifier_wants_t_and_takes_no_other() -> None:
    loss, (source, target) = OSBP(D, K, t=0.25), views(arrays())
    with torch.no_grad():
        for p in loss.parameters():
            p.zero_()
        loss.classifier.layers[2].bias[K] = np.log(K / 3)  # odds of 1 to 3: t itself
    loss(source, target, 0.5).backward()
    # Only the supervised term still moves the unknown class: its mean probability on the source, which is t.
    assert float(loss.classifier.layers[2].bias.grad[K]) == pytest.approx(0.25, rel=1e-5)
    for t in (0.0, 1.0):
        with pytest.raises(UsageError, match="between 0 and 1"):
            OSBP(D, K, t=t)
    with pytest.raises(UsageError, match="labels"):
        loss(target, target, 0.5)


def test_the_split_is_otsus() -> None:
    rng = np.random.default_rng(0)
    scores = np.round(np.concatenate([rng.normal(0.4, 0.1, 30), rng.normal(0.9, 0.05, 50)]), 2)  # with ties
    best, at = -1.0, 0.0
    values = np.unique(scores)
    for low, high in pairwise(values):
        below, above = scores[scores <= low], scores[scores >= high]
        between = len(below) * len(above) * (above.mean() - below.mean()) ** 2
        if between > best:
            best, at = between, (low + high) / 2
    assert split(scores) == pytest.approx(at)
    assert 0.5 < split(scores) < 0.8
    assert split(np.full(5, 0.7)) == split(np.array([0.7])) == 0.0
    with pytest.raises(DataError, match="finite"):
        split(np.array([0.5, np.nan]))


def test_open_set_figures() -> None:
    labels = np.array([0, 0, 0, 1, 3, 3, 3, 3])  # three known classes, of which one does not occur; 3 is unknown
    answers = np.array([0, 0, 3, 1, 3, 3, 3, 1])
    found = open_set_figures(answers, labels, 3)
    assert found["os_star"] == pytest.approx((2 / 3 + 1) / 2) and found["unk"] == 0.75
    assert found["hos"] == pytest.approx(2 * (5 / 6) * 0.75 / (5 / 6 + 0.75))
    assert open_set_figures(np.array([3]), np.array([0]), 3) == {"os_star": 0.0, "unk": None, "hos": None}
    assert open_set_figures(np.array([3, 0]), np.array([0, 3]), 3)["hos"] == 0.0
    with pytest.raises(DataError):
        open_set_figures(np.array([0, 1]), np.array([0]), 3)


# What a setting makes of candidates.


def candidate(name: str, held: np.ndarray, target: np.ndarray) -> Adapted:
    return Adapted(
        name, 0.0, 0, np.zeros((len(target), 2), np.float32), target, np.zeros((len(held), 2), np.float32), held
    )


def test_a_setting_narrows_what_is_compared() -> None:
    rng, labels = np.random.default_rng(0), np.arange(20) % K
    held = 4 * np.eye(K)[labels] + rng.normal(size=(20, K))
    target = np.concatenate([6 * np.eye(K)[np.arange(15) % 2], 0.1 * rng.normal(size=(5, K))])
    both = [candidate("a", held, target), candidate("b", held, 1.1 * target)]
    closed = look("closed", both, labels)
    assert len(closed.narrowed(both[0]).target_logits) == 20 and closed.views(both[0])[1].class_weights is None
    np.testing.assert_allclose(
        closed.probabilities("a", target), softmax(target / closed.calibrations["a"].temperature, axis=1), rtol=1e-9
    )

    partial = look("partial", both, labels)
    mean = np.mean([softmax(c.target_logits, axis=1) for c in both], axis=(0, 1))
    assert partial.target_weights == pytest.approx(mean / mean.max(), rel=1e-5)
    assert set(partial.source_labels.tolist()) == {0, 1}  # type: ignore[union-attr]
    assert len(partial.narrowed(both[0]).source_logits) == 10  # type: ignore[arg-type]
    assert len(partial.views(both[0])[0].features) == 20

    open_ = look("open", both, labels)
    assert open_.known.tolist() == [True] * 15 + [False] * 5
    assert open_.answers(both[0]).tolist() == [*(np.arange(15) % 2), *[K] * 5]
    p = open_.probabilities("a", target)
    assert p.shape == (20, K + 1) and p.sum(1) == pytest.approx(np.ones(20))
    sure = softmax(target / open_.calibrations["a"].temperature, axis=1).max(1)
    assert (p[:, K] == (sure < open_.thresholds["a"])).all()
    assert len(open_.views(both[0])[1].features) == 15


def test_absent_classes_are_no_collapse_where_some_are_missing() -> None:
    labels = np.arange(200) % K
    held, spread = 6.0 * np.eye(K)[labels], 6.0 * np.eye(K)[labels]
    two, one = 6.0 * np.eye(K)[labels % 2], 6.0 * np.eye(K)[np.zeros(200, dtype=int)]
    bench = SimpleNamespace(classes=("a", "b", "c", "d"), source=SimpleNamespace(labels=labels))

    def found(setting: str, best: np.ndarray, *others: np.ndarray, prior: np.ndarray | None = None) -> tuple[str, ...]:
        adapted = [candidate(str(i), held, z) for i, z in enumerate((best, *others))]
        adapted[0].prior = prior
        control = candidate("source-only", held, spread)
        return _collapsed(bench, look(setting, [control, *adapted], labels), adapted[0], control)  # type: ignore[arg-type]

    assert found("closed", two) == ("c", "d")
    assert found("partial", two, two) == ()
    assert found("partial", one, two, two) == ("b",)  # a class that the others find there is missed all the same
    assert found("closed", two, prior=np.array([0.5, 0.5, 0.0, 0.0])) == ()


@pytest.mark.parametrize("name", ["BBSE", "EM-prior"])
def test_the_correction_finds_the_shares_and_is_the_reweighing(name: str) -> None:
    rng = np.random.default_rng(0)
    source, true = np.array([0.25, 0.25, 0.25, 0.25]), np.array([0.6, 0.2, 0.15, 0.05])

    def drawn(shares: np.ndarray, n: int) -> tuple[np.ndarray, np.ndarray]:
        """Logits, three times too sure, of samples with four Gaussian classes under equal shares."""
        labels = rng.choice(K, size=n, p=shares)
        x = 1.5 * np.eye(K)[labels] + rng.normal(size=(n, K))
        return 3 * 1.5 * x, labels

    (held, labels), (target, _) = drawn(source, 4000), drawn(true, 4000)
    shares, offset = corrected_shares(name, held, labels, target, source, fit_temperature(held, labels))
    assert shares == pytest.approx(true, abs=0.03)
    np.testing.assert_allclose(
        softmax((target + offset) / 3, axis=1), reweigh(softmax(target / 3, axis=1), source, shares), atol=0.02
    )
