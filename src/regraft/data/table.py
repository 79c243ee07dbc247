"""Pictures named by a table: CSV (comma, semicolon or tab) or Parquet, one row per picture."""

from __future__ import annotations

import csv
import difflib
import io
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from regraft.core.errors import DataError, MissingExtraError
from regraft.data.extensions import EXTENSIONS
from regraft.data.labels import Cells, Labelling, ReadLabels
from regraft.data.source import SPLITS, Sample


@dataclass(frozen=True)
class Columns:
    """Which columns of a table are what. sample: the file. labels: none where they are withheld."""

    sample: str = "image"
    labels: tuple[str, ...] = ("label",)
    group: str | None = None
    split: str | None = None


def read_table(
    table: Path,
    roots: Sequence[Path],
    columns: Columns,
    skipped: list[str],
    read_labels: ReadLabels,
) -> tuple[list[Sample], Labelling | None]:
    """The rows of `table` as samples, and what their labels were taken for by `read_labels`.

    Without label columns the labels are withheld.

    A path is looked for in each of `roots`, then beside the table, with a picture's extension added where it
    has none; an absolute one must exist. Rows without a label are left out and named in `skipped`. A few
    missing files are kept, for the audit to name; more than half of them is a DataError, as are unknown
    columns and splits.
    """
    rows = _rows(table)
    if not rows:
        raise DataError(f"{table} has no rows. It needs a header line and one line per picture.")
    _check_columns(table, list(rows[0]), columns)
    cells = Cells(
        table,
        columns.labels,
        {number: tuple(_text(row[c]) for c in columns.labels) for number, row in enumerate(rows, start=2)},
    )
    labelling = read_labels(cells) if columns.labels else None
    places = [*roots, table.parent]
    found: list[Sample] = []
    bare: list[int] = []
    missing: list[str] = []
    for number, row in enumerate(rows, start=2):
        label = None if labelling is None else labelling.read(cells.rows[number], f"{table}, row {number}")
        if labelling is not None and label is None:
            bare.append(number)
            continue
        name = _text(row[columns.sample])
        if name is None:
            raise DataError(
                f"{table}, row {number}: the column {columns.sample!r} is empty; it names the picture's file."
            )
        path, exists = _locate(name, places, table, number)
        if not exists:
            missing.append(name)
        group = _text(row[columns.group]) if columns.group is not None else None
        if columns.group is not None and group is None:
            raise DataError(
                f"{table}, row {number}: the column {columns.group!r} is empty; every picture needs its group."
            )
        split = _split(row[columns.split], table, number) if columns.split is not None else None
        found.append(Sample(path, label, group, split))
    if bare:
        named = " or ".join(repr(name) for name in columns.labels)
        skipped.append(f"{len(bare)} rows of {table} have no {named}: left out (first: row {bare[0]}).")
    if len(missing) > len(found) / 2:
        raise DataError(
            f"{len(missing)} of {len(found)} pictures named in {table} do not exist, such as "
            f"{missing[0]!r}. Looked in: "
            f"{', '.join(str(place) for place in dict.fromkeys(places))}. Paths are relative to the folder "
            "given, or to the table."
        )
    return found, labelling


def _check_columns(table: Path, there: Sequence[str], columns: Columns) -> None:
    for option, name in (
        ("--image", columns.sample),
        *(("--label", name) for name in columns.labels),
        ("--group", columns.group),
        ("--split", columns.split),
    ):
        if name is not None and name not in there:
            near = difflib.get_close_matches(name, there, n=1, cutoff=0.5)
            meant = f" Did you mean {near[0]!r}?" if near else ""
            raise DataError(f"{table} has no column {name!r} ({option}).{meant} Its columns: {', '.join(there[:20])}.")


def _rows(table: Path) -> list[dict[str, Any]]:
    if not table.is_file():
        raise DataError(f"There is no table {table}.")
    if table.suffix.lower() in (".parquet", ".pq"):
        try:
            import pyarrow.parquet as parquet
        except ImportError as error:
            raise MissingExtraError("Reading Parquet tables", "parquet") from error
        try:
            rows: list[dict[str, Any]] = parquet.read_table(table).to_pylist()
            return rows
        except Exception as error:  # pyarrow's own tree of errors, all of which say: no Parquet file
            raise DataError(f"{table} cannot be read as Parquet: {error}") from error
    try:
        text = table.read_text(encoding="utf-8-sig")
    except UnicodeDecodeError as error:
        raise DataError(f"{table} is not UTF-8 text; save it as UTF-8 CSV, or as Parquet.") from error
    header = text.partition("\n")[0]
    separator = max("\t;,", key=lambda sign: (header.count(sign), sign == ","))
    reader = csv.DictReader(io.StringIO(text, newline=""), delimiter=separator)
    rows = []
    for row in reader:
        if None in row or None in row.values():
            raise DataError(
                f"{table}, line {reader.line_num} has more or fewer fields than the header's "
                f"{len(reader.fieldnames or ())}."
            )
        rows.append({key.strip(): value for key, value in row.items()})
    return rows


def _text(value: Any) -> str | None:
    """A cell as text, None where it is empty; a whole number from a column of floats loses its ".0"."""
    if value is None or value != value:
        return None
    if isinstance(value, float) and value.is_integer():
        value = int(value)
    return str(value).strip() or None


def _locate(name: str, places: Sequence[Path], table: Path, number: int) -> tuple[Path, bool]:
    given = Path(name)
    if given.is_absolute():
        return given, given.is_file()
    if ".." in given.parts:
        raise DataError(
            f"{table}, row {number}: {name!r} leaves its folder. Paths stay inside the folder given, or are absolute."
        )
    for place in places:
        if (place / given).is_file():
            return place / given, True
        if given.suffix.lower() not in EXTENSIONS:
            for extension in EXTENSIONS:
                path = place / f"{name}{extension}"
                if path.is_file():
                    return path, True
    return places[0] / given, False


def _split(value: Any, table: Path, number: int) -> str | None:
    text = _text(value)
    if text is None:
        return None
    if text.lower() not in SPLITS:
        raise DataError(f"{table}, row {number}: {text!r} is no split; accepted: {', '.join(SPLITS)}, or empty.")
    return SPLITS[text.lower()]
