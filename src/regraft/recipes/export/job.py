"""`regraft export`: a run's model as one ONNX file, checked on the run's own validation pictures."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from regraft.core.errors import UsageError
from regraft.core.listener import Listener
from regraft.core.rundir import artifact_of
from regraft.deploy.onnx.export import export_onnx
from regraft.deploy.predictor import expand_inputs
from regraft.recipes.export.options import ExportConfig

#: Enough to see a disagreement of half a per cent, few enough to take seconds.
CHECK_LIMIT = 400


def run_export(options: ExportConfig, *, listener: Listener) -> dict[str, Any]:
    """Export, check, and say what was found. Raises ExportError where both disagree, UsageError where `out` exists."""
    out = options.onnx
    if out.exists() and not options.force:
        raise UsageError(f"{out} exists: choose another name, or replace it with --force.")
    folder = artifact_of(options.run)
    labels: np.ndarray | None = None
    if options.pictures:
        paths = expand_inputs([str(p) for p in options.pictures])
    else:
        paths, labels = _validation_pictures(folder.parent)
    if not paths:
        raise UsageError(
            "There is nothing to check the export on: the run's validation pictures are gone. "
            "Give some with --pictures."
        )
    listener.say(f"Exporting, and checking on {len(paths)} pictures.")
    found = export_onnx(folder, out, check_pictures=paths, labels=labels)
    sentence = (
        f"{out} ({found.bytes / 1e6:.1f} MB) gives the same answer on {found.agreement:.1%} of "
        f"{found.n_checked} pictures; {found.told.format(found.max_difference)}."
    )
    return {"sentence": sentence, **found.to_json()}


def _validation_pictures(run: Path) -> tuple[list[Path], np.ndarray | None]:
    """The run's validation pictures with their labels; of an adaptation its target pictures, which have none."""
    import pyarrow.parquet as pq

    table = run / "predictions.parquet"
    if not table.is_file():
        return [], None
    columns = [name for name in ("path", "split", "label") if name in pq.read_schema(table).names]
    rows = [r for r in pq.read_table(table, columns=columns).to_pylist() if r["split"] in ("val", "target")]
    known = {r["path"]: r.get("label") for r in rows if Path(r["path"]).is_file()}
    names = sorted(known)[:CHECK_LIMIT]
    labels = None if "label" not in columns else np.asarray([known[n] for n in names], dtype=np.int64)
    return [Path(n) for n in names], labels
