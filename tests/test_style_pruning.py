"""Pruning a student: which channels go, that cutting is masking, and what is said of it."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from conftest import Shell
from regraft.compress.channels import cut_convolution, cut_norm, dispensable
from regraft.core.errors import UsageError
from regraft.core.types import Batch
from regraft.style.networks.model_file import load_style_model, save_style_model, student_model
from regraft.style.networks.perceptual import PerceptualNetwork
from regraft.style.networks.transfer_net import StudentNet
from regraft.style.training.batch_losses import BatchMoments, StyleTerms
from regraft.style.training.pruning import HealTask, Photos, contributions, cut, prune, style_loss
from small_student import photos, small_student

pytestmark = pytest.mark.usefixtures("one_thread")


def drawn(*shape: int, seed: int = 0) -> Tensor:
    return torch.rand(shape, generator=torch.Generator().manual_seed(seed))


@pytest.fixture(scope="module")
def terms() -> StyleTerms:
    """One layer that is the picture shrunk by 2, normalised by nothing: its statistics are the colours'."""
    network = PerceptualNetwork(
        "tiny", {"half": nn.AvgPool2d(2)}, {"half": 1.0}, {"half": 1.0}, mean=(0.0,) * 3, std=(1.0,) * 3, min_side_px=2
    )
    return StyleTerms(network)


@pytest.fixture
def student() -> StudentNet:
    return small_student()


def own_style(student: StudentNet, terms: StyleTerms) -> dict[str, BatchMoments]:
    """The style of what the student paints on another picture, so that it brings pictures nearer to it."""
    with torch.no_grad():
        return terms.targets(student(drawn(1, 3, 32, 32, seed=9)).clamp(0, 1))


def colours_loss(pictures: Tensor, target: Tensor) -> float:
    """The style loss of `terms`, in NumPy: Gram and moments of the picture shrunk by 2, each over its target's size."""

    def found(picture: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        small = picture.reshape(3, picture.shape[1] // 2, 2, picture.shape[2] // 2, 2).mean(axis=(2, 4)).reshape(3, -1)
        return small @ small.T / small.shape[1], small.mean(axis=1), np.sqrt(small.var(axis=1) + 1e-8)

    gram, mean, std = found(target[0].clamp(0, 1).double().numpy())
    losses = []
    for picture in pictures.clamp(0, 1).double().numpy():
        own = found(picture)
        moments = (np.sum((own[1] - mean) ** 2) + np.sum((own[2] - std) ** 2)) / (np.sum(mean**2) + np.sum(std**2))
        losses.append(np.sum((own[0] - gram) ** 2) / np.sum(gram**2) + moments)
    return float(np.mean(losses))


def masked(student: StudentNet, pictures: Tensor, kept: list[Tensor]) -> Tensor:
    """The student with every other inner channel at zero where the last convolution of its block reads it."""

    def zero(channels: Tensor):  # type: ignore[no-untyped-def]
        def hook(module: nn.Module, inputs: tuple[Tensor]) -> tuple[Tensor]:
            mask = torch.zeros(inputs[0].shape[1])
            mask[channels] = 1
            return (inputs[0] * mask.view(1, -1, 1, 1),)

        return hook

    handles = [
        block.body[7].register_forward_pre_hook(zero(channels))
        for block, channels in zip(student.blocks, kept, strict=True)
    ]
    try:
        with torch.no_grad():
            return student(pictures)
    finally:
        for handle in handles:
            handle.remove()


def by_hand(contributions: list[list[float]], threshold: float) -> list[list[int]]:
    """The least channels of all layers, one after the other, as long as their sum stays at most the threshold."""
    every = sorted(
        (max(0.0, value), layer, i) for layer, row in enumerate(contributions) for i, value in enumerate(row)
    )
    gone, total = set(), 0.0
    for value, layer, i in every:
        if total + value > threshold:
            break
        total += value
        gone.add((layer, i))
    kept = [[i for i in range(len(row)) if (layer, i) not in gone] for layer, row in enumerate(contributions)]
    return [some or [int(np.argmax(row))] for some, row in zip(kept, contributions, strict=True)]


@pytest.mark.parametrize("threshold", [0.0, 0.03, 0.05, 0.2, 0.9])
def test_the_least_channels_go_while_their_sum_is_below_the_threshold(threshold: float) -> None:
    rng = np.random.default_rng(0)
    rows = [rng.exponential(0.02, 9).tolist(), (rng.exponential(0.05, 5) - 0.03).tolist()]
    found = dispensable([torch.tensor(row, dtype=torch.double) for row in rows], threshold)
    assert [each.tolist() for each in found] == by_hand(rows, threshold)


def test_a_layer_keeps_a_multiple_and_its_strongest() -> None:
    rows = [torch.tensor([0.001, 0.3, 0.002, 0.2, 0.003, 0.1]), torch.tensor([0.0, 0.0, 0.0, 0.001])]
    assert [each.tolist() for each in dispensable(rows, 0.05)] == [[1, 3, 5], [3]]  # never none: one stays
    assert [each.tolist() for each in dispensable(rows, 0.05, multiple=2)] == [[1, 3, 4, 5], [0, 3]]
    assert [len(each) for each in dispensable(rows, 0.05, multiple=8)] == [6, 4]
    assert dispensable([], 0.05) == []


def test_thresholds_and_contributions_that_mean_nothing_are_refused() -> None:
    for options, message in (({"threshold": -0.1}, "share of 0 or more"), ({"threshold": float("nan")}, "share")):
        with pytest.raises(UsageError, match=message):
            dispensable([torch.ones(3)], **options)
    with pytest.raises(UsageError, match="1 or more"):
        dispensable([torch.ones(3)], 0.05, multiple=0)
    with pytest.raises(UsageError, match="not a number"):
        dispensable([torch.tensor([1.0, float("nan")])], 0.05)


def test_cut_layers_are_the_rows_and_columns_that_stay() -> None:
    x, outputs, inputs = drawn(2, 5, 6, 7), torch.tensor([0, 3]), torch.tensor([1, 2, 4])
    plain = nn.Conv2d(5, 4, 3, padding=1)
    torch.testing.assert_close(cut_convolution(plain, outputs=outputs)(x), plain(x)[:, outputs])
    less = x.clone()
    less[:, [0, 3]] = 0
    torch.testing.assert_close(cut_convolution(plain, inputs=inputs)(x[:, inputs]), plain(less))
    depthwise = nn.Conv2d(5, 5, 3, padding=1, groups=5, bias=False)
    torch.testing.assert_close(cut_convolution(depthwise, outputs=inputs)(x[:, inputs]), depthwise(x)[:, inputs])
    norm = nn.BatchNorm2d(5)
    norm(x)
    norm.eval()
    torch.testing.assert_close(cut_norm(norm, inputs).eval()(x[:, inputs]), norm(x)[:, inputs])
    with pytest.raises(ValueError, match="plain and depthwise"):
        cut_convolution(nn.Conv2d(4, 4, 1, groups=2), outputs=outputs)


def test_cutting_channels_is_masking_them(student: StudentNet) -> None:
    kept = [torch.tensor([0, 3, 4, 9, 15]), torch.tensor([2, 7])]
    found = cut(student, kept).eval()
    assert found.inner == (5, 2) and student.inner == (16, 8)
    assert sum(p.numel() for p in found.parameters()) < sum(p.numel() for p in student.parameters())
    pictures = drawn(2, 3, 19, 26)
    with torch.no_grad():
        torch.testing.assert_close(found(pictures), masked(student, pictures, kept), atol=1e-5, rtol=1e-4)
        assert not torch.allclose(found(pictures), student(pictures), atol=1e-3)
    assert StudentNet(found.widths, found.inner).load_state_dict(found.state_dict())


def test_contributions_are_what_is_lost_without_each_channel(student: StudentNet, terms: StyleTerms) -> None:
    pictures = drawn(2, 3, 24, 32, seed=3)
    student.blocks[1].body[7].weight.data[:, 5] = 0  # type: ignore[union-attr,index,operator]
    before = {name: value.clone() for name, value in student.state_dict().items()}
    style = student(drawn(1, 3, 32, 32, seed=9)).detach()
    calls: list[tuple[int, int]] = []
    found = contributions(
        student, pictures, terms, own_style(student, terms), lambda done, total: calls.append((done, total))
    )
    assert all(torch.equal(value, before[name]) for name, value in student.state_dict().items())
    assert calls == [(i, 24) for i in range(1, 25)]
    whole = student(pictures).detach()
    fall = colours_loss(pictures, style) - colours_loss(whole, style)
    for block, channel in ((0, 0), (0, 11), (1, 2)):
        kept = [torch.arange(16), torch.arange(8)]
        kept[block] = kept[block][kept[block] != channel]
        without = masked(student, pictures, kept)
        lost = (colours_loss(without, style) - colours_loss(whole, style)) / fall
        assert float(found.style[block][channel]) == pytest.approx(lost, rel=1e-2, abs=1e-5)
        changed = np.mean((without - whole).numpy() ** 2) / np.mean((whole - pictures).numpy() ** 2)
        assert float(found.painted[block][channel]) == pytest.approx(float(changed), rel=1e-3)
        assert float(found.shares[block][channel]) == pytest.approx(max(lost, float(changed)), rel=1e-2, abs=1e-5)
    assert float(found.shares[1][5]) == pytest.approx(0, abs=1e-6)


def test_a_style_that_the_student_does_not_reach_is_refused(student: StudentNet, terms: StyleTerms) -> None:
    pictures = drawn(1, 3, 32, 32)
    with pytest.raises(UsageError, match="no nearer to this style"):
        contributions(student, pictures, terms, terms.targets(pictures))


def test_pruning_reports_pictures_that_had_no_part_in_it(student: StudentNet, terms: StyleTerms) -> None:
    used, held = drawn(2, 3, 32, 32, seed=1), drawn(3, 3, 32, 32, seed=2)
    targets = own_style(student, terms)
    healed: list[StudentNet] = []

    def heal(smaller: StudentNet) -> None:
        healed.append(smaller)
        with torch.no_grad():
            assert smaller.paint.bias is not None
            smaller.paint.bias.add_(0.01)

    shares = contributions(student, used, terms, targets).shares
    total = float(torch.cat(shares).clamp(min=0).sum())
    found, report = prune(student, Photos(used, held), terms, targets, threshold=0.3 * total, multiple=2, heal=heal)
    kept = dispensable(shares, 0.3 * total, multiple=2)
    assert healed == [found] and found.inner == report.inner_after == tuple(map(len, kept))
    assert report.inner_before == (16, 8) and sum(report.inner_after) < 24
    assert report.parameters_after == sum(p.numel() for p in found.parameters()) < report.parameters_before
    assert (report.n_pictures, report.n_held_out) == (2, 3)
    with torch.no_grad():
        expected = [style_loss(each, terms, targets) for each in
                    (held, student(held), masked(student, held, kept), found(held))]  # fmt: skip
    assert [report.style_photo, report.style_before, report.style_cut, report.style_after] == pytest.approx(
        expected, rel=1e-3
    )
    assert report.style_kept == pytest.approx((expected[0] - expected[3]) / (expected[0] - expected[1]), rel=1e-2)
    assert 0 < report.lost_share <= 0.3 * total
    assert report.style_after != report.style_cut and report.ssim_after != report.ssim_cut < 1
    untouched, same = prune(student, Photos(used, held), terms, targets, threshold=0.0)
    assert untouched.inner == (16, 8) and same.style_cut == same.style_after == pytest.approx(same.style_before)
    assert same.ssim_after == pytest.approx(1)


def test_healing_learns_what_was_painted_before(student: StudentNet) -> None:
    smaller = cut(student, [torch.arange(4), torch.arange(4)])
    task = HealTask(smaller, student).eval()
    assert sorted(name for names in task.layer_groups().values() for name in names) == sorted(
        name for name, _ in task.named_parameters()
    )
    pictures = (255 * drawn(2, 3, 16, 24)).byte()
    loss = task({"content": Batch(pictures)}, 0.0).loss
    with torch.no_grad():
        x = pictures.float() / 255
        found, wanted = smaller(x), student(x)
    rows = ((found - wanted) ** 2).mean(dim=(1, 2, 3)) / ((wanted - x) ** 2).mean(dim=(1, 2, 3))
    past = ((found - found.clamp(0, 1)) ** 2).mean(dim=(1, 2, 3))
    assert loss.item() == pytest.approx(float((rows + 10 * past).mean()), rel=1e-4)
    loss.backward()
    assert all(p.grad is None for p in student.parameters())
    assert smaller.paint.weight.grad is not None


@pytest.fixture
def files(tmp_path: Path) -> Path:
    """photos/, a student, and as its painting what it makes of a photo."""
    paths = photos(tmp_path / "photos", 5)
    student = small_student()
    assert student.paint.bias is not None
    with torch.no_grad():  # redder and less blue: a style that every photo comes nearer to
        student.paint.bias += torch.tensor([0.4, 0.0, -0.4])
    save_style_model(tmp_path / "model.safetensors", student_model(student, "waves", {"licence": "CC0-1.0"}))
    from regraft.images.picture import Picture, read_picture, write_picture

    with torch.no_grad():
        painted = student(read_picture(paths[0]).pixels[None])[0].clamp(0, 1)
    write_picture(Picture(painted), tmp_path / "painting.png")
    return tmp_path


def test_the_command_writes_a_smaller_model(files: Path, shell: Shell) -> None:
    common = ("style", "prune", "model.safetensors", "--content", "photos", "--style", "painting.png")
    code, out, err = shell(*common, "-o", "small.safetensors", "--threshold", "0.9", "--steps", "2")
    assert code == 0, err
    assert "small.safetensors: inner channels 24 → 16 (8, 8)" in out and "2 photos that had no part in it" in out
    model = load_style_model(files / "small.safetensors")
    assert isinstance(model.net, StudentNet) and model.net.inner == (8, 8)
    assert model.styles == ("waves",) and model.card["licence"] == "CC0-1.0"
    assert model.card["pruned"]["inner_before"] == [16, 8] and model.card["pruned"]["heal_steps"] == 2
    code, _, err = shell(*common, "-o", "small.safetensors", "--steps", "0")
    assert code == 2 and "--force" in err
    code, _, err = shell(*common, "-o", "model.safetensors", "--steps", "0", "--force")
    assert code == 2 and "never the model itself" in err
    code, _, err = shell(*common[:3], "--content", "photos/00.png", *common[5:], "-o", "b.safetensors")
    assert code == 1 and "needs 4 photos or more" in err
