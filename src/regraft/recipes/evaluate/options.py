"""What `regraft evaluate` can be told."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from pydantic import model_validator

from regraft.core.options import OneOrSeveral, Options, with_table


class EvaluateConfig(Options):
    """Options of an evaluation. model: a run or an artifact folder; roots, or table: labelled samples."""

    model: Path
    roots: tuple[Path, ...] = ()
    table: Path | None = None
    image: str = "image"
    text: str | None = None
    label: OneOrSeveral = "label"
    group: str | None = None
    device: str = "auto"

    @model_validator(mode="before")
    @classmethod
    def _table_as_folder(cls, values: Any) -> Any:
        return with_table(values)
