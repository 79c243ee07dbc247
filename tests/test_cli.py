"""Every verb of the command line, as a person would use it, on small pictures."""

from __future__ import annotations

import csv
import json
import shutil
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
from PIL import Image

from conftest import Shell
from regraft.recipes.reports import read_report

FAST = ["--backbone", "scion:size=64", "--epochs", "1", "--threads", "2"]


@pytest.fixture(scope="module")
def pictures(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two classes of 16 stripes and blobs in train/, 8 in test/: learnable, not trivial, made anew each time."""
    root = tmp_path_factory.mktemp("pictures")
    rng = np.random.default_rng(0)
    for part, count in (("train", 16), ("test", 8)):
        for name in ("stripes", "blobs"):
            (root / part / name).mkdir(parents=True)
            for index in range(count):
                coarse = Image.fromarray(rng.integers(0, 110, (7, 8, 3), dtype=np.uint8))
                pixels = np.asarray(coarse.resize((80, 72), Image.Resampling.BICUBIC)).astype(int)
                if name == "stripes":
                    pixels[:, :: int(rng.integers(4, 9))] += 120
                else:
                    y, x = rng.integers(5, 50, 2)
                    pixels[y : y + 18, x : x + 18] += 120
                picture = Image.fromarray(np.clip(pixels, 0, 255).astype(np.uint8))
                picture.save(root / part / name / f"{name}{index}.png")
    return root


@pytest.fixture(scope="module")
def run(pictures: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A finished fit of them."""
    from regraft import fit

    runs = tmp_path_factory.mktemp("runs")
    return fit(pictures, runs=runs, backbone="scion:size=64", epochs=1, threads=2).path


def test_fit_prints_json_alone_on_stdout(pictures: Path, shell: Shell, tmp_path: Path) -> None:
    code, out, err = shell("fit", pictures, *FAST, "--json", "--tensorboard")
    assert code == 0, err
    report = json.loads(out)
    assert report["format"] == "regraft.report/2"
    for key in ("metric", "value", "interval", "candidates", "chosen", "transfer_gain", "verdict", "first_answer_s"):
        assert report[key] is not None, key
    assert {c["name"] for c in report["candidates"]} == {"probe", "finetune", "scratch"}
    assert report["n_test"] == 16
    assert report["total_s"] >= report["first_answer_s"] > 0
    assert report["audit"]["n_usable"] == 48
    last = tmp_path / "runs" / "LAST"
    for name in ("config.yaml", "env.json", "split.json", "plan.txt", "metrics.jsonl", "predictions.parquet", "DONE"):
        assert (last / name).exists(), name
    assert not (last / "work").exists()
    assert list((last / "tensorboard").glob("events*"))
    assert "First answer" in err


def test_the_control_has_the_same_parameters_as_fine_tuning(run: Path) -> None:
    report = read_report(run)
    trained = {c.name: c.trained_parameters for c in report.candidates}
    assert trained["scratch"] == trained["finetune"]
    assert trained["probe"] == 2 * 1281


def test_the_gain_is_the_difference_of_the_two_figures(run: Path) -> None:
    report = read_report(run)
    values = {c.name: c.value for c in report.candidates}
    assert report.transfer_gain is not None
    assert report.transfer_gain.value == pytest.approx(values[report.chosen] - values["scratch"])


def test_a_run_on_a_relative_folder_finds_its_pictures_from_anywhere(
    pictures: Path, shell: Shell, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shutil.copytree(pictures, tmp_path / "data")
    (tmp_path / "elsewhere").mkdir()
    code, _, err = shell("fit", "data", *FAST, "--strategies", "probe")
    assert code == 0, err
    run = (tmp_path / "runs" / "LAST").resolve()
    monkeypatch.chdir(tmp_path / "elsewhere")
    assert shell("report", run)[0] == 0
    assert "data:image/jpeg" in (run / "report.html").read_text()
    code, _, err = shell("evaluate", run, "../data/test")
    assert code == 0, err
    told = pq.read_table(next(Path("runs").glob("*evaluate*/predictions.parquet")))["path"].to_pylist()
    assert told and all(Path(path).is_absolute() for path in told)
    pytest.importorskip("onnxruntime")
    assert shell("export", run, "--onnx", "m.onnx")[0] == 0


def test_print_plan_trains_nothing(pictures: Path, shell: Shell, tmp_path: Path) -> None:
    code, out, _ = shell("fit", pictures, *FAST, "--print-plan", "--last", "2")
    assert code == 0
    assert "net.stage4" in out
    assert not (tmp_path / "runs").exists()


def test_a_table_with_groups_and_splits(pictures: Path, shell: Shell, tmp_path: Path) -> None:
    with (tmp_path / "labels.csv").open("w", newline="") as stream:
        writer = csv.writer(stream)
        writer.writerow(["file", "kind", "who", "part"])
        for index, path in enumerate(sorted(pictures.rglob("*.png"))):
            part = "test" if "test" in path.parts else "train"
            writer.writerow([path, path.parent.name, f"{part}{index // 2}", part])
    options = ["--image", "file", "--label", "kind", "--group", "who", "--split", "part", "--strategies", "probe"]
    code, out, err = shell("fit", "--table", "labels.csv", *options, *FAST, "--json")
    assert code == 0, err
    assert json.loads(out)["n_test"] == 16


def test_cross_validation_where_pictures_are_few(pictures: Path, shell: Shell) -> None:
    code, out, err = shell("fit", pictures / "train", *FAST, "--strategies", "probe", "--json")
    assert code == 0, err
    report = json.loads(out)
    assert report["n_test"] == 32
    assert "cross-validation" in report["evaluated_on"]


def test_predict_names_pictures_and_reports_bad_ones(run: Path, pictures: Path, shell: Shell, tmp_path: Path) -> None:
    (tmp_path / "bad.jpg").write_bytes(b"no picture")
    code, out, err = shell("predict", run, pictures / "test" / "blobs", tmp_path / "bad.jpg", "--json", "--top", 2)
    assert code == 0, err
    answers = json.loads(out)
    assert len(answers) == 9
    assert sum(a["error"] is not None for a in answers) == 1
    good = [a for a in answers if a["error"] is None]
    assert all(len(a["top"]) == 2 for a in good)
    assert all(a["label"] in {"stripes", "blobs"} for a in good)


def test_predict_abstains_below_the_threshold(run: Path, pictures: Path, shell: Shell) -> None:
    code, out, _ = shell("predict", run, pictures / "test", "--json", "--threshold", "1.0")
    assert code == 0
    assert any(a["label"] is None for a in json.loads(out))


def test_predict_fails_when_nothing_could_be_read(run: Path, shell: Shell, tmp_path: Path) -> None:
    (tmp_path / "bad.jpg").write_bytes(b"")
    code, _, err = shell("predict", run, tmp_path / "bad.jpg")
    assert code == 1
    assert "bad.jpg" in err


def test_evaluate_agrees_with_the_run(run: Path, pictures: Path, shell: Shell) -> None:
    code, out, err = shell("evaluate", run, pictures / "test", "--json")
    assert code == 0, err
    report = json.loads(out)
    assert report["value"] == pytest.approx(read_report(run).value)
    assert report["intervals"]["auc"]["low"] is not None


def test_evaluate_warns_of_pictures_that_the_model_learned_from(run: Path, pictures: Path, shell: Shell) -> None:
    code, out, _ = shell("evaluate", run, pictures / "train", "--json")
    assert code == 0
    assert "too good" in json.loads(out)["alarms"][0]


def test_evaluate_refuses_unknown_classes(run: Path, pictures: Path, shell: Shell, tmp_path: Path) -> None:
    for name in ("stripes", "crosses"):
        (tmp_path / "held" / name).mkdir(parents=True)
        noise = np.random.default_rng(ord(name[0])).integers(0, 255, (40, 40, 3), dtype=np.uint8)
        Image.fromarray(noise).save(tmp_path / "held" / name / "a.png")
    code, _, err = shell("evaluate", run, tmp_path / "held")
    assert code == 1
    assert "crosses" in err


def test_export_is_checked_and_does_not_overwrite(run: Path, pictures: Path, shell: Shell, tmp_path: Path) -> None:
    pytest.importorskip("onnxruntime")
    code, out, err = shell("export", run, "--onnx", tmp_path / "m.onnx", "--json")
    assert code == 0, err
    assert json.loads(out)["agreement"] >= 0.995
    size = (tmp_path / "m.onnx").stat().st_size
    code, out, _ = shell("export", run, "--onnx", tmp_path / "m.onnx", "--force", "--pictures", pictures / "test")
    assert code == 0
    assert "same answer on 100.0% of 16 pictures" in out
    code, _, err = shell("export", run, "--onnx", tmp_path / "m.onnx")
    assert code == 2
    assert "--force" in err
    assert (tmp_path / "m.onnx").stat().st_size == size


def test_report_is_drawn_again(run: Path, shell: Shell) -> None:
    (run / "report.html").unlink()
    code, out, _ = shell("report", run)
    assert code == 0
    assert (run / "report.html").is_file()
    assert "Report:" in out


def test_models_and_doctor(shell: Shell) -> None:
    code, out, _ = shell("models", "scion", "--json")
    assert code == 0
    assert json.loads(out)[0] == {"name": "scion", "family": "embedded", "weights": "in the package"}
    code, out, _ = shell("doctor", "--json")
    assert code == 0
    assert {"name", "state", "text"} == set(json.loads(out)[0])


@pytest.mark.parametrize(
    ("arguments", "code", "words"),
    [
        (["fit", "nowhere"], 1, "nowhere"),
        (["fit"], 2, "--table"),
        (["fit", "x", "--budget", "soon"], 2, "90s"),
        (["fit", "x", "--metric", "acuracy"], 2, "accuracy"),
        (["fit", "x", "--epochs", "-1"], 2, "epochs"),
        (["fit", "x", "--strategies", "scratch"], 2, "control"),
        (["predict", "runs/LAST", "a.jpg"], 1, "regraft fit"),
        (["bogus"], 2, "bogus"),
    ],
)
def test_mistakes_are_sentences(shell: Shell, arguments: list[str], code: int, words: str) -> None:
    found, out, err = shell(*arguments)
    assert found == code, err
    assert words in err
    assert "Traceback" not in err
    assert not out
    assert not Path("runs").exists()  # a mistake leaves nothing behind


def test_an_unknown_backbone_gets_the_nearest_name(pictures: Path, shell: Shell) -> None:
    code, _, err = shell("fit", pictures, "--backbone", "resnet81")
    assert code == 2
    assert "resnet18" in err.replace("\n", "")
