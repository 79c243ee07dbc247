"""Reading and drawing a finished run's report, whichever job made it: with the sections of all jobs and kinds."""

from __future__ import annotations

import regraft.recipes.adapt.report
import regraft.recipes.evaluate.report
import regraft.recipes.fit.report
import regraft.recipes.generalise.report
import regraft.tasks.classification.section
import regraft.tasks.regression.section  # noqa: F401  (each registers itself)
from regraft.recipes.frame.reporting import draw
from regraft.report.schema import read_report, schema_of, write_report

__all__ = ["draw", "read_report", "schema_of", "write_report"]
