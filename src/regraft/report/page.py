"""One HTML page per run: everything inside it, nothing loaded from elsewhere, written whole or not at all."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import yaml
from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup

from regraft.core.errors import ArtifactError
from regraft.core.files import replacing
from regraft.measure import METRICS, Interval, format_gain, format_value, metric_of, risk_coverage
from regraft.report import figures, gathering
from regraft.report.numbers import numbers
from regraft.report.schema import Report, read_report
from regraft.tasks.kinds import known_metrics

#: Names of distances for people.
_DISTANCES = {
    "a_distance": "Proxy A-distance",
    "mmd2": "Squared maximum mean discrepancy",
    "gaussian_kl": "Symmetric KL of Gaussians, nats per coordinate",
    "cid": "Same-class over other-class distance (CID)",
}


def render(run: Path) -> Path:
    """Write `report.html` into a run directory, from what lies there alone; returns its path.

    Needs report.json; metrics.jsonl, predictions.parquet, embedding.parquet, plan.txt, env.json and
    config.yaml are used where they exist. Every name that comes from data is escaped. Raises ArtifactError
    where report.json is missing, of an unknown version, or names a metric that is unknown.
    """
    report = read_report(run)
    known = [*known_metrics()]
    if report.metric not in known:
        raise ArtifactError(f"{run / 'report.json'} has the metric {report.metric!r}; known are {', '.join(known)}.")
    environment = Environment(
        loader=PackageLoader("regraft.report", "."),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters.update(
        percent=_percent,
        share=_share,
        duration=_duration,
        count=_count,
        metric=lambda value: "–" if value is None else format_value(report.metric, value),
        bounds=lambda interval: _bounds(report.metric, interval),
    )
    html = environment.get_template("template.html").render(_contents(run, report))
    path = run / "report.html"
    with replacing(path) as temporary:
        temporary.write_bytes(html.encode("utf-8", "replace"))
    return path


def _contents(run: Path, report: Report) -> dict[str, Any]:
    label = metric_of(report.metric).label
    title = label[0].upper() + label[1:]
    percent = metric_of(report.metric).form == "share"
    rows = [candidate.model_dump() for candidate in report.candidates]
    lines = gathering.metrics_lines(run)
    predictions = gathering.test_predictions(run, report)
    abstention = report.abstention or {}
    worst, n_wrong = gathering.mistakes(predictions, report, run)
    headline, _, rest = report.verdict.partition(": ")
    curve = None
    tested_abstention = None
    if predictions is not None:
        coverage, risk = risk_coverage(predictions.probabilities, predictions.labels)
        answered = None
        if abstention.get("threshold"):
            sure = predictions.probabilities.max(axis=1) >= abstention["threshold"]
            right = predictions.probabilities.argmax(axis=1) == predictions.labels
            answered = float(sure.mean())
            tested_abstention = {
                "coverage": answered,
                "accuracy": float(right[sure].mean()) if sure.any() else None,
            }
        curve = _markup(figures.risk_coverage(coverage, risk, answered))
    summary = report.summary or {}
    named = summary.get("confusion") and len(summary["confusion"]) == len(report.classes)
    curves = [
        (name, _markup(figures.learning_curves(lines, name, label, percent)))
        for name in dict.fromkeys(str(line.get("candidate")) for line in lines if line.get("candidate") is not None)
    ]
    return {
        "report": report,
        "adaptation": _adaptation(run, report),
        "numbers": numbers(run, report),
        "metric_label": label,
        "metric_title": title,
        "headline": headline,
        "headline_rest": rest[:1].upper() + rest[1:],
        "mood": _mood(report),
        "gain": _gain(report),
        "candidates": rows,
        "candidates_figure": _markup(figures.candidates(rows, title, percent) if len(rows) > 1 else None),
        "reason": _reason(report),
        "curves": [(name, curve) for name, curve in curves if curve is not None],
        "confusion": _markup(figures.confusion(summary["confusion"], report.classes) if named else None),
        "confused": _off_diagonal(summary["confusion"]) if named else None,
        "pairs": gathering.confused_pairs(summary["confusion"], report.classes) if named else [],
        "per_class": summary.get("per_class") or [],
        "summary": summary,
        "validation_summary": report.validation_summary or {},
        "metrics": {name: metric.label for name, metric in METRICS.items()},
        "reliability": _markup(figures.reliability(report.reliability_before, report.reliability_after)),
        "ece": (_ece(report.reliability_before), _ece(report.reliability_after)),
        "risk_coverage": curve,
        "abstention": abstention,
        "tested_abstention": tested_abstention,
        "scatter": gathering.scatter(run, report),
        "scatter_size": (gathering.SCATTER_WIDTH, gathering.SCATTER_HEIGHT),
        "mistakes": worst,
        "n_wrong": n_wrong,
        "plan": _text(run / "plan.txt"),
        "environment": gathering.flattened(_mapping(run / "env.json")),
        "settings": gathering.flattened(_mapping(run / "config.yaml")),
        "run_literal": json.dumps(run.as_posix(), ensure_ascii=False),
        "run_name": run.resolve().name,
        "artifact": str(run / "artifact"),
    }


def _adaptation(run: Path, report: Report) -> dict[str, Any]:
    """What the sections on adaptation show; empty for other recipes."""
    if not report.why:
        return {}
    rows = [candidate.model_dump() for candidate in report.candidates]
    for row in rows:
        row["scores"] = row.get("validators") or {}
    names = list(dict.fromkeys(name for row in rows for name in row["scores"]))
    before, after = report.distance.get("before") or {}, report.distance.get("after") or {}
    return {
        "rows": sorted(rows, key=lambda row: (row["label_free_score"] is None, row["label_free_score"] or 0.0)),
        "validator_names": names,
        "open_rows": [row for row in rows if "hos" in (row["open_set"] or {})],
        "has_oracle": any(row["oracle"] is not None for row in rows),
        "distances": [(_DISTANCES.get(name, name), before.get(name), after.get(name)) for name in before],
        "maps": _markup(figures.domain_maps(gathering.table(run / "domains.parquet"), report.classes)),
    }


def _mood(report: Report) -> str:
    """Which colour the headline takes: "good", "bad" (worse than the control), "open", or "plain" without a
    control."""
    if report.helped:
        return "good"
    if report.why:
        return "bad" if report.alarms else "open"
    if report.transfer_gain is None and report.helped is None:
        return "plain"
    gain = _gain_interval(report)
    if gain is not None:
        low, high = (gain.low, gain.high) if metric_of(report.metric).higher_is_better else (-gain.high, -gain.low)
        if low < 0 and high < 0:
            return "bad"
    return "open"


def _gain_interval(report: Report) -> Interval | None:
    gain = report.transfer_gain
    if gain is None or gain.value is None or gain.interval[0] is None or gain.interval[1] is None:
        return None
    return Interval(gain.value, gain.interval[0], gain.interval[1])


def _gain(report: Report) -> tuple[str, str] | None:
    """The gain and its interval as text."""
    interval = _gain_interval(report)
    if interval is None:
        return None
    value, _, bounds = format_gain(report.metric, interval).partition(" [")
    return value, bounds.rstrip("]").replace(", ", " to ")


def _reason(report: Report) -> str:
    """Why the chosen candidate was chosen."""
    chosen = next((row for row in report.candidates if row.chosen or row.name == report.chosen), None)
    if chosen is None or len(report.candidates) < 2:
        return ""
    if chosen.validation is None:
        return f"{chosen.name} was kept."
    higher = metric_of(report.metric).higher_is_better
    others = [row.validation for row in report.candidates if row is not chosen and row.validation is not None]
    sign = 1 if higher else -1
    best = others and all(sign * chosen.validation > sign * other for other in others)
    how = (
        f"the {'highest' if higher else 'lowest'} of {len(others) + 1}"
        if best
        else "where no other is credibly better in loss"
    )
    value = format_value(report.metric, chosen.validation)
    return f"{chosen.name} was kept: {value} on validation, {how}; the test came after that."


def _off_diagonal(matrix: list[list[int]]) -> tuple[int, int]:
    """How many samples are wrong, and how many there are."""
    total = sum(map(sum, matrix))
    return total - sum(row[i] for i, row in enumerate(matrix)), total


def _ece(bins: list[dict[str, Any]] | None) -> float | None:
    total = sum(row["n"] for row in bins or ())
    if not bins or not total:
        return None
    return float(sum(row["n"] * abs(row["accuracy"] - row["confidence"]) for row in bins if row["n"]) / total)


def _markup(svg: str | None) -> Markup | None:
    """SVG made by `figures`, where every label has been escaped already."""
    return None if svg is None else Markup(svg)


def _text(path: Path) -> str:
    return path.read_text(encoding="utf-8", errors="replace").strip("\n") if path.is_file() else ""


def _mapping(path: Path) -> dict[str, Any]:
    """A JSON or YAML mapping; empty where the file is missing or is not one."""
    text = _text(path)
    try:
        value = json.loads(text) if path.suffix == ".json" else yaml.safe_load(text)
    except (ValueError, yaml.YAMLError):
        return {}
    return value if isinstance(value, dict) else {}


def _percent(value: float | None, digits: int = 1) -> str:
    return "–" if value is None else f"{100 * value:.{digits}f}\N{NO-BREAK SPACE}%"


def _share(value: float | None) -> str:
    """A fraction as a CSS width."""
    return f"{100 * min(max(value or 0.0, 0.0), 1.0):.1f}%"


def _count(value: int | None) -> str:
    return "–" if value is None else f"{value:,}".replace(",", "\N{NARROW NO-BREAK SPACE}")


def _duration(seconds: float | None) -> str:
    if seconds is None:
        return "–"
    space = "\N{NO-BREAK SPACE}"
    if seconds < 60:
        return f"{seconds:.1f}{space}s"
    if seconds < 3600:
        return f"{int(seconds // 60)}{space}min {int(seconds % 60)}{space}s"
    return f"{int(seconds // 3600)}{space}h {int(seconds % 3600 // 60)}{space}min"


def _bounds(metric: str, interval: Any) -> str:
    if not interval or interval[0] is None or interval[1] is None:
        return ""
    if metric_of(metric).form == "share":
        return f"{100 * interval[0]:.1f} to {100 * interval[1]:.1f}"
    return f"{format_value(metric, interval[0])} to {format_value(metric, interval[1])}"
