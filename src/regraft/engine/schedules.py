"""How the rate falls after the warm-up: one function a schedule, found by its name in `FitSettings.schedule`."""

from __future__ import annotations

import math
from typing import Protocol

from regraft.core.registry import Registry


class Schedule(Protocol):
    """The share of the peak rate at `done`, in [0, 1] of what follows the warm-up; `final` is what it is to end at."""

    def __call__(self, done: float, final: float) -> float: ...


schedules: Registry[Schedule] = Registry("schedule")


@schedules.register("cosine")
def cosine(done: float, final: float) -> float:
    """Half a cosine from 1 down to `final` (Loshchilov & Hutter 2017, arXiv:1608.03983, without restarts)."""
    return final + (1 - final) * 0.5 * (1 + math.cos(math.pi * done))


@schedules.register("constant")
def constant(done: float, final: float) -> float:
    """1 throughout: `final` is not looked at."""
    return 1.0


@schedules.register("step")
def step(done: float, final: float) -> float:
    """1, from half on √final, from three quarters on `final`: a tenth each time with the usual 0.01.

    The places are those of He et al. 2016 (arXiv:1512.03385, section 4.2).
    """
    return 1.0 if done < 0.5 else math.sqrt(final) if done < 0.75 else final
