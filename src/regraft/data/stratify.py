"""Iterative stratification: parts with their share of every label, where a sample has several labels.

Paper: Sechidis, Tsoumakas & Vlahavas, "On the Stratification of Multi-Label Data", ECML PKDD 2011, algorithm 1. Differs
from it in that what is dealt out are whole units (a group, else a file), which count as many samples as they hold, and
in that ties are broken by the units' own numbers instead of by chance.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np


def stratified(
    keys: Sequence[str], membership: np.ndarray, shares: Sequence[float], order: Mapping[str, float]
) -> dict[str, int]:
    """The part 0…P−1 of every unit. membership: bool (N, S). shares: of the P parts, with the sum 1.

    order: a number for each unit; lower ones are dealt first.
    """
    units = sorted(set(keys), key=lambda key: (order[key], key))
    place = {key: row for row, key in enumerate(units)}
    size, counts = np.zeros(len(units)), np.zeros((len(units), membership.shape[1]))
    for key, row in zip(keys, membership, strict=True):
        size[place[key]] += 1
        counts[place[key]] += row
    share = np.asarray(shares, dtype=np.float64)
    wanted, wanted_of = share * size.sum(), share[:, None] * counts.sum(axis=0)
    part = np.full(len(units), -1, dtype=np.int64)
    while (part < 0).any():
        left = counts * (part < 0)[:, None]
        remaining = left.sum(axis=0)
        if remaining.any():
            label = int(np.where(remaining > 0, remaining, np.inf).argmin())
            members = np.flatnonzero(left[:, label])
        else:
            label, members = -1, np.flatnonzero(part < 0)
        for unit in members:
            # By what the part still wants of this label, then of samples at all; the first part where both are tied.
            first = wanted_of[:, label] if label >= 0 else wanted
            chosen = int(np.lexsort((-wanted, -first))[0])
            part[unit] = chosen
            wanted[chosen] -= size[unit]
            wanted_of[chosen] -= counts[unit]
    return {key: int(part[row]) for key, row in place.items()}
