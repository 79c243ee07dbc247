"""Signs that a training of two generators goes wrong, read from its evaluations so far: a pure function of them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any, Final

import torch
from torch import Tensor

from regraft.core.errors import DataError

#: Outputs that lie this much closer together than the set they should be of, in the mean, are taken for one picture.
LEAST_DIVERSITY: Final = 0.4
#: Unless they were closer still before: a young generator paints everything alike, and learns not to.
LEAST_RISE: Final = 0.02
#: Discriminators that are right about this share of patches leave the generators nothing to go by.
MOST_ACCURACY: Final = 0.98
#: A fall of the cycle's SSIM by this much from its best: the generators forget how to come back.
MOST_FALL: Final = 0.15


@dataclass(frozen=True)
class Evaluation:
    """Figures at one step, of held-out pictures unless said; each mapping is by direction, "AtoB" and "BtoA".

    cycle_ssim: there and back. identity: mean |difference| in 0…1 of pictures that already are of the set. diversity:
    of the translated, over that of the set that they should be of. mmd2: to that set, in a backbone's features.
    accuracy: of the discriminators on the training's patches since the evaluation before; None at the start.
    """

    step: int
    cycle_ssim: dict[str, float]
    identity: dict[str, float]
    diversity: dict[str, float]
    mmd2: dict[str, float]
    accuracy: float | None = None

    def to_json(self) -> dict[str, Any]:
        return asdict(self)


@dataclass(frozen=True)
class Sign:
    """kind: "collapse" (one output for everything), "saturated" (discriminators that are always right) or "forgetting"
    (the way back is lost). value: the figure; limit: what it crossed."""

    step: int
    kind: str
    direction: str
    value: float
    limit: float
    sentence: str

    def to_json(self) -> dict[str, Any]:
        return asdict(self)


def diversity(rows: Tensor, of: Tensor) -> float:
    """Mean distance between two of `rows` over that between two of `of`: 1 where they vary alike, 0 where all are one.

    Rows (N, D) and (M, D), features or pixels, N and M ≥ 2, every pair counted once. Raises DataError for fewer rows,
    and where all of `of` are one.
    """
    if min(len(rows), len(of)) < 2:
        raise DataError(f"Diversity is of at least 2 rows on either side; {len(rows)} and {len(of)} came.")
    unit = float(torch.pdist(of.double()).mean())
    if unit == 0:
        raise DataError("The pictures of the set are all the same: there is nothing that translations could vary like.")
    return float(torch.pdist(rows.double()).mean()) / unit


def signs(history: Sequence[Evaluation]) -> list[Sign]:
    """What the last evaluation gives reason to fear, beside the earlier ones. The first, of an untrained network, none.

    None of these proves a collapse: a set may vary more than its translation should. They are reasons to look.
    """
    if len(history) < 2:
        return []
    now, found = history[-1], []
    for way, value in now.diversity.items():
        if value < LEAST_DIVERSITY and value < history[-2].diversity[way] + LEAST_RISE:
            found.append(Sign(now.step, "collapse", way, value, LEAST_DIVERSITY, (
                f"{way}: the translated pictures differ from one another {value:.0%} as much as those of the set: the "
                "generator may be giving one output for everything."
            )))  # fmt: skip
    if now.accuracy is not None and now.accuracy > MOST_ACCURACY:
        found.append(Sign(now.step, "saturated", "both", now.accuracy, MOST_ACCURACY, (
            f"The discriminators are right about {now.accuracy:.1%} of the patches: they teach the generators little. "
            "Fewer channels for them (--discriminator-width) or a lower --lr may help."
        )))  # fmt: skip
    for way, value in now.cycle_ssim.items():
        best = max(earlier.cycle_ssim[way] for earlier in history)
        if best - value > MOST_FALL:
            found.append(Sign(now.step, "forgetting", way, value, best - MOST_FALL, (
                f"{way} and back: SSIM {value:.3f} where it was {best:.3f}: the way back is being lost. A larger "
                "--cycle-weight holds it."
            )))  # fmt: skip
    return found


def all_signs(history: Sequence[Evaluation]) -> list[Sign]:
    """The signs of every evaluation, as they were given while it ran."""
    return [sign for end in range(1, len(history) + 1) for sign in signs(history[:end])]
