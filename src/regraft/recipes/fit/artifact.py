"""The artifact of a fit, with where backbone and labels came from."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from regraft.recipes.fit.workbench import Workbench
from regraft.tasks.kind import Calibration
from regraft.tasks.linear import LinearTask
from regraft.tasks.packing import pack


def write_artifact_of(bench: Workbench, task: LinearTask, calibration: Calibration, metrics: Mapping[str, Any]) -> Path:
    """Write the run's artifact; metrics: of this model, for people."""
    config = bench.config
    provenance: dict[str, Any] = {
        "recipe": "fit",
        "run": bench.run.path.name,
        "backbone": bench.backbone.provenance,
        "data": [Path(root).name for root in config.roots] or [Path(config.table or "").name],
        "seed": config.seed,
    }
    if config.text is not None:
        provenance["column"] = config.text
    return pack(bench.run.artifact, bench.kind, task, calibration, provenance=provenance, metrics=metrics)
