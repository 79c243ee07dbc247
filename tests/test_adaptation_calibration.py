"""Calibration for the target without its labels."""

from __future__ import annotations

import numpy as np
import pytest

from regraft.adaptation.evidence.calibration import LEAST_OTHERS, estimated_accuracy, matching_temperature


def test_the_confidence_matches_what_was_asked_for() -> None:
    logits = 6 * np.random.default_rng(0).standard_normal((300, 5))
    for accuracy in (0.35, 0.6, 0.9):
        scaled = logits / matching_temperature(logits, accuracy)
        probabilities = np.exp(scaled) / np.exp(scaled).sum(axis=1, keepdims=True)
        assert probabilities.max(axis=1).mean() == pytest.approx(accuracy, abs=1e-4)


def test_an_accuracy_out_of_reach_gives_the_nearer_end() -> None:
    logits = np.random.default_rng(0).standard_normal((50, 4))
    assert matching_temperature(logits, 0.1) == pytest.approx(np.exp(5))  # below 1/4 confidence cannot go
    assert matching_temperature(logits, 1.0) == pytest.approx(np.exp(-3))


def test_huge_logits_do_not_overflow() -> None:
    assert np.isfinite(matching_temperature(1e4 * np.random.default_rng(0).standard_normal((20, 3)), 0.7))


def test_agreement_of_independent_calibrated_models_is_their_accuracy() -> None:
    rng = np.random.default_rng(0)
    truth = rng.integers(0, 2, 20_000)
    easy = rng.random(20_000) < 0.6  # where all are right; elsewhere each guesses on its own
    models = [np.where(easy, truth, rng.integers(0, 2, 20_000)) for _ in range(4)]
    assert estimated_accuracy(models[0], models[1:]) == pytest.approx((models[0] == truth).mean(), abs=0.01)


def test_one_other_opinion_is_no_estimate() -> None:
    answers = np.zeros(5, dtype=np.int64)
    assert LEAST_OTHERS == 2
    assert estimated_accuracy(answers, [answers]) is None
    assert estimated_accuracy(answers, [answers, answers]) == 1.0
