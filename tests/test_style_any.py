"""The one-pass methods with a network of one's own: what `keep`, several styles, regions and a least SSIM do."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from regraft.core.errors import UsageError
from regraft.style import StyleSettings, StyleStep
from regraft.style.base import resize
from regraft.style.figures.similarity import ssim
from regraft.style.methods import gatys
from regraft.style.methods.any_style import AdaAttN, AdaIN, OnePass
from regraft.style.methods.gatys import Gatys
from regraft.style.networks.arbitrary_net import ArbitraryNet
from regraft.style.networks.perceptual import sprig_net

pytestmark = pytest.mark.usefixtures("one_thread")


@pytest.fixture(scope="module", params=[AdaIN, AdaAttN])
def method(request: pytest.FixtureRequest) -> tuple[type[OnePass], ArbitraryNet]:
    """The class and a network whose painting is the recoloured picture with a little noise of random weights."""
    torch.manual_seed(0)
    net = ArbitraryNet(sprig_net(), attention=request.param is AdaAttN)
    torch.nn.init.normal_(net.paint.weight, std=0.02)
    return request.param, net


def picture(seed: int, height: int = 70, width: int = 93) -> Tensor:
    coarse = torch.rand(1, 3, 6, 8, generator=torch.Generator().manual_seed(seed))
    return torch.nn.functional.interpolate(coarse, (height, width), mode="bicubic").clamp(0, 1)[0]


def run(method: tuple[type[OnePass], ArbitraryNet], styles: list[tuple[Tensor, float]], **more: object) -> Tensor:
    kind, net = method
    masks, on_step = more.pop("masks", None), more.pop("on_step", None)
    styler = kind(StyleSettings(network=net, **more))  # type: ignore[arg-type]
    return styler.stylize(picture(0), styles, masks=masks, on_step=on_step)  # type: ignore[arg-type]


def test_any_size_gives_a_picture_in_range(method: tuple[type[OnePass], ArbitraryNet]) -> None:
    found = run(method, [(picture(1, 200, 40) ** 2, 1.0)])
    assert found.shape == (3, 70, 93) and float(found.min()) >= 0 and float(found.max()) <= 1
    assert not torch.allclose(found, picture(0), atol=0.02)


def test_keep_holds_more_of_the_content(method: tuple[type[OnePass], ArbitraryNet]) -> None:
    style = [(picture(1) ** 3, 1.0)]
    fidelity = [float(ssim(run(method, style, keep=keep), picture(0))) for keep in (0.0, 0.5, 1.0)]
    assert fidelity[0] < fidelity[1] < fidelity[2]


def test_a_least_ssim_is_searched(method: tuple[type[OnePass], ArbitraryNet]) -> None:
    style, seen = [(picture(1) ** 3, 1.0)], list[StyleStep]()
    free = float(ssim(run(method, style), picture(0)))
    asked = (1 + 2 * free) / 3
    found = float(ssim(run(method, style, ssim=asked, refine=0, on_step=seen.append), picture(0)))
    assert asked <= found < asked + 0.1 and len(seen) > 2


def test_refining_brings_more_style_at_the_same_likeness(method: tuple[type[OnePass], ArbitraryNet]) -> None:
    style, seen = picture(1) ** 3, list[StyleStep]()
    target = method[1].code(style[None])

    def apart(found: Tensor) -> float:
        shown = method[1].code(found[None, :, :64, :88])
        return sum(float((shown.moments[k].second - m.second).square().mean()) / float(m.second.square().mean())
                   for k, m in target.moments.items())  # fmt: skip

    plain = run(method, [(style, 1.0)], ssim=0.6, refine=0)
    found = run(method, [(style, 1.0)], ssim=0.6, on_step=seen.append)
    assert apart(found) < 0.7 * apart(plain)
    assert float(ssim(found, picture(0))) > 0.57  # the dial blends with the photo for the rest
    assert seen[-1].step == seen[-1].total and seen[-1].total > 20
    assert [step.step for step in seen] == sorted(step.step for step in seen)
    assert torch.equal(run(method, [(style, 1.0)], refine=0), run(method, [(style, 1.0)]))


def test_what_changes_at_the_lowest_level_is_added_to_a_large_picture(monkeypatch: pytest.MonkeyPatch) -> None:
    content, style = 0.3 + 0.4 * picture(0, 160, 200), picture(1) ** 3
    grain = torch.rand(content.shape, generator=torch.Generator().manual_seed(3))
    painted = content + 0.1 * grain
    optimiser = Gatys(StyleSettings(steps=4))
    whole = optimiser.polish(painted, content, [style], [1.0])
    monkeypatch.setattr(gatys, "LARGEST_PX", 150)
    monkeypatch.setattr(gatys, "octaves", lambda size: 1)
    coarse = optimiser.polish(painted, content, [style], [1.0])

    def grain_of(found: Tensor) -> float:
        """How much of the change is finer than the level below."""
        change = found - painted
        return float((change - resize(resize(change, (80, 100)), (160, 200))).abs().mean() / change.abs().mean())

    assert coarse.shape == content.shape and float((coarse - painted).abs().mean()) > 0.005
    assert grain_of(coarse) < 0.5 * grain_of(whole)


def as_good_as_equal(a: torch.Tensor, b: torch.Tensor) -> bool:
    """But for a few places, where rounding decides which of two equal neighbours a gradient goes to."""
    return float((a - b).abs().mean()) < 1e-3


def test_styles_mix_and_have_regions(method: tuple[type[OnePass], ArbitraryNet]) -> None:
    red = picture(1) * torch.tensor([1.0, 0.2, 0.2]).view(3, 1, 1)
    blue = picture(2) * torch.tensor([0.2, 0.2, 1.0]).view(3, 1, 1)
    one, both = run(method, [(red, 1.0)]), run(method, [(red, 1.0), (blue, 1.0)])
    assert as_good_as_equal(run(method, [(red, 2.0), (blue, 0.0)]), one)
    assert float(both[2].mean() - both[0].mean()) > float(one[2].mean() - one[0].mean()) + 0.05
    left = torch.zeros(1, 70, 93)
    left[:, :, :40] = 1
    masked = run(method, [(red, 1.0), (blue, 1.0)], masks=[left, None])
    assert as_good_as_equal(masked[..., :40], one[..., :40])
    alone = run(method, [(red, 1.0)], masks=[left])
    assert torch.equal(alone[..., 41:], picture(0)[..., 41:])


def test_what_it_does_not_use_is_refused(method: tuple[type[OnePass], ArbitraryNet]) -> None:
    with pytest.raises(UsageError, match="does not use steps"):
        run(method, [(picture(1), 1.0)], steps=3)
