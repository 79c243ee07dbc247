"""Labels that are numbers: read from one column of a table, and stratified by the range that each is in."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from regraft.core.errors import DataError
from regraft.data.findings import Finding
from regraft.data.labels import Cells
from regraft.data.sample import Label, Sample
from regraft.data.words import Words
from regraft.tasks.regression.numbers import are_numbers, check_spread, parse_number, quantile_bins


@dataclass(frozen=True)
class NumberColumn:
    """One number per sample. column: its name; y is float64 (N,)."""

    column: str
    assumed: str = ""

    kind: ClassVar[str] = "regression"
    noun: ClassVar[str] = "numbers"
    suspicious: ClassVar[bool] = False
    named: ClassVar[bool] = False

    @property
    def names(self) -> tuple[str, ...]:
        return (self.column,)

    def read(self, texts: tuple[str | None, ...], where: str) -> Label | None:
        if texts[0] is None:
            return None
        return repr(parse_number(texts[0], f"{where}, column {self.column!r}"))

    def settled(self, samples: Sequence[Sample], source: str, least: int, words: Words) -> NumberColumn:
        check_spread([parse_number(str(sample.label), str(sample.path)) for sample in samples], self.column)
        return self

    def encode(self, labels: Sequence[Label]) -> np.ndarray:
        return np.array([float(str(label)) for label in labels], dtype=np.float64)

    def strata(self, y: np.ndarray) -> np.ndarray:
        return quantile_bins(y)

    def joined(self, labels: Sequence[Label]) -> Label | None:
        return labels[0] if len(set(labels)) == 1 else None

    def findings(self, samples: Sequence[Sample], many: str) -> list[Finding]:
        return []


def number_column(cells: Cells | None) -> NumberColumn:
    """Labels are numbers. DataError for folders, which name classes, and for several columns."""
    if cells is None:
        raise DataError("Folders name classes. Numbers to predict come from a table: --table with --label.")
    if len(cells.columns) > 1:
        raise DataError(
            f"{cells.table}: {len(cells.columns)} columns of numbers were given ({', '.join(cells.columns)}); one "
            "number of a picture can be predicted: give one --label."
        )
    return NumberColumn(cells.columns[0])


def claim(cells: Cells | None) -> tuple[NumberColumn | None, str]:
    """The labelling, where a column holds numbers to predict rather than classes; and the sentence of what was assumed,
    which is empty where no label is a number."""
    if cells is None or len(cells.columns) > 1:
        return None, ""
    numeric, assumed = are_numbers(cells.one(), cells.table, cells.columns[0])
    return (NumberColumn(cells.columns[0], assumed) if numeric else None), assumed
