"""Writes docs/report.md, the fields of report.json, from the descriptions in report/frame.py and in every section.

    python bench/document_report.py [--check]

With --check nothing is written; ends with 1 where the document is out of step. A test does the same.
"""

from __future__ import annotations

import argparse
import inspect
import re
import sys
import textwrap
import types
from pathlib import Path
from typing import Any, Union, get_args, get_origin

from pydantic import BaseModel

import regraft.recipes.reports  # noqa: F401  (every job and kind registers its part)
from regraft.measure import abstention, number_summary, reliability, summary
from regraft.report.frame import REPORT_FORMAT, Audit, Candidate, Figure, Finding, FirstAnswer, Report
from regraft.report.sections import jobs, sections

DOCUMENT = Path(__file__).resolve().parents[1] / "docs" / "report.md"
PARTS = (Figure, FirstAnswer, Candidate, Audit, Finding)
VALUES = (summary, number_summary, reliability, abstention)
PREFACE = f"""\
# `report.json`: `{REPORT_FORMAT}`

<!-- Made by bench/document_report.py from src/regraft/report/frame.py and the section.py of every part: change it
there. -->

Every run has one beside its page, and `--json` prints it. Metrics are fractions in 0…1, `nll` is in nats, `mae` and
`rmse` are in the unit of the numbers, seconds are wall-clock. NaN is never written: a figure without meaning is null.
Fields may be added within a version; a field that changes its meaning changes the version. A key that is not
described here is an error when it is written, and when it is read: then a newer Regraft may be needed. Files of every
earlier version are read.

All fields of a report lie side by side: those of the frame, those of its job (`recipe`) and those of its kind of
labels (`kind`). `regraft style translate` has a format of its own, in [style.md](style.md).

## Every report
"""


def document() -> str:
    """The whole text."""
    parts = [PREFACE, table(Report)]
    for recipe in jobs:
        fields = [section.fields for section in jobs.get(recipe).sections if section.fields.model_fields]
        said = "\n".join(table(one) for one in fields) or "It has no fields beside these.\n"
        parts.append(f"## recipe: {recipe}\n\n{said}")
    for kind in sections:
        parts.append(f"## kind: {kind}\n\n{table(sections.get(kind).fields)}")
    for part in PARTS:
        rows = [table(part)]
        if part is Candidate:
            every = {section.candidate: None for recipe in jobs for section in jobs.get(recipe).sections}
            rows += [f"{told(one)}\n\n{table(one)}" for one in every if one.model_fields]
        parts.append(f"## {part.__name__}\n\n{told(part)}\n\n" + "\n".join(rows))
    for function in VALUES:
        parts.append(f"## measure.{function.__name__}\n\n{told(function)}\n")
    return "\n".join(parts)


def table(model: type[BaseModel]) -> str:
    """One row per field."""
    rows = ["| field | type | what it is |", "|---|---|---|"]
    for name, field in model.model_fields.items():
        rows.append(f"| `{name}` | {typed(field.annotation)} | {escaped(field.description or '')} |")
    return "\n".join(rows) + "\n"


def typed(annotation: Any) -> str:
    """A type as a reader of JSON knows it."""
    origin, arguments = get_origin(annotation), get_args(annotation)
    if origin in (Union, types.UnionType):
        return " or ".join(dict.fromkeys(typed(one) for one in arguments))
    if origin is list:
        return f"list of {typed(arguments[0])}"
    if origin is tuple:
        return "[" + ", ".join(typed(one) for one in arguments) + "]"
    if origin is dict or annotation is dict:
        return "object"
    if inspect.isclass(annotation) and issubclass(annotation, BaseModel):
        return f"[{annotation.__name__}](#{annotation.__name__.lower()})"
    plain = {str: "text", int: "whole number", float: "number", bool: "true or false", type(None): "null"}
    return plain[annotation]


def told(thing: Any) -> str:
    """A docstring as prose: its lines wrapped anew, its paragraphs kept."""
    paragraphs = [escaped(" ".join(one.split())) for one in (inspect.getdoc(thing) or "").split("\n\n")]
    return "\n\n".join(textwrap.fill(one, 118, break_long_words=False, break_on_hyphens=False) for one in paragraphs)


def escaped(text: str) -> str:
    """Text as it must stand in Markdown, in a table too; code in it stays as it is."""
    text = text.replace("|", "\\|")
    return "".join(part if part.startswith("`") else re.sub(r"([*_<])", r"\\\1", part) for part in _code(text))


def _code(text: str) -> list[str]:
    return re.split(r"(`[^`]*`)", text)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--check", action="store_true")
    text = document()
    if parser.parse_args().check:
        same = DOCUMENT.is_file() and DOCUMENT.read_text(encoding="utf-8") == text
        print(f"{DOCUMENT.name} is {'in' if same else 'out of'} step with the schema.")
        return int(not same)
    DOCUMENT.parent.mkdir(exist_ok=True)
    DOCUMENT.write_text(text, encoding="utf-8")
    print(f"{DOCUMENT.name}: {len(text.splitlines())} lines")
    return 0


if __name__ == "__main__":
    sys.exit(main())
