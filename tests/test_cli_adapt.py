"""`regraft adapt` and `regraft distance`, as a person would use them, on small pictures and digits."""

from __future__ import annotations

import gzip
import json
import struct
from pathlib import Path

import numpy as np
import pytest

from conftest import Shell
from two_domains import picture_domains

METHODS = ("--method", "standardise,AdaBN,MCC,SHOT")


@pytest.fixture(scope="module")
def domains(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """The first two of `picture_domains`."""
    day, night, _ = picture_domains(tmp_path_factory.mktemp("domains"))
    return day, night


@pytest.fixture(scope="module")
def digits(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """Two idx folders with three classes: bars at three places, thin in one domain and thick in the other."""
    root = tmp_path_factory.mktemp("idx")
    rng = np.random.default_rng(0)
    for name, thick in (("thin", 2), ("thick", 5)):
        (root / name).mkdir()
        for part, n in (("train", 90), ("t10k", 30)):
            labels = (np.arange(n) % 3).astype(np.uint8)
            pixels = rng.integers(0, 60, (n, 28, 28)).astype(np.uint8)
            for i, label in enumerate(labels):
                start = 3 + 9 * int(label) + int(rng.integers(0, 2))
                pixels[i, 3:25, start : start + thick] = 220
            for kind, array in (("images-idx3", pixels), ("labels-idx1", labels)):
                head = bytes([0, 0, 8, array.ndim]) + struct.pack(f">{array.ndim}I", *array.shape)
                path = root / name / f"{part}-{kind}-ubyte.gz"
                path.write_bytes(gzip.compress(head + array.tobytes()))
    return root / "thin", root / "thick"


def test_adapt_says_what_it_kept_and_why(domains: tuple[Path, Path], shell: Shell, tmp_path: Path) -> None:
    day, night = domains
    code, out, err = shell("adapt", day, night, *METHODS, "--backbone", "scion:size=64", "--oracle", night, "--json")
    assert code == 0, err
    report = json.loads(out)
    names = [c["method"] for c in report["candidates"]]
    assert names == ["source-only probe", "source-only", "standardise", "AdaBN", "MCC", "SHOT"]
    assert report["kept"] in {"adapted", "source_only"} and report["why"] and report["next_steps"]
    for candidate in report["candidates"]:
        assert candidate["label_free_score"] is not None and candidate["oracle"] is not None
        assert candidate["seconds"] >= 0
    assert set(report["distance"]) == {"before", "after"}
    assert report["source_only"]["oracle"] == next(
        c["oracle"] for c in report["candidates"] if c["method"] == "source-only"
    )
    run = tmp_path / "runs" / "LAST"
    page = (run / "report.html").read_text(encoding="utf-8")
    for part in (
        "Which validator said what",
        "How far apart the domains are",
        "Both domains on one map",
        "by the oracle",
    ):
        assert part in page
    assert not (run / "work").exists() and (run / "DONE").is_file()

    code, out, err = shell("predict", run, night, "--json")
    assert code == 0, err
    answers = json.loads(out)
    right = np.mean([Path(a["path"]).parent.name == a["label"] for a in answers])
    assert right == pytest.approx(report["value"], abs=0.03)  # the handed-over model is the one that was measured
    code, out, err = shell("export", run, "--onnx", tmp_path / "adapted.onnx", "--json")
    assert code == 0 and json.loads(out)["agreement"] >= 0.995, err
    code, out, err = shell("evaluate", run, night, "--json")
    assert code == 0 and json.loads(out)["value"] == pytest.approx(report["value"], abs=0.03), err


def test_the_oracle_changes_nothing(domains: tuple[Path, Path], shell: Shell, tmp_path: Path) -> None:
    day, night = domains
    common = ("--method", "AdaBN,MCC", "--backbone", "scion:size=64", "--json")
    found = []
    for extra in ((), ("--oracle", night)):
        code, out, err = shell("adapt", day, night, *common, *extra)
        assert code == 0, err
        found.append(json.loads(out))
    assert found[0]["chosen"] == found[1]["chosen"] and found[0]["why"] == found[1]["why"]
    scores = [[c["label_free_score"] for c in report["candidates"]] for report in found]
    assert scores[0] == scores[1]
    assert found[0]["value"] is None and all(c["oracle"] is None for c in found[0]["candidates"])


def test_digits_in_idx_form_train_the_whole_network(digits: tuple[Path, Path], shell: Shell) -> None:
    thin, thick = digits
    code, out, err = shell(
        "adapt", thin, thick, "--backbone", "lenet", "--method", "AdaBN,DANN,SHOT", "--epochs", "3", "--no-flip",
        "--oracle", thick, "--json",
    )  # fmt: skip
    assert code == 0, err
    report = json.loads(out)
    assert [c["method"] for c in report["candidates"]] == ["source-only", "AdaBN", "DANN", "SHOT"]
    assert report["n_target"] == 90 and report["n_test"] == 30


def test_source_free_adapts_a_finished_run(domains: tuple[Path, Path], shell: Shell, tmp_path: Path) -> None:
    day, night = domains
    assert shell("fit", day, "--backbone", "scion:size=64", "--strategies", "probe", "--runs", "first")[0] == 0
    code, out, err = shell("adapt", "--source-free", "first/LAST", night, "--epochs", "1", "--json")
    assert code == 0, err
    report = json.loads(out)
    assert [c["method"] for c in report["candidates"]][:2] == ["source-only", "AdaBN"]
    code, _, err = shell("adapt", "--source-free", "first/LAST", night, "--method", "DANN")
    assert code == 2 and "Without source pictures" in err


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("--method", "DAN N"), "Did you mean 'DANN'"),
        (("--validator", "snd"), "Did you mean 'SND'"),
        (("--tune", "all"), "--tune"),
    ],
)
def test_mistakes_are_usage_errors(
    arguments: tuple[str, ...], said: str, domains: tuple[Path, Path], shell: Shell
) -> None:
    code, _, err = shell("adapt", *domains, *arguments)
    assert code == 2 and said in " ".join(err.split())


def test_no_target_is_a_usage_error(shell: Shell, domains: tuple[Path, Path]) -> None:
    code, _, err = shell("adapt", domains[0])
    assert code == 2 and "needs the source's folder" in " ".join(err.split())


def test_distance_of_two_folders(domains: tuple[Path, Path], shell: Shell) -> None:
    day, night = domains
    code, out, err = shell("distance", day, night, "--backbone", "scion:size=64", "--json")
    assert code == 0, err
    apart = json.loads(out)
    code, out, _ = shell("distance", day, day, "--backbone", "scion:size=64", "--json")
    same = json.loads(out)
    assert apart["measures"]["a_distance"]["value"] > 1.2 > 0.3 > same["measures"]["a_distance"]["value"]
    assert apart["sentence"] != same["sentence"]
