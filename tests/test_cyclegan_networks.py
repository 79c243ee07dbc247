"""The parts of CycleGAN, each against NumPy or an independent model: losses, slopes, scales, pool, generators."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import nn

from regraft.core.errors import UsageError
from regraft.core.types import Batch
from regraft.style.translation.cyclegan.discriminator import (
    DiscriminatorSettings,
    MultiScaleDiscriminator,
    PatchDiscriminator,
    accuracy,
    halved,
    least_squares,
    patches,
)
from regraft.style.translation.cyclegan.generator import Generator, GeneratorSettings
from regraft.style.translation.cyclegan.pool import ImagePool, as_bytes, as_signed
from regraft.style.translation.cyclegan.task import CycleGAN, CycleWeights
from swapped_shapes import shapes

pytestmark = pytest.mark.usefixtures("one_thread")
TINY = GeneratorSettings(width=2, blocks=1)
TINY_JUDGE = DiscriminatorSettings(width=2, layers=2, scales=2)


def tiny(**options: object) -> CycleGAN:
    torch.manual_seed(0)
    return CycleGAN(TINY, TINY_JUDGE, side_px=32, pool=3, **options)  # type: ignore[arg-type]


def batches(count: int = 2) -> dict[str, Batch]:
    return {kind: Batch(shapes(kind, count)) for kind in "ab"}


def test_least_squares_and_accuracy_are_the_formulas() -> None:
    draw = np.random.default_rng(0)
    fine, coarse = draw.normal(0.5, 1, (2, 1, 5, 4)), draw.normal(0.5, 1, (2, 1, 2, 2))
    scores = [torch.tensor(fine), torch.tensor(coarse)]
    for wanted in (0.0, 1.0):
        expected = (((fine - wanted) ** 2).mean() + ((coarse - wanted) ** 2).mean()) / 2
        assert float(least_squares(scores, wanted)) == pytest.approx(expected)
    real = ((fine > 0.5).mean() + (coarse > 0.5).mean()) / 2
    assert float(accuracy(scores, of_the_set=True)) == pytest.approx(real, abs=1e-6)
    assert float(accuracy(scores, of_the_set=False)) == pytest.approx(1 - real, abs=1e-6)


def test_the_losses_of_both_phases_are_those_of_numpy() -> None:
    task = tiny(weights=CycleWeights(cycle=3.0, identity=0.5)).eval()  # so that singular values stay as they are
    data = batches()
    a, b = (as_signed(data[kind].x) for kind in "ab")
    with torch.no_grad():
        fake_b, fake_a = task.a_to_b(a), task.b_to_a(b)
        back_a, back_b = task.b_to_a(fake_b), task.a_to_b(fake_a)
        same_a, same_b = task.b_to_a(a), task.a_to_b(b)
        judged = [[s.numpy() for s in j(x)] for j, x in ((task.judge_a, fake_a), (task.judge_b, fake_b))]
        real = [[s.numpy() for s in j(x)] for j, x in ((task.judge_a, a), (task.judge_b, b))]
        given = [as_signed(as_bytes(fake)) for fake in (fake_a, fake_b)]
        of_pool = [[s.numpy() for s in j(x)] for j, x in zip((task.judge_a, task.judge_b), given, strict=True)]
    gan = sum(np.mean([((s - 1) ** 2).mean() for s in scores]) for scores in judged)
    cycle, identity = (
        sum(float(np.abs(x.numpy() - y.numpy()).mean()) for x, y in pairs)
        for pairs in (((back_a, a), (back_b, b)), ((same_a, a), (same_b, b)))
    )
    found = task(data, 0.0, "generators")
    assert found.loss.item() == pytest.approx(gan + 3 * cycle + 0.5 * identity, rel=1e-4)
    assert float(found.logs["cycle"]) == pytest.approx(cycle / 2, rel=1e-5)
    expected = sum(
        (np.mean([((s - 1) ** 2).mean() for s in r]) + np.mean([(s**2).mean() for s in f])) / 2
        for r, f in zip(real, of_pool, strict=True)
    )
    found = task(data, 0.0, "discriminators")
    assert found.loss.item() == pytest.approx(expected, rel=1e-4)
    assert int(task.pool_a.count) == int(task.pool_b.count) == 2


def test_each_phase_moves_its_own_networks_alone() -> None:
    task, data = tiny(), batches()
    groups = task.layer_groups()
    assert sorted(n for names in groups.values() for n in names) == sorted(n for n, _ in task.named_parameters())
    for phase in task.phases:
        task.zero_grad(set_to_none=True)
        task(data, 0.0, phase).loss.backward()
        moved = {name for name, parameter in task.named_parameters() if parameter.grad is not None}
        assert moved == set(groups[phase])
        assert all(parameter.requires_grad for parameter in task.parameters())


def test_weights_of_a_discriminator_have_singular_values_of_at_most_one() -> None:
    torch.manual_seed(1)
    judge = PatchDiscriminator(width=4, layers=2)
    with torch.no_grad():
        for parameter in judge.parameters():
            parameter.mul_(50)  # far from bounded
        for _ in range(100):
            judge(torch.rand(1, 3, 16, 16))
    judge.eval()
    convolutions = [layer for layer in judge.layers if isinstance(layer, nn.Conv2d)]
    assert len(convolutions) == 4
    for layer in convolutions:
        largest = np.linalg.svd(layer.weight.detach().flatten(1).numpy(), compute_uv=False)[0]
        assert largest == pytest.approx(1, abs=1e-2)
        stored = layer.parametrizations.weight.original.detach().flatten(1).numpy()
        assert np.linalg.svd(stored, compute_uv=False)[0] > 5


@pytest.mark.parametrize(("side", "layers", "scales"), [(64, 3, 2), (50, 2, 3), (47, 3, 2)])
def test_every_scale_scores_half_as_wide_a_picture(side: int, layers: int, scales: int) -> None:
    settings = DiscriminatorSettings(width=2, layers=layers, scales=scales)
    found = MultiScaleDiscriminator(settings)(torch.zeros(2, 3, side, side + 8))
    assert len(found) == scales
    heights, widths = [side], [side + 8]
    for _ in range(scales - 1):
        heights.append(-(-heights[-1] // 2))
        widths.append(-(-widths[-1] // 2))
    # By the paper's arithmetic: 4 × 4 with padding 1 halves, or takes 1 px away at stride 1.
    for score, height, width in zip(found, heights, widths, strict=True):
        assert score.shape == (2, 1, height // 2**layers - 2, width // 2**layers - 2)
        assert score.shape[2:] == (patches(height, layers), patches(width, layers))
    assert heights[1:] == [halved(one) for one in heights[:-1]]


def test_the_least_side_is_the_least_one_that_works() -> None:
    settings = DiscriminatorSettings(width=2, layers=3, scales=2)
    judge, least = MultiScaleDiscriminator(settings), settings.least_side_px
    assert min(judge(torch.zeros(1, 3, least, least))[-1].shape) == 1
    with pytest.raises(UsageError, match=f"{least} px or more"):
        judge(torch.zeros(1, 3, least - 1, least - 1))
    with pytest.raises(UsageError, match=f"{least} px or more"):
        CycleGAN(TINY, settings, side_px=least - 1)


@pytest.mark.parametrize("upsampling", ["nearest", "pixelshuffle"])
def test_a_generator_keeps_the_size_and_makes_no_checkerboard(upsampling: str) -> None:
    torch.manual_seed(0)
    net = Generator(GeneratorSettings(4, 1, upsampling)).eval()
    for size in ((8, 8), (33, 46), (40, 24)):
        found = net(torch.rand(1, 3, *size) * 2 - 1)
        assert found.shape == (1, 3, *size) and float(found.detach().abs().max()) <= 1
    with torch.no_grad():
        before_last = net.decoder[:-2](net.blocks(net.encoder(torch.rand(1, 3, 32, 32))))
    even, odd = before_last[..., ::2, ::2], before_last[..., 1::2, 1::2]
    # A checkerboard is a mean that depends on the place within 2 × 2, channel by channel.
    assert float((even.mean(dim=(2, 3)) - odd.mean(dim=(2, 3))).abs().max()) < 0.25 * float(before_last.std())
    assert not any(isinstance(module, nn.ConvTranspose2d) for module in net.modules())
    with pytest.raises(UsageError, match="too small"):
        net(torch.zeros(1, 3, 7, 20))


@pytest.mark.parametrize("size", [(16, 16), (33, 46)])
def test_a_generator_from_the_picture_gives_it_back_at_first(size: tuple[int, int]) -> None:
    torch.manual_seed(0)
    net = Generator(GeneratorSettings(4, 1, from_picture=True))
    picture = torch.rand(2, 3, *size) * 2 - 1
    picture[:, :, :4] = 1.0  # white has an end too
    picture.requires_grad_()
    found = net(picture)
    assert float((found - picture).detach().abs().max()) <= 1 / 255 + 1e-6
    (found - 0.3).square().sum().backward()
    last = net.decoder[-1].weight.grad
    assert last is not None and bool(last.isfinite().all()) and float(last.abs().max()) > 0
    assert picture.grad is not None and bool(picture.grad.isfinite().all())
    # Both kinds have the same tensors, and a description of before means the kind of before.
    old = {"width": 4, "blocks": 1, "upsampling": "nearest"}
    assert GeneratorSettings.from_json(old) == GeneratorSettings(4, 1)
    assert GeneratorSettings.from_json(net.settings.to_json()) == net.settings
    assert net.state_dict().keys() == Generator(GeneratorSettings(4, 1)).state_dict().keys()


def test_pixels_of_one_place_start_out_alike() -> None:
    torch.manual_seed(0)
    first = Generator(GeneratorSettings(4, 0, "pixelshuffle")).decoder[0]
    found = first(torch.randn(1, 16, 5, 6)).detach()
    blocks = found.unfold(2, 2, 2).unfold(3, 2, 2)
    assert found.shape == (1, 8, 10, 12)
    assert float((blocks - blocks[..., :1, :1]).abs().max()) < 1e-6 < float(found.std())


def test_the_pool_gives_back_what_a_list_would() -> None:
    """A list, driven by the same random numbers, over 60 pictures in batches of 1 to 3."""
    size, pool = 4, ImagePool(4, 2)
    kept: list[int] = []
    number = 0
    for step, count in enumerate([1, 2, 3] * 10):
        new = list(range(number, number + count))
        number += count
        torch.manual_seed(step)
        expected = []
        for value in new:
            if len(kept) < size:
                kept.append(value)
                expected.append(value)
            elif float(torch.rand(())) < 0.5:
                place = int(torch.randint(size, ()))
                expected.append(kept[place])
                kept[place] = value
            else:
                expected.append(value)
        torch.manual_seed(step)
        pictures = as_signed(torch.tensor(new, dtype=torch.uint8)[:, None, None, None].expand(-1, 3, 2, 2))
        given = as_bytes(pool.exchange(pictures))
        assert given[:, 0, 0, 0].tolist() == expected
        assert bool((given == given[:, :1, :1, :1]).all())
        assert pool.pictures[: len(kept), 0, 0, 0].tolist() == kept


def test_the_pool_keeps_half_and_loses_none() -> None:
    """Whatever the draws: the first ones come back, nothing is lost or doubled, half are exchanged, places are even."""
    size, total = 5, 1200
    pool = ImagePool(size, 1)
    torch.manual_seed(0)
    shown = torch.randint(0, 255, (total, 3, 1, 1), dtype=torch.uint8, generator=torch.Generator().manual_seed(1))
    given = as_bytes(pool.exchange(as_signed(shown)))
    assert torch.equal(given[:size], shown[:size])
    later = 0
    for before, after in zip(shown[size:], given[size:], strict=True):
        later += not torch.equal(before, after)
    assert later / (total - size) == pytest.approx(0.5, abs=0.06)
    # What was given back while the pool filled is in it as well: it counts twice.
    everything = torch.cat([given[size:], pool.pictures]).flatten(1).tolist()
    assert sorted(everything) == sorted(shown.flatten(1).tolist())


def test_the_pool_is_in_the_state_and_a_size_of_zero_keeps_nothing() -> None:
    one, other = ImagePool(3, 4), ImagePool(3, 4)
    torch.manual_seed(0)
    one.exchange(torch.rand(5, 3, 4, 4) * 2 - 1)
    other.load_state_dict(one.state_dict())
    new = torch.rand(6, 3, 4, 4) * 2 - 1
    torch.manual_seed(7)
    expected = one.exchange(new)
    torch.manual_seed(7)
    assert torch.equal(other.exchange(new), expected)
    assert torch.equal(one.pictures, other.pictures) and int(other.count) == 3
    assert float((ImagePool(0, 4).exchange(new) - new).abs().max()) <= 1 / 255 + 1e-6
    with pytest.raises(UsageError, match="0 to 10,000"):
        ImagePool(-1, 4)


def test_bytes_and_signed_values_are_each_others_inverse() -> None:
    every = torch.arange(256, dtype=torch.uint8)
    assert torch.equal(as_bytes(as_signed(every)), every)
    assert torch.allclose(as_signed(every.float() / 255), as_signed(every), atol=1e-6)
    assert float(as_signed(every).min()) == -1 and float(as_signed(every).max()) == 1


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (lambda: GeneratorSettings(width=1), "2 to 256"),
        (lambda: GeneratorSettings(blocks=33), "0 to 32"),
        (lambda: GeneratorSettings(upsampling="neares"), "Did you mean 'nearest'"),
        (lambda: GeneratorSettings.from_json({"width": 8}), "is described by width, blocks, upsampling"),
        (lambda: GeneratorSettings.from_json({"width": 8.5, "blocks": 1, "upsampling": "nearest"}), "whole numbers"),
        (lambda: GeneratorSettings(from_picture=1), "true or false"),  # type: ignore[arg-type]
        (lambda: DiscriminatorSettings(scales=0), "1 to 5"),
        (lambda: CycleWeights(cycle=-1), "0 or more"),
        (lambda: CycleWeights(identity=float("inf")), "0 or more"),
    ],
)
def test_impossible_settings_are_refused(make: object, words: str) -> None:
    with pytest.raises(UsageError, match=words):
        make()  # type: ignore[operator]
