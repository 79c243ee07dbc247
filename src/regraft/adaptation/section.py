"""What a report says of an adaptation: source-only or adapted, on what evidence, and how far the domains are apart."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from markupsafe import Markup
from pydantic import Field

from regraft.report.frame import Figure, Part, Report
from regraft.report.gathering import table
from regraft.report.sections import Page, Section

#: Names of distances for people.
_DISTANCES = {
    "a_distance": "Proxy A-distance",
    "mmd2": "Squared maximum mean discrepancy",
    "gaussian_kl": "Symmetric KL of Gaussians, nats per coordinate",
    "cid": "Same-class over other-class distance (CID)",
}


class AdaptationFields(Part):
    """The fields that reports of an adaptation have."""

    kept: str | None = Field(None, description="'adapted' or 'source_only'")
    why: str = Field("", description="the reason for what was kept, in words")
    source_only: dict[str, Any] | None = Field(
        None,
        description="the control without adaptation: name, source_accuracy (of numbers: source_error), "
        "label_free_score, oracle",
    )
    oracle_gain: Figure | None = Field(
        None, description="metric(kept) − metric(source-only) by the oracle, with its paired interval"
    )
    oracle_per_class: list[dict[str, Any]] | None = Field(
        None, description="per class name, n, accuracy and F1 of source-only and of what was kept, by the oracle"
    )
    setting: str | None = Field(
        None, description="'closed', 'partial' or 'open': what was assumed of the target's classes"
    )
    target_prior: list[dict[str, Any]] = Field(
        default_factory=list,
        description="per class name, its share in the source and its estimated share in the target (no label is "
        "read); with --setting partial its weight in 0…1 and whether it seems to be present",
    )
    open_set: dict[str, Any] | None = Field(
        None,
        description="with --setting open: unknown_share of the target, threshold of the confidence; with --oracle "
        "os_star (mean accuracy of the known classes), unk (of the unknown) and hos, their harmonic mean",
    )
    validators: list[dict[str, Any]] = Field(
        default_factory=list,
        description="per validator its score of the best candidate and of source-only, the share of half-samples in "
        "which the former is higher, and the side that it takes",
    )
    distance: dict[str, Any] = Field(
        default_factory=dict, description="distances between the domains, 'before' and 'after'"
    )
    sources: list[dict[str, Any]] = Field(
        default_factory=list,
        description="with several sources per source name, n, its distances a_distance and mmd2 to the target, and "
        "the weight that source-weighting gives it; empty with one",
    )
    calibration: dict[str, Any] | None = Field(
        None,
        description="how the temperature was found ('agreement' of the candidates on the target, 'source', 'none'), "
        "`estimated_accuracy` on the target, and with an oracle the calibration errors with this temperature and with "
        "the source's",
    )
    next_steps: str = Field("", description="what to do next, in words")
    n_target: int | None = Field(None, description="unlabelled target samples")


class AdaptedFields(Part):
    """What an adaptation adds to a candidate."""

    method: str | None = Field(None, description="adapt: the adaptation method's name")
    label_free_score: float | None = Field(
        None, description="adapt: mean rank by the label-free validators, 1 = best; the choice was made by it"
    )
    validators: dict[str, Any] | None = Field(None, description="adapt: the score by each validator")
    oracle: float | None = Field(
        None,
        description="adapt: accuracy (of numbers: mean absolute error) by the oracle's labels, read after the choice",
    )
    source_accuracy: float | None = Field(None, description="adapt: accuracy on held-out source samples")
    source_error: float | None = Field(None, description="adapt: mean absolute error on held-out source samples")
    open_set: dict[str, Any] | None = Field(
        None, description="adapt with --setting open: as the report's own `open_set`, of this candidate"
    )


def context(page: Page) -> Mapping[str, Any]:
    """What `section.html` is drawn from."""
    from regraft.adaptation.figures import domain_maps  # matplotlib is wanted for pages only

    report: Any = page.report
    rows = [candidate.model_dump() for candidate in report.candidates]
    for row in rows:
        row["scores"] = row["validators"] or {}
    before, after = report.distance.get("before") or {}, report.distance.get("after") or {}
    maps = domain_maps(table(page.run / "domains.parquet"), getattr(report, "classes", ()))
    return {
        "rows": sorted(rows, key=lambda row: (row["label_free_score"] is None, row["label_free_score"] or 0.0)),
        "validator_names": list(dict.fromkeys(name for row in rows for name in row["scores"])),
        "open_rows": [row for row in rows if "hos" in (row["open_set"] or {})],
        "has_oracle": any(row["oracle"] is not None for row in rows),
        "has_error": any(row["source_error"] is not None for row in rows),
        "distances": [(_DISTANCES.get(name, name), before.get(name), after.get(name)) for name in before],
        "maps": None if maps is None else Markup(maps),
    }


def mood(report: Report) -> str:
    """The colour of the headline where the adaptation did not credibly help."""
    return "bad" if report.alarms else "open"


SECTION = Section("adaptation", AdaptationFields, AdaptedFields, owner=__package__, context=context)
