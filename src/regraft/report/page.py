"""One HTML page per run: everything inside it, nothing loaded from elsewhere, written whole or not at all."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from jinja2 import Environment
from markupsafe import Markup

from regraft.core.errors import ArtifactError
from regraft.core.files import replacing
from regraft.measure.metrics import named_metrics
from regraft.report import figures, gathering
from regraft.report.environment import environment
from regraft.report.map import HEIGHT, WIDTH, scatter
from regraft.report.schema import read_report
from regraft.report.sections import AREAS, Page, Section, Shown, jobs, nothing_shown, sections_of


def render(run: Path, *, shown: Shown = nothing_shown) -> Path:
    """Write `report.html` into a run directory, from what lies there alone; returns its path.

    Needs report.json; metrics.jsonl, predictions.parquet, embedding.parquet, plan.txt, env.json and config.yaml are
    used where they exist. shown: what is shown of a sample. Every name that comes from data is escaped. Raises
    ArtifactError where report.json is missing, of an unknown version, or names a metric that is unknown.
    """
    page = Page(run, read_report(run), shown)
    known = named_metrics()
    if page.report.metric not in known:
        raise ArtifactError(
            f"{run / 'report.json'} has the metric {page.report.metric!r}; known are {', '.join(known)}."
        )
    parts = sections_of(page.report)
    made = environment((section.owner for section in parts if section.owner), page.report.metric)
    words = _words(page)
    areas = drawn(made, parts, page, words)
    html = made.get_template("page.html").render(**words, **_contents(page), areas=areas)
    path = run / "report.html"
    with replacing(path) as temporary:
        temporary.write_bytes(html.encode("utf-8", "replace"))
    return path


def drawn(made: Environment, parts: tuple[Section, ...], page: Page, words: Mapping[str, Any]) -> dict[str, Markup]:
    """What the sections draw into each area, by its name: the blocks of their templates, in the sections' order."""
    found = {area: "" for area in AREAS}
    for section in parts:
        if not section.owner:
            continue
        template = made.get_template(f"{section.owner}:{section.template}")
        context = template.new_context({**words, **section.context(page)})
        for area, block in template.blocks.items():
            if area not in found:
                raise ValueError(f"The section {section.name} draws into {area!r}; a page has {', '.join(AREAS)}.")
            found[area] += "".join(block(context))
    return {area: Markup(html) for area, html in found.items()}


def _words(page: Page) -> dict[str, Any]:
    """What the frame and every section are drawn from."""
    report, label = page.report, page.metric.label
    rows = [candidate.model_dump() for candidate in report.candidates]
    title = label[0].upper() + label[1:]
    several = len(rows) > 1
    return {
        "report": report,
        "metric_label": label,
        "metric_title": title,
        "candidates": rows,
        "candidates_figure": markup(figures.candidates(rows, title, page.percent) if several else None),
        "summary": report.summary or {},
        "validation_summary": report.validation_summary or {},
    }


def _contents(page: Page) -> dict[str, Any]:
    """What the frame alone is drawn from."""
    report, run = page.report, page.run
    headline, _, rest = report.verdict.partition(": ")
    job = jobs.get(report.recipe)
    return {
        "headline": headline,
        "headline_rest": rest[:1].upper() + rest[1:],
        "mood": "good" if report.helped else job.mood(report),
        "curves": _curves(page),
        "curves_lead": job.curves,
        "scatter": scatter(page),
        "scatter_size": (WIDTH, HEIGHT),
        "plan": gathering.text(run / "plan.txt"),
        "environment": gathering.flattened(gathering.mapping(run / "env.json")),
        "settings": gathering.flattened(gathering.mapping(run / "config.yaml")),
        "run_literal": json.dumps(run.as_posix(), ensure_ascii=False),
        "run_name": run.resolve().name,
        "artifact": str(run / "artifact"),
    }


def _curves(page: Page) -> list[tuple[str, Markup]]:
    """The learning curves of every candidate that has some."""
    lines = gathering.metrics_lines(page.run)
    names = dict.fromkeys(str(line.get("candidate")) for line in lines if line.get("candidate") is not None)
    found = [(name, figures.learning_curves(lines, name, page.metric.label, page.percent)) for name in names]
    return [(name, Markup(svg)) for name, svg in found if svg is not None]


def markup(svg: str | None) -> Markup | None:
    """SVG made by `figures`, where every label has been escaped already."""
    return None if svg is None else Markup(svg)
