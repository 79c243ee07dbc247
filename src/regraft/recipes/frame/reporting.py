"""The end of a run that has a report: `report.json`, checked by its schema, and the page drawn from it."""

from __future__ import annotations

from collections.abc import Mapping
from importlib import import_module
from pathlib import Path
from typing import Any

from regraft.report.schema import read_report, write_report
from regraft.tasks.kinds import kinds
from regraft.tasks.modalities import modality_named


def publish(run: Path, report: Mapping[str, Any]) -> None:
    """Write report.json and report.html. The job's `report.py` must be loaded; the kind's section is loaded here.

    Raises ValueError for a key that neither the frame nor a section describes.
    """
    load_section(str(report["kind"]))
    write_report(run, report)
    draw(run)


def load_section(kind: str) -> None:
    """Have a kind of labels register its section."""
    import_module(kinds.get(kind).section)


def draw(run: Path) -> Path:
    """Draw report.html from report.json and what lies beside it; returns its path."""
    from regraft.report.page import render  # matplotlib is wanted at the end only

    return render(run, shown=modality_named(read_report(run).modality).shown(run))
