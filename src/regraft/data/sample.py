"""One file, with what was read of its label."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TypeAlias

#: One sample's label as it was read: a name or a number as text, or the names of all labels that apply.
Label: TypeAlias = "str | tuple[str, ...]"


@dataclass(frozen=True)
class Sample:
    """One file. label: what was read, as the source's labelling understands it. split: "train", "val", "test", or None.
    group: kept on one side of every split.

    In a `Source` the path is absolute: what a run writes down is found again from any working folder.
    """

    path: Path
    label: Label | None = None
    group: str | None = None
    split: str | None = None
