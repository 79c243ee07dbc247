"""What the report of an adaptation is made of."""

from __future__ import annotations

from regraft.adaptation.section import SECTION, mood
from regraft.report.sections import JobReport, jobs

ADAPT = jobs.register("adapt")(
    JobReport(
        "adapt",
        (SECTION,),
        mood,
        "The source's own loss, and the alignment term with the target, over training.",
    )
)
