"""`report.json`: what a run found, in a form that programs can read. Every field is described here and
nowhere else.

Metrics are fractions in 0…1 (nll in nats, mae and rmse in the unit of the numbers), times are seconds, NaN is
never written: a figure without meaning is null.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from regraft.core.errors import ArtifactError
from regraft.core.files import read_json, write_json

REPORT_FORMAT = "regraft.report/1"

Bounds = tuple[float | None, float | None]


class _Part(BaseModel):
    """Parts may carry more than is described, so that a newer writer does not break an older reader."""

    model_config = ConfigDict(extra="allow")

    @model_validator(mode="before")
    @classmethod
    def _finite(cls, value: Any) -> Any:
        return plain(value)


class Figure(_Part):
    """A figure with its interval."""

    value: float | None = Field(None, description="the figure itself: a metric, or a difference of two")
    interval: Bounds = Field((None, None), description="[low, high] at the 95 % level")


class FirstAnswer(Figure):
    """What was known long before the end."""

    how: str = Field("", description="what gave it, for people: 'probe on cached features, cross-validated'")


class Candidate(Figure):
    """One way that was tried."""

    name: str = Field(description="'probe', 'finetune', 'scratch', …")
    validation: float | None = Field(None, description="the metric on validation, which the choice was made by")
    seconds: float | None = Field(None, description="wall-clock seconds that it took")
    trained_parameters: int | None = Field(None, description="how many numbers were trained")
    method: str | None = Field(None, description="adapt: the adaptation method's name")
    label_free_score: float | None = Field(
        None, description="adapt: mean rank by the label-free validators, 1 = best; the choice was made by it"
    )
    oracle: float | None = Field(
        None,
        description="adapt: accuracy (of numbers: mean absolute error) by the oracle's labels, read after the choice",
    )
    source_accuracy: float | None = Field(None, description="adapt: accuracy on held-out source pictures")
    open_set: dict[str, Any] | None = Field(
        None, description="adapt with --setting open: as the report's own `open_set`, of this candidate"
    )
    source_error: float | None = Field(None, description="adapt: mean absolute error on held-out source pictures")
    chosen: bool = Field(False, description="whether this is the one that was kept")


class Finding(_Part):
    """One thing that the audit found."""

    kind: str = Field(description="what it is, for programs: 'truncated', 'near-duplicate', 'imbalance', …")
    severity: str = Field("info", description="'error', 'warning' or 'info'")
    count: int = Field(0, description="how many files (or classes, where the kind is about classes) it concerns")
    sentence: str = Field("", description="the finding for people, with what was done about it")
    examples: list[str] = Field(default_factory=list, description="a few file names")
    left_out: bool | int = Field(False, description="whether (or how many of) these files were left out")


class Audit(_Part):
    """What the look at the files before any training found."""

    n_files: int | None = Field(None, description="how many files were looked at")
    n_usable: int | None = Field(None, description="how many of them take part; the others are named in `findings`")
    seconds: float | None = Field(None, description="wall-clock seconds that the look took")
    findings: list[Finding] = Field(default_factory=list, description="everything that was found, gravest first")


class Report(BaseModel):
    """The whole report. Fields that are not described here are kept under `details`."""

    model_config = ConfigDict(extra="forbid")

    format: str = Field(REPORT_FORMAT, description="format and version of this file")
    recipe: str = Field("fit", description="the job: 'fit', 'evaluate', …")
    data: str = Field("", description="what the data was called")
    data_root: str | None = Field(None, description="the folder that relative paths in the Parquet files start from")
    backbone: str = Field("", description="name of the pretrained network")
    created: str = Field("", description="UTC, ISO 8601")

    metric: str = Field(
        "accuracy", description="name of the metric of value, candidates and gain (measure.METRICS, NUMBER_METRICS)"
    )
    value: float | None = Field(None, description="the chosen candidate's metric on `evaluated_on`")
    interval: Bounds = Field((None, None), description="its [low, high], 95 % bootstrap over the test samples")
    candidates: list[Candidate] = Field(default_factory=list, description="everything that was tried, with its figures")
    chosen: str | None = Field(None, description="name of the candidate that was kept; picked on validation")
    transfer_gain: Figure | None = Field(
        None, description="metric(chosen) − metric(scratch) with its paired interval; null without a control"
    )
    verdict: str = Field("", description="the one sentence")
    helped: bool | None = Field(None, description="true, false, or null where the interval leaves it open")
    alarms: list[str] = Field(default_factory=list, description="what a reader must know, gravest first")

    kept: str | None = Field(None, description="adapt: 'adapted' or 'source_only'")
    why: str = Field("", description="adapt: the reason for what was kept, in words")
    source_only: dict[str, Any] | None = Field(
        None, description="adapt: the control without adaptation: name, source_accuracy, label_free_score, oracle"
    )
    oracle_gain: Figure | None = Field(
        None, description="adapt: metric(kept) − metric(source-only) by the oracle, with its paired interval"
    )
    oracle_per_class: list[dict[str, Any]] | None = Field(
        None, description="adapt: per class name, n, accuracy and F1 of source-only and of what was kept, by the oracle"
    )
    setting: str | None = Field(
        None, description="adapt: 'closed', 'partial' or 'open': what was assumed of the target's classes"
    )
    target_prior: list[dict[str, Any]] = Field(
        default_factory=list,
        description="adapt: per class name, its share in the source and its estimated share in the target (no label "
        "is read); with --setting partial its weight in 0…1 and whether it seems to be present",
    )
    open_set: dict[str, Any] | None = Field(
        None,
        description="adapt with --setting open: unknown_share of the target, threshold of the confidence; with "
        "--oracle os_star (mean accuracy of the known classes), unk (of the unknown) and hos, their harmonic mean",
    )
    validators: list[dict[str, Any]] = Field(
        default_factory=list,
        description="adapt: per validator its score of the best candidate and of source-only, the share of half-"
        "samples in which the former is higher, and the side that it takes",
    )
    distance: dict[str, Any] = Field(
        default_factory=dict, description="adapt: distances between the domains, 'before' and 'after'"
    )
    sources: list[dict[str, Any]] = Field(
        default_factory=list,
        description="adapt: with several sources per source name, n, its distances a_distance and mmd2 to the target, "
        "and the weight that source-weighting gives it; empty with one",
    )
    next_steps: str = Field("", description="what to do next, in words")
    n_target: int | None = Field(None, description="adapt: unlabelled target pictures")

    held_out: list[dict[str, Any]] = Field(
        default_factory=list,
        description="generalise: per domain that was left out its name, n, the figures of all methods, the one "
        "that was chosen without it with its value, and the best in hindsight with best_value",
    )
    erm_gain: Figure | None = Field(
        None, description="generalise: accuracy(choice) − accuracy(ERM), mean over held-out domains, paired interval"
    )
    hindsight: float | None = Field(
        None, description="generalise: mean over held-out domains of the best method's accuracy; picked by their labels"
    )

    first_answer_s: float | None = Field(None, description="seconds from the command's start to the first answer")
    first_answer: FirstAnswer | None = Field(None, description="the figure that was given then")
    total_s: float | None = Field(None, description="seconds from start to end")
    n_train: int | None = Field(None, description="pictures that the model learned from (in one round)")
    n_val: int | None = Field(None, description="pictures that choices were made on (in one round)")
    n_test: int | None = Field(None, description="different pictures that the figures come from, over all rounds")
    evaluated_on: str = Field("", description="what the figures come from: 'test split (20 %, held out first)', …")
    classes: list[str] = Field(default_factory=list, description="class names in the order of the label indices")

    number: str | None = Field(None, description="regression: the name of the number; null where classes are told")
    prediction_interval: dict[str, Any] | None = Field(
        None,
        description="regression: half_width around a predicted number, in its unit, from n held-out residuals; the "
        "coverage that it is for, and tested_coverage, the share of test pictures that it held for",
    )

    summary: dict[str, Any] | None = Field(
        None, description="measure.summary of the chosen candidate on the test; regression: measure.number_summary"
    )
    validation_summary: dict[str, Any] | None = Field(None, description="the same on validation")
    reliability_before: list[dict[str, Any]] | None = Field(
        None, description="measure.reliability on the test, before temperature scaling"
    )
    reliability_after: list[dict[str, Any]] | None = Field(None, description="the same, after it")
    temperature: float | None = Field(None, description="the divisor of the logits, fitted on validation")
    calibration: dict[str, Any] | None = Field(
        None,
        description="adapt: how the temperature was found ('agreement' of the candidates on the target, 'source', "
        "'none'), `estimated_accuracy` on the target, and with an oracle the calibration errors with this temperature "
        "and with the source's",
    )
    abstention: dict[str, Any] | None = Field(
        None, description="measure.abstention, chosen on validation: threshold, coverage, accuracy, target"
    )
    audit: Audit | None = Field(None, description="what was wrong with the files")
    notes: list[str] = Field(default_factory=list, description="choices and departures worth knowing")
    reproduce: str = Field("", description="the command line that repeats the run")
    seed: int | None = Field(None, description="the seed of splits, training and resampling")
    details: dict[str, Any] = Field(default_factory=dict, description="anything else")

    @model_validator(mode="before")
    @classmethod
    def _tidy(cls, value: Any) -> Any:
        """NaN becomes null; fields that are not described move under `details` instead of failing a finished
        run."""
        if not isinstance(value, Mapping):
            return value
        value = plain(value)
        known = {name: item for name, item in value.items() if name in cls.model_fields}
        other = {name: item for name, item in value.items() if name not in cls.model_fields}
        return known | {"details": {**(known.get("details") or {}), **other}}


def plain(value: Any) -> Any:
    """The same value in JSON's types: NumPy scalars and arrays unpacked, paths as text, NaN and infinities
    as None."""
    if isinstance(value, BaseModel):
        return plain(value.model_dump())
    if isinstance(value, Mapping):
        return {str(key): plain(item) for key, item in value.items()}
    if isinstance(value, np.ndarray):
        return plain(value.tolist())
    if isinstance(value, list | tuple):
        return [plain(item) for item in value]
    if isinstance(value, np.generic):
        value = value.item()
    if isinstance(value, float) and not math.isfinite(value):
        return None
    return str(value) if isinstance(value, Path) else value


def write_report(run: Path, report: Report | Mapping[str, Any]) -> Path:
    """Write `report.json` into a run directory, whole or not at all; returns its path."""
    if not isinstance(report, Report):
        report = Report.model_validate(report)
    path = run / "report.json"
    write_json(path, plain(report.model_dump(mode="json")))
    return path


def read_report(run: Path) -> Report:
    """`report.json` of a run directory, of this format's version 1; ArtifactError where it is missing or
    unreadable."""
    path = run / "report.json"
    if not path.is_file():
        raise ArtifactError(f"{run} has no report.json: run the same `regraft fit` command again; it resumes.")
    try:
        value = read_json(path)
        stated = value.get("format") if isinstance(value, dict) else None
        if stated != REPORT_FORMAT:
            raise ArtifactError(
                f"{path} has the format {stated!r}; this command reads {REPORT_FORMAT!r}. It is another command's "
                "report, or a newer Regraft is needed."
            )
        return Report.model_validate(value)
    except (ValueError, ValidationError) as error:
        raise ArtifactError(f"{path} cannot be read as {REPORT_FORMAT}: {error}") from error
