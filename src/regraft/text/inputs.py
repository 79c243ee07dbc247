"""What a person hands over for prediction → texts: files, folders, patterns, tables, or the text itself."""

from __future__ import annotations

import glob
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final

from regraft.core.errors import DataError, UsageError
from regraft.data.modality import Modality
from regraft.data.sample import Sample
from regraft.text.read import EXTENSIONS

TABLES: Final = frozenset({".csv", ".tsv", ".parquet", ".pq", ".jsonl", ".ndjson"})
#: Characters by which a text without a file is called.
_NAME: Final = 60


def expand_inputs(items: Sequence[str], column: str | None, modality: Modality) -> list[Any]:
    """An argument that names a file, folder or pattern is read; anything else is the text itself.

    column: of tables; without one, "text" or the only column. Raises DataError for a folder without texts, UsageError
    for a pattern that matches nothing.
    """
    found: list[Any] = []
    for item in items:
        path = Path(item)
        if _exists(path):
            found += _read(path, column, modality)
        elif path.suffix.lower() in EXTENSIONS | TABLES and not any(sign.isspace() for sign in item):
            if glob.has_magic(item):
                matches = sorted(glob.glob(item, recursive=True))
                if not matches:
                    raise UsageError(f"The pattern {item!r} matches no file: quote it, against the shell.")
                found += [one for match in matches for one in _read(Path(match), column, modality)]
            else:
                found.append(path)  # its prediction says that there is no such file
        else:
            found.append(item)
    return found


def as_list(items: Any) -> list[Any]:
    """One text, path or sample → a list of one; anything else → its items."""
    return [items] if isinstance(items, (str, Path, Sample)) else list(items)


def name_of(item: Any) -> str | None:
    """A file's path, a row's place in its table, the beginning of a text."""
    if isinstance(item, Sample):
        return item.name
    if isinstance(item, Path):
        return str(item)
    return shortened(item, _NAME) if isinstance(item, str) else None


def shortened(text: str, limit: int) -> str:
    """The text on one line, at most `limit` characters of it."""
    line = " ".join(text.split())
    return line if len(line) <= limit else line[: limit - 1].rstrip() + "…"


def _exists(path: Path) -> bool:
    try:
        return path.exists()
    except OSError:  # a whole text is too long for a name
        return False


def _read(path: Path, column: str | None, modality: Modality) -> list[Any]:
    if path.is_dir():
        texts = [
            file for file in sorted(path.rglob("*"))
            if file.suffix.lower() in EXTENSIONS and file.is_file()
            and not any(part.startswith(".") for part in file.relative_to(path).parts)
        ]  # fmt: skip
        if not texts:
            raise DataError(f"{path} holds no texts: looked below it for {', '.join(sorted(EXTENSIONS))}.")
        return list(texts)
    if path.suffix.lower() not in TABLES:
        return [path]
    from regraft.data.table import read_rows

    rows = read_rows(path, modality, [])
    columns = list(rows[0])
    chosen = next((name for name in (column, "text") if name in columns), columns[0] if len(columns) == 1 else None)
    if chosen is None:
        raise UsageError(
            f"{path} has no column {column or 'text'!r}, from which the texts would be read. Its columns: "
            f"{', '.join(columns[:20])}."
        )
    return [
        Sample(path, text="" if row[chosen] is None else str(row[chosen]), row=number)
        for number, row in enumerate(rows, start=2)
    ]
