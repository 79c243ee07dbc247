"""Options as people write them, and what is wrong with them, in sentences."""

from __future__ import annotations

import re
from typing import Any

from regraft.core.errors import UsageError


def sentence(item: Any) -> str:
    """One mistake, as pydantic reports it, for people."""
    name = str(item["loc"][0]).replace("_", "-") if item["loc"] else ""
    message = str(item["msg"]).removeprefix("Value error, ")
    if item["type"] == "extra_forbidden":
        return f"There is no option {name}."
    came = f"; {item['input']!r} came" if name else ""
    return f"--{name} {message}{came}." if name else f"The command {message}."


def seconds(text: str | float | None) -> float | None:
    """ "90", "90s", "5m", "1.5h" → seconds; None stays None. Raises UsageError for anything else."""
    if text is None or isinstance(text, int | float):
        return None if text is None else float(text)
    match = re.fullmatch(r"\s*(\d+(?:\.\d+)?)\s*([smh]?)\s*", text)
    if not match:
        raise UsageError(f"A budget is a number with s, m or h, as in 90s, 5m or 1.5h; {text!r} came.")
    return float(match[1]) * {"": 1, "s": 1, "m": 60, "h": 3600}[match[2]]
