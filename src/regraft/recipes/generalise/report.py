"""What the report of a generalisation is made of."""

from __future__ import annotations

from regraft.adaptation.generalisation.section import SECTION
from regraft.report.candidates import mood
from regraft.report.sections import JobReport, jobs

GENERALISE = jobs.register("generalise")(
    JobReport("generalise", (SECTION,), mood, "What each method minimises, on all domains together.")
)
