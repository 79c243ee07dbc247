"""What the report of a fit is made of."""

from __future__ import annotations

from regraft.report.candidates import TRANSFER, mood
from regraft.report.sections import JobReport, jobs

FIT = jobs.register("fit")(
    JobReport(
        "fit",
        (TRANSFER,),
        mood,
        "Where validation stops following training, more epochs only learn the training pictures by heart.",
    )
)
