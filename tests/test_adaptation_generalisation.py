"""Generalisation methods against their formulas: penalties, weights of domains, mixtures, and the window of SWAD."""

from __future__ import annotations

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import nn

from regraft.adaptation.generalisation.dense_average import DenseAverage, swad_window
from regraft.adaptation.generalisation.methods import (
    ERM,
    IRM,
    SWAD,
    Environment,
    Generalisation,
    GroupDRO,
    InterDomainMixup,
    generalisers,
)
from regraft.adaptation.training.bench import adapter_model
from regraft.core.errors import DataError, UsageError
from regraft.core.types import Batch, Rule
from regraft.engine import FitSettings, fit
from regraft.measure.over_domains import mean_over_domains
from regraft.strategies import RuleStrategy
from tiny_training import Numbers, one_machine

pytestmark = pytest.mark.usefixtures("one_thread")
K, E = 4, 3


def domains(seed: int = 0) -> tuple[list[np.ndarray], list[np.ndarray]]:
    """Logits and targets (N, K) of three domains of unlike sizes; the last one's targets are soft."""
    rng = np.random.default_rng(seed)
    logits = [2 * rng.normal(size=(n, K)) for n in (5, 7, 4)]
    targets = [np.eye(K)[np.arange(n) % K] for n in (5, 7, 4)]
    targets[2] = rng.dirichlet(np.ones(K), 4)
    return logits, targets


def tensors(arrays: list[np.ndarray], *, leaf: bool = False) -> list[torch.Tensor]:
    return [torch.tensor(a, dtype=torch.float32, requires_grad=leaf) for a in arrays]


def risk(z: np.ndarray, t: np.ndarray, scale: float = 1.0) -> float:
    log = scale * z - np.log(np.exp(scale * z).sum(axis=1, keepdims=True))
    return float(-(t * log).sum(axis=1).mean())


def irm(logits: list[np.ndarray], targets: list[np.ndarray], weight: float) -> float:
    """IRMv1 with the gradient in the scale by central differences."""
    pull = [(risk(z, t, 1 + 1e-5) - risk(z, t, 1 - 1e-5)) / 2e-5 for z, t in zip(logits, targets, strict=True)]
    plain = np.mean([risk(z, t) for z, t in zip(logits, targets, strict=True)])
    return float((plain + weight * np.mean(np.square(pull))) / max(1.0, weight))


def test_erm_is_the_mean_over_domains() -> None:
    logits, targets = domains()
    expected = np.mean([risk(z, t) for z, t in zip(logits, targets, strict=True)])
    for kind in (ERM, SWAD, InterDomainMixup):
        assert float(kind(E)(tensors(logits), tensors(targets), 0.5)) == pytest.approx(expected, rel=1e-5)


@pytest.mark.parametrize(("progress", "weight"), [(0.05, 1.0), (0.1, 30.0), (0.9, 30.0)])
def test_irm_is_the_penalty_of_the_paper(progress: float, weight: float) -> None:
    logits, targets = domains()
    found = IRM(E, penalty=30.0)(tensors(logits), tensors(targets), progress)
    assert float(found) == pytest.approx(irm(logits, targets, weight), rel=1e-5)


def test_the_gradient_of_irm_is_the_finite_difference() -> None:
    logits, targets = domains()
    leaves = tensors(logits, leaf=True)
    IRM(E, penalty=30.0)(leaves, tensors(targets), 0.5).backward()
    for i, leaf in enumerate(leaves):
        numeric = np.zeros_like(logits[i])
        for index in np.ndindex(*numeric.shape):
            around = []
            for step in (1e-4, -1e-4):
                moved = [z.copy() for z in logits]
                moved[i][index] += step
                around.append(irm(moved, targets, 30.0))
            numeric[index] = (around[0] - around[1]) / 2e-4
        np.testing.assert_allclose(leaf.grad.numpy(), numeric, rtol=5e-3, atol=1e-5)


def test_irm_asks_nothing_of_a_head_that_is_optimal_in_scale() -> None:
    z = torch.tensor([[2.0, 0.0], [2.0, 0.0], [0.0, 2.0]])
    t = z.softmax(dim=1)
    plain = ERM(1)([z], [t], 0.5)
    assert float(IRM(1, penalty=1.0)([z], [t], 0.5)) == pytest.approx(float(plain), abs=1e-6)
    assert float(IRM(1, penalty=1.0)([3 * z], [t], 0.5)) > float(ERM(1)([3 * z], [t], 0.5)) + 0.1


def test_groupdro_follows_algorithm_1() -> None:
    method = GroupDRO(E, step=0.4).train()
    q = np.full(E, 1 / E)
    for seed in range(4):
        logits, targets = domains(seed)
        leaves = tensors(logits, leaf=True)
        found = method(leaves, tensors(targets), 0.5)
        each = np.array([risk(z, t) for z, t in zip(logits, targets, strict=True)])
        q = q * np.exp(0.4 * each)
        q = q / q.sum()
        np.testing.assert_allclose(method.q.numpy(), q, rtol=1e-5)
        assert found.detach().item() == pytest.approx(float(q @ each), rel=1e-5)
        found.backward()
        for domain, leaf in enumerate(leaves):
            own = (F.softmax(leaf.detach(), dim=1) - torch.tensor(targets[domain])) / len(leaf)
            np.testing.assert_allclose(leaf.grad.numpy(), q[domain] * own.numpy(), rtol=1e-4, atol=1e-6)
    before = method.q.clone()
    method.eval()(tensors(logits), tensors(targets), 0.5)
    assert torch.equal(method.q, before)


def test_mixup_mixes_each_domain_with_another_one() -> None:
    torch.manual_seed(0)
    given = [Environment(torch.full((6, 2), float(10**d)), torch.eye(K)[torch.full((6,), d)]) for d in range(E)]
    partners = set()
    for _ in range(20):
        for own, mixed in enumerate(InterDomainMixup(E, alpha=0.5).mix(given)):
            share = mixed.targets[0].tolist()
            assert sum(share) == pytest.approx(1) and sum(s > 0 for s in share) <= 2
            expected = sum(s * given[d].x for d, s in enumerate(share[:E]))
            assert torch.allclose(mixed.x, expected, rtol=1e-4)
            partners |= {(own, d) for d, s in enumerate(share) if s > 0 and d != own}
    assert len(partners) == 6
    assert InterDomainMixup(1).mix(given[:1]) == given[:1]


@pytest.mark.parametrize(
    "build",
    [lambda: ERM(0), lambda: IRM(2, penalty=-1), lambda: GroupDRO(2, step=-1), lambda: InterDomainMixup(2, alpha=0)],
)
def test_impossible_settings_are_refused(build) -> None:
    with pytest.raises(UsageError):
        build()


@pytest.mark.parametrize(
    ("losses", "window"),
    [
        # Falls until 2, which is the least of itself and the next two; limit 1.3 · (1 + 1.1 + 1.2) / 3 = 1.43; six
        # losses above it from 5 on.
        ([3.0, 2.0, 1.0, 1.1, 1.2, 2.0, 2.0, 2.0, 2.0, 2.0, 2.0, 2.0], (2, 4)),
        # One of the six is back below the limit: the window stays open.
        ([3.0, 2.0, 1.0, 1.1, 1.2, 2.0, 2.0, 1.4, 2.0, 2.0, 2.0, 2.0], (2, 11)),
        # Falls all the time: no start is ever seen, so all of it.
        ([5.0, 4.0, 3.0, 2.0, 1.0], (0, 4)),
        # The least at once.
        ([1.0, 1.0, 1.0, 1.0], (0, 3)),
        ([1.0, 1.2, 1.1, 9, 9, 9, 9, 9, 9], (0, 2)),
        ([4.0], (0, 0)),
    ],
)
def test_the_window_of_swad(losses: list[float], window: tuple[int, int]) -> None:
    assert swad_window(losses) == window


def test_impossible_windows_are_refused() -> None:
    for arguments in ({"losses": []}, {"losses": [1.0], "converged": 0}, {"losses": [1.0], "ratio": 0.0}):
        with pytest.raises(UsageError, match="window"):
            swad_window(**arguments)


def test_the_dense_average_is_the_mean_of_every_step_in_the_window() -> None:
    net, average, kept = nn.Linear(2, 1), DenseAverage(), []
    average.close(99.0)  # before any step: it is no stretch
    for losses_at, loss in enumerate([3.0, 1.0, 1.1, 1.2, 9, 9, 9, 9, 9, 9]):
        for step in range(2 + losses_at % 2):
            with torch.no_grad():
                net.weight.fill_(10.0 * losses_at + step)
            average.add(net)
            kept.append((losses_at, 10.0 * losses_at + step))
        average.close(loss)
    assert swad_window(average.losses) == (1, 3)
    expected = np.mean([value for stretch, value in kept if 1 <= stretch <= 3])
    assert average.average()["weight"].numpy() == pytest.approx(expected)


@pytest.mark.parametrize("name", generalisers.names())
def test_every_method_trains_the_whole_adapter(name: str) -> None:
    draw = torch.Generator().manual_seed(0)
    streams = {str(d): Numbers(torch.randn(16, 6, generator=draw) + d, torch.arange(16) % K, batch=8) for d in range(E)}
    torch.manual_seed(0)
    task = Generalisation(adapter_model(np.ones((4, 6), np.float32) * np.arange(6), K, None), generalisers.get(name)(E))
    before = {k: v.clone() for k, v in task.named_parameters()}
    plan = RuleStrategy([Rule(".*", 1.0)]).plan(task, 1e-2)
    fit(task, streams, plan, FitSettings(steps=3, warmup=0.0), one_machine())
    assert before and all(not torch.equal(v, before[k]) for k, v in task.named_parameters() if "bias" not in k)
    assert generalisers.get(name).paper and set(task.layer_groups()) == {"adapter", "head"}


def test_the_task_mixes_in_training_alone() -> None:
    torch.manual_seed(0)
    model = adapter_model(np.random.default_rng(0).normal(size=(9, 6)).astype(np.float32), K, None)
    task = Generalisation(model, InterDomainMixup(2))
    batches = {str(d): Batch(torch.randn(6, 6), torch.arange(6) % K) for d in range(2)}
    z = [model.eval().predict(b.x) for b in batches.values()]
    expected = torch.stack([F.cross_entropy(one, b.y) for one, b in zip(z, batches.values(), strict=True)]).mean()
    assert task.eval()(batches, 0.5).loss.detach().item() == pytest.approx(expected.detach().item(), rel=1e-5)


def test_domains_count_alike_in_the_mean() -> None:
    rng = np.random.default_rng(0)
    parts = [rng.random(n) < p for n, p in ((400, 0.9), (40, 0.5))]
    found = mean_over_domains(parts, resamples=4000)
    assert found.value == pytest.approx(np.mean([p.mean() for p in parts]))
    error = np.sqrt(sum(p.var() / len(p) for p in parts)) / 2
    assert (found.high - found.low) / 2 == pytest.approx(1.96 * error, rel=0.1)


def test_a_paired_gain_of_few_pictures_is_not_credible() -> None:
    same = [np.zeros(50), np.zeros(60)]
    assert mean_over_domains(same, paired=True).bounds() == [0.0, 0.0]
    few = [np.r_[np.ones(2), np.zeros(48)], np.zeros(60)]
    assert mean_over_domains(few, paired=True).low < 0 < mean_over_domains(few, paired=True).high
    many = [np.r_[np.ones(20), -np.ones(6), np.zeros(24)], np.r_[np.ones(20), -np.ones(6), np.zeros(34)]]
    assert mean_over_domains(many, paired=True).low > 0
    assert mean_over_domains([np.ones(20), np.ones(20)]).low < 0.95
    with pytest.raises(DataError, match="picture in each"):
        mean_over_domains([np.ones(3), np.ones(0)])
