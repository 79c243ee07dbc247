"""What `regraft evaluate` can be told."""

from __future__ import annotations

from pathlib import Path

from regraft.core.options import OneOrSeveral, Options


class EvaluateConfig(Options):
    """Options of an evaluation. model: a run or an artifact folder; roots, or table: labelled samples."""

    model: Path
    roots: tuple[Path, ...] = ()
    table: Path | None = None
    image: str = "image"
    label: OneOrSeveral = "label"
    group: str | None = None
    device: str = "auto"
