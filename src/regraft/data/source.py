"""Samples in a fixed order with their labels, of any modality; nothing is decoded here.

What a folder holds that is not used is named in `Source.skipped`, so that no file gets lost.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Final

import numpy as np

from regraft.core.errors import DataError
from regraft.data.classes import ClassNames
from regraft.data.labels import Labelling
from regraft.data.sample import Sample

__all__ = ["SHORTCUTS", "SPLITS", "Sample", "Source"]

SPLITS: Final = {
    "train": "train", "training": "train", "val": "val", "valid": "val", "validation": "val", "test": "test",
    "testing": "test",
}  # fmt: skip
#: Words for `group=` with folders: what comes before the first _ - or . of the file name.
SHORTCUTS: Final = ("patient", "subject", "prefix")


@dataclass(frozen=True)
class Source:
    """Samples in a fixed order, what their labels mean (None where they have none), and sentences about what was
    skipped. many: what the samples are called."""

    name: str
    samples: tuple[Sample, ...]
    labelling: Labelling | None = None
    skipped: tuple[str, ...] = ()
    many: str = "pictures"

    def __len__(self) -> int:
        return len(self.samples)

    @property
    def paths(self) -> tuple[Path, ...]:
        return tuple(sample.path for sample in self.samples)

    @property
    def classes(self) -> tuple[str, ...]:
        """The names of the classes; empty where the labels are none."""
        return self.labelling.names if isinstance(self.labelling, ClassNames) else ()

    def labels(self) -> np.ndarray:
        """Y (N, …) of the samples, as their kind encodes it: class indices int64 (N,), or numbers float64 (N,).

        DataError where one has no label.
        """
        known = [sample.label for sample in self.samples if sample.label is not None]
        if self.labelling is None or len(known) < len(self.samples):
            bare = [sample for sample in self.samples if sample.label is None] or list(self.samples)
            raise DataError(
                f"{len(bare)} of {len(self.samples)} {self.many} of {self.name} have no label, the first is "
                f"{bare[0].name}. "
                f"Put the {self.many} into one folder per class, or name their classes in a table (--table)."
            )
        return self.labelling.encode(known)

    def strata(self) -> np.ndarray:
        """What every part of a split should have some of: int64 (N,), or bool (N, S) of samples in several."""
        y = self.labels()
        return self.labelling.strata(y) if self.labelling is not None else y

    def subset(self, indices: Iterable[int]) -> Source:
        """The samples at `indices`, in that order; the labelling stays, so labels keep their numbers."""
        return replace(self, samples=tuple(self.samples[int(i)] for i in indices))
