"""Bytes of a text file → text, and which encoding they were in."""

from __future__ import annotations

import codecs

from regraft.core.errors import UnreadableError

#: Byte-order marks and what they announce; the four-byte ones come first, since they begin like a two-byte one.
_MARKS = (
    (codecs.BOM_UTF32_LE, "utf-32"),
    (codecs.BOM_UTF32_BE, "utf-32"),
    (codecs.BOM_UTF8, "utf-8-sig"),
    (codecs.BOM_UTF16_LE, "utf-16"),
    (codecs.BOM_UTF16_BE, "utf-16"),
)


def decode_text(data: bytes, name: str) -> tuple[str, str]:
    """(text, encoding): by the byte-order mark, else "utf-8", else "cp1252", which is what old Windows files are in.

    Raises UnreadableError of kind "binary" where NUL bytes or bytes that Windows-1252 does not have say that this is
    no text; `name` is only for its sentence.
    """
    for mark, encoding in _MARKS:
        if data.startswith(mark):
            try:
                return data.decode(encoding), encoding
            except UnicodeDecodeError as error:
                raise UnreadableError(f"{name} begins as {encoding} but is damaged: {error}.", kind="binary") from error
    if b"\0" in data:
        raise UnreadableError(f"{name} has NUL bytes: it is no text.", kind="binary")
    for encoding in ("utf-8", "cp1252"):
        try:
            return data.decode(encoding), encoding
        except UnicodeDecodeError:
            continue
    raise UnreadableError(f"{name} is neither UTF-8 nor Windows-1252 text: save it as UTF-8.", kind="binary")
