"""Where pictures and their labels come from: folders per class, split folders, several of them, or none.

Nothing is decoded here. What a folder holds that is not used is named in `Source.skipped`, so that no file
gets lost.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Final

import numpy as np

from regraft.core.errors import DataError
from regraft.data.numbers import quantile_bins

SPLITS: Final = {
    "train": "train", "training": "train", "val": "val", "valid": "val", "validation": "val", "test": "test",
    "testing": "test",
}  # fmt: skip
#: Words for `group=` with folders: what comes before the first _ - or . of the file name.
SHORTCUTS: Final = ("patient", "subject", "prefix")


@dataclass(frozen=True)
class Sample:
    """One file. split: "train", "val", "test", or None. group: kept on one side of every split.

    In a `Source` the path is absolute: what a run writes down is found again from any working folder.
    """

    path: Path
    label: str | None = None
    group: str | None = None
    split: str | None = None


@dataclass(frozen=True)
class Source:
    """Pictures in a fixed order, the sorted names of their classes, and sentences about what was skipped.

    numeric: the labels are numbers to predict; there are then no classes. assumed: the sentence that says which of the
    two was assumed, where the column would allow both and nobody said.
    """

    name: str
    samples: tuple[Sample, ...]
    classes: tuple[str, ...]
    skipped: tuple[str, ...] = ()
    numeric: bool = False
    assumed: str = ""

    def __len__(self) -> int:
        return len(self.samples)

    @property
    def paths(self) -> tuple[Path, ...]:
        return tuple(picture.path for picture in self.samples)

    def labels(self) -> np.ndarray:
        """Class indices int64 (N,) into `classes`, or the numbers float64 (N,). DataError where one has no label."""
        bare = [picture for picture in self.samples if picture.label is None]
        if bare:
            raise DataError(
                f"{len(bare)} of {len(self.samples)} pictures of {self.name} have no label, the first is "
                f"{bare[0].path}. "
                "Put the pictures into one folder per class, or name their classes in a table (--table)."
            )
        if self.numeric:
            return np.array([float(str(picture.label)) for picture in self.samples], dtype=np.float64)
        index = {name: i for i, name in enumerate(self.classes)}
        return np.array([index[str(picture.label)] for picture in self.samples], dtype=np.int64)

    def strata(self) -> np.ndarray:
        """What every part of a split should have some of, int64 (N,): the class, or the range that a number is in."""
        return quantile_bins(self.labels()) if self.numeric else self.labels()

    def subset(self, indices: Iterable[int]) -> Source:
        """The pictures at `indices`, in that order; the classes stay, so labels keep their numbers."""
        return replace(self, samples=tuple(self.samples[int(i)] for i in indices))
