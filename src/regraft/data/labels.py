"""What a source knows of its labels: nothing but an object that does, one for each kind of labels."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol, TypeAlias

import numpy as np

from regraft.data.findings import Finding
from regraft.data.sample import Label, Sample
from regraft.data.words import Words

__all__ = ["Cells", "Label", "Labelling", "ReadLabels", "as_labels"]


@dataclass(frozen=True)
class Cells:
    """The label columns of a table. rows: row number, counted as a spreadsheet does → one text per column."""

    table: Path
    columns: tuple[str, ...]
    rows: Mapping[int, tuple[str | None, ...]]

    def one(self) -> dict[int, str | None]:
        """The only column; ValueError where there are several."""
        (_,) = self.columns
        return {row: texts[0] for row, texts in self.rows.items()}


class Labelling(Protocol):
    """What the labels of one source mean. A kind of labels brings its own (`tasks/<kind>/`).

    kind: its name. names: of a model's outputs: classes, the number's column, the labels. assumed: the sentence that
    says what the labels were taken for, where they would allow something else and nobody said; else empty. noun: what
    differs between two labels ("classes", "numbers"). suspicious: near copies under different labels are worth a look.
    named: the strata are what `noun` says, so that one without a training sample is worth a word.
    """

    @property
    def kind(self) -> str: ...
    @property
    def names(self) -> tuple[str, ...]: ...
    @property
    def assumed(self) -> str: ...
    @property
    def noun(self) -> str: ...
    @property
    def suspicious(self) -> bool: ...
    @property
    def named(self) -> bool: ...

    def read(self, texts: tuple[str | None, ...], where: str) -> Label | None:
        """The label in one row's cells, None where the row has none; DataError that begins with `where`."""
        ...

    def settled(self, samples: Sequence[Sample], source: str, least: int, words: Words) -> Labelling:
        """The same with the names of all labels of these samples; DataError for fewer than `least` classes, or for
        labels that nothing can be learned from. words: how sentences name the samples."""
        ...

    def encode(self, labels: Sequence[Label]) -> np.ndarray:
        """Labels → y (N, …), whatever the kind's task learns from."""
        ...

    def strata(self, y: np.ndarray) -> np.ndarray:
        """What every part of a split should have some of: int64 (N,), or bool (N, S) where a sample is in several."""
        ...

    def joined(self, labels: Sequence[Label]) -> Label | None:
        """The label of a file that came under all of these; None where they contradict each other."""
        ...

    def findings(self, samples: Sequence[Sample], many: str) -> list[Finding]:
        """What is wrong with the labels of usable samples, which sentences call `many`."""
        ...


#: The cells of a table, or None for folders → what its labels are taken for.
ReadLabels: TypeAlias = Callable[["Cells | None"], Labelling]


def as_labels(labels: np.ndarray) -> np.ndarray:
    """Labels as a batch carries them: numbers float32, class indices int64."""
    return labels.astype(np.float32 if labels.dtype.kind == "f" else np.int64)
