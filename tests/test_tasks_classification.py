"""Classification: its loss against PyTorch's, mixing, padding, class weights, and one kind of answer in both modes."""

from __future__ import annotations

from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from regraft.core.types import Batch, Features
from regraft.images.backbones import ImageBackbone
from regraft.images.spec import ImageSpec
from regraft.tasks.classification.task import Classification, balanced_weights

SPEC = ImageSpec((3, 8, 8), mean=(0.5, 0.4, 0.3), std=(0.2, 0.25, 0.3))


class Tiny(ImageBackbone):
    """One convolution, averaged; it remembers the last pictures that it was given."""

    def __init__(self) -> None:
        super().__init__(SPEC, 4)
        self.conv = nn.Conv2d(3, 4, 3)
        self.norm = nn.BatchNorm2d(4)
        self.given: Tensor = torch.empty(0)

    def forward(self, x: Tensor) -> Features:
        self.given = x
        return super().forward(x)

    def extract(self, x: Tensor) -> Features:
        found = self.norm(self.conv(x)).relu()
        return Features(found.mean(dim=(2, 3)), (found,))

    def layer_groups(self) -> dict[str, list[str]]:
        return {"conv": ["conv.weight", "conv.bias"], "norm": ["norm.weight", "norm.bias"]}


def task(**options: Any) -> Classification:
    torch.manual_seed(0)
    return Classification(Tiny(), 3, **options)


def pictures(count: int = 6) -> Batch:
    draw = torch.Generator().manual_seed(1)
    return Batch(torch.rand(count, 3, 8, 8, generator=draw), torch.arange(count) % 3)


def loss_of(of: Classification, batch: Batch) -> Tensor:
    return of({"train": batch}, 0.0).loss


@pytest.mark.parametrize("smoothing", [0.0, 0.1, 0.6])
@pytest.mark.parametrize("weights", [None, torch.tensor([0.5, 2.0, 1.3])])
def test_loss_is_pytorch_s_cross_entropy(smoothing: float, weights: Tensor | None) -> None:
    """Ours is the mean over samples; PyTorch's "mean" would divide by the sum of weights, so its "none" is averaged."""
    of = task(label_smoothing=smoothing, class_weights=weights).eval()
    batch = pictures()
    expected = F.cross_entropy(
        of.predict(batch.x), batch.y, weight=weights, label_smoothing=smoothing, reduction="none"  # type: ignore[arg-type]
    )  # fmt: skip
    torch.testing.assert_close(loss_of(of, batch), expected.mean())


def test_padding_counts_nothing() -> None:
    of = task(label_smoothing=0.1).eval()
    batch = pictures(4)
    assert batch.y is not None
    padded = Batch(
        torch.cat([batch.x, torch.full((2, 3, 8, 8), 0.9)]),
        torch.cat([batch.y, torch.tensor([0, 0])]),
        torch.tensor([1.0, 1.0, 1.0, 1.0, 0.0, 0.0]),
    )
    torch.testing.assert_close(loss_of(of, padded), loss_of(of, batch))
    empty = loss_of(of, Batch(batch.x, batch.y, torch.zeros(4)))
    empty.backward()
    assert empty.item() == 0 and all(float(p.grad.abs().max()) == 0 for p in of.parameters() if p.grad is not None)


def test_labels_that_are_withheld_are_an_error() -> None:
    with pytest.raises(AssertionError, match="carries labels"):
        loss_of(task(), Batch(pictures().x))


@pytest.mark.parametrize("kind", [torch.uint8, torch.float32])
@pytest.mark.parametrize("mixing", [{"mixup": 0.8}, {"cutmix": 1.0}, {"mixup": 0.8, "cutmix": 1.0}])
def test_mixed_targets_are_the_share_of_each_picture(kind: torch.dtype, mixing: dict[str, float]) -> None:
    """Picture n holds the value n / 10 (or 25 n) everywhere, so a mixed one shows what was mixed and how much."""
    of = task(**mixing)
    unit = 25 if kind == torch.uint8 else 0.1
    y = torch.arange(5)
    x = (y.view(-1, 1, 1, 1) * unit).expand(5, 3, 8, 10).to(kind)
    kept, mixed_at_all = x.clone(), False
    for seed in range(20):
        torch.manual_seed(seed)
        mixed, targets = of._mix(x, torch.eye(5))
        torch.testing.assert_close(targets.sum(dim=1), torch.ones(5))
        assert bool((targets >= 0).all()) and mixed.shape == x.shape
        scale = 255 if mixed.dtype != kind else 1
        shown = mixed.float().mean(dim=(1, 2, 3)) * scale / unit
        torch.testing.assert_close(targets @ y.float(), shown, rtol=1e-3, atol=1e-3)
        mixed_at_all |= bool(((targets > 0.05) & (targets < 0.95)).any())
    assert mixed_at_all and torch.equal(x, kept)


def test_cutmix_pastes_one_rectangle_and_mixup_blends() -> None:
    torch.manual_seed(3)
    x = torch.stack([torch.zeros(3, 8, 10), torch.ones(3, 8, 10)])
    cut, _ = task(cutmix=1.0)._mix(x, torch.eye(2))
    blended, targets = task(mixup=1.0)._mix(x, torch.eye(2))
    assert set(cut.unique().tolist()) <= {0.0, 1.0}
    assert len(blended[0].unique()) == 1 and blended[0].unique().item() == pytest.approx(float(targets[0, 1]))


def test_both_kinds_of_mixing_come_at_even_odds() -> None:
    of = task(mixup=1.0, cutmix=1.0)
    torch.manual_seed(0)
    x = torch.rand(4, 3, 8, 8)
    pasted = 0
    for _ in range(200):
        mixed, _ = of._mix(x, torch.eye(4))
        whole = (mixed.unsqueeze(1) == x).all(dim=2).flatten(2)  # (N, N, pixels): which picture each pixel is from
        pasted += bool(whole.any(dim=1).all())
    assert 70 < pasted < 130


def test_mixing_is_for_training_only() -> None:
    of, batch = task(mixup=1.0), pictures()
    of.eval()
    loss_of(of, batch)
    assert torch.equal(of.backbone.given, batch.x)  # type: ignore[arg-type]
    of.train()
    loss_of(of, batch)
    assert not torch.equal(of.backbone.given, batch.x)  # type: ignore[arg-type]


def test_answers_are_of_the_same_kind_in_both_modes() -> None:
    of, x = task(dropout=0.5), pictures().x
    found = [of.train(mode).predict(x) for mode in (True, False)]
    assert {type(f) for f in found} == {Tensor} and {tuple(f.shape) for f in found} == {(6, 3)}
    torch.testing.assert_close(of.predict((x * 255).to(torch.uint8)), of.predict((x * 255).to(torch.uint8) / 255))


def test_groups_are_the_backbone_s_and_then_the_head() -> None:
    of = task()
    groups = of.layer_groups()
    assert list(groups) == ["conv", "norm", "head"]
    assert sorted(n for names in groups.values() for n in names) == sorted(n for n, _ in of.named_parameters())


def test_solved_head_is_put_in_place() -> None:
    of, x = task().eval(), pictures().x
    weight, bias = torch.randn(3, 4), torch.randn(3)
    of.set_head(weight, bias)
    torch.testing.assert_close(of.predict(x), of.backbone(x).pooled @ weight.T + bias)
    assert of.head.weight.requires_grad


def test_class_weights_are_no_part_of_the_saved_state() -> None:
    assert task(class_weights=torch.ones(3)).state_dict().keys() == task().state_dict().keys()


@pytest.mark.parametrize("strength", [0.0, 0.5, 1.0])
def test_balanced_weights_average_to_one_over_the_samples(strength: float) -> None:
    counts = torch.tensor([100, 10, 1])
    weights = balanced_weights(counts, strength)
    assert float((weights * counts).sum() / counts.sum()) == pytest.approx(1.0)
    assert float(weights[2] / weights[0]) == pytest.approx(100**strength, rel=1e-5)
    assert torch.isfinite(balanced_weights(torch.tensor([5, 0]))).all()
