"""Labels that are numbers: errors in their own unit, and an interval from the residuals on held-out pictures."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from regraft.core.errors import DataError
from regraft.data.source import Source
from regraft.images.backbones.base import ImageBackbone
from regraft.measure.bootstrap import Interval
from regraft.measure.conformal import UNKNOWN, ConformalInterval, conformal_interval
from regraft.measure.metrics import NUMBER_METRICS, metric_of
from regraft.measure.regression import number_bootstrap, number_gain, number_score, number_summary
from regraft.measure.verdict import format_number, format_value, number_alarms
from regraft.strategies import KnownClasses, ProbeHead, fit_number_probe
from regraft.tasks.kind import LOSS_SHARE, Judged, TaskOptions
from regraft.tasks.packing import PackedRegressor, pack_regression
from regraft.tasks.regression.labels import NumberColumn
from regraft.tasks.regression.numbers import quantile_bins
from regraft.tasks.regression.section import SECTION
from regraft.tasks.regression.task import Regression, element_losses


@dataclass(frozen=True)
class NumberCalibration:
    """How far the numbers may be off; they themselves stay as they are."""

    interval: ConformalInterval

    def answers(self, outputs: np.ndarray) -> np.ndarray:
        return np.asarray(outputs, dtype=np.float64)


class NumberKind:
    """The kind for pictures with one number each.

    name: of the number. centre, scale: mean and deviation of the numbers, in their unit; they make losses and errors
    comparable. A trained task takes those of its own training pictures.
    """

    section = SECTION
    outputs = 1
    usual_metric = "mae"
    uncalibrated = NumberCalibration(UNKNOWN)

    def __init__(self, name: str, centre: float, scale: float) -> None:
        self.name, self.centre, self.scale = name, centre, scale

    def metric(self, asked: str, labels: np.ndarray) -> str:
        return self.usual_metric if asked == "auto" else asked

    def described(self, labels: np.ndarray) -> str:
        low, middle, high = (format_number(float(value)) for value in (labels.min(), np.median(labels), labels.max()))
        return f"with {self.name!r} from {low} to {high} (median {middle})"

    def shown(self, metric: str, value: float) -> str:
        return format_value(metric, value)

    def solve(
        self,
        features: np.ndarray,
        labels: np.ndarray,
        folds: np.ndarray,
        settings: tuple[tuple[str, float], ...] | None = None,
        known: KnownClasses | None = None,
    ) -> ProbeHead:
        return fit_number_probe(features, labels, folds, settings=settings)

    def task(self, backbone: ImageBackbone, options: TaskOptions, labels: np.ndarray | None) -> Regression:
        centre, scale = self.centre, self.scale
        if labels is not None and labels.std() > 0:
            centre, scale = float(labels.mean()), float(labels.std())
        return Regression(
            backbone, centre=torch.tensor([centre]), scale=torch.tensor([scale]), loss=options.regression_loss
        )

    def selection(self, metric: str, outputs: np.ndarray, labels: np.ndarray) -> tuple[float, float, float]:
        value, loss = number_score(metric, outputs, labels), float(self.losses(outputs, labels).mean())
        kind = metric_of(metric)
        oriented = value if kind.higher_is_better else -value
        oriented = oriented / self.scale if kind.form == "unit" else oriented
        if np.isnan(oriented):
            oriented = 0.0
        return oriented - LOSS_SHARE * min(loss, 10.0), value, loss

    def losses(self, outputs: np.ndarray, labels: np.ndarray) -> np.ndarray:
        """Huber's loss of the standardised error."""
        apart = (np.asarray(outputs, dtype=np.float64).reshape(-1) - labels) / self.scale
        return element_losses(torch.from_numpy(apart), torch.zeros(len(apart), dtype=torch.float64)).numpy()

    def calibrated(self, outputs: np.ndarray, labels: np.ndarray) -> NumberCalibration:
        return NumberCalibration(conformal_interval(outputs, labels))

    def bootstrap(self, metric: str, answers: np.ndarray, labels: np.ndarray, **options: Any) -> Interval:
        return number_bootstrap(metric, answers, labels, **options)

    def gain(self, metric: str, a: np.ndarray, b: np.ndarray, labels: np.ndarray, **options: Any) -> Interval:
        return number_gain(metric, a, b, labels, **options)

    def summary(self, answers: np.ndarray, labels: np.ndarray) -> dict[str, Any]:
        return number_summary(answers, labels)

    def alarms(
        self,
        metric: str,
        answers: np.ndarray,
        labels: np.ndarray,
        own: Interval,
        figures: Mapping[str, Any],
        *,
        n_test: int,
        gain: Interval | None = None,
        validation: float | None = None,
        control_kept: bool = False,
    ) -> list[str]:
        return number_alarms(
            metric_name=metric, chosen=own, summary={**figures, "n": n_test}, spread=float(labels.std()),
            predicted_spread=float(answers.std()), gain=gain, validation=validation, control_kept=control_kept,
        )  # fmt: skip

    def report(self, judged: Judged) -> dict[str, Any]:
        inside = [
            (covered, len(part.labels))
            for part in judged.parts
            if (covered := part.calibration.interval.covers(part.answers, part.labels)) is not None
        ]
        total = sum(n for _, n in inside)
        tested = sum(covered * n for covered, n in inside) / total if total else None
        return {
            "number": self.name,
            "prediction_interval": {**judged.calibration.interval.to_json(), "tested_coverage": tested},
        }

    def evaluated(
        self, packed: PackedRegressor, answers: np.ndarray, labels: np.ndarray, options: Any
    ) -> dict[str, Any]:
        tested = packed.interval.covers(answers, labels)
        return {
            "number": self.name,
            "prediction_interval": {**packed.interval.to_json(), "tested_coverage": tested},
            "intervals": {
                name: number_bootstrap(name, answers, labels, **options).to_json() for name in NUMBER_METRICS
            },
        }

    def labels_of(self, source: Source) -> np.ndarray:
        if not isinstance(source.labelling, NumberColumn):
            raise DataError(
                f"This model predicts the number {self.name!r}: give --table with a column of numbers, and --label."
            )
        return source.labels()

    def columns(self, answers: np.ndarray, labels: np.ndarray) -> dict[str, list[Any]]:
        return {"number": labels.tolist(), "predicted": answers.reshape(-1).tolist()}

    def map_columns(self, answers: np.ndarray, labels: np.ndarray) -> dict[str, list[Any]]:
        bins = quantile_bins(labels)
        names = _bands(labels, bins)
        return {"label": bins.tolist(), "predicted": [None] * len(labels), "band": [names[index] for index in bins]}

    def pack(
        self,
        folder: Path,
        task: Regression,
        calibration: NumberCalibration,
        *,
        provenance: Mapping[str, Any],
        metrics: Mapping[str, Any],
    ) -> Path:
        return pack_regression(
            folder, task, self.name, interval=calibration.interval, provenance=provenance, metrics=metrics
        )


def _bands(labels: np.ndarray, bins: np.ndarray) -> list[str]:
    """The ranges that numbers (N,) are in, by their least and greatest number."""
    parts = [labels[bins == index] for index in range(int(bins.max()) + 1)]
    return [f"{format_number(float(part.min()))} to {format_number(float(part.max()))}" for part in parts]
