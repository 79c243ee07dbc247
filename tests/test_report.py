"""The report page: complete, self-contained, and safe with whatever files and classes are called."""

from __future__ import annotations

import json
import re
from html.parser import HTMLParser
from inspect import isclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image
from pydantic import BaseModel
from scipy.special import softmax

from regraft.core.errors import ArtifactError
from regraft.measure import abstention, bootstrap, paired_gain, reliability, summary, verdict
from regraft.recipes.reports import draw as render
from regraft.recipes.reports import read_report, schema_of, write_report
from regraft.report import frame
from regraft.report.environment import environment
from regraft.report.frame import REPORT_FORMAT
from regraft.report.schema import checked
from regraft.report.sections import AREAS, JobReport, Page, Section, jobs, sections
from regraft.tasks.classification import figures

HOSTILE = "<script>alert('x')</script>"
CLASSES = [HOSTILE, '$x^2 & "co" {{ 7*7 }}', "bees"]
OPTIONAL = (
    "metrics.jsonl",
    "predictions.parquet",
    "embedding.parquet",
    "plan.txt",
    "env.json",
    "config.yaml",
)


@pytest.fixture(scope="module")
def full_run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A finished run of 60 small pictures with every optional file; one picture is missing, one is not a
    picture."""
    root = tmp_path_factory.mktemp("pictures")
    run = tmp_path_factory.mktemp("run")
    rng = np.random.default_rng(0)
    y = np.arange(60) % 3
    names = [f"<img src=x onerror=alert({i})>.jpg" if i == 4 else f"{i}.jpg" for i in range(60)]
    for i, name in enumerate(names[:-1]):
        Image.fromarray(rng.integers(0, 255, (40, 52, 3), dtype=np.uint8)).save(root / name)
        if i == 7:
            (root / name).write_bytes(b"not a picture")
    logits = rng.normal(size=(60, 3)) + 2 * np.eye(3)[y]
    p, q = softmax(logits, axis=1), softmax(rng.normal(size=(60, 3)), axis=1)
    chosen, control, gain = (
        bootstrap("accuracy", p, y),
        bootstrap("accuracy", q, y),
        paired_gain("accuracy", p, q, y),
    )
    said = verdict("accuracy", chosen, control, gain)
    write_report(
        run,
        {
            "data": "photos",
            "data_root": root,
            "backbone": "embedded",
            "created": "2026-01-02T03:04:05+00:00",
            "value": np.float64(chosen.value),
            "interval": chosen.bounds(),
            "candidates": [
                {
                    "name": n,
                    "value": i.value,
                    "interval": i.bounds(),
                    "validation": v,
                    "seconds": 3.0,
                    "chosen": c,
                }
                | {"trained_parameters": 1234567}
                for n, i, v, c in (("finetune", chosen, 0.9, True), ("scratch", control, float("nan"), False))
            ],
            "chosen": "finetune",
            "transfer_gain": {"value": gain.value, "interval": gain.bounds()},
            "verdict": said.sentence,
            "helped": said.helped,
            "alarms": [f"Class {HOSTILE!r} collapsed."],
            "first_answer_s": 4.2,
            "first_answer": {"value": 0.8, "how": "probe"},
            "total_s": 75,
            "n_train": 30,
            "n_val": 9,
            "n_test": 60,
            "classes": CLASSES,
            "summary": summary(p, y, CLASSES),
            "validation_summary": summary(p, y, CLASSES),
            "reliability_before": reliability(p, y),
            "reliability_after": reliability(p, y),
            "temperature": 1.4,
            "abstention": abstention(p, y),
            "audit": {
                "n_files": 62,
                "n_usable": 60,
                "seconds": 0.2,
                "findings": [
                    {
                        "kind": "truncated",
                        "severity": "error",
                        "count": 2,
                        "sentence": "2 files are cut short.",
                    }
                    | {"examples": [HOSTILE + ".jpg"], "left_out": True}
                ],
            },
            "reproduce": "regraft fit photos/",
            "seed": 7,
            "uncalibrated_ece": float("inf"),
        },
    )
    pq.write_table(
        pa.table(
            {
                "path": names,
                "split": ["test"] * 60,
                "round": [0] * 60,
                "candidate": ["finetune"] * 60,
                "label": y.tolist(),
                "probabilities": p.tolist(),
            }
        ),
        run / "predictions.parquet",
    )
    pq.write_table(
        pa.table(
            {
                "path": names,
                "split": ["test"] * 60,
                "label": y.tolist(),
                "predicted": p.argmax(1).tolist(),
                "x": rng.normal(size=60),
                "y": rng.normal(size=60),
            }
        ),
        run / "embedding.parquet",
    )
    lines = [
        {"candidate": "finetune", "round": 0, "epoch": e, "step": 5 * e, "train_loss": 1 / (e + 1)} for e in range(9)
    ]
    lines += [{"candidate": "finetune", "round": 0, "epoch": e, "val_loss": 0.5, "val_metric": 0.8} for e in range(9)]
    (run / "metrics.jsonl").write_text("\n".join(map(json.dumps, lines)) + '\n{"cut sho')
    (run / "plan.txt").write_text("group  rate\nhead <b>  1 ×")
    (run / "env.json").write_text(json.dumps({"versions": {"torch": "2.15"}, "device": "cpu"}))
    (run / "config.yaml").write_text("train:\n  lr: 0.001\n")
    return run


@pytest.fixture(scope="module")
def text(full_run: Path) -> str:
    """The page of that run."""
    return render(full_run).read_text(encoding="utf-8")


class Drawn(HTMLParser):
    """Collects what the tests ask about."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.words: list[str] = []
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))

    def handle_data(self, data: str) -> None:
        self.words.append(data)

    @property
    def text(self) -> str:
        return " ".join(self.words)


def test_page_has_every_part(text: str) -> None:
    page = Drawn(text)
    for words in (
        "Transfer helped",
        "What was tried",
        "Learning curves",
        "Class by class",
        "Can its confidence be trusted?",
        "How the model sees the data",
        "Worst mistakes",
        "The state of the data",
        "Who trained",
        "How to get this again",
        "versions.torch",
        "train.lr",
        "regraft fit photos/",
    ):
        assert words in page.text
    assert len([1 for tag, _ in page.tags if tag == "svg"]) >= 6
    pictures = [attrs for tag, attrs in page.tags if tag == "img" and "src" in attrs]
    assert pictures
    assert all(str(attrs["src"]).startswith("data:image/jpeg;base64,") and attrs["alt"] for attrs in pictures)
    assert all("scope" in attrs for tag, attrs in page.tags if tag == "th")
    assert all("aria-label" in attrs for tag, attrs in page.tags if tag == "svg")
    assert len([1 for tag, attrs in page.tags if tag == "circle" and "data-i" in attrs]) == 60
    assert len(text) < 6_000_000


def test_page_loads_nothing_from_elsewhere(text: str) -> None:
    assert not re.search(r"https?:", text)
    assert not re.search(r"@import|url\((?!#)", text)
    page = Drawn(text)
    assert not [tag for tag, _ in page.tags if tag in ("link", "iframe", "object", "embed", "base")]
    for _, attrs in page.tags:
        for name in ("src", "href", "srcset", "poster"):
            assert str(attrs.get(name, "#")).startswith(("#", "data:image/jpeg"))


def test_hostile_names_stay_text(text: str) -> None:
    page = Drawn(text)
    assert "<script>alert" not in text
    assert "<img src=x" not in text
    assert len([1 for tag, _ in page.tags if tag == "script"]) == 2  # the data of the map and its code
    assert not [attrs for _, attrs in page.tags if any(name.startswith("on") for name in attrs)]
    assert HOSTILE in page.text
    assert "{{ 7*7 }}" in page.text
    data = re.search(r'<script type="application/json" id="map-data">(.*?)</script>', text, re.S)
    assert data
    assert json.loads(data.group(1))["facts"][0]["true"] == HOSTILE


@pytest.mark.parametrize("missing", ["all", "predictions.parquet", "embedding.parquet"])
def test_page_goes_without_optional_files(full_run: Path, tmp_path: Path, missing: str) -> None:
    for file in full_run.iterdir():
        gone = file.name in OPTIONAL if missing == "all" else file.name == missing
        if not gone and file.name != "report.html":
            (tmp_path / file.name).write_bytes(file.read_bytes())
    text = render(tmp_path).read_text(encoding="utf-8")
    assert "Transfer helped" in text
    for name, heading in (
        ("metrics.jsonl", "Learning curves"),
        ("plan.txt", "Who trained"),
        ("embedding.parquet", 'id="map"'),
    ):
        assert (heading in text) == (missing not in (name, "all"))


def test_page_of_the_least_report(tmp_path: Path) -> None:
    write_report(tmp_path, {"metric": "auc", "value": 0.9})
    assert "0.900" in render(tmp_path).read_text(encoding="utf-8")


def test_report_json_has_no_nan(full_run: Path) -> None:
    value = json.loads((full_run / "report.json").read_text(), parse_constant=lambda name: pytest.fail(name))
    assert value["format"] == REPORT_FORMAT
    assert value["uncalibrated_ece"] is None
    assert value["candidates"][1]["validation"] is None
    assert {
        "metric",
        "value",
        "interval",
        "chosen",
        "transfer_gain",
        "verdict",
        "first_answer_s",
        "audit",
    } <= set(value)
    assert read_report(full_run).candidates[0].chosen


@pytest.mark.parametrize("recipe", sorted(jobs))
@pytest.mark.parametrize("kind", sorted(sections))
def test_every_job_and_kind_has_a_schema_whose_fields_are_described(recipe: str, kind: str) -> None:
    schema = schema_of(recipe, kind)
    row = schema.model_fields["candidates"].annotation.__args__[0]
    models = [schema, row, *(one for one in vars(frame).values() if isclass(one) and issubclass(one, BaseModel))]
    fields = {f"{m.__name__}.{name}": field for m in models for name, field in m.model_fields.items()}
    assert [name for name, field in fields.items() if not (field.description or "").strip()] == []
    assert schema.model_validate({}).candidates == []  # every field of a section has a default
    for section in (*jobs.get(recipe).sections, sections.get(kind)):
        assert set(section.fields.model_fields) <= set(schema.model_fields)
        assert set(section.candidate.model_fields) <= set(row.model_fields)


@pytest.mark.parametrize(
    "section", [s for r in jobs for s in jobs.get(r).sections if s.owner] + [sections.get(k) for k in sections]
)
def test_sections_draw_into_areas_that_there_are(section: Section) -> None:
    blocks = environment([section.owner]).get_template(f"{section.owner}:{section.template}").blocks
    assert blocks and set(blocks) <= set(AREAS)


@pytest.mark.parametrize(
    ("report", "says"),
    [
        ({"transfer_gian": None}, "transfer_gian is no field of FitClassificationReport. Did you mean 'transfer_gain'"),
        ({"recipe": "adapt", "transfer_gain": None}, "transfer_gain is no field of AdaptClassificationReport"),
        ({"kind": "regression", "temperature": 1.0}, "temperature is no field of FitRegressionReport"),
        ({"candidates": [{"name": "a", "valu": 1}]}, "candidates.0.valu .* Did you mean 'value'"),
        ({"audit": {"findings": [{"kind": "a", "sentense": ""}]}}, "Did you mean 'sentence'"),
        ({"seed": "seven"}, "seed: Input should be a valid integer"),
    ],
)
def test_a_strange_key_is_an_error_with_the_nearest_match(report: dict[str, Any], says: str, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=says):
        write_report(tmp_path, report)
    assert not (tmp_path / "report.json").exists()
    (tmp_path / "report.json").write_text(json.dumps({"format": REPORT_FORMAT, **report}))
    with pytest.raises(ArtifactError, match=says):
        read_report(tmp_path)


def test_a_job_of_another_package_brings_its_section(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its fields, its rows and its blocks; what it shows of a sample is what the modality shows."""

    class Fields(frame.Part):
        reached: float | None = None

    class Rows(frame.Part):
        shots: int = 0

    package = tmp_path / "shots_of_mine"
    package.mkdir()
    (package / "__init__.py").write_text("")
    template = "{% block job %}<h2>Reached {{ reached | percent }} of {{ x }}</h2>{% endblock %}"
    (package / "section.html").write_text(template)
    monkeypatch.syspath_prepend(str(tmp_path))
    section = Section("shots", Fields, Rows, "shots_of_mine", context=lambda page: {"reached": 0.5, "x": page.run.name})
    monkeypatch.setitem(jobs._items, "shots", JobReport("shots", (section,)))
    run = tmp_path / "<run>"
    run.mkdir()
    write_report(run, {"recipe": "shots", "reached": 0.5, "candidates": [{"name": "a", "shots": 3}]})
    assert "<h2>Reached 50.0\N{NO-BREAK SPACE}% of &lt;run&gt;</h2>" in render(run).read_text(encoding="utf-8")
    with pytest.raises(ValueError, match=r"shots2 .* Did you mean 'shots'"):
        checked({"recipe": "shots", "candidates": [{"name": "a", "shots2": 3}]})
    monkeypatch.setitem(jobs._items, "seeds", JobReport("seeds", (Section("seeds", Twice),)))
    with pytest.raises(ValueError, match="'seed' belongs to both Report and Twice"):
        schema_of("seeds", "classification")


class Twice(frame.Part):
    seed: int = 0


def test_samples_are_found_beside_the_data_or_the_run(tmp_path: Path) -> None:
    page = Page(tmp_path, checked({"data_root": str(tmp_path / "data")}))
    assert page.locate("a/b.png") == tmp_path / "data" / "a" / "b.png"
    assert Page(tmp_path, checked({})).locate("b.png") == tmp_path / "b.png"
    assert page.locate(str(tmp_path / "c.png")) == tmp_path / "c.png"


def test_wrong_reports_are_sentences(tmp_path: Path) -> None:
    with pytest.raises(ArtifactError, match=r"no report\.json"):
        render(tmp_path)
    (tmp_path / "report.json").write_text('{"format": "regraft.report/9"}')
    with pytest.raises(ArtifactError, match=r"regraft\.report/9"):
        render(tmp_path)
    write_report(tmp_path, {"metric": "nonsense"})
    with pytest.raises(ArtifactError, match="nonsense"):
        render(tmp_path)


@pytest.mark.parametrize("k", [2, 12, 60])
def test_confusion_figure_of_any_size(k: int) -> None:
    rng = np.random.default_rng(0)
    matrix = rng.integers(0, 2, (k, k)) + 9 * np.eye(k, dtype=int)
    svg = figures.confusion(matrix.tolist(), [f"$class_{i}<b>" for i in range(k)])
    assert svg is not None
    assert "<b>" not in svg
    assert "#01010" not in svg
    assert "$class_0" in svg
    assert svg.count("<svg") == 1
    assert svg.endswith("</svg>")
