"""Reading and drawing a finished run's report, whichever job made it: with the sections of all jobs and kinds."""

from __future__ import annotations

import regraft.recipes.adapt.report
import regraft.recipes.evaluate.report
import regraft.recipes.fit.report
import regraft.recipes.generalise.report  # noqa: F401  (each job registers what its report is made of)
from regraft.recipes.frame.reporting import draw, load_section
from regraft.report.schema import read_report, schema_of, write_report
from regraft.tasks.kinds import kinds

__all__ = ["draw", "read_report", "schema_of", "write_report"]

for _kind in kinds:
    load_section(_kind)
