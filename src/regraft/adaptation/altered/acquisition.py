"""How the target was taken: the alteration of the source's pictures that makes them look like the target's.

Another scanner or camera inverts, brightens, fades, enlarges, blurs and adds noise. The few numbers that say how much
of each are searched, so that the features of altered source pictures have the target's moments. Then the source's
labels are those of pictures such as the target's: a head learns from them, and held-out ones say how well any model
would do. No label of the target is needed for either.

Paper: the parameters of a simulator chosen by what its pictures' features look like, as in Kar et al., "Meta-Sim:
Learning to Generate Synthetic Datasets", ICCV 2019, arXiv:1904.11621. Differs from it in the simulator (the source's
own pictures, altered), in first and second moments in place of MMD, and in a search by chance, then nearby.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Final

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from regraft.adaptation.altered.stacked import blurred
from regraft.adaptation.altered.views import as_float
from regraft.adaptation.evidence.alarm import HALVES, Vote

#: Of each number its least and largest value, and what leaves the picture as it is.
RANGES: Final[dict[str, tuple[float, float, float]]] = {
    "kept": (0.6, 1.0, 1.0), "saturation": (0.0, 1.0, 1.0), "log_gamma": (-1.2, 1.2, 0.0), "black": (0.0, 0.3, 0.0),
    "white": (0.7, 1.0, 1.0), "blur": (0.0, 3 / 224, 0.0), "noise": (0.0, 24 / 255, 0.0),
}  # fmt: skip
#: Alterations that are tried: by chance for each polarity, near the best of each, near the best of all in rounds of
#: ever smaller steps (in shares of a range).
CHANCES, NEARBY, ROUNDS, ROUND = 20, 8, (0.2, 0.12, 0.08, 0.05), 10
#: The source counts as altered as the target is where its distance has fallen to this, and to that share of itself.
FAITHFUL, FAITHFUL_SHARE = 0.8, 0.2
#: After the tries by chance it is given up where the distance is above this share of what it was and this multiple of
#: FAITHFUL.
HOPELESS_SHARE, HOPELESS = 0.3, 1.5


@dataclass(frozen=True)
class Acquisition:
    """negative: what was bright is dark. kept: the middle share of the sides that is seen. saturation: 0 = grey.

    black, white: what these become. blur: σ as a share of the shorter side. noise: σ of grey Gaussian noise, of 1.
    """

    negative: bool = False
    kept: float = 1.0
    saturation: float = 1.0
    log_gamma: float = 0.0
    black: float = 0.0
    white: float = 1.0
    blur: float = 0.0
    noise: float = 0.0

    def __call__(self, x: Tensor) -> Tensor:
        """Pictures (N, 3, H, W), uint8 or float in [0, 1] → float in [0, 1]; the noise is drawn anew each time."""
        x = as_float(x)
        if self.kept < 1:
            matrix = torch.zeros(len(x), 2, 3, dtype=x.dtype, device=x.device)
            matrix[:, 0, 0] = matrix[:, 1, 1] = self.kept
            grid = F.affine_grid(matrix, list(x.shape), align_corners=False)
            x = F.grid_sample(x, grid, padding_mode="border", align_corners=False)
        grey = x.mean(dim=1, keepdim=True)
        x = grey + self.saturation * (x - grey)
        x = (1 - x if self.negative else x).clamp(1e-6, 1) ** float(np.exp(self.log_gamma))
        x = self.black + (self.white - self.black) * x
        x = blurred(x, torch.full((len(x),), self.blur * min(x.shape[-2:]), dtype=x.dtype, device=x.device))
        return (x + self.noise * torch.randn_like(x[:, :1])).clamp(0, 1)

    def described(self) -> str:
        """For people: what is done, in the order in which it is done."""
        parts = [
            f"the middle {self.kept:.0%} enlarged" if self.kept < 0.98 else "",
            f"{self.saturation:.0%} of the colour" if self.saturation < 0.95 else "",
            "negative" if self.negative else "",
            f"gamma {np.exp(self.log_gamma):.2f}" if abs(self.log_gamma) > 0.03 else "",
            f"black at {self.black:.2f}, white at {self.white:.2f}" if self.black > 0.02 or self.white < 0.98 else "",
            f"blur of {100 * self.blur:.1f} % of the side" if self.blur > 0.0005 else "",
            f"noise of {255 * self.noise:.0f}/255" if self.noise > 0.002 else "",
        ]
        return ", ".join(filter(None, parts)) or "as they are"


@dataclass(frozen=True)
class Match:
    """The alteration that was found, and the distance to the target without and with it."""

    acquisition: Acquisition
    before: float
    after: float

    @property
    def faithful(self) -> bool:
        """Whether pictures altered so may stand for the target's."""
        return self.after <= FAITHFUL and self.after <= FAITHFUL_SHARE * self.before


@dataclass(frozen=True)
class Simulated:
    """Which of held-out source pictures, altered as the target is, two models answer rightly: bool (N,) each."""

    right: np.ndarray
    control_right: np.ndarray
    match: Match

    def vote(self, *, seed: int = 0) -> Vote:
        """As the alarm's votes, over bootstrap samples of the pictures: a draw counts half."""
        rng = np.random.default_rng(seed)
        gain = self.right.astype(float) - self.control_right.astype(float)
        means = gain[rng.integers(0, len(gain), (50 * HALVES, len(gain)))].mean(axis=1)
        share = float((means > 0).mean() + 0.5 * (means == 0).mean())
        return Vote(float(self.right.mean()), float(self.control_right.mean()), share)

    def told(self, name: str) -> str:
        """The evidence in a sentence."""
        found = self.vote()
        return (
            f"of {len(self.right)} held-out source pictures, altered as the target's seem to be "
            f"({self.match.acquisition.described()}), {name} answers {found.adapted:.1%} rightly and source-only "
            f"{found.control:.1%}; altered so, the source is {self.match.after / self.match.before:.1%} as far from "
            "the target as it was."
        )


def moment_distance(features: np.ndarray, target: np.ndarray) -> float:
    """Mean over coordinates of (gap of means)² + (gap of deviations)², over the target's variance there.

    features (N, D), target (M, D). About 1 / N + 1 / M, more for heavy tails, where both are samples of one domain.
    """
    mean, deviation = target.mean(axis=0), target.std(axis=0)
    floor = 1e-3 * float(deviation.max(initial=0.0)) + 1e-12
    unit = np.maximum(deviation, floor)
    gap = np.square((features.mean(axis=0) - mean) / unit) + np.square((features.std(axis=0) - deviation) / unit)
    return float(gap.mean())


def match_acquisition(
    see: Callable[[Tensor], np.ndarray],
    pictures: Tensor,
    target: np.ndarray,
    *,
    seed: int = 0,
    on_try: Callable[[int, int], None] | None = None,
) -> Match:
    """The alteration of `pictures` uint8 (N, 3, H, W) whose features are nearest to the target's (M, D).

    see: uint8 (n, 3, H, W) → features (n, D). on_try(done, of how many). About a hundred passes over the pictures;
    where tries by chance come nowhere near, it is given up after forty, and what is returned is not faithful.
    """
    rng = np.random.default_rng(seed)
    total = 2 * (CHANCES + NEARBY) + len(ROUNDS) * ROUND
    done = 0

    def judged(way: Acquisition) -> tuple[float, Acquisition]:
        nonlocal done
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed + done)
            altered = (way(pictures) * 255).round().to(torch.uint8)
        done += 1
        if on_try is not None:
            on_try(done, max(done, total))
        return moment_distance(see(altered), target), way

    def ordered(found: list[tuple[float, Acquisition]]) -> list[tuple[float, Acquisition]]:
        return sorted(found, key=lambda row: row[0])

    before = moment_distance(see(pictures), target)
    by_polarity = {
        negative: ordered([judged(way) for way in _by_chance(rng, negative)]) for negative in (False, True)
    }  # fmt: skip
    best = ordered([rows[0] for rows in by_polarity.values()])[0]
    if best[0] > max(HOPELESS_SHARE * before, HOPELESS * FAITHFUL):
        return Match(best[1], before, best[0])
    for negative, rows in by_polarity.items():
        near = [judged(_near(rows[i % 2][1], ROUNDS[0], rng)) for i in range(NEARBY)]
        by_polarity[negative] = ordered([*rows, *near])
    found = min(by_polarity.values(), key=lambda rows: rows[0][0])
    # Once more where it has come near but not near enough.
    for step in (*ROUNDS, *ROUNDS[:-1]):
        if done >= total and (found[0][0] <= FAITHFUL or found[0][0] > HOPELESS_SHARE * before):
            break
        found = ordered([*found, *(judged(_near(found[i % 3][1], step, rng)) for i in range(ROUND))])
    return Match(found[0][1], before, found[0][0])


def _by_chance(rng: np.random.Generator, negative: bool) -> Iterator[Acquisition]:
    """The picture as it is, and alterations in which each number is drawn, or left alone in a third of cases."""
    yield Acquisition(negative)
    for _ in range(CHANCES - 1):
        drawn = {name: float(rng.uniform(low, high)) for name, (low, high, _) in RANGES.items()}
        for name, (_, _, unchanged) in RANGES.items():
            if rng.random() < (0.7 if name == "saturation" else 1 / 3):
                drawn[name] = unchanged
        yield Acquisition(negative, **drawn)


def _near(way: Acquisition, step: float, rng: np.random.Generator) -> Acquisition:
    numbers = {name: float(getattr(way, name)) for name in RANGES}
    for name, (low, high, _) in RANGES.items():
        if rng.random() < 0.6:
            numbers[name] = float(np.clip(numbers[name] + step * (high - low) * rng.normal(), low, high))
    return Acquisition(way.negative, **numbers)
