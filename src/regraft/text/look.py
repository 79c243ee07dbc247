"""One text looked at: is there anything in it, in which encoding it was, and which others say the same."""

from __future__ import annotations

import hashlib
import re
import unicodedata
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, Final

from regraft.core.errors import UnreadableError
from regraft.data.facts import Facts, Look
from regraft.data.words import Words
from regraft.text.read import read_with_encoding

WORDS: Final = Words(
    one="text",
    many="texts",
    option="text",
    folders="reviews/good and reviews/bad",
    file="text",
    same="say the same as one",
    alike="say the same as another",
    series="the same words in another case, spacing or punctuation",
    bad={
        "missing": "do not exist",
        "empty": "are empty",
        "binary": "are no text in UTF-8, UTF-16 or Windows-1252",
        "too-large": "are larger than what is read as one text",
    },
    odd={
        "byte-order-mark": "begin with a byte-order mark: it is taken away",
        "utf-16": "are in UTF-16 or UTF-32: they are read as that",
        "cp1252": "are not UTF-8: they are read as Windows-1252",
        "replacement": "have the sign \ufffd, which stands for letters that were lost in an earlier conversion",
    },
)


@dataclass(frozen=True)
class TextFacts(Facts):
    """text: the content itself, which the tokenizer counts later."""

    text: str = field(default="", repr=False)


def look_at(sample: Any) -> Look:
    """Facts, the words alone as fingerprint, and oddities; or the kind of the error."""
    try:
        text, encoding = read_with_encoding(sample)
    except UnreadableError as error:
        return Look(bad=error.kind)
    odd = {
        "byte-order-mark": encoding == "utf-8-sig",
        "utf-16": encoding in ("utf-16", "utf-32"),
        "cp1252": encoding == "cp1252",
        "replacement": "\ufffd" in text,
    }
    facts = TextFacts(hashlib.sha256(text.encode("utf-8", errors="surrogatepass")).hexdigest(), text)
    return Look(facts, words_of(text), tuple(kind for kind, true in odd.items() if true))


def words_of(text: str) -> str:
    """The text in lower case, compatibility forms unified, without punctuation and with single spaces; where nothing
    is left of it, as it is."""
    plain = unicodedata.normalize("NFKC", text).casefold()
    return " ".join(re.findall(r"\w+", plain)) or text


def near_pairs(looks: Sequence[Look]) -> list[tuple[int, int]]:
    """Pairs i < j of texts with the same words in the same order; each with the first of its kind."""
    first: dict[str, int] = {}
    pairs = []
    for i, look in enumerate(looks):
        at = first.setdefault(look.fingerprint, i)
        if at != i:
            pairs.append((at, i))
    return pairs
