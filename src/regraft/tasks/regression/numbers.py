"""Labels that are numbers to predict (counts, ages, angles): told from classes, read, and cut into ranges."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Final

import numpy as np

from regraft.core.errors import DataError

_NUMBER: Final = re.compile(r"[+-]?(\d+(\.\d*)?|\.\d+)([eE][+-]?\d+)?", re.ASCII)
#: Beyond this, squares leave the range of float32.
LARGEST: Final = 1e15
#: Whole numbers are taken for numbers to predict from so many different ones on, if they are also at least this share
#: of the rows: classes numbered 0…9 are few, and come often.
DISTINCT, DISTINCT_SHARE = 15, 0.05
#: Where this share of the rows are numbers, one that is not is a mistake and no class.
MOSTLY: Final = 0.9
#: Pictures per range of numbers that a split is stratified by, and how many ranges there are at most.
PER_BIN, MOST_BINS = 20, 10


def parse_number(text: str, where: str) -> float:
    """A finite number as computers write it: 12, −0.5, 3e-4. DataError that begins with `where` for anything else."""
    text = text.strip().replace("−", "-")
    if not _NUMBER.fullmatch(text) or not math.isfinite(value := float(text)):
        comma = " A decimal comma is not read: write a point." if re.fullmatch(r"[+-]?\d+,\d+", text) else ""
        raise DataError(
            f"{where}: {_shown(text)} is no finite number.{comma} Correct it, or leave the cell empty to leave the "
            "picture out."
        )
    if abs(value) > LARGEST:
        raise DataError(f"{where}: {_shown(text)} is beyond ±{LARGEST:g}: give the numbers in a larger unit.")
    return value + 0.0  # −0 becomes 0


def are_numbers(labels: Mapping[int, str | None], table: Path, column: str) -> tuple[bool, str]:
    """Whether a column holds numbers to predict rather than classes, and the sentence of what was assumed.

    labels: row number → text. Numbers it is where all are numbers with `DISTINCT` different ones or more and either
    some are fractions, or the different ones are 5 % of the rows. The sentence is empty where no label is a number.
    Raises DataError for the first row that is no number where 90 % are and many differ.
    """
    given = {row: text for row, text in labels.items() if text is not None}
    numbers = {row: float(text) for row, text in given.items() if _NUMBER.fullmatch(text)}
    distinct = len(set(numbers.values()))
    if not numbers:
        return False, ""
    fractions = any(not value.is_integer() for value in numbers.values())
    many = distinct >= DISTINCT and (fractions or distinct >= DISTINCT_SHARE * len(given))
    odd = next((row for row in given if row not in numbers), None)
    if odd is not None:
        if many and len(numbers) >= MOSTLY * len(given):
            raise DataError(
                f"{table}, row {odd}, column {column!r}: {_shown(str(given[odd]))} is no number, but "
                f"{len(numbers)} of {len(given)} are. Correct it or leave it empty; or say --task classification."
            )
        return False, ""
    kind, other = ("regression", "classification") if many else ("classification", "regression")
    what = "numbers to predict" if many else "names of classes"
    return many, (
        f"The column {column!r} holds {distinct} different numbers in {len(given)} rows: taken for {what} "
        f"(--task {kind}). If they are not, say --task {other}."
    )


def check_spread(numbers: Sequence[float], column: str) -> None:
    """DataError where the numbers are all the same, or differ by too little for their size."""
    values = np.asarray(numbers, dtype=np.float64)
    spread = float(values.std())
    if spread == 0:
        raise DataError(f"Every picture has {values[0]:g} in {column!r}: there is nothing to predict.")
    if spread < 1e-4 * float(np.abs(values).max()):
        raise DataError(
            f"The numbers in {column!r} lie around {values.mean():g} and differ by {spread:g} only, too little for "
            "single precision: subtract a constant from them."
        )


def quantile_bins(numbers: np.ndarray) -> np.ndarray:
    """The range that each number (N,) is in, int64 (N,), counted from 0: up to 10 ranges of about equal counts."""
    bins = int(np.clip(len(numbers) // PER_BIN, 1, MOST_BINS))
    edges = np.unique(np.quantile(numbers, np.arange(1, bins) / bins)) if bins > 1 else np.zeros(0)
    found = np.searchsorted(edges, numbers, side="right")
    return np.unique(found, return_inverse=True)[1].reshape(-1).astype(np.int64)


def _shown(text: str) -> str:
    return repr(text if len(text) <= 40 else text[:39] + "…")
