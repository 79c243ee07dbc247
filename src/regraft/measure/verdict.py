"""The sentence that a run ends with, and the alarms beside it. It says what the interval allows and no
more."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from regraft.core.errors import unknown_name
from regraft.measure.bootstrap import Interval
from regraft.measure.metrics import METRICS

#: A gain below this (2 points) is not worth the name: where the interval rules out more, transfer did not
#: help.
WORTHWHILE = 0.02
#: A class with fewer test samples than this can miss them all by chance.
ENOUGH_SAMPLES = 5
#: An interval wider than this (20 points) decides little.
WIDE = 0.20

_PERCENT = frozenset({"accuracy", "balanced_accuracy", "macro_f1", "ece"})


@dataclass(frozen=True)
class Verdict:
    """helped: True, False (no gain worth the name, or a loss), or None where the interval leaves it open."""

    sentence: str
    helped: bool | None


def verdict(
    metric_name: str,
    chosen: Interval,
    control: Interval,
    gain: Interval,
    *,
    chosen_name: str,
    same_budget: bool = True,
) -> Verdict:
    """What transfer did, in one sentence.

    gain = metric(chosen) − metric(control), from `paired_gain`; fractions, not points. Four answers: it
    helped (the interval is above zero), it hurt (below), it did not help (it rules out a gain of 2 points),
    or no credible difference. A `chosen_name` of "scratch" says that the control itself was kept. For a
    metric where less is better (nll, ece) the signs are read the other way round. Raises UsageError for an
    unknown metric.
    """
    if metric_name not in METRICS:
        raise unknown_name("metric", metric_name, METRICS)
    name = "" if metric_name == "accuracy" else METRICS[metric_name].label + " "
    budget = "same budget" if same_budget else "budgets differ"
    if chosen_name == "scratch":
        own = f"{name}{format_value(metric_name, chosen.value)} {_bracket(metric_name, chosen)}"
        return Verdict(
            "Transfer did not help: the control trained from "
            f"scratch was the best on validation and is kept, {own}, "
            f"{budget}.",
            False,
        )
    compared = (
        f"{name}{format_value(metric_name, chosen.value)} against {format_value(metric_name, control.value)} "
        f"from scratch, {format_gain(metric_name, gain)}, {budget}"
    )
    low, high = (gain.low, gain.high) if METRICS[metric_name].higher_is_better else (-gain.high, -gain.low)
    if low > 1e-12:
        return Verdict(f"Transfer helped: {compared}.", True)
    if high < -1e-12:
        return Verdict(f"Transfer hurt (negative transfer): {compared}.", False)
    if high < WORTHWHILE:
        return Verdict(f"Transfer did not help: {compared}; a gain of 2 points or more is ruled out.", False)
    return Verdict(f"No credible difference: {compared}; the interval includes zero.", None)


def alarms(
    *,
    metric_name: str = "accuracy",
    chosen: Interval | None = None,
    gain: Interval | None = None,
    summary: Mapping[str, Any] | None = None,
    n_test: int | None = None,
    validation: float | None = None,
    chosen_name: str = "",
) -> list[str]:
    """What a reader must know before using the model, one sentence each, gravest first; empty where nothing
    is wrong.

    Give what there is: chosen and gain as for `verdict`, summary from `measure.summary` on the test, the
    chosen model's validation figure. Looks for negative transfer, classes that collapsed, a model no better
    than always naming the commonest class, a validation figure outside the test interval, poor calibration,
    and a test set too small.
    """
    if metric_name not in METRICS:
        raise unknown_name("metric", metric_name, METRICS)
    out: list[str] = []
    sign = 1 if METRICS[metric_name].higher_is_better else -1
    if gain is not None and chosen_name != "scratch" and max(sign * gain.low, sign * gain.high) < 0:
        out.append(
            f"Negative transfer: the chosen model is worse than the control trained from scratch "
            f"({format_gain(metric_name, gain)}). Use the control, or another backbone."
        )
    if summary is not None:
        out += _class_alarms(summary)
        ece = summary.get("ece")
        if ece is not None and ece > 0.10 and (n_test is None or n_test >= 100):
            out.append(
                f"Confidence is off by {format_value('ece', ece)} on "
                "average, after temperature scaling: read the stated "
                "probabilities as a ranking only."
            )
    if chosen is not None:
        if (
            validation is not None
            and not chosen.low <= validation <= chosen.high
            and sign * validation > sign * chosen.value
        ):
            out.append(
                f"Validation promised {format_value(metric_name, validation)}, the test gave "
                f"{format_value(metric_name, chosen.value)} "
                f"{_bracket(metric_name, chosen)}: the two splits may differ in "
                "kind, or the choice was fitted to validation."
            )
        if metric_name != "nll" and chosen.high - chosen.low > WIDE:
            count = f" ({n_test} test samples)" if n_test is not None else ""
            out.append(
                f"The test set is small{count}: the interval "
                f"{_bracket(metric_name, chosen)} is wider than 20 points, "
                "so differences between candidates may be chance."
            )
        elif n_test is not None and n_test < 30:
            out.append(
                f"Only {n_test} test samples: one picture moves the accuracy by {100 / max(n_test, 1):.1f} points."
            )
    return out


def format_value(metric_name: str, value: float) -> str:
    """A metric for people: "93.5 %" for shares, "0.953" for AUC and nll, "–" for nan."""
    if value != value:
        return "–"
    return f"{100 * value:.1f} %" if metric_name in _PERCENT else f"{value:.3f}"


def format_gain(metric_name: str, gain: Interval) -> str:
    """A gain for people: "+22.3 points [17.0, 27.6]", or "+0.082 [0.051, 0.113]" for AUC and nll."""
    if metric_name in _PERCENT:
        return f"{_signed(100 * gain.value, 1)} points {_bracket(metric_name, gain)}"
    return f"{_signed(gain.value, 3)} {_bracket(metric_name, gain)}"


def _bracket(metric_name: str, interval: Interval) -> str:
    if metric_name in _PERCENT:
        return f"[{_plain(100 * interval.low, 1)}, {_plain(100 * interval.high, 1)}]"
    return f"[{_plain(interval.low, 3)}, {_plain(interval.high, 3)}]"


def _class_alarms(summary: Mapping[str, Any]) -> list[str]:
    rows = list(summary.get("per_class", []))
    out = []
    for row in rows:
        if row["n"] >= ENOUGH_SAMPLES and not row["recall"]:
            fate = "was never predicted" if row["precision"] is None else "was never recognised"
            out.append(
                f"Class {row['class']!r} collapsed: it {fate}, although the test holds {row['n']} samples of it."
            )
    total = sum(row["n"] for row in rows)
    accuracy = summary.get("accuracy")
    if total and accuracy is not None and len(rows) > 1:
        commonest = max(rows, key=lambda row: row["n"])
        if accuracy <= commonest["n"] / total:
            out.append(
                f"The model is no better than always saying {commonest['class']!r}: accuracy "
                f"{format_value('accuracy', accuracy)}, and "
                f"{format_value('accuracy', commonest['n'] / total)} of the test "
                "is that class."
            )
    absent = [str(row["class"]) for row in rows if row["n"] == 0]
    if absent:
        shown = ", ".join(absent[:5]) + (f" and {len(absent) - 5} more" if len(absent) > 5 else "")
        out.append(f"The test holds no sample of {shown}: nothing is known about how well that is recognised.")
    return out


def _plain(value: float, digits: int) -> str:
    text = f"{value:.{digits}f}"
    if float(text) == 0:
        text = text.lstrip("-")
    return text.replace("-", "−")


def _signed(value: float, digits: int) -> str:
    text = _plain(value, digits)
    return text if text.startswith("−") or float(text) == 0 else "+" + text
