"""Which candidate is kept, and how time is shared."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import regraft
from regraft.core.errors import UsageError
from regraft.core.options import seconds
from regraft.measure.choice import Candidate, choose, class_losses
from regraft.recipes.fit import rounds
from regraft.recipes.fit.options import FitConfig
from regraft.recipes.fit.outcome import hurried_control
from regraft.recipes.fit.training import Training, train_candidate
from regraft.recipes.fit.workbench import Workbench
from regraft.recipes.frame.budget import schedule, usual_epochs
from regraft.tasks.classification import kind as of_classes
from regraft.tasks.classification.kind import selection_score


def candidate(name: str, strength: float, n: int = 60, seed: int = 0, wrong: int = 6) -> Candidate:
    """Two classes; right answers with a margin of about `strength`, the first `wrong` ones wrong."""
    rng = np.random.default_rng(seed)
    labels = np.arange(n) % 2
    margin = strength * (1 + 0.3 * rng.standard_normal(n))
    margin[:wrong] = -1
    logits = np.stack([np.where(labels == 0, margin, 0), np.where(labels == 1, margin, 0)], axis=1)
    selection, value, _ = selection_score("accuracy", logits, labels)
    return Candidate(name, logits, labels, value, selection, 1.0, 1)


def test_a_clearly_better_challenger_is_taken() -> None:
    assert (
        choose([{"probe": candidate("probe", 2, wrong=20), "finetune": candidate("finetune", 2, wrong=2)}], "accuracy")
        == "finetune"
    )


def test_a_mistake_never_makes_the_loss_smaller() -> None:
    """The same answers but for one sample, which the other has wrong by a little."""
    labels = np.arange(287) % 2
    right = np.geomspace(0.5, 12, 287)
    wrong = np.where(np.arange(287) == 0, -0.1, right)
    faultless, faulty = (
        class_losses(np.stack([np.where(labels == 0, m, 0), np.where(labels == 1, m, 0)], axis=1), labels)
        for m in (right, wrong)
    )
    assert faultless.mean() < faulty.mean()


def test_a_challenger_within_chance_is_not() -> None:
    found = {"probe": candidate("probe", 2, seed=1, wrong=5), "finetune": candidate("finetune", 2, seed=2, wrong=5)}
    assert choose([found], "accuracy") == "probe"


def test_scale_of_the_logits_does_not_decide() -> None:
    same = candidate("probe", 3)
    flat = candidate("finetune", 3)
    flat.logits = flat.logits / 8
    assert choose([{"probe": same, "finetune": flat}], "accuracy") == "probe"
    assert choose([{"finetune": flat, "probe": same}], "accuracy") == "finetune"


def test_rounds_are_judged_together() -> None:
    rounds = [
        {
            "probe": candidate("probe", 2, n=24, seed=s, wrong=6),
            "finetune": candidate("finetune", 2, n=24, seed=s + 9, wrong=1),
        }
        for s in range(5)
    ]
    assert choose(rounds, "accuracy") == "finetune"


def test_selection_prefers_accuracy_and_then_the_loss() -> None:
    labels = np.array([0, 1, 0, 1])
    sure = np.array([[4.0, 0], [0, 4], [4, 0], [0, 4]])
    worse = sure.copy()
    worse[0] = [0, 4]
    assert selection_score("accuracy", sure / 4, labels)[0] > selection_score("accuracy", worse, labels)[0]
    assert selection_score("accuracy", sure, labels)[0] > selection_score("accuracy", sure / 4, labels)[0]


def test_the_budget_is_shared_and_never_exceeded() -> None:
    plan = schedule(n_train=1000, epoch_s=10, spent_s=20, budget_s=300, epochs=None, trained=2, refit=False)
    assert 0 < plan.epochs <= usual_epochs(1000)
    assert 20 + 2 * plan.epochs * 10 <= 300
    assert plan.limit_s is not None
    assert plan.limit_s >= plan.epochs * 10


def test_a_refit_is_dropped_where_it_would_halve_a_short_training() -> None:
    long = schedule(n_train=1000, epoch_s=1, spent_s=10, budget_s=600, epochs=None, trained=2, refit=True)
    short = schedule(n_train=1000, epoch_s=20, spent_s=10, budget_s=200, epochs=None, trained=2, refit=True)
    assert long.refit
    assert not short.refit


def test_no_time_means_no_training() -> None:
    assert schedule(n_train=1000, epoch_s=50, spent_s=20, budget_s=30, epochs=None, trained=2, refit=True).epochs == 0


def test_given_epochs_are_kept_and_nothing_is_cut_off() -> None:
    plan = schedule(n_train=10, epoch_s=1, spent_s=500, budget_s=10, epochs=3, trained=2, refit=True)
    assert (plan.epochs, plan.limit_s, plan.refit) == (3, None, True)


def test_without_a_budget_a_sensible_one_is_chosen() -> None:
    tiny = schedule(n_train=100, epoch_s=0.1, spent_s=5, budget_s=None, epochs=None, trained=2, refit=False)
    huge = schedule(n_train=10**6, epoch_s=10**4, spent_s=5, budget_s=None, epochs=None, trained=2, refit=False)
    assert tiny.budget_s == 60
    assert huge.budget_s == 1200


def test_a_hurried_control_is_told_with_the_budget_that_it_needs() -> None:
    time: dict[str, Any] = {"n_train": 200, "epoch_s": 6, "spent_s": 30, "epochs": None, "trained": 2, "refit": True}
    plan = schedule(budget_s=180, **time)
    control = candidate("scratch", 1)
    (sentence,) = hurried_control(plan, control, True)
    assert f"{plan.epochs:.1f} epochs" in sentence and "25 are usual" in sentence
    advised = seconds(sentence.partition("--budget ")[2].split()[0])
    assert schedule(budget_s=advised, **time).epochs == usual_epochs(200)
    assert hurried_control(schedule(budget_s=advised, **time), control, True) == []
    assert hurried_control(plan, control, None) == hurried_control(plan, None, True) == []
    assert hurried_control(plan, replace(control, stopped="early"), True) == []  # it had learned what it could
    (asked,) = hurried_control(schedule(budget_s=None, **time | {"epochs": 3}), control, True)
    assert "More --epochs" in asked and "--budget" not in asked


@pytest.mark.parametrize(
    ("text", "value"), [("90", 90), ("90s", 90), ("5m", 300), ("1.5h", 5400), (7, 7), (None, None)]
)
def test_budgets_are_read(text: str | float | None, value: float | None) -> None:
    assert seconds(text) == value


def test_configuration_mistakes_come_together() -> None:
    with pytest.raises(UsageError) as caught:
        FitConfig.checked(metric="bogus", batch_size=0)
    message = str(caught.value)
    assert "--metric" in message
    assert "--batch-size" in message


def test_strategies_are_looked_up_and_stand_in_the_order_of_their_cost() -> None:
    assert FitConfig.checked(roots=("x",)).strategies == ("probe", "finetune", "scratch")
    assert FitConfig.checked(roots=("x",), strategies=("scratch", "finetune", "probe")).strategies[-1] == "scratch"
    with pytest.raises(UsageError, match=r"There is no strategy 'fintune'. Did you mean 'finetune'"):
        FitConfig.checked(roots=("x",), strategies=("probe", "fintune"))
    with pytest.raises(UsageError, match="not a control"):
        FitConfig.checked(roots=("x",), strategies=("scratch",))
    with pytest.raises(UsageError, match="not a control"):
        FitConfig.checked(roots=("x",), strategies=())


@pytest.mark.parametrize("refit", [True, False])
def test_a_probe_is_calibrated_by_the_head_that_is_handed_over(
    pictures: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, refit: bool
) -> None:
    """Two heads are solved, on training and validation pictures together and on the training pictures alone."""
    for path in sorted(pictures.rglob("*.png")):
        part = "test" if int(path.stem) < 3 else "train"
        (tmp_path / "split" / part / path.parent.name).mkdir(parents=True, exist_ok=True)
        path.rename(tmp_path / "split" / part / path.parent.name / path.name)
    heads: list[tuple[Any, np.ndarray]] = []
    tuned: list[tuple[np.ndarray, np.ndarray]] = []
    probe, fit_temperature = Workbench.probe, of_classes.fit_temperature

    def watched_probe(bench: Workbench, features: np.ndarray, indices: np.ndarray) -> Any:
        heads.append((probe(bench, features, indices), bench.labels(indices)))
        return heads[-1][0]

    def watched_temperature(logits: np.ndarray, labels: np.ndarray) -> float:
        tuned.append((logits, labels))
        return fit_temperature(logits, labels)

    monkeypatch.setattr(Workbench, "probe", watched_probe)
    monkeypatch.setattr(of_classes, "fit_temperature", watched_temperature)
    options: dict[str, Any] = {"backbone": "scion:size=64", "strategies": "probe", "threads": 2, "resamples": 100}
    run = regraft.fit(tmp_path / "split", runs=tmp_path / "runs", refit=refit, **options)
    handed_over = regraft.load(run, device="cpu").task.head.weight.detach().numpy()
    ((head, labels),) = [(one, its) for one, its in heads if np.array_equal(one.weight, handed_over)]
    assert len(labels) == run.data.n_train and len({len(its) for _, its in heads}) == 2
    ((logits, told),) = tuned
    assert np.array_equal(logits, head.out_of_fold) and np.array_equal(told, labels)


def test_random_weights_are_no_control(pictures: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """However much validation likes them, the control is one that has been trained; fine-tuning may keep its start."""
    kept: dict[str, list[int]] = {"finetune": [], "scratch": []}

    def falling(metric: str, outputs: np.ndarray, labels: np.ndarray) -> tuple[float, float, float]:
        judged.append(len(judged))
        return -float(len(judged)), 0.5, 0.5

    judged: list[int] = []

    def train(bench: Workbench, name: str, told: Training) -> Candidate:
        found = train_candidate(bench, name, told)
        kept[name].append(found.best_step)
        return found

    monkeypatch.setattr(of_classes.ClassKind, "selection", lambda self, *told: falling(*told))
    monkeypatch.setattr(rounds, "train_candidate", train)
    options: dict[str, Any] = {"backbone": "scion:size=64", "epochs": 1, "threads": 2, "refit": False}
    run = regraft.fit(pictures, runs=tmp_path, resamples=100, **options)
    assert run.data.helped and any("had 1.0 epochs" in alarm for alarm in run.data.alarms)
    assert set(kept["finetune"]) == {0} and min(kept["scratch"]) > 0
