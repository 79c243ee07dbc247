"""What `regraft evaluate` can be told."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from pydantic import model_validator

from regraft.core.option_groups import DeviceOptions, LabelOptions, TableOptions
from regraft.core.options import DATA, altered, option, with_table


class EvaluateConfig(DeviceOptions, LabelOptions):
    """Options of an evaluation. model: a run or an artifact folder; roots, or table: labelled samples."""

    model: Path = option(..., "A run, runs/LAST, or an artifact folder.", panel=DATA)
    roots: tuple[Path, ...] = option((), "Labelled pictures: a folder per class.", panel=DATA)
    text: str | None = altered(LabelOptions, "text", None, help="The table's column of texts, if not the run's own.")
    group: str | None = altered(
        TableOptions, "group", None, help="What was sampled together, for the intervals: a column or a regex."
    )

    @model_validator(mode="before")
    @classmethod
    def _table_as_folder(cls, values: Any) -> Any:
        return with_table(values)
