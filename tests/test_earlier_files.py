"""Files of earlier versions stay readable: reports are read and drawn again, artifacts give the answers that they gave.

`fixtures/earlier/` holds what version 0.1 wrote before jobs and kinds owned their sections: small runs on the pictures
of `tiny_domains.py` and `discs.py` with the backbone of `speck.py`. Nothing there is ever made anew.
"""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pytest

import speck  # noqa: F401  (registers the backbone that the artifacts name)
from regraft.deploy.predictor import Predictor
from regraft.recipes.reports import draw, read_report, schema_of
from regraft.report.frame import REPORT_FORMAT
from regraft.report.sections import jobs, sections

EARLIER = Path(__file__).parent / "fixtures" / "earlier"
RUNS = sorted(path.parent for path in EARLIER.glob("*/report.json"))
ARTIFACTS = sorted(path.parent for path in EARLIER.glob("*/answers.json"))
#: What the page of each run must say, beside its verdict.
SAYS = {
    "adapt-classes": ("Source-only or adapted", "Which validator said what", "Per class, by the oracle"),
    "adapt-numbers": ("Source-only or adapted", "Oracle, not used"),
    "adapt-open": ("Known and unknown, by the oracle", "Called unknown"),
    "adapt-partial": ("How often each class seems to occur", "seems present"),
    "adapt-scion": ("Source-only or adapted", "How far apart the domains are"),
    "evaluate-classes": ("Class by class", "Can its confidence be trusted?"),
    "evaluate-numbers": ("How far its numbers are off",),
    "fit-classes": ("Transfer gain", "What was tried", "Class by class", "Can its confidence be trusted?"),
    "fit-numbers": ("Transfer gain", "How far its numbers are off", "Worst mistakes", "Residuals"),
    "fit-tested": ("Transfer gain", "The state of the data"),
    "generalise": ("Each domain left out", "The methods"),
}


def named(path: Path) -> str:
    return path.name


def test_every_job_and_kind_has_an_earlier_file() -> None:
    found = {(report.recipe, report.kind) for report in map(read_report, RUNS)}
    assert {recipe for recipe, _ in found} >= {"fit", "evaluate", "adapt"}
    assert {kind for _, kind in found} == {"classification", "regression"} <= set(sections)
    assert len(ARTIFACTS) >= 4 and {recipe for recipe, _ in found} <= set(jobs)


@pytest.mark.parametrize("run", RUNS, ids=named)
def test_an_earlier_report_is_read_whole(run: Path) -> None:
    was = json.loads((run / "report.json").read_text(encoding="utf-8"))
    report = read_report(run)
    assert was["format"] == "regraft.report/1" and report.format == REPORT_FORMAT
    assert report.kind == ("regression" if "numbers" in run.name else "classification")
    now = report.model_dump(mode="json")
    assert now["details"] == {}  # all that version 0.1 wrote has a field of its own
    for key, value in {**was, **was["details"]}.items():
        if key in ("format", "candidates", "details") or value in (None, "", [], {}):
            continue
        assert now[key] == value, key
    for old, new in zip(was["candidates"], now["candidates"], strict=True):
        assert {key: value for key, value in old.items() if value is not None}.items() <= new.items()
    controls = [row.name for row in report.candidates if row.control]
    assert controls == {"fit": ["scratch"], "adapt": [(was["source_only"] or {}).get("name")]}.get(report.recipe, [])


@pytest.mark.parametrize("run", RUNS, ids=named)
def test_an_earlier_report_is_drawn_again(run: Path, tmp_path: Path) -> None:
    copy = shutil.copytree(run, tmp_path / "run")
    page = draw(copy).read_text(encoding="utf-8")
    for words in SAYS[run.name]:
        assert words in page
    assert json.loads((copy / "report.json").read_text()) == json.loads((run / "report.json").read_text())


@pytest.mark.parametrize("run", ARTIFACTS, ids=named)
def test_an_earlier_artifact_gives_the_answers_that_it_gave(run: Path) -> None:
    pictures = sorted((EARLIER / "pictures").glob("*.png"))
    answers = Predictor.load(run / "artifact", device="cpu").answers(list(pictures))
    np.testing.assert_allclose(answers, json.loads((run / "answers.json").read_text()), rtol=1e-4, atol=1e-5)


def test_strange_keys_of_an_earlier_report_stay_under_details(tmp_path: Path) -> None:
    value = json.loads((EARLIER / "fit-classes" / "report.json").read_text())
    value["candidates"][0]["colour"] = "red"
    value["details"]["mine"] = [1, 2]
    value["held_out"] = [{"name": "a field of another job that is not empty"}]
    (tmp_path / "report.json").write_text(json.dumps(value))
    details = read_report(tmp_path).details
    name = value["candidates"][0]["name"]
    assert details == {f"candidates.{name}.colour": "red", "mine": [1, 2], "held_out": value["held_out"]}
    assert "held_out" not in schema_of("fit", "classification").model_fields
