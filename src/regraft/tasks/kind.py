"""What a fit, an evaluation and a report need to know of the labels: one object for classes, one for numbers.

Everything else in the recipes is the same for both: candidates give outputs (N, K), logits of K classes or numbers
(N, 1), and the kind says what they are worth. `of_classes.py` and `of_numbers.py` are the two kinds.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, Protocol

import numpy as np

from regraft.data.source import Source
from regraft.images.backbones.base import ImageBackbone
from regraft.measure.bootstrap import Interval
from regraft.report.sections import Section
from regraft.strategies import KnownClasses, ProbeHead
from regraft.tasks.linear import LinearTask

#: What a nat of validation log-loss counts against a whole unit of the metric when two states are compared: it decides
#: between states whose accuracy on few pictures is the same.
LOSS_SHARE = 0.05


class TaskOptions(Protocol):
    """What a task asks of a job's options; each kind reads those that are about it."""

    @property
    def label_smoothing(self) -> float: ...
    @property
    def mixup(self) -> float: ...
    @property
    def cutmix(self) -> float: ...
    @property
    def regression_loss(self) -> Literal["huber", "squared"]: ...


class Calibration(Protocol):
    """What held-out pictures taught about a model's outputs, beside the model itself."""

    def answers(self, outputs: np.ndarray) -> np.ndarray:
        """Outputs (N, K) → what the model says: probabilities (N, K), or numbers (N, 1)."""
        ...


@dataclass(frozen=True)
class Tested:
    """The chosen candidate on one round's test pictures."""

    calibration: Any
    answers: np.ndarray
    labels: np.ndarray


@dataclass(frozen=True)
class Judged:
    """The chosen candidate on all test pictures, for the fields that only one kind of labels has.

    outputs: before calibration. tuning: outputs and labels that `calibration` was made from. parts: per round.
    """

    calibration: Any
    answers: np.ndarray
    outputs: np.ndarray
    labels: np.ndarray
    tuning: tuple[np.ndarray, np.ndarray]
    parts: Sequence[Tested]


class Kind(Protocol):
    """The kind of labels.

    section: its part of the report, by whose name the report knows the kind. outputs: K of a head. usual_metric: where
    nobody asked and nothing else is known. uncalibrated: for a model of which nothing is known yet.
    """

    section: Section
    outputs: int
    usual_metric: str
    uncalibrated: Any

    def metric(self, asked: str, labels: np.ndarray) -> str:
        """The name of the metric to go by; `asked` may be auto."""
        ...

    def described(self, labels: np.ndarray) -> str:
        """What the labels are, to follow "pictures": "in 3 classes"."""
        ...

    def shown(self, metric: str, value: float) -> str:
        """A metric for a line of progress."""
        ...

    def solve(
        self,
        features: np.ndarray,
        labels: np.ndarray,
        folds: np.ndarray,
        settings: tuple[tuple[str, float], ...] | None = None,
        known: KnownClasses | None = None,
    ) -> ProbeHead:
        """The probe on features (N, D). known: the classifier that came with the weights, of no use for numbers."""
        ...

    def task(self, backbone: ImageBackbone, options: TaskOptions, labels: np.ndarray | None) -> LinearTask:
        """A fresh task on this backbone; labels: of the training pictures, where it is to be trained."""
        ...

    def selection(self, metric: str, outputs: np.ndarray, labels: np.ndarray) -> tuple[float, float, float]:
        """(what is maximised, the metric, the loss) on the pictures that choices are made on."""
        ...

    def losses(self, outputs: np.ndarray, labels: np.ndarray) -> np.ndarray:
        """Loss per sample (N,), by which candidates are compared."""
        ...

    def calibrated(self, outputs: np.ndarray, labels: np.ndarray) -> Any:
        """The `Calibration` from outputs (N, K) and labels (N,) of pictures that the model has not learned from."""
        ...

    def bootstrap(self, metric: str, answers: np.ndarray, labels: np.ndarray, **options: Any) -> Interval:
        """The metric with its interval."""
        ...

    def gain(self, metric: str, a: np.ndarray, b: np.ndarray, labels: np.ndarray, **options: Any) -> Interval:
        """metric(a) − metric(b) with its paired interval."""
        ...

    def summary(self, answers: np.ndarray, labels: np.ndarray) -> dict[str, Any]:
        """Every metric, for the report."""
        ...

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
        """What a reader must know before using the model."""
        ...

    def report(self, judged: Judged) -> dict[str, Any]:
        """Fields of a fit's report that only this kind has."""
        ...

    def evaluated(self, packed: Any, answers: np.ndarray, labels: np.ndarray, options: Any) -> dict[str, Any]:
        """Fields of an evaluation's report that only this kind has. options: of `bootstrap`."""
        ...

    def labels_of(self, source: Source) -> np.ndarray:
        """The labels (N,) of pictures that a finished model is scored on; DataError for some that it cannot give."""
        ...

    def columns(self, answers: np.ndarray, labels: np.ndarray) -> dict[str, list[Any]]:
        """Columns of predictions.parquet: what is true and what was answered."""
        ...

    def map_columns(self, answers: np.ndarray, labels: np.ndarray) -> dict[str, list[Any]]:
        """Columns of embedding.parquet: by what the map is coloured, and what is ringed."""
        ...

    def pack(
        self,
        folder: Path,
        task: Any,
        calibration: Any,
        *,
        provenance: Mapping[str, Any],
        metrics: Mapping[str, Any],
    ) -> Path:
        """The artifact."""
        ...
