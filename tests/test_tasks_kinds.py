"""What every kind of labels must do, over the registry."""

from __future__ import annotations

import json
from importlib import import_module
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from regraft.core.errors import ArtifactError, UsageError
from regraft.data.classes import ClassNames
from regraft.data.labels import Cells
from regraft.images.backbones import create
from regraft.report.sections import sections
from regraft.tasks.kind import Check, Kind
from regraft.tasks.kinds import BUILT_IN, kinds, known_metrics, reading
from regraft.tasks.packing import pack, unpack

LABELS = ("ant", "bee", "cat")


def known(name: str) -> Kind:
    """The kind of a finished model with as many of these labels as it can have."""
    kind = kinds.get(name)
    labels = LABELS[:1] if name == "regression" else LABELS
    return kind.of_task(kind.blank(create("scion:size=64", pretrained=False), labels), labels)


def outputs(kind: Kind, n: int = 7) -> np.ndarray:
    return np.random.default_rng(0).normal(size=(n, kind.outputs))


def test_the_built_in_kinds_are_there() -> None:
    assert set(BUILT_IN) <= set(kinds.names())
    with pytest.raises(UsageError, match="Did you mean"):
        kinds.get("multi-label")


@pytest.mark.parametrize("name", kinds.names())
class TestEveryKind:
    def test_it_has_metrics_that_are_known_and_a_section(self, name: str) -> None:
        kind = kinds.get(name)
        assert kind.name == name and kind.usual_metric in kind.metrics
        assert all(known_metrics()[metric] == found for metric, found in kind.metrics.items())
        import_module(kind.section)
        assert name in sections

    def test_its_calibration_travels(self, name: str) -> None:
        kind = known(name)
        calibration = kind.uncalibrated
        manifest: dict[str, Any] = {"labels": list(kind.labels), **calibration.to_manifest()}
        assert kind.calibration_of(json.loads(json.dumps(manifest))) == calibration
        json.dumps(calibration.to_metadata())

    def test_an_exported_graph_says_what_numpy_says(self, name: str) -> None:
        kind = known(name)
        calibration, found = kind.uncalibrated, outputs(kind)
        traced = calibration.finish(torch.from_numpy(found))
        assert len(traced) == len(calibration.outputs)
        np.testing.assert_allclose(calibration.scored(traced[0].numpy()), calibration.answers(found), rtol=1e-9)

    def test_every_row_is_read_for_people(self, name: str) -> None:
        kind = known(name)
        calibration, found = kind.uncalibrated, outputs(kind)
        reader = calibration.reader(kind.labels)
        for row in calibration.finish(torch.from_numpy(found))[0].numpy():
            answer = reader.read("x.jpg", row, top=2, threshold=None)
            assert answer.error is None and "x.jpg" in answer.told(2)
            json.dumps(answer.to_json())
        assert reader.unread("x.jpg", "gone").error == "gone"

    def test_an_export_is_compared(self, name: str) -> None:
        kind = known(name)
        found = kind.uncalibrated.finish(torch.from_numpy(outputs(kind, 50)))[0].numpy()
        same = kind.compare(found, found, Check())
        assert same.agreement == 1 and not same.refused and "0.01" in same.told.format(0.01)
        assert kind.compare(found * np.nan, found, Check()).refused

    def test_an_artifact_names_it(self, name: str, tmp_path: Path) -> None:
        kind = known(name)
        task = kinds.get(name).blank(create("scion:size=64", pretrained=False), kind.labels).eval()
        pack(tmp_path / "a", kind, task, kind.uncalibrated, provenance={}, metrics={})
        found = unpack(tmp_path / "a", name)
        assert found.manifest["task"]["kind"] == f"image-{name}" and found.kind.name == name
        assert found.calibration == kind.uncalibrated and found.labels == kind.labels
        other = next(one for one in kinds if one != name)
        with pytest.raises(ArtifactError, match=f"takes {other}"):
            unpack(tmp_path / "a", other)


def test_what_no_kind_claims_are_classes() -> None:
    cells = Cells(Path("t.csv"), ("label",), {2: ("red",), 3: ("blue",), 4: ("red",)})
    assert reading("auto")(cells) == ClassNames() and reading("auto")(None) == ClassNames()
