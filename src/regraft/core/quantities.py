"""Sizes of pictures and amounts of memory as people write them."""

from __future__ import annotations

import re
from typing import Any, Final

from regraft.core.errors import UsageError

#: Names of sizes → the longer side in px of the frames that are called so.
NAMED_SIZES: Final = {
    "480p": 854, "720p": 1280, "1080p": 1920, "1440p": 2560, "2160p": 3840, "4k": 3840, "5k": 5120, "8k": 7680,
    "16k": 15360,
}  # fmt: skip
_UNITS: Final = {"": 1, "k": 2**10, "m": 2**20, "g": 2**30, "t": 2**40}


def size_px(value: Any) -> Any:
    """ "4k" → 3840, "1024" → 1024; what is no text is left as it is. Raises UsageError for other text."""
    if not isinstance(value, str):
        return value
    text = value.strip().lower()
    if text in NAMED_SIZES:
        return NAMED_SIZES[text]
    if not re.fullmatch(r"\d{1,9}", text):
        raise UsageError(f"--size is a number of px or one of {', '.join(NAMED_SIZES)}, got {value!r}.")
    return int(text)


def memory_bytes(value: Any) -> Any:
    """ "2g", "1500m", "1.5GiB" → bytes, a g being 2**30; what is no text is left as it is. Raises UsageError."""
    if not isinstance(value, str):
        return value
    match = re.fullmatch(r"(\d{1,15}(?:\.\d{1,9})?)([kmgt]?)(?:i?b)?", value.strip().lower())
    if not match or not float(match[1]):
        raise UsageError(f"--max-memory is an amount with k, m, g or t, as in 2g or 1500m, got {value!r}.")
    return int(float(match[1]) * _UNITS[match[2]])
