"""Texts inside a page: what `predictions.parquet` quotes of them, escaped."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Final

from markupsafe import Markup

from regraft.text.inputs import shortened

log = logging.getLogger(__name__)

#: Characters in the tip of the map.
TIP: Final = 160


class Excerpts:
    """The excerpts of one run by the names of its samples; read when the first is asked for."""

    def __init__(self, run: Path) -> None:
        self.run = run
        self._known: dict[str, str] | None = None

    def __call__(self, path: Path, *, alt: str = "", small: bool = False) -> Markup | None:
        """A quotation; None, or outside the tip a box that says so, where the run has none of that sample."""
        if self._known is None:
            self._known = self._read()
        text = self._known.get(str(path)) or self._known.get(path.name)
        if text is None:
            return None if small else Markup('<div class="none">no text</div>')
        if small:
            return Markup("<span>{}</span>").format(shortened(text, TIP))
        return Markup('<blockquote style="margin: 0; overflow-wrap: anywhere">{}</blockquote>').format(text)

    def _read(self) -> dict[str, str]:
        import pyarrow as pa
        import pyarrow.parquet as parquet

        path = self.run / "predictions.parquet"
        try:
            rows = parquet.read_table(path, columns=["path", "excerpt"]).to_pylist()
        except (OSError, KeyError, ValueError, pa.ArrowException) as error:
            log.info("No excerpts from %s: %s", path, error)
            return {}
        return {str(row["path"]): str(row["excerpt"]) for row in rows if row["excerpt"] is not None}
