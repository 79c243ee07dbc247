"""Files of earlier versions of `report.json`, brought up to this one."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from pydantic import BaseModel

from regraft.report.frame import REPORT_FORMAT, Candidate, Finding, Report

EARLIER = ("regraft.report/1",)
#: What a fit called its control before candidates said so themselves.
CONTROL = "scratch"


def upgraded(value: Mapping[str, Any], schema_of: Callable[[str, str], type[Report]]) -> dict[str, Any]:
    """The keys of a file of version 1 as today's schema has them.

    Version 1 was one schema for all jobs: a file has the fields of other jobs too, null or empty, which are dropped;
    what is neither described today nor empty stays under `details`, as it was kept then. The kind of labels was not
    named: a report with a `number` is of numbers.
    """
    kind = "regression" if value.get("number") is not None else "classification"
    schema = schema_of(str(value.get("recipe", "fit")), kind)
    details = dict(value.get("details") or {})
    every = {key: item for key, item in {**details, **value}.items() if key != "details"}
    known = {key: item for key, item in every.items() if key in schema.model_fields}
    strange = {key: item for key, item in every.items() if key not in schema.model_fields and item not in _EMPTY}
    known |= {"format": REPORT_FORMAT, "kind": kind}
    row = _row_of(schema)
    lost: dict[str, Any] = {}
    rows = [_split(one, row, lost, f"candidates.{one.get('name')}") for one in value.get("candidates") or []]
    known["candidates"] = [one | {"control": one.get("name") == _control(value)} for one in rows]
    audit = value.get("audit")
    if isinstance(audit, Mapping):
        found = [_split(one, Finding, lost, f"findings.{one.get('kind')}") for one in audit.get("findings") or []]
        known["audit"] = {**audit, "findings": found}
    return known | {"details": {**strange, **lost}}


_EMPTY: tuple[Any, ...] = (None, "", [], {})


def _control(value: Mapping[str, Any]) -> str | None:
    """The name of the candidate that gains are measured against."""
    if value.get("recipe", "fit") == "fit":
        return CONTROL
    source_only = value.get("source_only")
    return source_only.get("name") if isinstance(source_only, Mapping) else None


def _row_of(schema: type[Report]) -> type[BaseModel]:
    inner = getattr(schema.model_fields["candidates"].annotation, "__args__", (Candidate,))[0]
    return inner if isinstance(inner, type) and issubclass(inner, BaseModel) else Candidate


def _split(part: Mapping[str, Any], model: type[BaseModel], lost: dict[str, Any], where: str) -> dict[str, Any]:
    """The keys that the model describes; the others go to `lost`, by where they were."""
    for key, item in part.items():
        if key not in model.model_fields and item not in _EMPTY:
            lost[f"{where}.{key}"] = item
    return {key: item for key, item in part.items() if key in model.model_fields}
