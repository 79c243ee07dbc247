"""Sections: the parts of a report that somebody else owns, a kind of labels or a job.

A section has fields of report.json, which lie flat beside the frame's, and a template whose blocks are drawn into the
page's areas. Whoever knows what the fields mean owns the section: `tasks/<kind>/section.py`,
`adaptation/section.py`. A job names its sections in a `JobReport`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

from markupsafe import Markup
from pydantic import BaseModel

from regraft.core.registry import Registry
from regraft.measure.metrics import Metric, metric_of
from regraft.report.frame import Part, Report

#: The areas of the page that sections may draw into, in the order of the page; a template has a block of the same name
#: for each that it uses. `lead` and `tiles` are boxes with one figure: the second, and the last ones. Between the areas
#: stand the frame's own parts: headline, alarms, learning curves, map, audit, notes, plan, how to get the run again.
AREAS = ("lead", "tiles", "job", "candidates", "labels", "confidence", "mistakes")


class Shown(Protocol):
    """What a modality shows of a sample: a thumbnail, an excerpt, a player."""

    def __call__(self, path: Path, *, alt: str = "", small: bool = False) -> Markup | None:
        """alt: what to say to those who cannot see it. small: for the tip of the map. None where it cannot be read."""
        ...


def nothing_shown(path: Path, *, alt: str = "", small: bool = False) -> Markup | None:
    """For reports whose samples cannot be shown."""
    return None


@dataclass(frozen=True)
class Page:
    """What a section draws from: the run's folder, its report, and how its samples are shown."""

    run: Path
    report: Report
    shown: Shown = nothing_shown

    @property
    def metric(self) -> Metric:
        return metric_of(self.report.metric)

    @property
    def percent(self) -> bool:
        """Whether the metric is a share."""
        return self.metric.form == "share"

    def locate(self, path: str) -> Path:
        """Where a sample lies: as it stands when absolute, else below data_root, else beside the run."""
        found = Path(path)
        if found.is_absolute():
            return found
        return (Path(self.report.data_root) if self.report.data_root else self.run) / found


def _no_context(page: Page) -> Mapping[str, Any]:
    return {}


@dataclass(frozen=True)
class Section:
    """A part of the report.

    fields: its part of report.json; every field needs a default. candidate: what it adds to each candidate. owner: the
    package that `template` lies in ("" for a section that draws nothing); context: what the template is drawn from,
    beside `report` and the words of the frame.
    """

    name: str
    fields: type[BaseModel] = Part
    candidate: type[BaseModel] = Part
    owner: str = ""
    template: str = "section.html"
    context: Callable[[Page], Mapping[str, Any]] = _no_context


@dataclass(frozen=True)
class JobReport:
    """What a job's report is made of, beside the frame and the section of its kind of labels.

    mood: the colour of the headline ("good", "bad", "open" or "plain") where `helped` is not true. curves: the sentence
    over the learning curves.
    """

    recipe: str
    sections: tuple[Section, ...] = ()
    mood: Callable[[Report], str] = field(default=lambda report: "plain")
    curves: str = ""


#: The sections of kinds of labels, by the kind's name. Another package may add its own.
sections: Registry[Section] = Registry("report section")
#: What each job's report is made of.
jobs: Registry[JobReport] = Registry("job report")


def sections_of(report: Report) -> tuple[Section, ...]:
    """The sections of a report: its job's, then its kind's."""
    return (*jobs.get(report.recipe).sections, sections.get(report.kind))
