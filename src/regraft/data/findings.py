"""What an audit finds, in sentences."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

#: As many names are given as examples.
EXAMPLES: Final = 8


@dataclass(frozen=True)
class Finding:
    """count samples (or classes) of one kind, a sentence, up to 8 examples.

    left_out: these samples do not take part, and `paths` names all of them, not only the examples.
    """

    kind: str
    severity: str
    count: int
    sentence: str
    examples: tuple[str, ...] = ()
    left_out: bool = False
    paths: tuple[str, ...] = ()


def counted(n: int, noun: str = "picture", plural: str | None = None) -> str:
    """ "1 picture", "2 pictures"."""
    return f"1 {noun}" if n == 1 else f"{n} {plural or noun + 's'}"


def listed(names: Sequence[str]) -> str:
    """The first names, and how many more there are."""
    return ", ".join(names[:EXAMPLES]) + (f" and {len(names) - EXAMPLES} more" if len(names) > EXAMPLES else "")
