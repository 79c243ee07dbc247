"""What a report says of a generalisation: each domain left out, and what every method gains over ERM."""

from __future__ import annotations

from typing import Any

from pydantic import Field

from regraft.report.frame import Bounds, Figure, Part
from regraft.report.sections import Section


class GeneralisationFields(Part):
    """The fields that reports of a generalisation have."""

    held_out: list[dict[str, Any]] = Field(
        default_factory=list,
        description="per domain that was left out its name, n, the figures of all methods, the one that was chosen "
        "without it with its value, and the best in hindsight with best_value",
    )
    erm_gain: Figure | None = Field(
        None, description="accuracy(choice) − accuracy(ERM), mean over held-out domains, paired interval"
    )
    hindsight: float | None = Field(
        None, description="mean over held-out domains of the best method's accuracy; picked by their labels"
    )


class MethodFields(Part):
    """What a generalisation adds to a candidate."""

    method: str | None = Field(None, description="generalise: the method's name")
    erm_gain: float | None = Field(None, description="generalise: accuracy − that of ERM, over the held-out domains")
    erm_gain_interval: Bounds = Field((None, None), description="generalise: its paired interval")


SECTION = Section("generalisation", GeneralisationFields, MethodFields, owner=__package__)
