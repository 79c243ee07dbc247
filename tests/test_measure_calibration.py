"""Temperature, reliability, abstention and the sentences."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.optimize import minimize
from scipy.special import log_softmax, softmax

from regraft.core.errors import DataError, UsageError
from regraft.measure import (
    Interval,
    abstention,
    alarms,
    fit_temperature,
    reliability,
    risk_coverage,
    score,
    summary,
    verdict,
)


def logits_of(n: int, k: int, seed: int, sharpness: float) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    logits = rng.normal(size=(n, k)) * 1.5
    labels = (logits + rng.gumbel(size=(n, k))).argmax(1)  # calibrated at temperature 1
    return sharpness * logits, labels


@pytest.mark.parametrize("k", [2, 6])
@pytest.mark.parametrize("sharpness", [0.3, 1.0, 4.0])
def test_temperature_is_the_minimum_that_scipy_finds(k: int, sharpness: float) -> None:
    logits, labels = logits_of(400, k, 1, sharpness)

    def nll(value: np.ndarray) -> float:
        return -log_softmax(logits / np.exp(value[0]), axis=1)[np.arange(400), labels].mean()

    reference = float(np.exp(minimize(nll, [0.0], method="Nelder-Mead", options={"xatol": 1e-7, "fatol": 1e-12}).x[0]))
    assert fit_temperature(logits, labels) == pytest.approx(reference, rel=1e-4)
    assert reference == pytest.approx(sharpness, rel=0.35)


def test_temperature_of_separable_and_hopeless_logits_stays_in_range() -> None:
    labels = np.arange(30) % 3
    separable = 2.0 * np.eye(3)[labels]
    found = fit_temperature(separable, labels)
    # With doubt 1/32 over two other classes the optimum gives the right class exactly 31/32.
    assert softmax(separable / found, axis=1)[0, 0] == pytest.approx(31 / 32, abs=1e-4)
    assert fit_temperature(-separable, labels) == 20.0
    assert 0.05 <= fit_temperature(1e6 * separable, labels) <= 20.0
    with pytest.raises(DataError):
        fit_temperature(separable[:0], labels[:0])
    with pytest.raises(DataError):
        fit_temperature(separable * np.nan, labels)


def test_reliability_adds_up_to_the_calibration_error() -> None:
    logits, labels = logits_of(300, 4, 2, 3.0)
    p = softmax(logits, axis=1)
    bins = reliability(p, labels)
    assert len(bins) == 15
    assert sum(b["n"] for b in bins) == 300
    ece = sum(b["n"] * abs(b["accuracy"] - b["confidence"]) for b in bins if b["n"]) / 300
    assert ece == pytest.approx(score("ece", p, labels))
    assert all(b["low"] < b["confidence"] <= b["high"] for b in bins if b["n"])


def test_abstention_is_the_smallest_threshold_that_reaches_the_target() -> None:
    logits, labels = logits_of(300, 3, 3, 1.0)
    p = softmax(logits, axis=1)
    confidence, right = p.max(1), p.argmax(1) == labels
    got = abstention(p, labels)
    target = 1 - (1 - right.mean()) / 2
    reaching = [t for t in np.unique(confidence) if right[confidence >= t].mean() >= target - 1e-12]
    assert got["target"] == pytest.approx(target)
    assert got["threshold"] == min(reaching)
    assert got["coverage"] == (confidence >= got["threshold"]).mean()
    assert got["accuracy"] == pytest.approx(right[confidence >= got["threshold"]].mean())
    assert abstention(p, labels, target_accuracy=0.01)["threshold"] == 0.0
    with pytest.raises(UsageError):
        abstention(p, labels, target_accuracy=95)


def test_abstention_says_when_the_target_is_out_of_reach() -> None:
    p = np.array([[0.9, 0.1], [0.8, 0.2], [0.7, 0.3]])
    got = abstention(p, np.array([1, 0, 0]), target_accuracy=0.9)
    assert got["accuracy"] == pytest.approx(2 / 3)
    assert got["coverage"] == 1
    assert got["accuracy"] < got["target"]


def test_risk_coverage_ends_at_the_error_rate_and_keeps_ties_together() -> None:
    p = np.array([[0.9, 0.1], [0.8, 0.2], [0.8, 0.2], [0.6, 0.4]])
    coverage, risk = risk_coverage(p, np.array([0, 1, 0, 1]))
    assert coverage.tolist() == [0.25, 0.75, 1.0]
    assert risk == pytest.approx([0, 1 / 3, 0.5])


def said(gain: tuple[float, float, float], metric: str = "accuracy", kept: bool = False) -> tuple[str, bool | None]:
    got = verdict(metric, Interval(0.935, 0.9, 0.97), Interval(0.712, 0.65, 0.78), Interval(*gain), control_kept=kept)
    return got.sentence, got.helped


def test_verdict_says_what_the_interval_allows() -> None:
    assert said((0.223, 0.17, 0.276)) == (
        "Transfer helped: 93.5 % against 71.2 % from scratch, +22.3 points [17.0, 27.6], same budget.",
        True,
    )
    sentence, helped = said((-0.05, -0.09, -0.01))
    assert sentence.startswith("Transfer hurt (negative transfer): ")
    assert "−5.0 points [−9.0, −1.0]" in sentence
    assert helped is False
    assert said((0.01, -0.03, 0.05))[0].startswith("No credible difference: ")
    assert said((0.01, -0.03, 0.05))[1] is None
    sentence, helped = said((0.0, -0.01, 0.01))
    assert sentence.startswith("Transfer did not help: ")
    assert helped is False
    sentence, helped = said((0.0, 0.0, 0.0), kept=True)
    assert "control" in sentence
    assert helped is False
    assert said((-0.2, -0.3, -0.1), metric="nll")[1] is True
    assert "AUC 0.935 against 0.712" in said((0.223, 0.17, 0.276), metric="auc")[0]
    assert "+0.223 [0.170, 0.276]" in said((0.223, 0.17, 0.276), metric="auc")[0]
    with pytest.raises(UsageError, match="Did you mean"):
        said((0, 0, 0), metric="acc_uracy")


def test_alarms_name_what_is_wrong_and_are_silent_otherwise() -> None:
    y = np.repeat([0, 1, 2], [40, 10, 6])
    p = np.tile([0.8, 0.15, 0.05], (56, 1))
    found = "\n".join(
        alarms(
            chosen=Interval(0.714, 0.55, 0.83),
            gain=Interval(-0.1, -0.2, -0.02),
            summary=summary(p, y, ["a", "b", "c"]),
            n_test=56,
            validation=0.95,
        )
    )
    for words in (
        "Negative transfer",
        "'b' collapsed",
        "'c' collapsed",
        "always saying 'a'",
        "Validation promised 95.0 %",
    ):
        assert words in found
    assert "wider than 20 points" in found
    perfect = np.eye(3)[y]
    assert (
        alarms(
            chosen=Interval(0.97, 0.93, 1.0),
            gain=Interval(0.2, 0.1, 0.3),
            summary=summary(perfect, y, ["a", "b", "c"]),
            n_test=56,
            validation=0.96,
        )
        == []
    )
