"""What a page is made of, read from a run directory; whatever optional file is missing gives an empty part."""

from __future__ import annotations

import json
import logging
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import yaml

log = logging.getLogger(__name__)

#: The worst mistakes that a page shows.
MISTAKES = 24


def metrics_lines(run: Path) -> list[dict[str, Any]]:
    """The lines of metrics.jsonl; a line cut short by a kill is passed over."""
    path = run / "metrics.jsonl"
    lines = []
    for text in path.read_text(encoding="utf-8", errors="replace").splitlines() if path.is_file() else ():
        try:
            line = json.loads(text)
        except ValueError:
            continue
        if isinstance(line, dict):
            lines.append(line)
    return lines


def flattened(value: Mapping[str, Any], prefix: str = "") -> list[tuple[str, str]]:
    """Nested settings as (dotted name, text), in their order."""
    out: list[tuple[str, str]] = []
    for key, item in value.items():
        if isinstance(item, Mapping):
            out += flattened(item, f"{prefix}{key}.")
        elif item is not None:
            text = ", ".join(map(str, item)) if isinstance(item, list) else str(item)
            out.append((prefix + str(key), text))
    return out


def table(path: Path) -> list[dict[str, Any]]:
    """The rows of a Parquet file; none where it is missing or cannot be read."""
    if not path.is_file():
        return []
    try:
        rows: list[dict[str, Any]] = pq.read_table(path).to_pylist()
    except (OSError, pa.ArrowException) as error:
        log.warning("%s cannot be read (%s); the page goes without it.", path, error)
        return []
    return rows


def text(path: Path) -> str:
    """The text of a file; "" where it is missing."""
    return path.read_text(encoding="utf-8", errors="replace").strip("\n") if path.is_file() else ""


def mapping(path: Path) -> dict[str, Any]:
    """A JSON or YAML mapping; empty where the file is missing or is not one."""
    found = text(path)
    try:
        value = json.loads(found) if path.suffix == ".json" else yaml.safe_load(found)
    except (ValueError, yaml.YAMLError):
        return {}
    return value if isinstance(value, dict) else {}
