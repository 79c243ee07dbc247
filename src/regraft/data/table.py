"""Samples named by a table, or held in it: CSV (comma, semicolon or tab), Parquet or JSON lines, one row per sample."""

from __future__ import annotations

import csv
import difflib
import io
import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Final

from regraft.core.errors import DataError, MissingExtraError, UnreadableError
from regraft.data.encoding import decode_text
from regraft.data.labels import Cells, Labelling, ReadLabels
from regraft.data.modality import Modality
from regraft.data.source import SPLITS, Sample

#: Characters of one cell; a whole book has a few million.
_LONGEST_FIELD: Final = 1 << 26


@dataclass(frozen=True)
class Columns:
    """Which columns of a table are what. sample: the file, or its content. labels: none where they are withheld."""

    sample: str = "image"
    labels: tuple[str, ...] = ("label",)
    group: str | None = None
    split: str | None = None


def read_table(
    table: Path,
    roots: Sequence[Path],
    modality: Modality,
    columns: Columns,
    skipped: list[str],
    read_labels: ReadLabels,
) -> tuple[list[Sample], Labelling | None]:
    """The rows of `table` as samples, and what their labels were taken for by `read_labels`.

    Without label columns the labels are withheld.

    A path is looked for in each of `roots`, then beside the table, with one of the modality's extensions added where it
    has none; an absolute one must exist. Rows without a label are left out and named in `skipped`. A few
    missing files are kept, for the audit to name; more than half of them is a DataError, as are unknown
    columns and splits. Of a modality whose tables hold the content itself nothing is looked for.
    """
    rows = read_rows(table, modality, skipped)
    _check_columns(table, list(rows[0]), modality, columns)
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
        sample = _sample(row, number, table, places, modality, columns)
        if sample.row is None and not sample.path.is_file():
            missing.append(str(_text(row[columns.sample])))
        found.append(replace(sample, label=label))
    if bare:
        named = " or ".join(repr(name) for name in columns.labels)
        skipped.append(f"{len(bare)} rows of {table} have no {named}: left out (first: row {bare[0]}).")
    if len(missing) > len(found) / 2:
        raise DataError(
            f"{len(missing)} of {len(found)} {modality.words.many} named in {table} do not exist, such as "
            f"{missing[0]!r}. Looked in: "
            f"{', '.join(str(place) for place in dict.fromkeys(places))}. Paths are relative to the folder "
            "given, or to the table."
        )
    return found, labelling


def _check_columns(table: Path, there: list[str], modality: Modality, columns: Columns) -> None:
    for option, name in (
        (f"--{modality.words.option}", columns.sample),
        *(("--label", name) for name in columns.labels),
        ("--group", columns.group),
        ("--split", columns.split),
    ):
        if name is not None and name not in there:
            near = difflib.get_close_matches(name, there, n=1, cutoff=0.5)
            meant = f" Did you mean {near[0]!r}?" if near else ""
            raise DataError(f"{table} has no column {name!r} ({option}).{meant} Its columns: {', '.join(there[:20])}.")


def _sample(
    row: dict[str, Any], number: int, table: Path, places: Sequence[Path], modality: Modality, columns: Columns
) -> Sample:
    """One row, its label aside."""
    words = modality.words
    content, path = None, table
    if modality.inline:
        content = "" if row[columns.sample] is None else str(row[columns.sample])
    else:
        name = _text(row[columns.sample])
        if name is None:
            raise DataError(
                f"{table}, row {number}: the column {columns.sample!r} is empty; it names the {words.one}'s file."
            )
        path = _locate(name, places, table, number, modality.extensions)
    group = _text(row[columns.group]) if columns.group is not None else None
    if columns.group is not None and group is None:
        raise DataError(
            f"{table}, row {number}: the column {columns.group!r} is empty; every {words.one} needs its group."
        )
    split = _split(row[columns.split], table, number) if columns.split is not None else None
    return Sample(path, None, group, split, content, number if modality.inline else None)


def read_rows(table: Path, modality: Modality, said: list[str]) -> list[dict[str, Any]]:
    """The rows of a table by column name, at least one: Parquet, JSON lines, or CSV.

    Where the table holds texts, another encoding than UTF-8 is read too, and `said` gets a sentence about it.
    """
    if not table.is_file():
        raise DataError(f"There is no table {table}.")
    suffix = table.suffix.lower()
    if suffix in (".parquet", ".pq"):
        rows = _parquet(table)
    else:
        text = _decoded(table, said) if modality.inline else _utf8(table)
        rows = _json_lines(text, table) if suffix in (".jsonl", ".ndjson") else _csv(text, table)
    if not rows:
        raise DataError(f"{table} has no rows. It needs a header line and one line per {modality.words.one}.")
    return rows


def _parquet(table: Path) -> list[dict[str, Any]]:
    try:
        import pyarrow.parquet as parquet
    except ImportError as error:
        raise MissingExtraError("Reading Parquet tables", "parquet") from error
    try:
        rows: list[dict[str, Any]] = parquet.read_table(table).to_pylist()
        return rows
    except Exception as error:  # pyarrow's own tree of errors, all of which say: no Parquet file
        raise DataError(f"{table} cannot be read as Parquet: {error}") from error


def _json_lines(text: str, table: Path) -> list[dict[str, Any]]:
    """One JSON object a line; what a line does not name is empty."""
    rows: list[dict[str, Any]] = []
    for number, line in enumerate(text.split("\n"), start=1):
        if not line.strip():
            continue
        try:
            row = json.loads(line)
        except (ValueError, RecursionError) as error:
            raise DataError(f"{table}, line {number} is no JSON: {error}.") from error
        if not isinstance(row, dict):
            raise DataError(f"{table}, line {number} is no JSON object: each line names its columns, as {{...}}.")
        rows.append(row)
    columns = dict.fromkeys(key for row in rows for key in row)
    return [{key: row.get(key) for key in columns} for row in rows]


def _utf8(table: Path) -> str:
    try:
        return table.read_text(encoding="utf-8-sig")
    except UnicodeDecodeError as error:
        raise DataError(f"{table} is not UTF-8 text; save it as UTF-8 CSV, or as Parquet.") from error


def _decoded(table: Path, said: list[str]) -> str:
    try:
        text, encoding = decode_text(table.read_bytes(), str(table))
    except UnreadableError as error:
        raise DataError(str(error)) from error
    if encoding not in ("utf-8", "utf-8-sig"):
        said.append(f"{table} is not UTF-8: it was read as {encoding}.")
    return text


def _csv(text: str, table: Path) -> list[dict[str, Any]]:
    header = text.partition("\n")[0]
    separator = max("\t;,", key=lambda sign: (header.count(sign), sign == ","))
    reader = csv.DictReader(io.StringIO(text, newline=""), delimiter=separator)
    rows = []
    csv.field_size_limit(max(csv.field_size_limit(), _LONGEST_FIELD))
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


def _locate(name: str, places: Sequence[Path], table: Path, number: int, extensions: Iterable[str]) -> Path:
    """Where the file is; where it should have been if it is nowhere."""
    given = Path(name)
    if given.is_absolute():
        return given
    if ".." in given.parts:
        raise DataError(
            f"{table}, row {number}: {name!r} leaves its folder. Paths stay inside the folder given, or are absolute."
        )
    for place in places:
        if (place / given).is_file():
            return place / given
        if given.suffix.lower() not in extensions:
            for extension in extensions:
                path = place / f"{name}{extension}"
                if path.is_file():
                    return path
    return places[0] / given


def _split(value: Any, table: Path, number: int) -> str | None:
    text = _text(value)
    if text is None:
        return None
    if text.lower() not in SPLITS:
        raise DataError(f"{table}, row {number}: {text!r} is no split; accepted: {', '.join(SPLITS)}, or empty.")
    return SPLITS[text.lower()]
