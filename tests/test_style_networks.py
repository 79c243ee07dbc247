"""The feed-forward networks: shapes, what their parts compute, and the batched losses against the single ones."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from regraft.style.figures.similarity import ssim
from regraft.style.losses import content_loss, gram_loss, moments, total_variation
from regraft.style.methods.colour import monge_kantorovich
from regraft.style.networks.arbitrary_net import (
    AdaptiveInstanceNorm,
    ArbitraryNet,
    AttentiveNorm,
    _moments,
    mix_codes,
    recolour,
    statistics,
)
from regraft.style.networks.sprig import STAGES, Sprig
from regraft.style.networks.transfer_net import ConditionalNorm, StudentNet, TeacherNet, enlarging_kernel, smoothed
from regraft.style.training.batch_losses import (
    batch_moments,
    content_losses,
    gram_losses,
    moment_losses,
    outside,
    ssim_each,
    variation_losses,
)


@pytest.fixture
def arbitrary() -> ArbitraryNet:
    torch.manual_seed(0)
    return ArbitraryNet(Sprig())


def drawn(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.rand(shape, generator=torch.Generator().manual_seed(seed))


def with_random_ends(net: torch.nn.Module) -> torch.nn.Module:
    """Layers that start at zero get weights, so that a test sees what they do."""
    torch.manual_seed(1)
    for module in net.modules():
        if isinstance(module, (torch.nn.Conv2d, torch.nn.Linear)) and not module.weight.any():
            torch.nn.init.normal_(module.weight, std=0.05)
    return net


@pytest.mark.parametrize("size", [(64, 48), (56, 40)])
def test_every_stage_of_the_slim_network_has_the_promised_channels_and_stride(size: tuple[int, int]) -> None:
    found = Sprig()(drawn(2, 3, *size))
    assert list(found) == list(STAGES)
    for name, (channels, stride) in STAGES.items():
        assert found[name].shape == (2, channels, size[0] // stride, size[1] // stride)


@pytest.mark.parametrize("size", [(64, 48), (50, 37)])
def test_networks_give_back_the_pictures_size(size: tuple[int, int]) -> None:
    pictures = drawn(2, 3, *size)
    shares = torch.eye(2)
    teacher, student = TeacherNet(2, width=16, blocks=1), StudentNet((4, 8, 16), (8,)).eval()
    with torch.no_grad():
        assert with_random_ends(teacher)(pictures, shares).shape == pictures.shape
        assert with_random_ends(student)(pictures).shape == pictures.shape


def test_a_teacher_starts_from_the_picture_in_each_styles_colours() -> None:
    styles = [0.2 * drawn(3, 20, 30) + 0.3, 0.5 * drawn(3, 30, 10, seed=1)]
    teacher, pictures = TeacherNet(2, width=16, blocks=1), 0.1 * drawn(2, 3, 64, 48, seed=2)
    teacher.begin_with_colours(styles)
    with torch.no_grad():
        found = teacher(pictures, torch.eye(2))
    for one, style in zip(found, styles, strict=True):
        # The last layer's bias is random, of less than 1 / 8 for 8 channels of 3 × 3.
        assert torch.allclose(one.flatten(1).std(1), style.flatten(1).std(1), rtol=0.35)
        assert torch.allclose(one.flatten(1).mean(1), style.flatten(1).mean(1), atol=0.13)


def test_a_student_starts_from_the_picture_in_the_styles_colours() -> None:
    style, student = 0.2 * drawn(3, 20, 30) + 0.3, StudentNet((4, 8, 16), (8,)).eval()
    torch.nn.init.zeros_(student.paint.bias)
    student.begin_with_colours(style)
    dark = 0.1 * drawn(2, 3, 160, 160, seed=2)
    with torch.no_grad():
        found = student(dark)
    for one in found:
        assert torch.allclose(one.flatten(1).mean(1), style.flatten(1).mean(1), atol=0.02)
        assert torch.allclose(one.flatten(1).std(1), style.flatten(1).std(1), rtol=0.15)


def test_the_hint_says_where_the_style_is(arbitrary: ArbitraryNet) -> None:
    content, style = drawn(2, 3, 40, 48), 0.2 + 0.5 * drawn(2, 3, 32, 32, seed=1).round()
    code = arbitrary.code(style)
    look = arbitrary.look(content, code)
    assert look.hint.shape == look.recoloured.shape == (2, 3, 40, 48) and not look.hint.requires_grad

    def lost(pictures: torch.Tensor) -> torch.Tensor:
        found = {name: batch_moments(part) for name, part in arbitrary.encode(pictures).items()}
        each = [gram_losses(found[name], t) + moment_losses(found[name], t) for name, t in code.moments.items()]
        return torch.stack(each).sum(dim=0)

    with torch.no_grad():
        here, there = lost(look.recoloured), lost(look.recoloured - 0.002 * look.hint)
    assert bool((there < here).all())
    again = arbitrary.look(content[:1], arbitrary.code(style[:1]))
    assert torch.allclose(again.hint, look.hint[:1], atol=1e-3)  # of each picture alone, whatever else is in the batch


def test_a_mixture_of_styles_lies_between_them_in_the_norm() -> None:
    norm = ConditionalNorm(3, 2)
    with torch.no_grad():
        norm.scale.copy_(torch.tensor([[1.0, 1, 1], [3, 3, 3]]))
        norm.shift.copy_(torch.tensor([[0.0, 0, 0], [2, 2, 2]]))
    x = drawn(1, 3, 8, 8)
    normal = (x - x.mean((2, 3), keepdim=True)) / (x.var((2, 3), unbiased=False, keepdim=True) + 1e-5).sqrt()
    assert torch.allclose(norm(x, torch.tensor([[0.5, 0.5]])), 2 * normal + 1, atol=1e-5)


def test_adaptive_instance_norm_gives_the_styles_statistics() -> None:
    content, style = drawn(2, 5, 9, 7), 3 * drawn(2, 5, 6, 6, seed=1) - 1
    found = statistics(AdaptiveInstanceNorm()(content, *statistics(style)))
    assert torch.allclose(found[0], statistics(style)[0], atol=1e-4)
    assert torch.allclose(found[1], statistics(style)[1], atol=1e-3)


def test_uniform_attention_is_adaptive_instance_norm() -> None:
    attentive = AttentiveNorm(5, width=4)
    torch.nn.init.zeros_(attentive.query.weight)
    torch.nn.init.zeros_(attentive.query.bias)
    content, style = drawn(1, 5, 9, 7), drawn(1, 5, 6, 6, seed=1)
    assert torch.allclose(attentive(content, style), AdaptiveInstanceNorm()(content, *statistics(style)), atol=1e-3)


def test_attention_against_numpy() -> None:
    torch.manual_seed(3)
    attentive = AttentiveNorm(3, width=2)
    content, style = drawn(1, 3, 4, 3), drawn(1, 3, 2, 5, seed=1)
    found = attentive(content, style)[0].flatten(1).detach().numpy()

    def normal(x: np.ndarray) -> np.ndarray:
        return (x - x.mean(1, keepdims=True)) / np.sqrt(x.var(1, keepdims=True) + 1e-5)

    a, b = content[0].flatten(1).numpy(), style[0].flatten(1).numpy()
    query = (
        attentive.query.weight[:, :, 0, 0].detach().numpy() @ normal(a) + attentive.query.bias.detach().numpy()[:, None]
    )
    key = attentive.key.weight[:, :, 0, 0].detach().numpy() @ normal(b) + attentive.key.bias.detach().numpy()[:, None]
    scores = np.exp(query.T @ key / np.sqrt(2))
    attention = scores / scores.sum(1, keepdims=True)
    mean = attention @ b.T
    deviation = np.sqrt(np.maximum(attention @ (b.T**2) - mean**2, 0))
    assert np.allclose(found, deviation.T * normal(a) + mean.T, atol=1e-3)


def test_recolouring_a_batch_is_the_single_colour_transfer() -> None:
    content, style = drawn(2, 3, 20, 20), 0.3 + 0.4 * drawn(2, 3, 15, 15, seed=2)
    flat = style.flatten(2)
    centred = flat - flat.mean(2, keepdim=True)
    found = recolour(content, flat.mean(2), centred @ centred.mT / flat.shape[2])
    for one, picture, painting in zip(found, content, style, strict=True):
        assert torch.allclose(one, monge_kantorovich(picture, painting), atol=5e-3)


def test_attention_decides_how_much_is_painted_and_regions_bound_it(arbitrary: ArbitraryNet) -> None:
    net = with_random_ends(arbitrary).eval()
    content, style = drawn(1, 3, 40, 33), drawn(1, 3, 32, 32, seed=1)
    code, keep = net.code(style), torch.tensor([0.5])
    with torch.no_grad():
        painted, attention = net.paint_with_attention(net.look(content, code), keep)
    assert attention.shape == (1, 1, 40, 33) and float(attention.min()) > 0 and float(attention.max()) < 1
    assert torch.allclose(net(content, code, keep), content + attention * (painted - content), atol=1e-6)
    left = torch.zeros(1, 1, 40, 33)
    left[..., :16] = 1
    found = net(content, code, keep, left)
    assert torch.equal(found[..., 16:], content[..., 16:]) and not torch.allclose(found[..., :16], content[..., :16])


def test_keep_begins_with_the_attention(arbitrary: ArbitraryNet) -> None:
    content, style = drawn(1, 3, 40, 32), drawn(1, 3, 32, 32, seed=1)
    code = arbitrary.code(style)
    look = arbitrary.look(content, code)
    found = [arbitrary.paint_with_attention(look, torch.tensor([keep]))[1] for keep in (0.0, 0.5, 1.0)]
    assert [round(float(a.detach().mean()), 3) for a in found] == [0.881, 0.5, 0.119]


def test_what_changes_from_pixel_to_pixel_is_smoothed_away() -> None:
    rows, columns = torch.meshgrid(torch.arange(8), torch.arange(10), indexing="ij")
    checks = ((rows + columns) % 2).float()[None, None] - 0.5
    assert float(smoothed(checks)[..., 1:-1, 1:-1].abs().max()) < 1e-6
    ramp = columns.float()[None, None].expand(1, 2, -1, -1)
    assert torch.allclose(smoothed(ramp)[..., 1:-1], ramp[..., 1:-1])


def test_only_the_decoder_is_trained_and_saved(arbitrary: ArbitraryNet) -> None:
    assert not any("encoder" in name for name in arbitrary.state_dict())
    assert not any(parameter.requires_grad for parameter in arbitrary.encoder.parameters())
    assert sum(p.numel() for p in arbitrary.parameters()) * 4 + sum(p.numel() for p in Sprig().parameters()) * 4 < 8e6


def test_codes_mix_as_distributions(arbitrary: ArbitraryNet) -> None:
    """The mixture of two pictures is the picture that has both side by side."""
    a, b = drawn(1, 3, 32, 32), 0.2 * drawn(1, 3, 32, 32, seed=1)
    codes = [arbitrary.code(a), arbitrary.code(b)]
    mixed = mix_codes(codes, [0.5, 0.5])
    both = torch.cat([a, b], dim=3).flatten(2)
    assert torch.allclose(mixed.colour_mean, both.mean(2), atol=1e-5)
    assert torch.allclose(mixed.colour_covariance[0], torch.cov(both[0], correction=0), atol=1e-5)
    features = torch.cat([arbitrary.encode(x)["edges"].flatten(2) for x in (a, b)], dim=2)
    assert torch.allclose(mixed.moments["edges"].std, features.std(2, unbiased=False), atol=1e-3)
    assert torch.allclose(mixed.moments["edges"].second, features @ features.mT / features.shape[2], atol=1e-3)


def test_batched_losses_are_the_single_ones() -> None:
    a, b = drawn(3, 4, 7, 6), drawn(3, 4, 7, 6, seed=1)
    found, target = batch_moments(a), batch_moments(b)
    for i in range(3):
        assert torch.allclose(gram_losses(found, target)[i], gram_loss(moments(a[i]), moments(b[i])))
        assert torch.allclose(content_losses(a, b)[i], content_loss(a[i], b[i]))
        assert torch.allclose(variation_losses(a)[i], total_variation(a[i]))
    mean, std = b.mean((2, 3)), b.std((2, 3), unbiased=False)
    gap = (a.mean((2, 3)) - mean).square().sum(1) + (a.std((2, 3), unbiased=False) - std).square().sum(1)
    assert torch.allclose(moment_losses(found, target), gap / (mean.square() + std.square()).sum(1), atol=1e-4)
    pictures, others = drawn(2, 3, 20, 20), drawn(2, 3, 20, 20, seed=1)
    assert torch.allclose(ssim_each(pictures, others)[1], ssim(pictures[1], others[1]))


def test_values_outside_the_range_cost_their_squared_distance() -> None:
    pictures = torch.tensor([-0.5, 0.0, 0.5, 1.2]).view(1, 1, 2, 2)
    assert torch.allclose(outside(pictures), torch.tensor([(0.25 + 0.04) / 4]))


def test_a_student_paints_no_grid_whatever_its_weights() -> None:
    torch.manual_seed(0)
    student = StudentNet((4, 8, 16), (16, 8)).eval()
    for parameter in student.parameters():
        torch.nn.init.normal_(parameter, std=0.5)
    with torch.no_grad():
        grey = torch.full((1, 3, 160, 160), 0.4)
        laid = student(grey)[..., 72:88, 72:88]
        student.canvas.zero_()
        middle = student(grey)[..., 72:88, 72:88]
        assert float(middle.std(dim=(2, 3)).max()) < 1e-4 * float(middle.abs().max())
        for other in (laid, student(drawn(1, 3, 160, 160))[..., 72:88, 72:88]):
            assert float(other.std(dim=(2, 3)).min()) > 0.03


def test_a_student_learns_its_canvas_in_every_place() -> None:
    torch.manual_seed(0)
    student = StudentNet((4, 8, 16), (16,)).train()
    torch.nn.init.normal_(student.paint.weight)
    for _ in range(40):
        student(drawn(2, 3, 64, 64)).square().sum().backward()
    assert student.canvas.grad is not None and float((student.canvas.grad != 0).float().mean()) > 0.9


def test_what_is_painted_at_half_size_is_enlarged_evenly() -> None:
    kernel = enlarging_kernel()
    assert torch.allclose(kernel.sum(dim=(1, 2, 3)), torch.ones(12))
    ramp = torch.arange(24.0).expand(1, 3, 24, 24)
    found = torch.nn.functional.pixel_shuffle(torch.nn.functional.conv2d(ramp, kernel, groups=3), 2)
    assert torch.allclose(found[0, 0, 0], torch.arange(40) / 2 + 1.75)  # half a cell's quarter off, as a ramp should be
    checks = (torch.arange(24) % 2).float().expand(1, 3, 24, 24)
    assert torch.allclose(torch.nn.functional.conv2d(checks, kernel, groups=3), torch.tensor(0.5))


def test_half_of_the_gradients_work_gives_the_whole_gradient() -> None:
    features, target = drawn(2, 6, 9, 8).requires_grad_(), batch_moments(drawn(2, 6, 7, 7, seed=1) ** 2)
    gradients = []
    for found in (batch_moments(features), _moments(features)):
        loss = (gram_losses(found, target) + moment_losses(found, target)).sum()
        gradients.append(torch.autograd.grad(loss, features)[0])
    assert torch.allclose(*gradients, atol=1e-6) and float(gradients[0].abs().max()) > 1e-3
