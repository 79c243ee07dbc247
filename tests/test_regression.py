"""Numbers as labels, from the cell of a table to the interval: against closed forms and scikit-learn."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from scipy.stats import spearmanr
from sklearn.metrics import mean_absolute_error, mean_squared_error, r2_score

from regraft.core.errors import DataError, UsageError
from regraft.core.types import Batch
from regraft.data.classes import ClassNames
from regraft.data.reading import Reading, read_source
from regraft.images.modality import PICTURES
from regraft.measure import (
    Interval,
    conformal_interval,
    format_number,
    number_alarms,
    number_bootstrap,
    number_gain,
    number_score,
    number_summary,
    verdict,
)
from regraft.measure.regression import resampled
from regraft.strategies import fit_number_probe
from regraft.tasks.kinds import reading
from regraft.tasks.regression.labels import NumberColumn
from regraft.tasks.regression.numbers import DISTINCT, are_numbers, check_spread, parse_number, quantile_bins
from regraft.tasks.regression.task import Regression
from test_tasks_classification import Tiny


def problem(n: int, d: int, outputs: int = 1, seed: int = 0) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Features far from the origin, numbers in a unit far from 1, and five folds."""
    draw = np.random.default_rng(seed)
    x = (draw.normal(size=(n, d)) * np.geomspace(0.1, 3, d) + 5).astype(np.float32)
    y = 4000 + 900 * (x @ draw.normal(size=(d, outputs)) / np.sqrt(d) + 0.5 * draw.normal(size=(n, outputs)))
    return x, y, draw.permutation(np.arange(n) % 5)


def ridge_by_hand(x: np.ndarray, y: np.ndarray, strength: float) -> tuple[np.ndarray, np.ndarray]:
    """The normal equations on centred features; strength is relative to their mean square sum per sample."""
    z = x.astype(np.float64)
    centred = z - z.mean(axis=0)
    penalty = strength * np.square(centred).sum() / len(z)
    weight = np.linalg.solve(centred.T @ centred + penalty * np.eye(z.shape[1]), centred.T @ (y - y.mean(axis=0)))
    return weight.T, y.mean(axis=0) - weight.T @ z.mean(axis=0)


# ---- the probe ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("n", "d", "outputs"), [(60, 8, 1), (20, 50, 1), (60, 8, 3)])
@pytest.mark.parametrize("strength", [0.01, 1.0])
def test_the_head_is_the_closed_form(n: int, d: int, outputs: int, strength: float) -> None:
    x, y, folds = problem(n, d, outputs)
    head = fit_number_probe(x, y, folds, settings=(("ridge", strength),))
    weight, bias = ridge_by_hand(x, y, strength)
    np.testing.assert_allclose(head.weight, weight, rtol=1e-3, atol=1e-4 * np.abs(weight).max())
    np.testing.assert_allclose(head.logits(x), x @ weight.T + bias, rtol=1e-4)
    for fold in range(5):
        weight, bias = ridge_by_hand(x[folds != fold], y[folds != fold], strength)
        np.testing.assert_allclose(head.out_of_fold[folds == fold], x[folds == fold] @ weight.T + bias, rtol=1e-4)


def test_the_strength_is_the_one_with_the_least_error_out_of_fold() -> None:
    x, y, folds = problem(40, 60)
    errors = {}
    for strength in (0.001, 0.1, 10.0, 100.0):
        found = fit_number_probe(x, y, folds, settings=(("ridge", strength),))
        errors[strength] = float(np.square(found.out_of_fold - y).mean())
        assert found.scores[f"ridge {strength:g}"] == pytest.approx(r2_score(y, found.out_of_fold))
    head = fit_number_probe(x, y, folds, settings=tuple(("ridge", s) for s in errors))
    assert head.strength == min(errors, key=lambda s: errors[s])
    assert min(errors.values()) < 0.9 * max(errors.values())


def test_numbers_of_noise_are_not_predicted_out_of_fold() -> None:
    draw = np.random.default_rng(0)
    x, y = draw.normal(size=(80, 200)).astype(np.float32), draw.normal(size=80)
    head = fit_number_probe(x, y, np.arange(80) % 5)
    assert max(head.scores.values()) < 0.2


# ---- the task -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("loss", ["huber", "squared"])
def test_the_loss_is_of_standardised_numbers_and_padding_does_not_count(loss: str) -> None:
    torch.manual_seed(0)
    of = Regression(Tiny(), 2, centre=torch.tensor([50.0, -3.0]), scale=torch.tensor([10.0, 0.5]), loss=loss).eval()  # type: ignore[arg-type]
    x, weight = torch.rand(5, 3, 8, 8), torch.tensor([1.0, 1.0, 0.0, 1.0, 0.0])
    y = torch.tensor([[40.0, -3], [90, -2], [0, 0], [52, -8], [1, 1]])
    with torch.no_grad():
        found = float(of({"train": Batch(x, y, weight)}, 0.0).loss)
        raw = of.predict(x).double().numpy()
    error = (raw - y.double().numpy()) / [10.0, 0.5]
    each = 0.5 * error**2 if loss == "squared" else np.where(np.abs(error) <= 1, 0.5 * error**2, np.abs(error) - 0.5)
    assert found == pytest.approx(each.sum(axis=1)[[0, 1, 3]].mean(), rel=1e-5)
    with torch.no_grad():
        outputs, share = of.head_outputs(x), torch.tensor([0.0, 2.0, 0.0, 0.5, 1.0])
        found = float(of.supervised(outputs, y, sample_weights=share))
        assert float(of.supervised(outputs, y, sample_weights=torch.zeros(5))) == 0
    assert found == pytest.approx(np.average(each.sum(axis=1), weights=share.numpy()), rel=1e-5)


def test_a_solved_head_gives_the_same_numbers_whatever_the_scale() -> None:
    torch.manual_seed(0)
    weight, bias, x = torch.randn(1, 4) * 30, torch.tensor([700.0]), torch.rand(3, 3, 8, 8)
    of = Regression(Tiny(), centre=torch.tensor([650.0]), scale=torch.tensor([25.0])).eval()
    of.set_head(weight, bias)
    with torch.no_grad():
        expected = of.backbone(x).pooled @ weight.T + bias
        torch.testing.assert_close(of.predict(x), expected)
    assert {"centre", "scale"} <= of.state_dict().keys()
    assert of.layer_groups()["head"] == ["head.weight", "head.bias"]


def test_a_scale_that_is_none_is_refused() -> None:
    with pytest.raises(UsageError, match="above zero"):
        Regression(Tiny(), scale=torch.tensor([0.0]))
    with pytest.raises(UsageError, match="at least one"):
        Regression(Tiny(), 0)


# ---- metrics and intervals ------------------------------------------------------------------------------------------


def answers(n: int = 60, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Rounded, so that ranks tie."""
    draw = np.random.default_rng(seed)
    y = np.round(draw.gamma(3, 4, n))
    return np.round(0.7 * y + draw.normal(0, 3, n), 0), y


REFERENCES = {
    "mae": lambda p, y: mean_absolute_error(y, p),
    "rmse": lambda p, y: mean_squared_error(y, p) ** 0.5,
    "r2": lambda p, y: r2_score(y, p),
    "spearman": lambda p, y: spearmanr(y, p).statistic,
}


@pytest.mark.parametrize("name", REFERENCES)
def test_metrics_and_their_resamples_agree_with_references(name: str) -> None:
    p, y = answers()
    assert number_score(name, p, y) == pytest.approx(REFERENCES[name](p, y))
    assert number_score(name, p[:, None], y) == number_score(name, p, y)
    assert number_summary(p, y)[name] == pytest.approx(REFERENCES[name](p, y))
    counts = np.random.default_rng(1).multinomial(60, np.full(60, 1 / 60), size=20).astype(float)
    expected = [REFERENCES[name](np.repeat(p, row.astype(int)), np.repeat(y, row.astype(int))) for row in counts]
    np.testing.assert_allclose(resampled(name, p, y)(counts), expected, rtol=1e-9)


@pytest.mark.filterwarnings("error")
def test_figures_without_meaning_are_nan() -> None:
    same = np.full(5, 3.0)
    assert np.isnan(number_score("r2", np.arange(5.0), same)) and np.isnan(number_score("spearman", same, np.arange(5)))
    assert np.isnan(number_score("mae", np.zeros(0), np.zeros(0)))
    assert np.isnan(number_score("mae", np.array([np.inf]), np.ones(1)))
    assert number_summary(np.zeros(0), np.zeros(0))["bias"] is None
    with pytest.raises(DataError, match="not finite"):
        number_score("mae", np.ones(2), np.array([1, np.nan]))
    with pytest.raises(UsageError, match="mae"):
        number_score("may", np.ones(2), np.ones(2))


def test_intervals_contain_their_value_and_pairing_helps() -> None:
    p, y = answers(200)
    own = number_bootstrap("mae", p, y, resamples=400)
    assert own.low < own.value < own.high
    worse = p + 1.0 * np.sign(p - y)  # each answer off by one more, where it is off at all
    gain = number_gain("mae", p, worse, y, resamples=400)
    assert gain.value == pytest.approx(-(p != y).mean()) and gain.high < 0
    assert gain.high - gain.low < 0.5 * (own.high - own.low)
    groups = np.arange(200) // 20
    wide = number_bootstrap("mae", np.repeat(p[:10], 20), np.repeat(y[:10], 20), groups=groups, resamples=400)
    assert wide.high - wide.low > 1.5 * (own.high - own.low)


def test_the_verdict_reads_errors_the_right_way_round() -> None:
    chosen, control = Interval(2.0, 1.8, 2.2), Interval(3.0, 2.7, 3.3)
    helped = verdict("mae", chosen, control, Interval(-1.0, -1.3, -0.7))
    assert helped.helped is True and "mean absolute error 2.000 against 3.000" in helped.sentence
    assert verdict("mae", control, chosen, Interval(1.0, 0.7, 1.3)).helped is False
    open_ = verdict("mae", chosen, control, Interval(-0.1, -0.3, 0.2))
    assert open_.helped is None
    # A gain of 2 % of 3.0 is 0.06: an interval up to 0.05 rules it out, one up to 0.07 does not.
    assert verdict("mae", control, control, Interval(0.0, -0.05, 0.05)).helped is False
    assert verdict("mae", control, control, Interval(0.0, -0.07, 0.05)).helped is None


def test_alarms_of_numbers() -> None:
    def said(p: np.ndarray, y: np.ndarray) -> str:
        own = number_bootstrap("mae", p, y, resamples=100)
        summary = number_summary(p, y)
        return " ".join(
            number_alarms(metric_name="mae", chosen=own, summary=summary, spread=y.std(), predicted_spread=p.std())
        )

    draw = np.random.default_rng(0)
    y = draw.normal(10, 3, 100)
    assert said(y + 0.1 * draw.normal(size=100), y) == ""
    assert "no better than always saying the mean" in said(draw.permutation(y), y)
    assert "too high by" in said(y + 2.5, y)
    assert "all but the same" in said(10 + 0.05 * (y - 10), y)
    assert "small (20 pictures)" in said(y[:20] + 0.1, y[:20])


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (2.3456, "2.346"),
        (1520.37, "1520"),
        (0.01234, "0.01234"),
        (-12.345, "−12.35"),
        (0.0, "0.000"),
        (2.5e7, "2.500e+07"),
    ],
)
def test_numbers_for_people(value: float, text: str) -> None:
    assert format_number(value) in {text, text.replace("12.35", "12.34")}


def test_the_interval_covers_new_numbers_as_often_as_it_says() -> None:
    """Over many draws of skewed errors the mean coverage lies between 1 − α and 1 − α + 1 / (n + 1) (theorem 2.2)."""
    draw = np.random.default_rng(0)
    shares = []
    for _ in range(600):
        errors = draw.gamma(1.5, 2, 39 + 200) * draw.choice([-1, 1], 239)
        found = conformal_interval(np.zeros(39), errors[:39], coverage=0.9)
        covered = found.covers(np.zeros(200), errors[39:])
        assert covered is not None
        shares.append(covered)
    assert 0.9 - 0.006 < np.mean(shares) < 0.9 + 1 / 40 + 0.006


def test_the_interval_is_the_ranked_residual_or_none() -> None:
    residuals = np.arange(1.0, 10.0)  # nine of them: ⌈10 · 0.9⌉ = 9
    assert conformal_interval(residuals, np.zeros(9)).half_width == 9
    assert conformal_interval(residuals[:, None], np.zeros(9), coverage=0.8).half_width == 8
    few = conformal_interval(residuals[:8], np.zeros(8))
    assert few.half_width is None and few.around(np.zeros(1)) is None and few.covers(np.zeros(1), np.ones(1)) is None
    low, high = conformal_interval(residuals, np.zeros(9)).around(np.array([100.0])) or (None, None)
    assert low == 91 and high == 109
    with pytest.raises(UsageError, match="fraction"):
        conformal_interval(residuals, residuals, coverage=1.0)


# ---- labels ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "value"), [("12", 12), ("-0.5", -0.5), ("−3", -3), ("3e2", 300), (".5", 0.5), ("7.", 7)]
)
def test_numbers_are_read(text: str, value: float) -> None:
    assert parse_number(text, "here") == value


@pytest.mark.parametrize("text", ["nan", "inf", "-inf", "1e400", "1_000", "12 cells", "1,5", "0x10", "٣", "", "--1"])
def test_hostile_numbers_are_sentences(text: str) -> None:
    with pytest.raises(DataError, match=r"^t\.csv, row 5: .* is no finite number"):
        parse_number(text, "t.csv, row 5")


def test_a_number_beyond_single_precision_is_refused() -> None:
    with pytest.raises(DataError, match="larger unit"):
        parse_number("1e300", "row 2")
    with pytest.raises(DataError, match="nothing to predict"):
        check_spread([3, 3, 3], "age")
    with pytest.raises(DataError, match="subtract a constant"):
        check_spread([1.7e9, 1.7e9 + 5], "time")


def column(values: list[object]) -> dict[int, str | None]:
    return {row: None if value is None else str(value) for row, value in enumerate(values, start=2)}


def test_columns_are_told_apart() -> None:
    def told(values: list[object]) -> tuple[bool, str]:
        return are_numbers(column(values), Path("t.csv"), "y")

    assert told(["cat", "dog", "cat"]) == (False, "")
    classes, said = told([i % 10 for i in range(1000)])
    assert not classes and "--task classification" in said and "say --task regression" in said
    numeric, said = told([i % 40 for i in range(300)])
    assert numeric and "40 different numbers in 300 rows" in said and "say --task classification" in said
    assert told([i % 40 for i in range(1000)])[0] is False  # 40 names, 25 pictures of each
    assert told([i / 10 for i in range(DISTINCT)])[0] and not told([i / 10 for i in range(DISTINCT - 1)])[0]
    assert told([0.5 * (i % 30) for i in range(5000)])[0]  # fractions are no names
    with pytest.raises(DataError, match=r"row 52, column 'y': 'n/a' is no number, but 99 of 100 are"):
        told([*range(50), "n/a", *range(49)])
    assert told([*range(50), *["cat"] * 50]) == (False, "")


def test_quantile_bins_are_even_and_ordered() -> None:
    draw = np.random.default_rng(0)
    y = draw.gamma(2, 3, 300)
    bins = quantile_bins(y)
    assert set(bins) == set(range(10)) and np.bincount(bins).min() >= 25
    order = np.argsort(y)
    assert (np.diff(bins[order]) >= 0).all()
    assert set(quantile_bins(np.repeat([0.0, 7.0], 100))) == {0, 1}
    assert set(quantile_bins(np.arange(10.0))) == {0}


@pytest.fixture
def table(tmp_path: Path) -> Path:
    rows = ["image,age"]
    for index in range(20):
        Image.new("RGB", (8, 8), (index * 12, 0, 0)).save(tmp_path / f"{index}.png")
        rows.append(f"{index}.png,{index * 1.5}")
    (tmp_path / "t.csv").write_text("\n".join(rows) + "\n")
    return tmp_path / "t.csv"


def test_a_source_of_numbers(table: Path) -> None:
    found = read_source([], PICTURES, Reading(table=table, label="age", read_labels=reading("auto")))
    assert isinstance(found.labelling, NumberColumn) and found.classes == ()
    assert "--task regression" in found.labelling.assumed
    np.testing.assert_array_equal(found.labels(), np.arange(20) * 1.5)
    as_classes = read_source([], PICTURES, Reading(table=table, label="age"))
    assert isinstance(as_classes.labelling, ClassNames) and len(as_classes.classes) == 20
    assert as_classes.labelling.assumed == ""


@pytest.mark.parametrize("cell", ["old", "nan", "inf", "1e999"])
@pytest.mark.parametrize("task", ["regression", "auto"])
def test_a_bad_cell_is_named_by_its_row(table: Path, cell: str, task: str) -> None:
    table.write_text(re.sub(r"^7\.png,.*$", f"7.png,{cell}", table.read_text(), flags=re.M))
    with pytest.raises(DataError, match=rf"row 9, column 'age': '{cell}'"):
        read_source([], PICTURES, Reading(table=table, label="age", read_labels=reading(task)))


def test_an_empty_cell_leaves_the_picture_out_and_says_so(table: Path) -> None:
    table.write_text(re.sub(r"^7\.png,.*$", "7.png,", table.read_text(), flags=re.M))
    found = read_source([], PICTURES, Reading(table=table, label="age", read_labels=reading("regression")))
    assert len(found) == 19 and "first: row 9" in found.skipped[0]


def test_folders_hold_no_numbers(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="--table"):
        read_source([tmp_path], PICTURES, Reading(read_labels=reading("regression")))
