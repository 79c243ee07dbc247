"""`regraft` on several labels, as a person would use it: is the disc large, is it high up?"""

from __future__ import annotations

import csv
import json
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
from PIL import Image, ImageDraw
from sklearn.metrics import average_precision_score, f1_score

from conftest import Shell
from regraft.recipes.reports import read_report

SIDE_PX, N_DISCS = 64, 120
OPTIONS = ["--label", "large", "--label", "high", "--label", "green"]
NAMES = ["large", "high", "green"]


@pytest.fixture(scope="module")
def table(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Discs with three properties that have nothing to do with each other; every fourth is for the test."""
    folder, draw = tmp_path_factory.mktemp("discs"), np.random.default_rng(0)
    with (folder / "discs.csv").open("w", newline="") as stream:
        writer = csv.writer(stream)
        writer.writerow(["image", *NAMES, "tags", "part"])
        for index in range(N_DISCS):
            large, high, green = draw.random(3) < [0.5, 0.5, 0.3]
            radius, y = (18 if large else 8), (18 if high else 46)
            picture = Image.fromarray(draw.integers(0, 60, (SIDE_PX, SIDE_PX, 3), dtype=np.uint8))
            corners = (32 - radius, y - radius, 32 + radius, y + radius)
            ImageDraw.Draw(picture).ellipse(corners, fill=(40, 220, 60) if green else (220, 60, 200))
            picture.save(folder / f"{index}.png")
            tags = ";".join(name for name, true in zip(NAMES, (large, high, green), strict=True) if true)
            writer.writerow(
                [f"{index}.png", *map(int, (large, high, green)), tags, "test" if index % 4 == 3 else "train"]
            )
    return folder / "discs.csv"


@pytest.fixture(scope="module")
def run(table: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    from regraft import fit

    options = {"label": tuple(NAMES), "split": "part", "backbone": "scion:size=64", "threads": 2}
    return fit(table=table, runs=tmp_path_factory.mktemp("runs"), epochs=1, **options).path


def test_the_figures_are_of_the_predictions(run: Path) -> None:
    report = read_report(run)
    assert report.metric == "map" and {c.name for c in report.candidates} == {"probe", "finetune", "scratch"}
    rows = pq.read_table(run / "predictions.parquet").to_pylist()
    own = [row for row in rows if row["split"] == "test" and row["candidate"] == report.chosen]
    y, p, given = (np.asarray([row[c] for row in own]) for c in ("labels", "label_probabilities", "given"))
    assert y.shape == (N_DISCS // 4, 3) and report.value is not None and report.value > 0.85
    assert report.value == pytest.approx(average_precision_score(y, p, average="macro"), abs=1e-6)
    assert report.summary is not None
    assert report.summary["macro_f1"] == pytest.approx(f1_score(y, given, average="macro"))
    assert [row["label"] for row in report.summary["per_label"]] == NAMES and report.labels == NAMES
    assert report.transfer_gain is not None and report.transfer_gain.value is not None
    page = (run / "report.html").read_text(encoding="utf-8")
    for part in ("Label by label", "Threshold", "Mean average precision", "micro F1", *NAMES):
        assert part in page, part
    assert ("Worst mistakes" in page) == bool((y != given).any()) and "Class by class" not in page


def test_predict_names_labels_with_probabilities(run: Path, table: Path, shell: Shell, tmp_path: Path) -> None:
    (tmp_path / "bad.png").write_bytes(b"no picture")
    pictures = [table.parent / "3.png", table.parent / "7.png", tmp_path / "bad.png"]
    code, out, err = shell("predict", run, *pictures, "--json")
    assert code == 0, err
    first, _, bad = json.loads(out)
    assert bad["error"] and bad["labels"] == [] and first["error"] is None
    assert {row["label"] for row in first["labels"]} <= set(NAMES)
    assert all(0 <= row["probability"] <= 1 for row in first["labels"])
    code, out, _ = shell("predict", run, pictures[0], "--threshold", "0")
    assert code == 0 and all(name in out for name in NAMES)


def test_evaluate_agrees_with_the_run(run: Path, table: Path, shell: Shell, tmp_path: Path) -> None:
    lines = table.read_text().splitlines()
    (tmp_path / "test.csv").write_text("\n".join([lines[0], *(line for line in lines if line.endswith("test"))]))
    given = ("evaluate", run, table.parent, "--table", tmp_path / "test.csv", "--json")
    code, out, err = shell(*given, *OPTIONS)
    assert code == 0, err
    report = json.loads(out)
    assert report["value"] == pytest.approx(read_report(run).value, abs=1e-3) and report["metric"] == "map"
    code, out, err = shell(*given, "--label", "tags")
    assert code == 0 and json.loads(out)["value"] == report["value"], err
    code, _, err = shell(*given, *OPTIONS[:4])
    assert code == 1 and "also asks for green" in " ".join(err.split())


def test_export_is_checked_and_runs_alone(run: Path, table: Path, shell: Shell, tmp_path: Path) -> None:
    pytest.importorskip("onnxruntime")
    from regraft import load
    from regraft.deploy.onnx.predictor import OnnxPredictor

    code, out, err = shell("export", run, "--onnx", tmp_path / "m.onnx", "--json")
    assert code == 0, err
    assert json.loads(out)["agreement"] == 1.0
    pictures = [table.parent / f"{index}.png" for index in (3, 7, 11)]
    exported, own = OnnxPredictor.load(tmp_path / "m.onnx").predict(pictures), load(run, device="cpu").predict(pictures)
    for one, other in zip(exported, own, strict=True):
        assert dict(one.top).keys() == dict(other.top).keys()
        assert one.top[0][1] == pytest.approx(other.top[0][1], abs=0.03)
        assert {name for name, _ in one.labels} == {name for name, _ in other.labels}


def test_a_separator_and_cross_validation(table: Path, shell: Shell, tmp_path: Path) -> None:
    given = ["--table", table, "--label", "tags", "--backbone", "scion:size=64", "--strategies", "probe"]
    code, out, err = shell("fit", *given, "--metric", "macro_f1", "--runs", tmp_path / "runs", "--json")
    assert code == 0, err
    assert "parts names by ';'" in " ".join(err.split())
    assert json.loads(out)["metric"] == "macro_f1"
    code, _, err = shell("fit", *given, "--mixup", "0.2", "--runs", tmp_path / "runs")
    assert code == 2 and "several labels" in " ".join(err.split())
