"""What is known of one file before it is used."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Facts:
    """sha256: of the file's bytes, hexadecimal. dhash: 64-bit perceptual hash, None for a blank picture.

    width, height: px, as stored.
    """

    sha256: str
    dhash: int | None
    width: int
    height: int
