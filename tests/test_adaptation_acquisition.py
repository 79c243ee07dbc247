"""How the target was taken: each alteration against its formula, the search on known alterations, and the vote."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from regraft.adaptation.altered.acquisition import (
    FAITHFUL,
    RANGES,
    Acquisition,
    Match,
    Simulated,
    match_acquisition,
    moment_distance,
)

pytestmark = pytest.mark.usefixtures("one_thread")


def pictures(n: int, seed: int = 0, side: int = 48) -> Tensor:
    """Soft coloured blotches on a dark ground with finer grain, uint8; their negative is another kind of picture."""
    draw = torch.Generator().manual_seed(seed)
    coarse = torch.rand(n, 3, 6, 6, generator=draw)
    fine = torch.rand(n, 1, side // 2, side // 2, generator=draw) - 0.5
    x = F.interpolate(coarse, (side, side), mode="bicubic") * 0.7 + 0.2 * F.interpolate(fine, (side, side)) + 0.1
    return (x.clamp(0, 1) ** 2.5 * 255).to(torch.uint8)


def see(x: Tensor) -> np.ndarray:
    """Tone, contrast and sharpness over a few places and scales, as a network's features have them."""
    x = x.float() / 255
    edges = torch.cat(
        [(x[..., 1:] - x[..., :-1]).abs()[..., :-1, :], (x[..., 1:, :] - x[..., :-1, :]).abs()[..., :-1]], 1
    )
    parts = [F.adaptive_avg_pool2d(x, 3), F.adaptive_avg_pool2d(x.square(), 3), F.adaptive_avg_pool2d(edges, 2)]
    quantiles = torch.quantile(x.mean(1).flatten(1), torch.tensor([0.02, 0.1, 0.5, 0.9, 0.98]), dim=1).T
    return torch.cat([*(part.flatten(1) for part in parts), quantiles], dim=1).numpy()


def test_nothing_changed_is_the_picture_itself() -> None:
    x = pictures(3)
    torch.testing.assert_close(Acquisition()(x), x.float() / 255, atol=1e-5, rtol=0)
    assert Acquisition().described() == "as they are"
    assert all(low <= unchanged <= high for low, high, unchanged in RANGES.values())


def test_tones_follow_the_formula() -> None:
    x = pictures(2)
    way = Acquisition(negative=True, saturation=0.25, log_gamma=0.5, black=0.1, white=0.8)
    light = x.numpy().astype(np.float64) / 255
    grey = light.mean(axis=1, keepdims=True)
    expected = 0.1 + 0.7 * (1 - (grey + 0.25 * (light - grey))) ** np.exp(0.5)
    np.testing.assert_allclose(way(x).numpy(), expected, atol=1e-5)


def test_the_middle_is_enlarged() -> None:
    """A ramp keeps its middle value and loses its ends."""
    ramp = torch.linspace(0, 1, 101).expand(1, 3, 101, 101)
    found = Acquisition(kept=0.8)(ramp)[0, 0, 50]
    torch.testing.assert_close(found, torch.linspace(0.1, 0.9, 101), atol=2e-3, rtol=0)


def test_noise_has_its_deviation_and_is_grey() -> None:
    torch.manual_seed(0)
    even = torch.full((4, 3, 64, 64), 0.5)
    noise = Acquisition(noise=0.06)(even) - even
    assert float(noise.std()) == pytest.approx(0.06, rel=0.03)
    assert torch.equal(noise[:, 0], noise[:, 2])


def test_the_distance_is_numpy_s_and_small_within_a_domain() -> None:
    draw = np.random.default_rng(0)
    a, b = draw.normal(size=(200, 30)), draw.normal(size=(300, 30)) * 2 + 1
    by_hand = ((a.mean(0) - b.mean(0)) ** 2 + (a.std(0) - b.std(0)) ** 2) / b.std(0) ** 2
    assert moment_distance(a, b) == pytest.approx(by_hand.mean())
    assert moment_distance(a, a) == 0.0
    assert moment_distance(draw.normal(size=(200, 30)), a) == pytest.approx(1.5 * (1 / 200 + 1 / 200), rel=0.4)


@pytest.mark.parametrize(
    "truth",
    [
        Acquisition(negative=True, log_gamma=0.6, blur=0.01),
        Acquisition(kept=0.75, log_gamma=-0.5, black=0.15, noise=0.05),
    ],
)
def test_a_known_alteration_is_found(truth: Acquisition) -> None:
    torch.manual_seed(5)
    target = see((truth(pictures(80, seed=1)) * 255).round().to(torch.uint8))
    tries: list[tuple[int, int]] = []
    match = match_acquisition(see, pictures(48), target, on_try=lambda *at: tries.append(at))
    assert match.faithful and match.after < 0.1 * match.before
    assert match.acquisition.negative is truth.negative
    assert match.acquisition.log_gamma == pytest.approx(truth.log_gamma, abs=0.3)
    assert tries[-1][0] == tries[-1][1] == len(tries)
    again = match_acquisition(see, pictures(48), target)
    assert again == match, "the same seed finds the same"


def test_what_is_no_alteration_of_the_source_is_not_faithful() -> None:
    stripes = torch.zeros(60, 3, 48, 48, dtype=torch.uint8)
    stripes[..., ::4] = 255
    stripes = torch.where(torch.arange(60).view(-1, 1, 1, 1) % 2 == 0, stripes, stripes.mT.contiguous())
    assert not match_acquisition(see, pictures(48), see(stripes) + 0.01 * see(pictures(60))).faithful


def test_domains_that_are_alike_already_are_no_match_to_act_on() -> None:
    """There is nothing to gain: the distance cannot fall to a fifth of itself."""
    match = match_acquisition(see, pictures(48), see(pictures(80, seed=1)))
    assert match.after < FAITHFUL and not match.faithful


def test_the_vote_is_about_the_same_pictures() -> None:
    match = Match(Acquisition(negative=True), 50.0, 0.4)
    draw = np.random.default_rng(0)
    good, poor = draw.random(60) < 0.8, draw.random(60) < 0.5
    assert Simulated(good, poor, match).vote().side == "adapted"
    assert Simulated(poor, good, match).vote().side == "source_only"
    same = Simulated(good, good.copy(), match).vote()
    assert same.share == 0.5 and same.side == "open"
    told = Simulated(good, poor, match).told("acquisition")
    assert "negative" in told and f"{good.mean():.1%}" in told and "0.8%" in told
