"""The section that compares candidates on validation and test, and the gain over the control: of fits."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from pydantic import Field

from regraft.measure import Interval, format_gain, format_value, metric_of
from regraft.report.frame import Figure, Part, Report
from regraft.report.sections import Page, Section


class GainFields(Part):
    """What transfer brought."""

    transfer_gain: Figure | None = Field(
        None, description="metric(chosen) − metric(control) with its paired interval; null without a control"
    )


def context(page: Page) -> Mapping[str, Any]:
    return {"gain": gain(page.report), "reason": reason(page.report)}


def mood(report: Report) -> str:
    """ "bad" where the control is credibly better, "plain" without a control, else "open"."""
    found = getattr(report, "transfer_gain", None)
    if found is None and report.helped is None:
        return "plain"
    interval = _interval(found)
    if interval is not None:
        higher = metric_of(report.metric).higher_is_better
        low, high = (interval.low, interval.high) if higher else (-interval.high, -interval.low)
        if low < 0 and high < 0:
            return "bad"
    return "open"


def gain(report: Report) -> tuple[str, str] | None:
    """The gain and its interval as text."""
    interval = _interval(getattr(report, "transfer_gain", None))
    if interval is None:
        return None
    value, _, bounds = format_gain(report.metric, interval).partition(" [")
    return value, bounds.rstrip("]").replace(", ", " to ")


def _interval(gain: Figure | None) -> Interval | None:
    if gain is None or gain.value is None or gain.interval[0] is None or gain.interval[1] is None:
        return None
    return Interval(gain.value, gain.interval[0], gain.interval[1])


def reason(report: Report) -> str:
    """Why the chosen candidate was chosen."""
    chosen = next((row for row in report.candidates if row.chosen or row.name == report.chosen), None)
    if chosen is None or len(report.candidates) < 2:
        return ""
    if chosen.validation is None:
        return f"{chosen.name} was kept."
    higher = metric_of(report.metric).higher_is_better
    others = [row.validation for row in report.candidates if row is not chosen and row.validation is not None]
    sign = 1 if higher else -1
    best = others and all(sign * chosen.validation > sign * other for other in others)
    how = (
        f"the {'highest' if higher else 'lowest'} of {len(others) + 1}"
        if best
        else "where no other is credibly better in loss"
    )
    value = format_value(report.metric, chosen.validation)
    return f"{chosen.name} was kept: {value} on validation, {how}; the test came after that."


#: The table of what was tried, for jobs without a control.
TRIED = Section("tried", owner=__package__, template="candidates.html", context=context)
#: The same with the gain over the control.
TRANSFER = Section("transfer", GainFields, owner=__package__, template="candidates.html", context=context)
