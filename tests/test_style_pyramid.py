"""Large pictures from small stylised ones: how near they come, and that every strip fits its neighbours."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from large_pictures import Etching, photo
from regraft.core.errors import UsageError
from regraft.style.base import StyleSettings, methods
from regraft.style.figures.evaluation import psnr_db
from regraft.style.large.canvas import stylize_by_pyramid
from regraft.style.large.pyramid import doubled, gains, halved, level_size, levels, octaves, padded, strips, transfer
from regraft.style.large.raising import Raising
from regraft.style.methods import gatys as gatys_file

pytestmark = pytest.mark.usefixtures("one_thread")


def applied(module: nn.Module, picture: Tensor) -> Tensor:
    with torch.no_grad():
        return module(picture[None])[0]


def test_levels_halve_down_to_the_lowest() -> None:
    assert [octaves((540, long), 1024) for long in (1024, 1025, 2048, 3840, 7680)] == [0, 1, 1, 2, 3]
    found = levels(photo(101, 75), 3)
    assert [tuple(level.shape) for level in found] == [(3, 104, 80), (3, 52, 40), (3, 26, 20), (3, 13, 10)]
    assert level_size((101, 75), 3) == (13, 10)
    assert torch.equal(found[0][:, 101:], found[0][:, 100:101].expand(-1, 3, -1))
    assert torch.equal(padded(photo(8, 8), 3), photo(8, 8))
    assert list(strips(10, 4)) == [(0, 4), (4, 8), (8, 10)]


def test_halving_and_doubling_keep_what_is_smooth_in_place() -> None:
    ramp = torch.linspace(0, 1, 64).expand(3, 32, 64)
    inside = (slice(None), slice(8, -8), slice(8, -8))
    shift = 0.5 / 63  # what a place off by half a px would make of the ramp
    torch.testing.assert_close(doubled(halved(ramp))[inside], ramp[inside], atol=0.3 * shift, rtol=0)


def test_gains_are_the_slope_of_one_band_on_the_other() -> None:
    content = 0.2 + 0.5 * photo(48, 64)
    found = gains(content, 0.1 + 0.5 * content)[:, 12:-12, 12:-12]
    busy = gains(content, content)[:, 12:-12, 12:-12] > 0.9
    assert busy.float().mean() > 0.3
    assert (found[busy] - 0.5).abs().max() < 0.05
    assert (gains(content, 0.7 - 0.5 * content)[:, 12:-12, 12:-12][busy] + 0.5).abs().max() < 0.05
    assert float(gains(content, photo(48, 64, seed=5)).abs().mean()) < 0.4 * float(found.mean())
    assert float(gains(content, torch.full_like(content, 0.3)).abs().max()) < 1e-3


def test_transfer_gives_edges_back() -> None:
    content = photo(203, 301, seed=2)
    style = 0.15 + 0.6 * content  # the same edges at 0.6 of their contrast
    low = levels(style, 2)[-1]
    found = transfer(content, low)
    plain = doubled(doubled(low))[:, :203, :301]
    assert found.shape == content.shape
    assert psnr_db(found, style) > psnr_db(plain, style) + 3
    assert torch.equal(transfer(content, content), content)
    with pytest.raises(UsageError, match="not a content of 301 × 203 px halved"):
        transfer(content, low[:, 1:])


def test_a_rule_that_is_linear_is_learnt_and_applied() -> None:
    kernel = torch.from_numpy(np.random.default_rng(3).normal(0, 0.2, (3, 3, 5, 5))).float()

    def filtered(picture: Tensor) -> Tensor:
        return F.conv2d(F.pad(picture[None], (2, 2, 2, 2), mode="replicate"), kernel)[0] + 0.25

    content, large = photo(96, 128, seed=4), photo(600, 80, seed=5)
    raising = Raising(filtered(halved(content)), content, filtered(content))
    # Rows of several strips: a seam between them would differ from the filter.
    found = raising(filtered(halved(large)), large)
    torch.testing.assert_close(found, filtered(large), atol=0.01, rtol=0)


@pytest.mark.parametrize("size", [(240, 320), (203, 301)])
def test_the_pyramid_is_nearer_to_the_full_result_than_enlarging(size: tuple[int, int]) -> None:
    network, content = Etching(), photo(*size, seed=6)
    full = applied(network, content)
    sides: list[int] = []

    def run(picture: Tensor) -> Tensor:
        sides.append(max(picture.shape[-2:]))
        return applied(network, picture)

    found = stylize_by_pyramid(run, content, low_px=80)
    assert sides == [-(-size[1] // 4), 2 * -(-size[1] // 4)], "the network never sees the full size"
    low = applied(network, levels(content, 2)[-1])
    plain = doubled(doubled(low))[:, : size[0], : size[1]]
    assert found.shape == content.shape
    assert psnr_db(found.clamp(0, 1), full) > psnr_db(plain.clamp(0, 1), full) + 2.1
    small = photo(40, 60)
    assert torch.equal(stylize_by_pyramid(run, small, low_px=80), applied(network, small))


def test_one_octave_is_learnt_one_octave_below() -> None:
    network, content = Etching(), photo(120, 160, seed=7)
    sides: list[int] = []

    def run(picture: Tensor) -> Tensor:
        sides.append(max(picture.shape[-2:]))
        return applied(network, picture)

    stylize_by_pyramid(run, content, low_px=100)
    assert sides == [40, 80]


def test_gatys_above_its_largest_size_optimises_a_small_picture(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(gatys_file, "LARGEST_PX", 150)
    monkeypatch.setattr(gatys_file, "octaves", lambda size: octaves(size, 100))
    content, style, left = photo(120, 160, seed=8), photo(60, 60, seed=9) ** 2, torch.zeros(1, 120, 160)
    left[:, :, :80] = 1
    scales: list[int] = []
    method = methods.get("gatys")(StyleSettings(steps=3))
    found = method.stylize(content, [(style, 1.0)], masks=[left], on_step=lambda step: scales.append(step.scale_px))
    assert max(scales) == 80 and found.shape == content.shape
    assert torch.equal(found[:, :, 80:], content[:, :, 80:])
    assert not torch.allclose(found[:, :, :80], content[:, :, :80], atol=0.05)
