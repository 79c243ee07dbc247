"""`regraft generalise` and several sources of `regraft adapt`, as a person would use them, on small pictures."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from conftest import Shell
from regraft.adaptation.generalisation.table import HeldOut, Table
from regraft.recipes.generalise.options import GeneraliseConfig
from regraft.recipes.generalise.outcome import verdict
from two_domains import picture_domains

SMALL = ("--backbone", "scion:size=64")


@pytest.fixture(scope="module")
def three(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path, Path]:
    return picture_domains(tmp_path_factory.mktemp("domains"), per_class=12)


def test_generalise_leaves_each_domain_out_and_hands_a_model_over(
    three: tuple[Path, Path, Path], shell: Shell, tmp_path: Path
) -> None:
    code, out, err = shell("generalise", *three, *SMALL, "--method", "IRM,SWAD", "--steps", "30", "--json")
    assert code == 0, err
    report = json.loads(out)
    assert report["recipe"] == "generalise" and [c["name"] for c in report["candidates"]] == ["ERM", "IRM", "SWAD"]
    assert [row["name"] for row in report["held_out"]] == ["day", "night", "dusk"]
    for row in report["held_out"]:
        cells = {cell["name"]: cell["value"] for cell in row["methods"]}
        assert row["n"] == 24 and row["value"] == cells[row["chosen"]]
        assert row["best_value"] == max(cells.values()) >= row["value"]
    assert report["value"] == pytest.approx(np.mean([row["value"] for row in report["held_out"]]))
    assert report["hindsight"] == pytest.approx(np.mean([row["best_value"] for row in report["held_out"]]))
    erm = np.mean([row["methods"][0]["value"] for row in report["held_out"]])
    assert report["erm_gain"]["value"] == pytest.approx(report["value"] - erm)
    run = tmp_path / "runs" / "LAST"
    page = (run / "report.html").read_text(encoding="utf-8")
    for part in ("Each domain left out", "Gain over ERM", "Best in hindsight", "Learning curves"):
        assert part in page
    assert not (run / "work").exists() and (run / "DONE").is_file()

    code, out, err = shell("predict", run, three[0], "--json")
    assert code == 0 and len(json.loads(out)) == 24, err
    code, out, err = shell("evaluate", run, three[0], "--json")
    assert code == 0, err
    assert "24 of these pictures were in the model's own training" in json.loads(out)["alarms"][0]
    code, out, err = shell("export", run, "--onnx", tmp_path / "general.onnx", "--json")
    assert code == 0 and json.loads(out)["agreement"] >= 0.995, err


def test_the_held_out_domain_has_no_part_in_its_own_row(
    three: tuple[Path, Path, Path], shell: Shell, tmp_path: Path
) -> None:
    """With other labels in one domain the others' choices and models for it stay; only its figures change."""
    turned = tmp_path / "turned" / "dusk"
    for name, other in (("blobs", "stripes"), ("stripes", "blobs")):
        (turned / other).mkdir(parents=True)
        for path in (three[2] / name).iterdir():
            (turned / other / path.name).write_bytes(path.read_bytes())
    rows = []
    for last in (three[2], turned):
        code, out, err = shell(
            "generalise", *three[:2], last, *SMALL, "--method", "GroupDRO", "--steps", "20", "--json",
            "--choose", "leave-one-out",
        )  # fmt: skip
        assert code == 0, err
        rows.append(json.loads(out)["held_out"][2])
    assert rows[0]["chosen"] == rows[1]["chosen"]
    for one, other in zip(rows[0]["methods"], rows[1]["methods"], strict=True):
        assert one["value"] == pytest.approx(1 - other["value"])


def held(right: dict[str, list[bool]], chosen: str) -> HeldOut:
    """Answers of two classes that are right where told."""
    labels = np.arange(len(next(iter(right.values())))) % 2
    logits = {m: np.eye(2)[np.where(r, labels, 1 - labels)] for m, r in right.items()}
    return HeldOut(0, labels, logits, dict.fromkeys(right, 1.0), chosen, 1.0)


@pytest.mark.parametrize(
    ("chosen", "better", "said", "helped"),
    [
        ("IRM", 40, "Better than ERM", True),
        ("ERM", 40, "Beating ERM takes hindsight", None),
        ("IRM", -40, "Worse than ERM", False),
        ("IRM", 2, "Nothing beats ERM credibly", None),
        ("ERM", 0, "a gain of 2 points or more is ruled out", False),
    ],
)
def test_the_verdict_says_what_the_paired_interval_allows(
    chosen: str, better: int, said: str, helped: bool | None
) -> None:
    few, many = [i < 60 for i in range(120)], [i < 60 + abs(better) for i in range(120)]
    right = {"ERM": few, "IRM": many} if better >= 0 else {"ERM": many, "IRM": few}
    table = Table((held(right, chosen), held(right, chosen)), ("ERM", "IRM"), chosen, 500, 0)
    sentence, found = verdict(table)
    assert said in sentence and found is helped
    assert "it takes ERM all the same" not in sentence
    if found:
        assert "it takes ERM all the same" in verdict(replace(table, final="ERM"))[0]
    assert table.hindsight == pytest.approx(max(np.mean(few), np.mean(many)))


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("--tune", "network"), "--tune network is not there yet"),
        (("--method", "IRMM"), "Did you mean 'IRM'"),
        (("--choose", "oracle"), "--choose"),
    ],
)
def test_mistakes_are_usage_errors(
    arguments: tuple[str, ...], said: str, three: tuple[Path, Path, Path], shell: Shell
) -> None:
    code, _, err = shell("generalise", *three, *arguments)
    assert code == 2 and said in " ".join(err.split())


def test_too_few_domains_are_usage_errors(three: tuple[Path, Path, Path], shell: Shell) -> None:
    code, _, err = shell("generalise", three[0])
    assert code == 2 and "two or more folders" in " ".join(err.split())
    code, _, err = shell("generalise", *three[:2], "--choose", "leave-one-out")
    assert code == 2 and "three folders or more" in " ".join(err.split())
    code, _, err = shell("generalise", *three[:2], "--backbone", "lenet")
    assert code == 2 and "without pretrained weights" in " ".join(err.split())


def test_erm_is_always_there() -> None:
    assert GeneraliseConfig.checked(roots=("a", "b"), methods=("SWAD",)).names == ("ERM", "SWAD")


def test_adapt_takes_several_sources(three: tuple[Path, Path, Path], shell: Shell, tmp_path: Path) -> None:
    day, night, dusk = three
    code, out, err = shell(
        "adapt",
        day,
        dusk,
        night,
        *SMALL,
        "--method",
        "AdaBN,M3SDA,source-weighting",
        "--validator",
        "infomax,SND",
        "--oracle",
        night,
        "--json",
    )
    assert code == 0, err
    report = json.loads(out)
    assert [s["name"] for s in report["sources"]] == ["day", "dusk"] and [s["n"] for s in report["sources"]] == [24, 24]
    assert sum(s["weight"] for s in report["sources"]) == pytest.approx(1)
    assert {"AdaBN", "M3SDA", "source-weighting"} < {c["method"] for c in report["candidates"]}
    page = (tmp_path / "runs" / "LAST" / "report.html").read_text(encoding="utf-8")
    assert "The sources" in page and "dusk" in page
    code, _, err = shell("adapt", day, night, *SMALL, "--method", "source-weighting")
    assert code == 2 and "two or more folders" in " ".join(err.split())
