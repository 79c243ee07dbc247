"""The sentence that a run ends with, and the alarms beside it. It says what the interval allows and no
more."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from regraft.measure.bootstrap import Interval
from regraft.measure.metrics import metric_of

#: A gain below this (2 points) is not worth the name: where the interval rules out more, transfer did not
#: help.
WORTHWHILE = 0.02
#: A class with fewer test samples than this can miss them all by chance.
ENOUGH_SAMPLES = 5
#: An interval wider than this (20 points) decides little.
WIDE = 0.20
#: Of numbers: answers that spread by less than this share of the true spread are flat; a mean error beyond this share
#: of it is systematic; fewer test pictures than this make rough figures.
FLAT, BIASED, FEW_NUMBERS = 0.1, 0.5, 30


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
    control_kept: bool = False,
    same_budget: bool = True,
) -> Verdict:
    """What transfer did, in one sentence.

    gain = metric(chosen) − metric(control), from `paired_gain`; fractions, not points. Four answers: it
    helped (the interval is above zero), it hurt (below), it did not help (it rules out a gain of 2 points),
    or no credible difference. control_kept: the control itself was the best on validation. For a
    metric where less is better (nll, ece, mae, rmse) the signs are read the other way round; of an error in
    the labels' unit 2 % of the control's stand for the 2 points. Raises UsageError for an unknown metric.
    """
    metric = metric_of(metric_name)
    name = "" if metric_name == "accuracy" else metric.label + " "
    budget = "same budget" if same_budget else "budgets differ"
    if control_kept:
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
    low, high = (gain.low, gain.high) if metric.higher_is_better else (-gain.high, -gain.low)
    if low > 1e-12:
        return Verdict(f"Transfer helped: {compared}.", True)
    if high < -1e-12:
        return Verdict(f"Transfer hurt (negative transfer): {compared}.", False)
    worthwhile, words = WORTHWHILE, "a gain of 2 points"
    if metric.form == "unit":
        worthwhile, words = WORTHWHILE * abs(control.value), "an error lower by 2 %"
    if high < worthwhile:
        return Verdict(f"Transfer did not help: {compared}; {words} or more is ruled out.", False)
    return Verdict(f"No credible difference: {compared}; the interval includes zero.", None)


def alarms(
    *,
    metric_name: str = "accuracy",
    chosen: Interval | None = None,
    gain: Interval | None = None,
    summary: Mapping[str, Any] | None = None,
    n_test: int | None = None,
    validation: float | None = None,
    control_kept: bool = False,
) -> list[str]:
    """What a reader must know before using the model, one sentence each, gravest first; empty where nothing
    is wrong.

    Give what there is: chosen and gain as for `verdict`, summary from `measure.summary` on the test, the
    chosen model's validation figure. Looks for negative transfer, classes that collapsed, a model no better
    than always naming the commonest class, a validation figure outside the test interval, poor calibration,
    and a test set too small.
    """
    out = _transfer_alarms(metric_name, gain, control_kept)
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
        out += _validation_alarms(metric_name, chosen, validation)
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


def number_alarms(
    *,
    metric_name: str,
    chosen: Interval,
    summary: Mapping[str, Any],
    spread: float,
    predicted_spread: float,
    gain: Interval | None = None,
    validation: float | None = None,
    control_kept: bool = False,
) -> list[str]:
    """As `alarms`, for predicted numbers; summary from `measure.number_summary` on the test.

    spread, predicted_spread: deviations of the true and of the predicted numbers, in the labels' unit. Looks for
    negative transfer, a model no better than always saying the mean, answers that are all but the same, a systematic
    error, a validation figure outside the test interval, and a test set too small.
    """
    out = _transfer_alarms(metric_name, gain, control_kept)
    n, r2, bias = int(summary["n"]), summary.get("r2"), summary.get("bias")
    if r2 is not None and r2 <= 0:
        out.append(
            f"The model is no better than always saying the mean of the test's numbers: R² is {_plain(r2, 3)}. "
            "The pictures may not show the number, or there are too few of them."
        )
    elif spread > 0 and predicted_spread < FLAT * spread:
        out.append(
            f"The answers are all but the same: they spread by {format_number(predicted_spread)} where the true "
            f"numbers spread by {format_number(spread)}."
        )
    if bias is not None and abs(bias) > BIASED * spread > 0:
        side = "high" if bias > 0 else "low"
        out.append(f"The answers are too {side} by {format_number(abs(bias))} on average.")
    out += _validation_alarms(metric_name, chosen, validation)
    if n < FEW_NUMBERS:
        out.append(f"The test set is small ({n} pictures): its figures and intervals are rough.")
    return out


def format_value(metric_name: str, value: float) -> str:
    """A metric for people: "93.5 %" for shares, "0.953" for AUC and nll, "2.31" for errors in the labels' unit, "–" for
    nan."""
    if value != value:
        return "–"
    form = metric_of(metric_name).form
    return f"{100 * value:.1f} %" if form == "share" else _plain(value, 3) if form == "plain" else format_number(value)


def format_number(value: float) -> str:
    """A number in the labels' unit: four significant digits, no exponent for what people count in."""
    if value != value:
        return "–"
    if value == 0 or 1e-3 <= abs(value) < 1e6:
        decimals = 3 if value == 0 else max(0, 3 - math.floor(math.log10(abs(value))))
        return _plain(value, decimals)
    return f"{value:.3e}".replace("-", "−")


def format_gain(metric_name: str, gain: Interval) -> str:
    """A gain for people: "+22.3 points [17.0, 27.6]", or "+0.082 [0.051, 0.113]" for AUC and nll."""
    if metric_of(metric_name).form == "share":
        return f"{_signed(100 * gain.value, 1)} points {_bracket(metric_name, gain)}"
    return f"{_with_sign(format_value(metric_name, gain.value))} {_bracket(metric_name, gain)}"


def _bracket(metric_name: str, interval: Interval) -> str:
    if metric_of(metric_name).form == "share":
        return f"[{_plain(100 * interval.low, 1)}, {_plain(100 * interval.high, 1)}]"
    return f"[{format_value(metric_name, interval.low)}, {format_value(metric_name, interval.high)}]"


def _transfer_alarms(metric_name: str, gain: Interval | None, control_kept: bool) -> list[str]:
    sign = 1 if metric_of(metric_name).higher_is_better else -1
    if gain is None or control_kept or not max(sign * gain.low, sign * gain.high) < 0:
        return []
    return [
        f"Negative transfer: the chosen model is worse than the control trained from scratch "
        f"({format_gain(metric_name, gain)}). Use the control, or another backbone."
    ]


def _validation_alarms(metric_name: str, chosen: Interval, validation: float | None) -> list[str]:
    sign = 1 if metric_of(metric_name).higher_is_better else -1
    if validation is None or chosen.low <= validation <= chosen.high or sign * validation <= sign * chosen.value:
        return []
    return [
        f"Validation promised {format_value(metric_name, validation)}, the test gave "
        f"{format_value(metric_name, chosen.value)} "
        f"{_bracket(metric_name, chosen)}: the two splits may differ in "
        "kind, or the choice was fitted to validation."
    ]


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
    return _with_sign(_plain(value, digits))


def _with_sign(text: str) -> str:
    return text if text.startswith("−") or not text.strip("0.") else "+" + text
