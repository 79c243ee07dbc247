"""What the report of an evaluation is made of."""

from __future__ import annotations

from pydantic import Field

from regraft.report.candidates import TRIED
from regraft.report.frame import Part
from regraft.report.sections import JobReport, Section, jobs


class EvaluationFields(Part):
    """The fields that reports of an evaluation have."""

    model: str | None = Field(None, description="the artifact that was scored")


EVALUATE = jobs.register("evaluate")(JobReport("evaluate", (Section("evaluation", EvaluationFields), TRIED)))
