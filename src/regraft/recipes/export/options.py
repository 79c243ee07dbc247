"""What `regraft export` can be told."""

from __future__ import annotations

from pathlib import Path

from regraft.core.option_groups import ForceOptions
from regraft.core.options import DATA, OUTPUT, option


class ExportConfig(ForceOptions):
    """Options of an export. run: a run, `runs/LAST` or an artifact folder."""

    run: Path = option(..., "A run, runs/LAST, or an artifact folder.", panel=DATA)
    onnx: Path = option(..., "Where to write the ONNX model.", panel=OUTPUT, metavar="FILE")
    pictures: tuple[Path, ...] = option(
        (), "Check on these instead of the run's own validation pictures.", panel=DATA, metavar="FILE"
    )
