"""One sample, with what was read of its label."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TypeAlias

#: One sample's label as it was read: a name or a number as text, or the names of all labels that apply.
Label: TypeAlias = "str | tuple[str, ...]"


@dataclass(frozen=True)
class Sample:
    """One file, or one row of a table. label: what was read, as the source's labelling understands it. split: "train",
    "val", "test", or None. group: kept on one side of every split.

    In a `Source` the path is absolute: what a run writes down is found again from any working folder. text: the content
    itself, where the table holds it; path is then the table's, and row counts as a spreadsheet does, the header's is 1.
    """

    path: Path
    label: Label | None = None
    group: str | None = None
    split: str | None = None
    text: str | None = None
    row: int | None = None

    @property
    def name(self) -> str:
        """What files and predictions call it: its path, or "reviews.csv:17" for a row."""
        return str(self.path) if self.row is None else f"{self.path.name}:{self.row}"
