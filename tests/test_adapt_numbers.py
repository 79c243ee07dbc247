"""Numbers carried from one domain to another: the evidence by hand, and `regraft adapt` as a person would use it."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image, ImageOps

from conftest import Shell
from discs import draw_discs
from regraft.adaptation.base import losses
from regraft.adaptation.evidence.alarm import Vote
from regraft.adaptation.evidence.distances import density_ratio
from regraft.adaptation.evidence.number_evidence import judge_numbers, number_validators, own_r2, reverse_r2
from regraft.adaptation.evidence.validators import dev_risk
from regraft.adaptation.maps.adapter import FeatureAdapter
from regraft.adaptation.sides.numbers import AUTO, number_methods, number_tools
from regraft.adaptation.training.task import Adaptation
from regraft.core.errors import UsageError
from regraft.core.types import Batch, DomainView
from regraft.recipes.adapt.options import AdaptConfig
from regraft.tasks.regression.task import Regression


def views(shift: float = 1.0, noise: float = 0.3) -> tuple[DomainView, DomainView]:
    """A linear number of four features; the target is shifted; the answers have some noise."""
    draw = np.random.default_rng(0)
    x, y = draw.normal(size=(80, 4)), draw.normal(size=(60, 4)) + shift
    weight = np.array([2.0, -1.0, 0.5, 0.0])
    labels = x @ weight + 7
    source = labels + noise * draw.normal(size=80)
    target = y @ weight + 7 + noise * draw.normal(size=60)
    as_view = [torch.from_numpy(part) for part in (x, source[:, None], labels, y, target[:, None])]
    return DomainView(as_view[0], as_view[1], as_view[2]), DomainView(as_view[3], as_view[4])


def test_scores_are_the_weighted_and_the_plain_error() -> None:
    source, target = views()
    assert source.logits is not None and source.labels is not None
    errors = (source.logits[:, 0] - source.labels).numpy()
    assert number_validators.get("source-error")().score(source, target) == pytest.approx(-np.abs(errors).mean())
    weights = density_ratio(source.features.numpy(), target.features.numpy(), seed=0)
    assert number_validators.get("DEV")().score(source, target) == pytest.approx(-dev_risk(weights, errors**2))


def test_the_reverse_head_finds_the_source_only_where_the_answers_fit() -> None:
    source, target = views()
    assert source.logits is not None and source.labels is not None and target.logits is not None
    spread = float(source.labels.var(unbiased=False))
    assert own_r2(source) == pytest.approx(1 - float((source.logits[:, 0] - source.labels).square().mean()) / spread)
    assert reverse_r2(source, target) > 0.9
    mixed = target.logits[torch.randperm(60, generator=torch.Generator().manual_seed(0))]
    assert reverse_r2(source, DomainView(target.features, mixed)) < 0.3


def test_only_what_nothing_speaks_against_is_kept() -> None:
    sound = {
        "gap": 1.0,
        "votes": {"DEV": Vote(-1.0, -2.0, 1.0)},
        "source_error": (1.0, 1.0),
        "reverse": (0.8, 0.9),
        "spread": (2.0, 2.0),
    }
    assert judge_numbers("CORAL", **sound).keep_adapted  # type: ignore[arg-type]
    for change, words in (
        ({"gap": 0.1}, "hardly be told apart"),
        ({"votes": {"DEV": Vote(-1.0, -2.0, 0.9)}}, "90% of half-samples"),
        ({"source_error": (1.3, 1.0)}, "worse on held-out source pictures"),
        ({"reverse": (0.5, 0.9)}, "does not fit the source"),
        ({"spread": (0.5, 2.0)}, "all but the same, or out of range"),
        ({"spread": (7.0, 2.0)}, "all but the same, or out of range"),
    ):
        found = judge_numbers("CORAL", **{**sound, **change})  # type: ignore[arg-type]
        assert not found.keep_adapted and words in found.why


@pytest.mark.parametrize("name", sorted(n for n in losses if not losses.get(n).needs_classes))
def test_losses_without_classes_train_a_regression(name: str) -> None:
    """One step beside the source's numbers, on an adapter: a finite loss whose gradient reaches adapter and head."""
    torch.manual_seed(0)
    model = Regression(FeatureAdapter(6, width=5), centre=torch.tensor([40.0]), scale=torch.tensor([4.0]))  # type: ignore[arg-type]
    task = Adaptation(model, losses.get(name)(5, 0))
    source, target = Batch(torch.randn(12, 6), 40 + 4 * torch.randn(12)), Batch(torch.randn(10, 6) + 1)
    for phase in task.phases:
        task({"source": source, "target": target}, 0.5, phase).loss.backward()
    trained = (
        [model.backbone.linear.weight] if task.loss.source_fixed else [model.head.weight, model.backbone.linear.weight]
    )
    for parameter in trained:
        assert parameter.grad is not None and bool(parameter.grad.isfinite().all()) and bool(parameter.grad.any())


def test_source_loss_is_of_standardised_numbers() -> None:
    torch.manual_seed(0)
    model = Regression(FeatureAdapter(6, width=5), centre=torch.tensor([40.0]), scale=torch.tensor([4.0])).eval()  # type: ignore[arg-type]
    x, y = torch.randn(9, 6), 40 + 8 * torch.randn(9)
    found = float(Adaptation(model, None).eval()({"source": Batch(x, y)}, 0.0).loss.detach())
    weight, bias = model.solved_head()
    with torch.no_grad():
        features = model.backbone(x).pooled.double()
    error = ((features @ weight.T + bias)[:, 0] - y).numpy() / 4
    assert found == pytest.approx(np.where(np.abs(error) <= 1, error**2 / 2, np.abs(error) - 0.5).mean(), rel=1e-4)


def test_what_is_about_classes_is_refused_with_what_can_work() -> None:
    assert number_methods(("auto",)) == AUTO
    for name in ("MCC", "CDAN", "SHOT", "OT", "OSBP", "EM-prior"):
        with pytest.raises(UsageError, match=rf"{name} is about classes.*AdaBN, .*CORAL.*DANN.*DeepCORAL"):
            number_methods((name,))
    with pytest.raises(UsageError, match="is one source"):
        number_methods(("source-weighting",))
    with pytest.raises(UsageError, match="Did you mean 'CORAL'"):
        number_methods(("CORALL",))
    assert number_tools(("source-error",)) == ("DEV", "source-error")
    with pytest.raises(UsageError, match=r"SND is about classes.*DEV, source-error"):
        number_tools(("SND",))
    for options, words in (
        ({}, "--table"),
        ({"table": Path("t.csv"), "tune": "network"}, "cached features"),
        ({"table": Path("t.csv"), "setting": "open"}, "--setting open is about classes"),
    ):
        with pytest.raises(UsageError, match=words):
            AdaptConfig.checked(target=(Path("b"),), source=(Path("a"),), task="regression", **options)  # type: ignore[arg-type]


@pytest.fixture(scope="module")
def domains(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """Tables of discs: bright on dark in one domain, dark on bright and reddish in the other."""
    root = tmp_path_factory.mktemp("domains")
    day, night = draw_discs(root / "day", 48), draw_discs(root / "night", 32, seed=1, tint=(40, -60, -60))
    for path in night.parent.glob("*.png"):
        with Image.open(path) as picture:
            inverted = ImageOps.invert(picture.convert("RGB"))
        inverted.save(path)
    return day, night


def test_adapt_says_what_it_kept_and_reads_the_oracle_last(
    domains: tuple[Path, Path], shell: Shell, tmp_path: Path
) -> None:
    day, night = domains
    options = ("--task", "regression", "--table", day, "--image", "file", "--label", "radius_px")
    options += ("--method", "standardise,AdaBN,DeepCORAL", "--backbone", "scion:size=64", "--threads", "2", "--json")
    reports = []
    for extra in (("--oracle", night), ()):
        code, out, err = shell("adapt", night.parent, *options, *extra)
        assert code == 0, err
        reports.append(json.loads(out))
    report, blind = reports
    names = ["source-only probe", "source-only", "standardise", "AdaBN", "DeepCORAL"]
    assert [c["name"] for c in report["candidates"]] == names
    assert report["number"] == "radius_px" and report["metric"] == "mae" and report["n_target"] == 32
    assert all(c["source_error"] < 4.5 and c["oracle"] is not None for c in report["candidates"])  # the mean: about 4.5
    assert (report["chosen"], report["why"]) == (blind["chosen"], blind["why"])
    assert blind["value"] is None and all(c["oracle"] is None for c in blind["candidates"])
    kept = next(c for c in report["candidates"] if c["chosen"])
    assert report["value"] == kept["oracle"]
    page = (tmp_path / "runs" / "LAST" / "report.html").read_text(encoding="utf-8")
    assert "Which validator said what" in page and "Class by class" not in page

    code, out, err = shell("predict", "runs/LAST", *(night.parent / f"{i}.png" for i in range(32)), "--json")
    assert code == 0, err
    known = {row.split(",")[0]: float(row.split(",")[1]) for row in night.read_text().splitlines()[1:]}
    off = [abs(a["number"] - known[Path(a["path"]).name]) for a in json.loads(out)]
    assert np.mean(off) == pytest.approx(report["value"], rel=0.03)  # the model that was measured is handed over
