"""Adaptation as a task: what trains, what is read, self-training and statistics."""

from __future__ import annotations

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from regraft.adaptation.altered import views
from regraft.adaptation.altered.views import fourier_restyle, moved, strengthen
from regraft.adaptation.base import losses, ramp
from regraft.adaptation.losses.self_training import SHOT, FixMatch, MeanTeacher, PseudoLabel, balanced_cross_entropy
from regraft.adaptation.maps.statistics import has_statistics, recalibrate
from regraft.adaptation.training.rules import rules_for
from regraft.adaptation.training.task import Adaptation
from regraft.core.types import Batch, DomainView
from regraft.engine import FitSettings, fit
from regraft.images.backbones import create
from regraft.strategies import RuleStrategy
from regraft.tasks.classification.task import Classification
from tiny_training import one_machine

K = 3


def lenet() -> Classification:
    torch.manual_seed(0)
    return Classification(create("lenet"), K)


def pictures(n: int, seed: int = 0) -> Tensor:
    return torch.randint(0, 256, (n, 3, 28, 28), dtype=torch.uint8, generator=torch.Generator().manual_seed(seed))


class Untouchable:
    """A label that must not be read: whatever is done with it raises."""

    def __getattribute__(self, name: str) -> object:
        raise AssertionError(f"a target label was touched ({name})")

    __len__ = __iter__ = __bool__ = __array__ = __torch_function__ = None  # type: ignore[assignment]


class Fixed:
    """A stream that gives the same batch for ever."""

    def __init__(self, batch: Batch) -> None:
        self.batch = batch

    def __len__(self) -> int:
        return 2

    def epoch(self, index: int, start: int = 0):
        return iter([self.batch] * (2 - start))


@pytest.mark.parametrize("partial", [False, True], ids=["closed", "partial"])
@pytest.mark.parametrize("name", losses.names())
def test_every_loss_trains_without_touching_a_target_label(
    name: str, partial: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    task = Adaptation(lenet(), losses.get(name)(256, K), partial=partial)
    source = Batch(pictures(12), torch.arange(12) % K)
    target = Batch(pictures(9, seed=1))
    object.__setattr__(target, "y", Untouchable())
    monkeypatch.setattr(Batch, "to", lambda self, device: self)
    plan = RuleStrategy(rules_for(task, pretrained=False)).plan(task, 1e-3)
    before = {k: v.clone() for k, v in task.model.named_parameters()}
    from_source = not task.loss.continues
    streams = {"source": Fixed(source), "target": Fixed(target)} if from_source else {"target": Fixed(target)}
    monkeypatch.setattr("regraft.engine.stepping.ready", lambda batch, machine, memory_format: batch)
    if task.surveys:
        task.survey(*task.views(target.x))
    fit(task, streams, plan, FitSettings(steps=2, warmup=0.0), one_machine())
    moved = [k for k, v in task.model.named_parameters() if not torch.equal(v, before[k])]
    assert moved
    if task.loss.freezes_head:
        assert not any(k.startswith("head") for k in moved)
    if task.loss.trains_norms_alone:
        affine = {k for k in before if k.startswith("backbone") and before[k].dim() == 1 and ".1." in k}
        assert all(
            torch.equal(dict(task.model.named_parameters())[k], before[k]) for k in before if before[k].dim() > 1
        )
        assert set(moved) <= affine | {"backbone.features.3.weight", "backbone.features.3.bias"}


def test_source_only_does_not_look_at_the_target() -> None:
    task = Adaptation(lenet(), None).eval()
    source = Batch(pictures(6), torch.arange(6) % K)
    alone = task({"source": source}, 0.5).loss
    beside = task({"source": source, "target": Batch(pictures(6, seed=5))}, 0.5).loss
    assert torch.equal(alone, beside)


def test_the_term_is_added_with_its_weight() -> None:
    source, target = Batch(pictures(6), torch.arange(6) % K), Batch(pictures(8, seed=2))
    model = lenet()
    plain = Adaptation(model, None).eval()({"source": source}, 0.5).loss
    loss = losses.get("DeepCORAL")(256, K)
    whole = Adaptation(model, loss, weight=7.0).eval()
    out = whole({"source": source, "target": target}, 0.5)
    with torch.no_grad():
        a, b = (model.backbone(x).pooled.numpy().astype(np.float64) for x in (source.x, target.x))
    expected = ((np.cov(a.T) - np.cov(b.T)) ** 2).sum() / (4 * 256**2)
    assert float(out.loss.detach() - plain.detach()) == pytest.approx(7 * expected, rel=1e-3, abs=1e-5)


def test_pseudo_labels_count_only_sure_samples_and_balance_classes() -> None:
    logits = torch.tensor([[9.0, 0, 0], [9.0, 0, 0], [0, 9.0, 0], [0.1, 0, 0]], requires_grad=True)
    target = DomainView(torch.zeros(4, 2), logits)
    found = PseudoLabel(2, K)(target, target, 0.5)
    each = F.cross_entropy(logits.detach()[:3], torch.tensor([0, 0, 1]), reduction="none")
    expected = (each[0] / 2 + each[1] / 2 + each[2]) / 2 * ramp(0.5)
    assert found.detach().item() == pytest.approx(expected.item())
    found.backward()
    assert logits.grad is not None and bool((logits.grad[3] == 0).all())
    unsure = balanced_cross_entropy(logits, torch.zeros(4, dtype=torch.long), torch.zeros(4, dtype=torch.bool))
    assert unsure.detach().item() == 0.0


def test_fixmatch_teaches_the_strong_view_alone() -> None:
    plain = torch.tensor([[9.0, 0, 0], [0.2, 0, 0]], requires_grad=True)
    strong = torch.tensor([[0.0, 1, 0], [0.0, 1, 0]], requires_grad=True)
    FixMatch(2, K)(DomainView(plain), DomainView(torch.zeros(2, 2), plain, None, strong), 1.0).backward()
    assert plain.grad is None
    assert strong.grad is not None and strong.grad[0].abs().sum() > 0 and strong.grad[1].abs().sum() == 0


def test_the_teacher_follows_the_model_and_never_trains() -> None:
    task = Adaptation(lenet(), MeanTeacher(256, K)).train()
    assert task.teacher is not None
    start = {k: v.clone() for k, v in task.teacher.state_dict().items()}
    with torch.no_grad():
        task.model.head.weight.add_(1.0)
    task({"source": Batch(pictures(6), torch.arange(6) % K), "target": Batch(pictures(6, seed=3))}, 0.1).loss.backward()
    expected = start["head.weight"] + 0.01 * (task.model.head.weight.detach() - start["head.weight"])
    assert torch.allclose(task.teacher.state_dict()["head.weight"], expected, atol=1e-6)
    assert all(p.grad is None for p in task.teacher.parameters())
    plan = RuleStrategy(rules_for(task, pretrained=True)).plan(task, 1.0)
    assert all(row.lr is None for row in plan.rows if row.group == "teacher")


def test_adda_moves_the_target_features_and_nothing_else() -> None:
    model = lenet()
    task = Adaptation(model, losses.get("ADDA")(model.backbone.feature_dim, K))
    assert task.reference is not None
    start = {k: v.clone() for k, v in model.state_dict().items()}
    logs: list[str] = []
    streams = {"source": Fixed(Batch(pictures(8), torch.arange(8) % K)), "target": Fixed(Batch(pictures(8, 1)))}
    plan = RuleStrategy(rules_for(task, pretrained=False)).plan(task, 1e-2)
    fit(task, streams, plan, FitSettings(steps=3, seed=0), one_machine(), on_step=lambda r: logs.extend(r.logs))
    assert "alignment" in logs and "source_loss" not in logs
    assert all(torch.equal(v, start[k]) for k, v in task.reference.state_dict().items())
    moved = {k for k, v in model.state_dict().items() if not torch.equal(v, start[k])}
    assert moved and all(name.startswith("backbone.") for name in moved)


def test_shot_finds_the_centres_of_separated_clusters_from_poor_answers() -> None:
    draw = np.random.default_rng(0)
    truth = np.repeat(np.arange(K), 40)
    features = torch.from_numpy(np.eye(K, 8)[truth] * 5 + draw.normal(size=(120, 8)) * 0.3).float()
    wrong = truth.copy()
    flipped = draw.permutation(120)[:36]
    wrong[flipped] = (truth[flipped] + 1) % K
    loss = SHOT(8, K)
    loss.find_centres(features, F.one_hot(torch.from_numpy(wrong), K).float() * 3)
    nearest = (F.normalize(features, dim=1) @ loss.centres.T).argmax(1).numpy()
    assert (nearest == truth).mean() > 0.99 > (wrong == truth).mean()


def test_adabn_puts_the_mean_and_variance_of_the_inputs_in_place() -> None:
    net = torch.nn.Sequential(torch.nn.BatchNorm2d(3), torch.nn.ReLU()).eval()
    x = torch.randn(64, 3, 5, 5, generator=torch.Generator().manual_seed(0)) * 4 + 2
    assert has_statistics(net) and not has_statistics(torch.nn.LayerNorm(3))
    assert recalibrate(net, x.split(16)) == 4
    values = x.numpy().astype(np.float64)
    parts = values.reshape(4, 16, 3, 25)
    assert np.allclose(net[0].running_mean, values.mean((0, 2, 3)), atol=1e-5)
    assert np.allclose(net[0].running_var, parts.var((1, 3), ddof=1).mean(0), rtol=1e-4)
    assert not net.training and net[0].momentum == 0.1
    kept = net[0].running_mean.clone()
    assert recalibrate(net, [x[:1]]) == 0
    assert torch.equal(net[0].running_mean, kept)


def test_fourier_restyle_takes_the_mean_colour_and_keeps_the_phase() -> None:
    x, y = pictures(4).float() / 255 * 0.2 + 0.2, pictures(5, seed=4).float() / 255 * 0.2 + 0.6
    out = fourier_restyle(x, y, share=1.0)
    assert out.shape == x.shape
    assert abs(float(out.mean()) - float(y.mean())) < 0.03 < abs(float(x.mean()) - float(y.mean()))
    a, b = np.fft.fft2(x.numpy()), np.fft.fft2(out.numpy())
    high = np.abs(a[..., 8:20, 8:20]) > 1.0
    turned = np.angle(a[..., 8:20, 8:20] * np.conj(b[..., 8:20, 8:20]))[high]
    assert np.abs(turned).max() < 1e-2
    assert torch.equal(fourier_restyle(x, y, share=0.0), x)


def test_a_strong_view_differs_and_stays_a_picture() -> None:
    torch.manual_seed(0)
    x = pictures(8)
    out = strengthen(x)
    assert out.shape == x.shape and float(out.min()) >= 0 and float(out.max()) <= 1
    assert float((out - x.float() / 255).abs().mean()) > 0.02


def test_a_moved_picture_is_another_and_goes_on_beyond_its_edge() -> None:
    torch.manual_seed(0)
    ground = torch.full((400, 3, 40, 60), 0.25)
    ground[:, :, 15:25, 25:35] = 1.0
    found = moved(ground)
    assert found.shape == ground.shape
    share = (found[:, 0] - 0.25) / 0.75
    assert float(share[:, [0, -1]].abs().max()) < 1e-5  # not black: the edge goes on
    area = share.sum((1, 2)) / 100
    assert 0.55 < float(area.min()) < 0.75 and 1.4 < float(area.max()) < 1.8  # 1.3 both ways
    for axis, side in ((1, 40), (2, 60)):
        place = torch.arange(side) - (side - 1) / 2
        middles = (share.sum(3 - axis) * place).sum(1) / share.sum((1, 2))
        assert float(middles.max()) == pytest.approx(0.1 * side, rel=0.35)


def test_a_turn_keeps_right_angles_in_an_oblong_picture(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("LOG_SCALE", "LOG_STRETCH", "SLANT", "SHIFT"):
        monkeypatch.setattr(views, name, 0.0)
    monkeypatch.setattr(views, "TURN_RAD", 0.8)
    torch.manual_seed(0)
    picture = torch.zeros(20, 3, 40, 60)
    picture[:, :, 16:24, 26:34] = 1.0
    share = moved(picture)[:, 0]
    rows, columns = torch.meshgrid(torch.arange(40.0) - 19.5, torch.arange(60.0) - 29.5, indexing="ij")
    for first, second, wanted in ((rows, rows, 16 / 3), (columns, columns, 16 / 3), (rows, columns, 0.0)):
        moment = (share * first * second).sum((1, 2)) / share.sum((1, 2))
        assert torch.allclose(moment, torch.full_like(moment, wanted), atol=0.5)
