"""What `regraft evaluate` can be told."""

from __future__ import annotations

from pathlib import Path

from regraft.core.option_groups import DeviceOptions, LabelOptions, TableOptions
from regraft.core.options import DATA, altered, option


class EvaluateConfig(DeviceOptions, LabelOptions):
    """Options of an evaluation. model: a run or an artifact folder; roots, or table: labelled samples."""

    model: Path = option(..., "A run, runs/LAST, or an artifact folder.", panel=DATA)
    roots: tuple[Path, ...] = option((), "Labelled pictures: a folder per class.", panel=DATA)
    group: str | None = altered(
        TableOptions, "group", None, help="What was sampled together, for the intervals: a column or a regex."
    )
