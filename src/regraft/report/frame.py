"""The frame of `report.json`: what every job's report says, in a form that programs can read.

A job's sections and the kind of labels add their own fields (`sections.py`, `schema.py`). Metrics are fractions in 0…1
(nll in nats, mae and rmse in the unit of the numbers), times are seconds, NaN is never written: a figure without
meaning is null.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from pydantic import BaseModel, ConfigDict, Field, model_validator

REPORT_FORMAT = "regraft.report/2"

Bounds = tuple[float | None, float | None]


class Part(BaseModel):
    """A part of a report: a key that is not described is an error, NaN becomes null."""

    model_config = ConfigDict(extra="forbid")

    @model_validator(mode="before")
    @classmethod
    def _finite(cls, value: Any) -> Any:
        return plain(value)


class Figure(Part):
    """A figure with its interval."""

    value: float | None = Field(None, description="the figure itself: a metric, or a difference of two")
    interval: Bounds = Field((None, None), description="[low, high] at the 95 % level")


class FirstAnswer(Figure):
    """What was known long before the end."""

    how: str = Field("", description="what gave it, for people: 'probe on cached features, cross-validated'")


class Candidate(Figure):
    """One way that was tried; a job's section may add to it."""

    name: str = Field(description="what it is called: a strategy, a method, 'model'")
    validation: float | None = Field(None, description="the metric on validation, which the choice was made by")
    seconds: float | None = Field(None, description="wall-clock seconds that it took")
    trained_parameters: int | None = Field(None, description="how many numbers were trained")
    steps: int | None = Field(None, description="how many steps the training took; null where there was none")
    stopped: str | None = Field(None, description="why the training ended: 'done', 'early', 'budget', 'diverged'")
    chosen: bool = Field(False, description="whether this is the one that was kept")
    control: bool = Field(False, description="whether this is what the gain is measured against")


class Finding(Part):
    """One thing that the audit found."""

    kind: str = Field(description="what it is, for programs: 'truncated', 'near-duplicate', 'imbalance', …")
    severity: str = Field("info", description="'error', 'warning' or 'info'")
    count: int = Field(0, description="how many files (or classes, where the kind is about classes) it concerns")
    sentence: str = Field("", description="the finding for people, with what was done about it")
    examples: list[str] = Field(default_factory=list, description="a few file names")
    left_out: bool | int = Field(False, description="whether (or how many of) these files were left out")
    paths: list[str] = Field(default_factory=list, description="all the files that it concerns")


class Audit(Part):
    """What the look at the files before any training found."""

    n_files: int | None = Field(None, description="how many files were looked at")
    n_usable: int | None = Field(None, description="how many of them take part; the others are named in `findings`")
    seconds: float | None = Field(None, description="wall-clock seconds that the look took")
    findings: list[Finding] = Field(default_factory=list, description="everything that was found, gravest first")


class Report(Part):
    """The frame: what the report of every job says."""

    format: str = Field(REPORT_FORMAT, description="format and version of this file")
    recipe: str = Field("fit", description="the job: 'fit', 'evaluate', …")
    kind: str = Field("classification", description="the kind of labels: 'classification', 'regression', …")
    modality: str = Field("image", description="what a sample is: 'image', …")
    data: str = Field("", description="what the data was called")
    data_root: str | None = Field(None, description="the folder that relative paths in the Parquet files start from")
    backbone: str = Field("", description="name of the pretrained network")
    created: str = Field("", description="UTC, ISO 8601")

    metric: str = Field(
        "accuracy", description="name of the metric of value, candidates and gains (measure.METRICS, NUMBER_METRICS)"
    )
    value: float | None = Field(None, description="the chosen candidate's metric on `evaluated_on`")
    interval: Bounds = Field((None, None), description="its [low, high], 95 % bootstrap over the test samples")
    candidates: list[Candidate] = Field(default_factory=list, description="everything that was tried, with its figures")
    chosen: str | None = Field(None, description="name of the candidate that was kept")
    verdict: str = Field("", description="the one sentence")
    helped: bool | None = Field(None, description="true, false, or null where the interval leaves it open")
    alarms: list[str] = Field(default_factory=list, description="what a reader must know, gravest first")

    first_answer_s: float | None = Field(None, description="seconds from the command's start to the first answer")
    first_answer: FirstAnswer | None = Field(None, description="the figure that was given then")
    total_s: float | None = Field(None, description="seconds from start to end")
    n_train: int | None = Field(None, description="samples that the model learned from (in one round)")
    n_val: int | None = Field(None, description="samples that choices were made on (in one round)")
    n_test: int | None = Field(None, description="different samples that the figures come from, over all rounds")
    evaluated_on: str = Field("", description="what the figures come from: 'test split (20 %, held out first)', …")

    summary: dict[str, Any] | None = Field(
        None, description="all metrics of the chosen candidate on the test: measure.summary, measure.number_summary"
    )
    validation_summary: dict[str, Any] | None = Field(None, description="the same on validation")
    audit: Audit | None = Field(None, description="what was wrong with the files")
    notes: list[str] = Field(default_factory=list, description="choices and departures worth knowing")
    reproduce: str = Field("", description="the command line that repeats the run")
    seed: int | None = Field(None, description="the seed of splits, training and resampling")
    details: dict[str, Any] = Field(
        default_factory=dict, description="what a file of an earlier version had beyond the fields described here"
    )


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
