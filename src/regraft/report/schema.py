"""`report.json`: one schema per job and kind of labels, put together from the frame and their sections.

A key that no part describes is an error with the nearest match. Files of earlier versions are brought up to this one
when they are read (`upgrade.py`).
"""

from __future__ import annotations

import difflib
from collections.abc import Mapping
from functools import cache
from pathlib import Path
from typing import Any

from pydantic import BaseModel, Field, ValidationError, create_model

from regraft.core.errors import ArtifactError, UsageError
from regraft.core.files import read_json, write_json
from regraft.report.frame import REPORT_FORMAT, Candidate, Part, Report, plain
from regraft.report.sections import jobs, sections
from regraft.report.upgrade import EARLIER, upgraded


@cache
def schema_of(recipe: str, kind: str) -> type[Report]:
    """The schema of a job's reports on a kind of labels; UsageError where one of them is unknown.

    The model's bases are the frame and each section's fields, so `isinstance(report, section.fields)` asks whether a
    report has that section.
    """
    parts = (*jobs.get(recipe).sections, sections.get(kind))
    name = f"{recipe}_{kind}".title().replace("_", "").replace("-", "")
    row = _joined(f"{name}Candidate", Candidate, *(part.candidate for part in parts))
    described = Report.model_fields["candidates"].description
    joined = _joined(f"{name}Report", Report, *(part.fields for part in parts))
    rows: Any = (list[row], Field(default_factory=list, description=described))  # type: ignore[valid-type]
    return create_model(f"{name}Report", __base__=joined, candidates=rows)


def _joined(name: str, *parts: type[BaseModel]) -> type[Any]:
    """One model with the fields of all; ValueError where two parts have a field of the same name."""
    seen: dict[str, str] = {}
    bases = [part for part in dict.fromkeys(parts) if part is not Part]
    for part in bases:
        for field in part.model_fields:
            if field in seen:
                raise ValueError(f"The report field {field!r} belongs to both {seen[field]} and {part.__name__}.")
            seen[field] = part.__name__
    return (
        bases[0] if len(bases) == 1 else create_model(name, __base__=tuple(reversed(bases)))
    )  # fields in order of the parts


def checked(report: Mapping[str, Any]) -> Report:
    """A report from its keys, by the schema of its recipe and kind; ValueError names every key that is wrong."""
    recipe = str(report.get("recipe", Report.model_fields["recipe"].default))
    kind = str(report.get("kind", Report.model_fields["kind"].default))
    schema = schema_of(recipe, kind)
    try:
        return schema.model_validate(plain(report))
    except ValidationError as error:
        raise ValueError(" ".join(mistakes(schema, error))) from error


def mistakes(schema: type[BaseModel], error: ValidationError) -> list[str]:
    """Each mistake as a sentence; a strange key with the nearest one that is known."""
    said = []
    for item in error.errors():
        place = [part for part in item["loc"] if isinstance(part, str)]
        where = ".".join(map(str, item["loc"]))
        if item["type"] != "extra_forbidden":
            said.append(f"{where}: {item['msg']}.")
            continue
        known = _fields_at(schema, place[:-1])
        near = difflib.get_close_matches(place[-1], known, n=1, cutoff=0.5)
        said.append(f"{where} is no field of {schema.__name__}." + (f" Did you mean {near[0]!r}?" if near else ""))
    return said


def _fields_at(schema: type[BaseModel], place: list[str]) -> list[str]:
    """The names of the fields of the part at that place."""
    for name in place:
        field = schema.model_fields.get(name)
        inner = None if field is None else next(iter(_models(field.annotation)), None)
        if inner is None:
            return []
        schema = inner
    return list(schema.model_fields)


def _models(annotation: Any) -> list[type[BaseModel]]:
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return [annotation]
    return [model for inner in getattr(annotation, "__args__", ()) for model in _models(inner)]


def write_report(run: Path, report: Report | Mapping[str, Any]) -> Path:
    """Write `report.json` into a run directory, whole or not at all; returns its path. ValueError for a strange key."""
    if not isinstance(report, Report):
        report = checked(report)
    path = run / "report.json"
    write_json(path, plain(report.model_dump(mode="json")))
    return path


def read_report(run: Path) -> Report:
    """`report.json` of a run directory, of this version or an earlier one; ArtifactError where it is missing or cannot
    be read."""
    path = run / "report.json"
    if not path.is_file():
        raise ArtifactError(f"{run} has no report.json: run the same `regraft fit` command again; it resumes.")
    try:
        value = read_json(path)
        stated = value.get("format") if isinstance(value, dict) else None
        if stated != REPORT_FORMAT and stated not in EARLIER:
            raise ArtifactError(
                f"{path} has the format {stated!r}; this command reads {REPORT_FORMAT!r} and earlier ones. It is "
                "another command's report, or a newer Regraft is needed."
            )
        if stated in EARLIER:
            value = upgraded(value, schema_of)
        return checked(value)
    except (ValueError, UsageError) as error:
        raise ArtifactError(f"{path} cannot be read as {REPORT_FORMAT}: {error}") from error
