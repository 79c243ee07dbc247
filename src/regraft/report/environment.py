"""The templates of pages: those here, and those of whoever owns a section, with the filters that all of them use."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from jinja2 import ChoiceLoader, Environment, PackageLoader, PrefixLoader, StrictUndefined

from regraft.measure import format_value, metric_of

HERE = "regraft.report"


def environment(owners: Iterable[str] = (), metric: str = "accuracy") -> Environment:
    """An environment in which `file.html` is a template of this folder and `package:file.html` one of an owner's.

    owners: dotted names of packages. metric: what the filters `metric` and `bounds` write a value and an interval of.
    Whatever comes from data is escaped; a name that a template does not get is an
    error.
    """
    of_owners = PrefixLoader({owner: PackageLoader(owner, ".") for owner in dict.fromkeys(owners)}, delimiter=":")
    made = Environment(
        loader=ChoiceLoader([PackageLoader(HERE, "."), of_owners]),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    made.filters.update(percent=percent, share=share, duration=duration, count=count, figure=figure)
    made.filters.update(
        metric=lambda value: "–" if value is None else format_value(metric, value),
        bounds=lambda interval: bounds(metric, interval),
    )
    return made


def percent(value: float | None, digits: int = 1) -> str:
    """A share as "12.3 %"; a dash for None."""
    return "–" if value is None else f"{100 * value:.{digits}f}\N{NO-BREAK SPACE}%"


def share(value: float | None) -> str:
    """A fraction as a CSS width."""
    return f"{100 * min(max(value or 0.0, 0.0), 1.0):.1f}%"


def count(value: int | None) -> str:
    """A whole number in groups of three digits; a dash for None."""
    return "–" if value is None else f"{value:,}".replace(",", "\N{NARROW NO-BREAK SPACE}")


def duration(seconds: float | None) -> str:
    """Seconds, minutes or hours, as suits; a dash for None."""
    if seconds is None:
        return "–"
    space = "\N{NO-BREAK SPACE}"
    if seconds < 60:
        return f"{seconds:.1f}{space}s"
    if seconds < 3600:
        return f"{int(seconds // 60)}{space}min {int(seconds % 60)}{space}s"
    return f"{int(seconds // 3600)}{space}h {int(seconds % 3600 // 60)}{space}min"


def figure(value: float | None, digits: int = 3) -> str:
    """A number with so many digits after the point; a dash for None."""
    return "–" if value is None else f"{value:.{digits}f}"


def bounds(metric: str, interval: Any) -> str:
    """ "61.2 to 64.0" in the metric's own form; "" where a bound is unknown."""
    if not interval or interval[0] is None or interval[1] is None:
        return ""
    if metric_of(metric).form == "share":
        return f"{100 * interval[0]:.1f} to {100 * interval[1]:.1f}"
    return f"{format_value(metric, interval[0])} to {format_value(metric, interval[1])}"
