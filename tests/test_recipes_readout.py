"""Which features a fit takes: the last layer's, or those of all layers where these serve credibly better."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

import regraft
from regraft.core.files import read_json
from regraft.images.backbones.layers import LayeredBackbone
from regraft.recipes.fit import beginning as fit_module
from regraft.recipes.fit.workbench import Workbench

OPTIONS: dict[str, Any] = {
    "backbone": "scion:size=64,readout=auto",
    "strategies": "probe",
    "threads": 2,
    "resamples": 100,
}


def parted(pictures: Path, root: Path) -> Path:
    """The pictures with three of each class in test/."""
    for path in sorted(pictures.rglob("*.png")):
        part = "test" if int(path.stem) < 3 else "train"
        (root / part / path.parent.name).mkdir(parents=True, exist_ok=True)
        path.rename(root / part / path.parent.name / path.name)
    return root


@pytest.mark.parametrize("better", [True, False])
def test_all_layers_are_taken_where_they_are_better(
    pictures: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, better: bool
) -> None:
    asked: list[tuple[np.ndarray, np.ndarray]] = []

    def judge(losses: np.ndarray, others: np.ndarray) -> bool:
        asked.append((losses, others))
        return better

    monkeypatch.setattr(fit_module, "lower_by_an_error", judge)
    data = parted(pictures, tmp_path / "split")
    run = regraft.fit(data, runs=tmp_path / "runs", **OPTIONS)
    ((of_all, of_last),) = asked
    # Decided on the training part alone: not a validation picture, not a test picture.
    trained = [row for row in read_json(run.path / "split.json")["rounds"][0]["train"]]
    assert len(of_all) == len(of_last) == len(trained) < 18
    predictor = regraft.load(run, device="cpu")
    backbone = predictor.task.backbone
    assert isinstance(backbone, LayeredBackbone) is better
    assert (backbone.recipe["options"].get("readout") == "layers") is better
    assert run.data.candidates[0].trained_parameters == 2 * (backbone.feature_dim + 1)
    if better:
        assert bool((backbone.spread != 1).any()), "the scale travels in the artifact"
    said = [p.label for p in predictor.predict(sorted((data / "test").rglob("*.png")))]
    assert said == ["ember"] * 3 + ["frost"] * 3


def test_with_folds_nothing_is_decided_on_pictures_that_are_scored(
    pictures: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(fit_module, "lower_by_an_error", lambda *_: True)
    run = regraft.fit(pictures, runs=tmp_path / "runs", **OPTIONS)
    assert not isinstance(regraft.load(run, device="cpu").task.backbone, LayeredBackbone)


def test_who_asks_for_a_readout_gets_it(pictures: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    used: list[int] = []
    probe = Workbench.probe

    def noting(bench: Workbench, features: np.ndarray, *rest: Any, **more: Any) -> Any:
        used.append(features.shape[1])
        return probe(bench, features, *rest, **more)

    monkeypatch.setattr(Workbench, "probe", noting)
    data = parted(pictures, tmp_path / "split")
    for readout in ("pooled", "layers"):
        used.clear()
        backbone = f"scion:size=64,readout={readout}"
        run = regraft.fit(data, runs=tmp_path / readout, **{**OPTIONS, "backbone": backbone})
        task = regraft.load(run, device="cpu").task
        assert isinstance(task.backbone, LayeredBackbone) is (readout == "layers")
        assert set(used) == {task.backbone.feature_dim}
