"""A text from where it lies: a table's cell, a file, or the argument itself."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Final

from regraft.core.errors import UnreadableError
from regraft.data.encoding import decode_text
from regraft.data.sample import Sample

EXTENSIONS: Final = frozenset({".txt"})
#: A file beyond this is no text to classify.
MOST_BYTES: Final = 16 << 20


def read_text(item: Any) -> str:
    """A `Sample`, a path or a string → its text. Raises UnreadableError."""
    return read_with_encoding(item)[0]


def read_with_encoding(item: Any) -> tuple[str, str]:
    """The text, and which encoding its file was in.

    Raises UnreadableError of kind "missing", "too-large", "binary", "empty" or "not-a-text".
    """
    if isinstance(item, Sample):
        if item.text is not None:
            return _said(item.text, item.name), "utf-8"
        item = item.path
    if isinstance(item, str):
        return _said(item, "The text"), "utf-8"
    if not isinstance(item, Path):
        raise UnreadableError(
            f"Got {type(item).__name__}; a text is a string or the path of a file.", kind="not-a-text"
        )
    if not item.is_file():
        raise UnreadableError(f"There is no file {item}.", kind="missing")
    if item.stat().st_size > MOST_BYTES:
        raise UnreadableError(f"{item} has more than {MOST_BYTES >> 20} MiB: give a table of texts.", kind="too-large")
    try:
        text, encoding = decode_text(item.read_bytes(), str(item))
    except OSError as error:
        raise UnreadableError(f"{item} cannot be read: {error}.", kind="missing") from error
    return _said(text, str(item)), encoding


def _said(text: str, name: str) -> str:
    if not text.strip():
        raise UnreadableError(f"{name} is empty.", kind="empty")
    return text
