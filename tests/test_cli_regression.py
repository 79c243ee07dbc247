"""`regraft` on numbers, as a person would use it: how large is the disc?"""

from __future__ import annotations

import csv
import json
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest

from conftest import Shell
from discs import draw_discs
from regraft.core.errors import UsageError
from regraft.recipes.fit.options import FitConfig
from regraft.recipes.reports import read_report

FAST = ["--backbone", "scion:size=64", "--epochs", "1", "--threads", "2"]
#: Enough that the validation part has the nine that an interval for 90 % needs, whatever candidate is kept.
N_DISCS = 112
COLUMNS = ["--image", "file", "--label", "radius_px"]


@pytest.fixture(scope="module")
def table(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return draw_discs(tmp_path_factory.mktemp("data") / "discs", N_DISCS)


@pytest.fixture(scope="module")
def run(table: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A finished fit of them, with the kind of labels left to be found out."""
    from regraft import fit

    options = {"image": "file", "label": "radius_px", "split": "part", "backbone": "scion:size=64", "threads": 2}
    return fit(table=table, runs=tmp_path_factory.mktemp("runs"), epochs=1, **options).path


def radii(table: Path) -> dict[str, float]:
    with table.open(newline="") as stream:
        return {row["file"]: float(row["radius_px"]) for row in csv.DictReader(stream)}


def test_the_report_is_about_numbers(run: Path, table: Path) -> None:
    report = read_report(run)
    assert report.metric == "mae" and report.number == "radius_px" and not hasattr(report, "classes")
    assert {c.name for c in report.candidates} == {"probe", "finetune", "scratch"}
    assert (
        report.n_test == N_DISCS // 4 and report.value is not None and report.value < 2.5
    )  # always the mean: about 4.5
    rows = pq.read_table(run / "predictions.parquet").to_pylist()
    own = [r for r in rows if r["split"] == "test" and r["candidate"] == report.chosen]
    known = radii(table)
    assert all(r["number"] == pytest.approx(known[Path(r["path"]).name]) for r in own)
    off = np.array([r["predicted"] - r["number"] for r in own])
    assert report.value == pytest.approx(np.abs(off).mean())
    assert report.summary is not None and report.summary["rmse"] == pytest.approx(np.sqrt(np.square(off).mean()))
    values = {c.name: c.value for c in report.candidates}
    assert report.transfer_gain is not None and report.transfer_gain.value is not None
    assert report.transfer_gain.value == pytest.approx(values[report.chosen] - values["scratch"])
    assert report.verdict.startswith("Transfer helped: mean absolute error") and report.helped
    interval = report.prediction_interval
    assert interval is not None and interval["coverage"] == 0.9 and interval["half_width"] > 0
    assert interval["tested_coverage"] == pytest.approx((np.abs(off) <= interval["half_width"]).mean())


def test_the_page_shows_numbers_and_no_classes(run: Path) -> None:
    page = (run / "report.html").read_text(encoding="utf-8")
    for part in ("Predicted against true", "Residuals", "How far its numbers are off", "Worst mistakes", "too high"):
        assert part in page, part
    for part in ("Class by class", "Confusion", "Can its confidence", "taken for <em>"):
        assert part not in page, part


def test_a_kept_artifact_predicts_with_an_interval(run: Path, table: Path, shell: Shell, tmp_path: Path) -> None:
    (tmp_path / "bad.png").write_bytes(b"no picture")
    code, out, err = shell(
        "predict", run, table.parent / "3.png", table.parent / "7.png", tmp_path / "bad.png", "--json"
    )
    assert code == 0, err
    first, second, bad = json.loads(out)
    assert bad["number"] is None and bad["error"]
    known, interval = radii(table), read_report(run).prediction_interval
    assert interval is not None
    for answer, name in ((first, "3.png"), (second, "7.png")):
        assert answer["number"] == pytest.approx(known[name], abs=6)
        assert answer["high"] - answer["number"] == pytest.approx(interval["half_width"])
        assert answer["number"] - answer["low"] == pytest.approx(interval["half_width"])
        assert answer["coverage"] == 0.9
    code, out, _ = shell("predict", run, table.parent / "3.png")
    assert code == 0 and "with 90%" in out and f"{first['number']:.5g}" in out


def test_evaluate_agrees_with_the_run(run: Path, table: Path, shell: Shell, tmp_path: Path) -> None:
    lines = table.read_text().splitlines()
    (tmp_path / "test.csv").write_text("\n".join([lines[0], *(line for line in lines if line.endswith("test"))]))
    code, out, err = shell("evaluate", run, table.parent, "--table", tmp_path / "test.csv", *COLUMNS, "--json")
    assert code == 0, err
    report = json.loads(out)
    assert report["value"] == pytest.approx(read_report(run).value, rel=1e-4) and report["metric"] == "mae"
    assert set(report["intervals"]) == {"mae", "rmse", "r2", "spearman"}
    code, _, err = shell("evaluate", run, table.parent.parent)
    assert code == 1 and "--table" in " ".join(err.split())


def test_export_is_checked_and_runs_alone(run: Path, table: Path, shell: Shell, tmp_path: Path) -> None:
    pytest.importorskip("onnxruntime")
    from regraft import load
    from regraft.deploy.onnx.predictor import OnnxPredictor

    code, out, err = shell("export", run, "--onnx", tmp_path / "m.onnx", "--json")
    assert code == 0, err
    found = json.loads(out)
    assert found["agreement"] == 1.0 and found["max_difference"] <= 0.1 and not found["of_classes"]
    (answer,) = OnnxPredictor.load(tmp_path / "m.onnx").predict(table.parent / "3.png")
    (own,) = load(run, device="cpu").predict(table.parent / "3.png")
    assert answer.number == pytest.approx(own.number, abs=0.5) and answer.coverage == 0.9
    assert answer.high - answer.low == pytest.approx(own.high - own.low)


def test_an_export_that_disagrees_is_refused() -> None:
    from regraft.tasks.kind import Check
    from regraft.tasks.regression.agreement import compare_numbers

    reference = np.linspace(0, 100, 50)[:, None]
    slightly = compare_numbers(reference + 0.1, reference, 10.0, Check())
    assert slightly.max_difference == pytest.approx(0.01) and slightly.agreement == 1 and not slightly.refused
    one = reference.copy()
    one[7] += 1.5
    assert "a number differs by 0.150" in compare_numbers(one, reference, 10.0, Check()).refused
    assert "on average" in compare_numbers(reference + 0.4, reference, 10.0, Check()).refused
    assert "not finite" in compare_numbers(one * np.nan, reference, 10.0, Check()).refused


def test_cross_validation_says_what_was_assumed(table: Path, shell: Shell) -> None:
    options = [*COLUMNS, *FAST, "--strategies", "probe", "--metric", "spearman", "--json"]
    code, out, err = shell("fit", "--table", table, *options)
    assert code == 0, err
    said = " ".join(err.split())
    assert "taken for numbers to predict (--task regression)" in said and "say --task classification" in said
    report = json.loads(out)
    assert (
        "cross-validation" in report["evaluated_on"] and report["n_test"] == N_DISCS and report["metric"] == "spearman"
    )
    assert report["value"] > 0.6


@pytest.mark.parametrize(
    ("arguments", "code", "words"),
    [
        (["--task", "regression", "--metric", "accuracy"], 2, "mae, rmse, r2, spearman"),
        (["--task", "regression", "--mixup", "0.2"], 2, "--mixup mixes classes"),
        (["--task", "classification", "--metric", "mae"], 2, "accuracy"),
        (["--task", "regresion"], 2, "--task"),
        (["--task", "regression", "--label", "file"], 1, "2 columns of numbers were given"),
    ],
)
def test_mistakes_are_sentences(shell: Shell, table: Path, arguments: list[str], code: int, words: str) -> None:
    found, out, err = shell("fit", "--table", table, *COLUMNS, *FAST, *arguments)
    assert found == code, err
    assert words in " ".join(err.split()) and not out and not Path("runs").exists()


def test_regression_wants_a_table() -> None:
    with pytest.raises(UsageError, match="--table"):
        FitConfig.checked(roots=(Path("photos"),), task="regression")
