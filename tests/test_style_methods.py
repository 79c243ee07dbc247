"""What every registered style method promises, and what each of them computes."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
import pytest
import torch
from torch import Tensor

from regraft.core.errors import DivergedError, UsageError
from regraft.style import perceptual
from regraft.style.base import Styler, StyleSettings, StyleStep, compose, methods, resize, resolve_masks
from regraft.style.figures.similarity import ssim
from regraft.style.large.canvas import held_bytes
from regraft.style.losses import laplacian_loss, moments
from regraft.style.methods.colour import from_lab, monge_kantorovich, reinhard, to_lab
from regraft.style.methods.colour_preservation import luminance, stylize_keeping_colour
from regraft.style.methods.gatys import Gatys, pyramid, split_steps
from regraft.style.methods.objective import LeastSSIM, Objective, Weights
from regraft.style.networks.model_file import StyleModel
from regraft.style.networks.shipped import fixed_style
from regraft.style.networks.transfer_net import StudentNet

pytestmark = pytest.mark.usefixtures("one_thread")

#: Methods whose styles are pictures.
PICTURE_METHODS = [name for name in methods.names() if methods.get(name).takes is Tensor]


def scene(seed: int, height: int = 48, width: int = 64) -> Tensor:
    """A smooth random picture (3, H, W) in [0, 1]."""
    coarse = torch.from_numpy(np.random.default_rng(seed).random((3, 6, 8))).float()
    return resize(coarse, (height, width))


def quick(name: str, **settings: object) -> Styler:
    """The method, with few steps if it takes steps."""
    kind = methods.get(name)
    if "steps" in kind.heeded:
        settings.setdefault("steps", 6)
    return kind(StyleSettings(**settings))  # type: ignore[arg-type]


@pytest.mark.parametrize("name", PICTURE_METHODS)
def test_every_method_gives_a_picture_and_changes_no_input(name: str) -> None:
    content, style = scene(0), scene(1, 40, 72) * 0.5
    before = content.clone(), style.clone()
    found = quick(name).stylize(content, [(style, 2.0)])
    assert found.shape == content.shape and found.dtype == content.dtype and not found.requires_grad
    assert float(found.min()) >= 0 and float(found.max()) <= 1
    assert torch.equal(content, before[0]) and torch.equal(style, before[1])
    assert not torch.allclose(found, content, atol=0.02)
    kind = methods.get(name)
    assert kind.summary and kind.paper


@pytest.mark.parametrize("name", PICTURE_METHODS)
def test_every_method_brings_colours_nearer_to_the_style(name: str) -> None:
    content, style = scene(2), scene(3) * torch.tensor([1.0, 0.4, 0.2]).view(3, 1, 1)
    found = quick(name).stylize(content, [(style, 1.0)])

    def gap(picture: Tensor) -> float:
        return float((picture.mean(dim=(1, 2)) - style.mean(dim=(1, 2))).norm())

    assert gap(found) < 0.5 * gap(content)


@pytest.mark.parametrize("name", PICTURE_METHODS)
def test_a_style_of_weight_zero_has_no_part(name: str) -> None:
    content, a, b = scene(4), scene(5), scene(6) ** 3
    alone = quick(name).stylize(content, [(a, 1.0)])
    torch.testing.assert_close(quick(name).stylize(content, [(a, 3.0), (b, 0.0)]), alone, atol=1e-4, rtol=0)
    both = quick(name).stylize(content, [(a, 1.0), (b, 1.0)])
    assert not torch.allclose(both, alone, atol=0.02)


@pytest.mark.parametrize("name", PICTURE_METHODS)
def test_masks_say_where_a_style_goes(name: str) -> None:
    content = scene(7)
    red = torch.tensor([0.9, 0.1, 0.1]).view(3, 1, 1) * (0.7 + 0.3 * scene(8))
    blue = torch.tensor([0.1, 0.1, 0.9]).view(3, 1, 1) * (0.7 + 0.3 * scene(9))
    left = torch.zeros(1, 24, 32)
    left[:, :, :16] = 1
    found = quick(name).stylize(content, [(red, 1.0), (blue, 1.0)], masks=[left, None])
    first, second = found[:, :, 4:28].mean(dim=(1, 2)), found[:, :, 36:60].mean(dim=(1, 2))
    assert first[0] - first[2] > second[0] - second[2] + 0.3


@pytest.mark.parametrize("name", PICTURE_METHODS)
def test_where_no_mask_is_the_content_stays(name: str) -> None:
    content, left = scene(27), torch.zeros(1, 48, 64)
    left[:, :, :32] = 1
    found = quick(name).stylize(content, [(scene(28) ** 3, 1.0)], masks=[left])
    assert torch.equal(found[:, :, 32:], content[:, :, 32:])
    assert not torch.allclose(found[:, :, :32], content[:, :, :32], atol=0.02)


@pytest.mark.parametrize("name", PICTURE_METHODS)
def test_what_cannot_be_is_said(name: str) -> None:
    method = quick(name)
    picture = scene(0)
    wrong: list[tuple[Tensor, Sequence[tuple[Tensor, float]], str]] = [
        (picture, [], "at least one style"),
        (picture, [(picture, -1.0)], "0 or more"),
        (picture, [(picture, 0.0)], "not all 0"),
        (picture, [(picture, math.nan)], "0 or more"),
        (picture[0], [(picture, 1.0)], "float \\(3, H, W\\)"),
        (picture, [((picture * 255).byte(), 1.0)], "torch.uint8"),
    ]
    for content, styles, words in wrong:
        with pytest.raises(UsageError, match=words):
            method.stylize(content, styles)
    with pytest.raises(UsageError, match=r"accepted is \(1, H, W\)"):
        method.stylize(picture, [(picture, 1.0)], masks=[picture])


def test_a_setting_without_meaning_is_refused() -> None:
    with pytest.raises(UsageError, match="does not use steps"):
        methods.get("colour")(StyleSettings(steps=3))
    with pytest.raises(UsageError, match=r"no style method 'gatis'\. Did you mean 'gatys'"):
        methods.get("gatis")


def test_masks_share_every_place_once() -> None:
    left = torch.zeros(1, 4, 4)
    left[:, :, :2] = 1
    whole = torch.ones(1, 4, 4)
    assert resolve_masks([None, None], (4, 4)) is None
    found = resolve_masks([left, None], (4, 4))
    assert found is not None and torch.equal(found[1], 1 - left)
    found = resolve_masks([left, whole], (4, 4))
    assert found is not None and torch.allclose(found[0] + found[1], whole) and float(found[0][0, 0, 0]) == 0.5
    only = resolve_masks([left], (4, 4))
    assert only is not None
    composed = compose(torch.zeros(3, 4, 4), [torch.ones(3, 4, 4)], [1.0], only)
    assert torch.equal(composed, left.expand(3, -1, -1)), "where no style goes the content stays"


def test_reinhard_gives_the_styles_mean_and_deviation() -> None:
    content, style = 0.3 + 0.4 * scene(10), 0.4 + 0.2 * scene(11)
    found, target = to_lab(reinhard(content, style)), to_lab(style)
    torch.testing.assert_close(found.mean(dim=(1, 2)), target.mean(dim=(1, 2)), atol=1e-3, rtol=0)
    torch.testing.assert_close(found.std(dim=(1, 2)), target.std(dim=(1, 2)), atol=1e-3, rtol=0)
    torch.testing.assert_close(from_lab(to_lab(content)), content, atol=1e-4, rtol=0)


def test_lab_by_the_papers_matrices() -> None:
    picture = 0.1 + 0.8 * scene(12, 3, 4)
    rgb = picture.numpy().reshape(3, -1).astype(float)
    lms = np.log10(np.array([[0.3811, 0.5783, 0.0402], [0.1967, 0.7244, 0.0782], [0.0241, 0.1288, 0.8444]]) @ rgb)
    scale = np.diag([1 / math.sqrt(3), 1 / math.sqrt(6), 1 / math.sqrt(2)])
    expected = scale @ np.array([[1, 1, 1], [1, 1, -2], [1, -1, 0]]) @ lms
    np.testing.assert_allclose(to_lab(picture).numpy().reshape(3, -1), expected, atol=1e-5)


def test_monge_kantorovich_gives_the_styles_mean_and_covariance_and_moves_least() -> None:
    content, style = 0.3 + 0.4 * scene(13), 0.4 + 0.2 * scene(14)
    found = monge_kantorovich(content, style)
    a, b, s = moments(content), moments(found), moments(style)
    torch.testing.assert_close(b.mean, s.mean, atol=1e-4, rtol=0)
    torch.testing.assert_close(b.covariance, s.covariance, atol=1e-4, rtol=0)
    # Its linear part is symmetric and positive, which among all such maps the one that moves least is.
    centred = content.flatten(1).numpy() - a.mean.numpy()[:, None]
    moved = found.flatten(1).numpy() - b.mean.numpy()[:, None]
    linear = np.linalg.lstsq(centred.T, moved.T, rcond=None)[0].T
    np.testing.assert_allclose(linear, linear.T, atol=1e-3)
    assert np.linalg.eigvalsh((linear + linear.T) / 2).min() > 0
    flat = torch.full((3, 8, 8), 0.5)
    expected = s.mean.view(3, 1, 1).expand(3, 8, 8)
    torch.testing.assert_close(monge_kantorovich(flat, style), expected, atol=1e-5, rtol=0)


@pytest.mark.parametrize("optimizer", ["adam", "lbfgs"])
@pytest.mark.parametrize("style_loss", ["gram", "wasserstein", "histogram", "gram+histogram"])
def test_the_optimisation_lowers_its_loss(optimizer: str, style_loss: str) -> None:
    steps: list[StyleStep] = []
    method = quick("gatys", steps=20, optimizer=optimizer, style_loss=style_loss, start="content")
    method.stylize(scene(15), [(scene(16) ** 2, 1.0)], on_step=steps.append)
    assert [step.step for step in steps] == list(range(1, 21)) and all(step.total == 20 for step in steps)
    assert steps[-1].loss < 0.7 * steps[0].loss
    assert steps[-1].loss == pytest.approx(sum(steps[-1].terms.values()), rel=1e-4)
    assert steps[-1].image.shape == (3, 48, 64) and not steps[-1].image.requires_grad


def test_scales_go_from_coarse_to_fine() -> None:
    assert pyramid((100, 80), 128) == [(100, 80)]
    assert pyramid((512, 384), 128) == [(128, 96), (256, 192), (512, 384)]
    assert pyramid((300, 600), 128) == [(75, 150), (150, 300), (300, 600)]
    assert split_steps(10, [1, 2, 3]) == [3, 3, 4] and split_steps(2, [1, 2, 3]) == [0, 0, 2]
    seen: list[StyleStep] = []
    quick("gatys", steps=4).stylize(scene(17, 200, 256), [(scene(18), 1.0)], on_step=seen.append)
    assert [step.scale_px for step in seen] == [128, 128, 256, 256]


def test_noise_is_a_start_that_the_seed_decides() -> None:
    def run(seed: int) -> Tensor:
        return quick("gatys", start="noise", seed=seed, steps=1).stylize(scene(19), [(scene(20), 1.0)])

    assert torch.equal(run(1), run(1))
    assert not torch.allclose(run(1), run(2), atol=0.1)


def test_terms_that_were_asked_for_are_there_and_work() -> None:
    content, style = scene(21), scene(22) ** 2
    shown: list[StyleStep] = []
    settings = {"steps": 40, "content_weight": 0.0, "tv_weight": 0.5, "edge_weight": 1.0, "ssim": 0.9}
    kept = quick("gatys", **settings).stylize(content, [(style, 1.0)], on_step=shown.append)
    assert set(shown[-1].terms) == {"style", "total variation", "edges", "ssim"}
    free = quick("gatys", steps=40, content_weight=0.0).stylize(content, [(style, 1.0)])
    assert float(ssim(kept, content)) > max(0.85, float(ssim(free, content)) + 0.05)


def test_the_bound_on_ssim_is_an_augmented_lagrangian() -> None:
    content, picture = scene(29), (scene(29) + 0.3 * scene(30)).clamp(0, 1)
    bound = LeastSSIM(0.99)
    for expected in (0.0, 0.1, 0.2):  # far below the bound λ grows by 5 · 0.02 a step
        assert bound.multiplier == pytest.approx(expected)
        lack = 0.992 - float(ssim(picture, content))
        assert lack > 0.02
        value = (max(0.0, expected + 20 * lack) ** 2 - expected**2) / 40
        assert float(bound(picture, content)) == pytest.approx(value, rel=1e-4)
        bound.after_step()
    for _ in range(20):  # well above it λ shrinks by 5 · 0.008 a step, down to 0
        bound(content, content)
        bound.after_step()
    assert bound.multiplier == 0 and float(bound(content, content)) == 0


def test_a_moved_picture_is_judged_as_if_it_had_been_taken_so() -> None:
    content, style, picture = scene(31), scene(32) ** 2, scene(33)
    weights = Weights(frozenset({"gram"}), content=1.0)
    objective = Objective(perceptual("scion"), weights, content, [style], [1.0], None)
    in_place = objective(picture)
    objective.shift = (3, 5)
    assert float(objective(content)["content"]) == 0
    moved = objective(picture)
    objective.shift = (0, 0)
    mirrored = torch.from_numpy(np.pad(picture.numpy(), ((0, 0), (3, 0), (5, 0)), mode="reflect"))
    objective.content_layers = {}
    objective.weights = Weights(frozenset({"gram"}))
    assert float(moved["style"]) == pytest.approx(float(objective(mirrored)["style"]), rel=1e-5)
    assert float(moved["style"]) != pytest.approx(float(in_place["style"]), rel=1e-4)


def test_weights_that_mean_nothing_are_refused() -> None:
    with pytest.raises(UsageError, match="Did you mean 'wasserstein'"):
        quick("gatys", style_loss="gram+waserstein")
    with pytest.raises(UsageError, match="0 or more"):
        quick("gatys", tv_weight=-1.0)


def test_a_loss_that_is_no_number_is_an_error() -> None:
    network = perceptual("scion")
    with torch.no_grad():
        next(iter(network.stages[0].parameters())).fill_(math.inf)
    with pytest.raises(DivergedError, match="no number at step 1"):
        Gatys(StyleSettings(perceptual=network, steps=2, style_loss="gram")).stylize(scene(0), [(scene(1), 1.0)])


@pytest.mark.parametrize("name", PICTURE_METHODS)
def test_luminance_only_keeps_the_contents_colours(name: str) -> None:
    content = 0.35 + 0.3 * scene(23)
    style = torch.tensor([0.9, 0.2, 0.1]).view(3, 1, 1) * scene(24)
    # One pass of those that may take several: on a picture of so few pixels each moves the brightness.
    once = {"passes": 1} if "passes" in methods.get(name).heeded else {}
    found = stylize_keeping_colour(quick(name, **once), content, [(style, 1.0)], "luminance")

    def chroma(picture: Tensor) -> np.ndarray:
        r, g, b = picture.numpy()
        return np.stack([0.5959 * r - 0.2746 * g - 0.3213 * b, 0.2115 * r - 0.5227 * g + 0.3112 * b])

    inside = ((found > 1e-3) & (found < 1 - 1e-3)).all(dim=0).numpy()
    assert inside.mean() > 0.7
    np.testing.assert_allclose(chroma(found)[:, inside], chroma(content)[:, inside], atol=1e-3)
    assert float(luminance(content).mean()) == pytest.approx(float(luminance(found).mean()), abs=0.15)


def test_histogram_colours_are_the_contents_too() -> None:
    content = 0.35 + 0.3 * scene(25)
    style = torch.tensor([0.9, 0.2, 0.1]).view(3, 1, 1) * scene(26)
    found = stylize_keeping_colour(quick("colour"), content, [(style, 1.0)], "histogram")
    torch.testing.assert_close(found, content, atol=0.02, rtol=0)  # to itself, but for colours cut to [0, 1]
    with pytest.raises(UsageError, match="way of keeping colours"):
        stylize_keeping_colour(quick("colour"), content, [(style, 1.0)], "hue")


def test_strokes_stay_out_of_what_is_kept() -> None:
    content, style = scene(40), torch.rand(3, 48, 64, generator=torch.Generator().manual_seed(1))
    kept = torch.zeros(1, 48, 64)
    kept[:, :, :32] = 1

    def overflow(found: Tensor) -> float:
        return float(laplacian_loss(found, content, (1,), kept))

    settings = {"steps": 30, "content_weight": 0.0}
    free = quick("gatys", **settings).stylize(content, [(style, 1.0)])
    held = quick("gatys", **settings, kept=kept).stylize(content, [(style, 1.0)])
    assert overflow(held) < 0.6 * overflow(free)
    right = 1 - kept
    assert float(laplacian_loss(held, content, (1,), right)) > 2 * overflow(held)


def test_a_fixed_style_keeps_the_size_and_has_regions() -> None:
    content, model = scene(45, 70, 93), random_student()
    found = quick("fixed").stylize(content, [(model, 1.0)])
    assert found.shape == content.shape and not torch.allclose(found, content, atol=0.02)
    left = torch.zeros(1, 70, 93)
    left[:, :, :40] = 1
    part = quick("fixed").stylize(content, [(model, 1.0)], masks=[left])
    assert torch.equal(part[..., 41:], content[..., 41:])
    torch.testing.assert_close(part[..., :40], found[..., :40])


def test_a_fixed_style_in_tiles_is_the_whole_one() -> None:
    content, model = scene(48, 300, 420), random_student()
    whole = quick("fixed").stylize(content, [(model, 1.0)])
    tiled = quick("fixed", max_memory_bytes=held_bytes(content.device) + (90 << 20)).stylize(content, [(model, 1.0)])
    torch.testing.assert_close(tiled, whole, atol=1e-5, rtol=0)
    with pytest.raises(UsageError):
        quick("fixed", max_memory_bytes=1000).stylize(content, [(model, 1.0)])


def random_student() -> StyleModel:
    """A student that paints something: its last layer begins at zero."""
    torch.manual_seed(0)
    net = StudentNet((4, 8, 16), (8,)).eval()
    torch.nn.init.normal_(net.paint.weight, std=0.05)
    return StyleModel("student", net, ("noise",))


def test_a_fixed_style_is_no_picture() -> None:
    with pytest.raises(UsageError, match="takes styles of type StyleModel"):
        quick("fixed").stylize(scene(46), [(scene(47), 1.0)])
    with pytest.raises(UsageError, match="Known:"):
        fixed_style("waves-of-nothing")
