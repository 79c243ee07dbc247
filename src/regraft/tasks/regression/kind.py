"""Labels that are numbers: errors in their own unit, and an interval from the residuals on held-out pictures."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar

import numpy as np
import torch

from regraft.core.errors import DataError, UsageError
from regraft.core.types import Backbone
from regraft.data.labels import Cells, Labelling
from regraft.data.source import Source
from regraft.measure.bootstrap import Interval
from regraft.measure.conformal import UNKNOWN, conformal_interval
from regraft.measure.metrics import NUMBER_METRICS, Metric, metric_of
from regraft.measure.regression import number_bootstrap, number_gain, number_score, number_summary
from regraft.measure.verdict import format_number, format_value, number_alarms
from regraft.strategies import KnownClasses, ProbeHead, fit_number_probe
from regraft.tasks.kind import LOSS_SHARE, Agreement, Check, Judged, Scored, Selection, TaskOptions
from regraft.tasks.kinds import kinds
from regraft.tasks.linear import LinearTask
from regraft.tasks.options import check_metric
from regraft.tasks.regression.agreement import compare_numbers
from regraft.tasks.regression.calibration import NumberCalibration
from regraft.tasks.regression.labels import NumberColumn, claim, number_column
from regraft.tasks.regression.numbers import quantile_bins
from regraft.tasks.regression.task import Regression, element_losses


@kinds.register("regression")
class NumberKind:
    """The kind for samples with one number each.

    number: its name. centre, scale: mean and deviation of the numbers, in their unit; they make losses and errors
    comparable. A trained task takes those of its own training samples.
    """

    name: ClassVar[str] = "regression"
    metrics: ClassVar[Mapping[str, Metric]] = NUMBER_METRICS
    usual_metric: ClassVar[str] = "mae"
    #: A crop changes a count and a size: it stays near to what the scored picture shows.
    view: ClassVar[tuple[float, float]] = (0.75, 10 / 9)
    section: ClassVar[str] = "regraft.tasks.regression.section"
    outputs: ClassVar[int] = 1

    def __init__(self, number: str, centre: float = 0.0, scale: float = 1.0) -> None:
        self.number, self.centre, self.scale = number, centre, scale

    @property
    def uncalibrated(self) -> NumberCalibration:
        return NumberCalibration(UNKNOWN)

    @property
    def labels(self) -> tuple[str, ...]:
        return (self.number,)

    @classmethod
    def read_labels(cls, cells: Cells | None) -> Labelling:
        return number_column(cells)

    @classmethod
    def claim(cls, cells: Cells | None) -> tuple[Labelling | None, str]:
        return claim(cells)

    @classmethod
    def check(cls, options: TaskOptions) -> None:
        check_metric(options.metric, cls.metrics, "numbers")
        unfit = [f"--{n.replace('_', '-')}" for n in ("label_smoothing", "mixup", "cutmix") if getattr(options, n)]
        if unfit:
            raise UsageError(f"{', '.join(unfit)} mixes classes, and the labels are numbers: leave it out.")

    @classmethod
    def of(cls, labelling: Labelling, y: np.ndarray) -> NumberKind:
        return cls(labelling.names[0], float(y.mean()), float(y.std()) or 1.0)

    @classmethod
    def blank(cls, backbone: Backbone, labels: tuple[str, ...]) -> Regression:
        return Regression(backbone, len(labels))

    @classmethod
    def of_task(cls, task: LinearTask, labels: tuple[str, ...]) -> NumberKind:
        assert isinstance(task, Regression), "blank gave it"
        return cls(labels[0], float(task.centre[0]), float(task.scale[0]))

    @classmethod
    def calibration_of(cls, described: Mapping[str, Any]) -> NumberCalibration:
        return NumberCalibration.read(described)

    def described_task(self, task: Regression) -> dict[str, Any]:
        return {"outputs": 1, "centre": float(task.centre[0]), "scale": float(task.scale[0])}

    def metric(self, asked: str, y: np.ndarray) -> str:
        return self.usual_metric if asked == "auto" else asked

    def described(self, y: np.ndarray) -> str:
        low, middle, high = (format_number(float(value)) for value in (y.min(), np.median(y), y.max()))
        return f"with {self.number!r} from {low} to {high} (median {middle})"

    def shown(self, metric: str, value: float) -> str:
        return format_value(metric, value)

    def solve(
        self,
        features: np.ndarray,
        y: np.ndarray,
        folds: np.ndarray,
        settings: tuple[tuple[str, float], ...] | None = None,
        known: KnownClasses | None = None,
    ) -> ProbeHead:
        return fit_number_probe(features, y, folds, settings=settings)

    def task(self, backbone: Backbone, options: TaskOptions, y: np.ndarray | None) -> Regression:
        centre, scale = self.centre, self.scale
        if y is not None and y.std() > 0:
            centre, scale = float(y.mean()), float(y.std())
        return Regression(
            backbone, centre=torch.tensor([centre]), scale=torch.tensor([scale]), loss=options.regression_loss
        )

    def selection(self, metric: str, outputs: np.ndarray, y: np.ndarray) -> Selection:
        value, loss = number_score(metric, outputs, y), float(self.losses(outputs, y).mean())
        kind = metric_of(metric)
        oriented = value if kind.higher_is_better else -value
        oriented = oriented / self.scale if kind.form == "unit" else oriented
        if np.isnan(oriented):
            oriented = 0.0
        return oriented - LOSS_SHARE * min(loss, 10.0), value, loss

    def losses(self, outputs: np.ndarray, y: np.ndarray) -> np.ndarray:
        """Huber's loss of the standardised error."""
        apart = (np.asarray(outputs, dtype=np.float64).reshape(-1) - y) / self.scale
        return element_losses(torch.from_numpy(apart), torch.zeros(len(apart), dtype=torch.float64)).numpy()

    def calibrated(self, outputs: np.ndarray, y: np.ndarray) -> NumberCalibration:
        return NumberCalibration(conformal_interval(outputs, y))

    def bootstrap(self, metric: str, answers: np.ndarray, y: np.ndarray, **options: Any) -> Interval:
        return number_bootstrap(metric, answers, y, **options)

    def gain(self, metric: str, a: np.ndarray, b: np.ndarray, y: np.ndarray, **options: Any) -> Interval:
        return number_gain(metric, a, b, y, **options)

    def summary(self, answers: np.ndarray, y: np.ndarray) -> dict[str, Any]:
        return number_summary(answers, y)

    def alarms(self, scored: Scored) -> list[str]:
        return number_alarms(
            metric_name=scored.metric, chosen=scored.own, summary={**scored.figures, "n": scored.n_test},
            spread=float(scored.labels.std()), predicted_spread=float(scored.answers.std()), gain=scored.gain,
            validation=scored.validation, control_kept=scored.control_kept,
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
            "number": self.number,
            "prediction_interval": {**judged.calibration.interval.to_json(), "tested_coverage": tested},
        }

    def evaluated(
        self, calibration: NumberCalibration, answers: np.ndarray, y: np.ndarray, options: Mapping[str, Any]
    ) -> dict[str, Any]:
        tested = calibration.interval.covers(answers, y)
        return {
            "number": self.number,
            "prediction_interval": {**calibration.interval.to_json(), "tested_coverage": tested},
            "intervals": {name: number_bootstrap(name, answers, y, **options).to_json() for name in NUMBER_METRICS},
        }

    def labels_of(self, source: Source) -> np.ndarray:
        if not isinstance(source.labelling, NumberColumn):
            raise DataError(
                f"This model predicts the number {self.number!r}: give --table with a column of numbers, and --label."
            )
        return source.labels()

    def columns(self, answers: np.ndarray, y: np.ndarray) -> dict[str, list[Any]]:
        return {"number": y.tolist(), "predicted": answers.reshape(-1).tolist()}

    def map_columns(self, answers: np.ndarray, y: np.ndarray) -> dict[str, list[Any]]:
        bins = quantile_bins(y)
        names = _bands(y, bins)
        return {"label": bins.tolist(), "predicted": [None] * len(y), "band": [names[index] for index in bins]}

    def compare(self, found: np.ndarray, reference: np.ndarray, check: Check) -> Agreement:
        return compare_numbers(found, reference, self.scale, check)


def _bands(labels: np.ndarray, bins: np.ndarray) -> list[str]:
    """The ranges that numbers (N,) are in, by their least and greatest number."""
    parts = [labels[bins == index] for index in range(int(bins.max()) + 1)]
    return [f"{format_number(float(part.min()))} to {format_number(float(part.max()))}" for part in parts]
