"""The contract of a kind of labels: all that a job, an artifact and a report need to know of them.

A kind is a folder in `tasks/` with a class like `Kind` in its `kind.py`, registered in `tasks/kinds.py`. Everything
else is the same for every kind: candidates give outputs (N, K), and the kind says what they are worth.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, Literal, Protocol, TypeAlias

import numpy as np
from torch import Tensor

from regraft.core.types import Backbone
from regraft.data.labels import Cells, Labelling
from regraft.data.source import Source
from regraft.measure.bootstrap import Interval
from regraft.measure.metrics import Metric
from regraft.strategies import KnownClasses, ProbeHead
from regraft.tasks.linear import LinearTask
from regraft.tasks.reading import Reader

#: What a nat of validation log-loss counts against a whole unit of the metric when two states are compared: it decides
#: between states whose accuracy on few pictures is the same.
LOSS_SHARE = 0.05

#: (what is maximised, the metric, the loss) on the samples that choices are made on.
Selection: TypeAlias = tuple[float, float, float]


class TaskOptions(Protocol):
    """What a task asks of a job's options; each kind reads those that are about it."""

    @property
    def metric(self) -> str: ...
    @property
    def label_smoothing(self) -> float: ...
    @property
    def mixup(self) -> float: ...
    @property
    def cutmix(self) -> float: ...
    @property
    def regression_loss(self) -> Literal["huber", "squared"]: ...


class Calibration(Protocol):
    """What held-out samples taught about a model's outputs, beside the model itself; it travels in the artifact.

    outputs: names of what `finish` gives, as an exported file has them; the first is the answer. threshold: the
    confidence below which the model abstains, 0 where it always answers.
    """

    outputs: ClassVar[tuple[str, ...]]

    @property
    def threshold(self) -> float: ...

    def answers(self, outputs: np.ndarray) -> np.ndarray:
        """Outputs (N, K) → what the model says, as the kind's figures take it: probabilities (N, K), numbers (N, 1)."""
        ...

    def scored(self, answers: np.ndarray) -> np.ndarray:
        """The first of what `finish` gives (N, K) → what `answers` gives."""
        ...

    def finish(self, outputs: Tensor) -> tuple[Tensor, ...]:
        """The same of a tensor, as traced into an exported file: the tensors (N, K) that `outputs` names."""
        ...

    def reader(self, labels: tuple[str, ...]) -> Reader:
        """What turns rows of answers into predictions."""
        ...

    def to_manifest(self) -> dict[str, Any]:
        """Fields of an artifact's manifest; `Kind.calibration_of` reads them again."""
        ...

    def to_metadata(self) -> dict[str, Any]:
        """JSON values for an exported file beside its labels and its threshold; `Kind.calibration_of` reads them."""
        ...


@dataclass(frozen=True)
class Tested:
    """The chosen candidate on one round's test samples."""

    calibration: Any
    answers: np.ndarray
    labels: np.ndarray


@dataclass(frozen=True)
class Judged:
    """The chosen candidate on all test samples, for the fields that only one kind of labels has.

    outputs: before calibration. tuning: outputs and labels that `calibration` was made from. parts: per round.
    bootstrap: options for intervals, as `Kind.bootstrap` takes them.
    """

    calibration: Any
    answers: np.ndarray
    outputs: np.ndarray
    labels: np.ndarray
    tuning: tuple[np.ndarray, np.ndarray]
    parts: Sequence[Tested]
    bootstrap: Mapping[str, Any]


@dataclass(frozen=True)
class Scored:
    """A model's standing on the test, for what a reader must be warned of.

    own: the metric with its interval. figures: of `Kind.summary`. n_test: different samples. gain: over the control.
    validation: what validation promised. control_kept: the model is the control itself.
    """

    metric: str
    answers: np.ndarray
    labels: np.ndarray
    own: Interval
    figures: Mapping[str, Any]
    n_test: int
    gain: Interval | None = None
    validation: float | None = None
    control_kept: bool = False


@dataclass(frozen=True)
class Agreement:
    """How far an exported file's answers agree with its model's.

    agreement: the share of samples with the same answer. max_difference, mean_difference: of each sample's largest.
    accuracy_*: where labels were given. refused: the reason not to keep the file, else empty. told: the difference in
    words, with a place for `max_difference`.
    """

    agreement: float
    max_difference: float
    mean_difference: float
    refused: str
    told: str
    accuracy_model: float | None = None
    accuracy_onnx: float | None = None


@dataclass(frozen=True)
class Check:
    """How an export is checked. labels: class indices (N,) where they are known. generated: the samples are no real
    ones, on which a model may be undecided. least: the share of samples that must have the same answer."""

    labels: np.ndarray | None = None
    generated: bool = False
    least: float = 0.995


class Kind(Protocol):
    """One kind of labels, for one source or one finished model.

    name: in the registry. metrics: that it can go by. usual_metric: where nobody asked and nothing else is known.
    uncalibrated: for a model of which nothing is known yet. view: the least area of a training crop, and how oblong it
    may be, that still shows what the label says. section: the module that draws its part of a report. outputs: K of a
    head. labels: names of the outputs.
    """

    name: ClassVar[str]
    metrics: ClassVar[Mapping[str, Metric]]
    usual_metric: ClassVar[str]
    view: ClassVar[tuple[float, float]]
    section: ClassVar[str]

    @property
    def outputs(self) -> int: ...
    @property
    def labels(self) -> tuple[str, ...]: ...
    @property
    def uncalibrated(self) -> Calibration: ...

    # ---- from a source ------------------------------------------------------------------------------------------

    @classmethod
    def read_labels(cls, cells: Cells | None) -> Labelling:
        """What labels mean that are said to be of this kind; DataError where they cannot be. None: of folders."""
        ...

    @classmethod
    def claim(cls, cells: Cells | None) -> tuple[Labelling | None, str]:
        """The labelling of labels that look like this kind's, else None; and a sentence of what was assumed, empty
        where nothing else was possible."""
        ...

    @classmethod
    def check(cls, options: TaskOptions) -> None:
        """UsageError where an option has no meaning for such labels."""
        ...

    @classmethod
    def of(cls, labelling: Labelling, y: np.ndarray) -> Kind:
        """For samples that are to be learned from. y: of those that are not for the test in every round."""
        ...

    # ---- from an artifact ---------------------------------------------------------------------------------------

    @classmethod
    def blank(cls, backbone: Backbone, labels: tuple[str, ...]) -> LinearTask:
        """A task to load an artifact's weights into."""
        ...

    @classmethod
    def of_task(cls, task: LinearTask, labels: tuple[str, ...]) -> Kind:
        """For a finished model."""
        ...

    @classmethod
    def calibration_of(cls, described: Mapping[str, Any]) -> Any:
        """The `Calibration` that a manifest or an export's metadata describe; KeyError, TypeError or ValueError."""
        ...

    def described_task(self, task: Any) -> dict[str, Any]:
        """What a manifest says of the task beside its kind."""
        ...

    # ---- learning -----------------------------------------------------------------------------------------------

    def metric(self, asked: str, y: np.ndarray) -> str:
        """The name of the metric to go by; `asked` may be auto."""
        ...

    def described(self, y: np.ndarray) -> str:
        """What the labels are, to follow "pictures": "in 3 classes"."""
        ...

    def shown(self, metric: str, value: float) -> str:
        """A metric for a line of progress."""
        ...

    def solve(
        self,
        features: np.ndarray,
        y: np.ndarray,
        folds: np.ndarray,
        settings: tuple[tuple[str, float], ...] | None = None,
        known: KnownClasses | None = None,
    ) -> ProbeHead:
        """The probe on features (N, D). known: the classifier that came with the weights, for classes alone."""
        ...

    def task(self, backbone: Backbone, options: TaskOptions, y: np.ndarray | None) -> LinearTask:
        """A fresh task on this backbone; y: of the training samples, where it is to be trained."""
        ...

    def selection(self, metric: str, outputs: np.ndarray, y: np.ndarray) -> Selection:
        """(what is maximised, the metric, the loss) on the samples that choices are made on."""
        ...

    def losses(self, outputs: np.ndarray, y: np.ndarray) -> np.ndarray:
        """Loss per sample (N,), by which candidates are compared."""
        ...

    # ---- judging ------------------------------------------------------------------------------------------------

    def calibrated(self, outputs: np.ndarray, y: np.ndarray) -> Any:
        """The `Calibration` from outputs (N, K) and y of samples that the model has not learned from."""
        ...

    def bootstrap(self, metric: str, answers: np.ndarray, y: np.ndarray, **options: Any) -> Interval:
        """The metric with its interval; options: groups, resamples, seed."""
        ...

    def gain(self, metric: str, a: np.ndarray, b: np.ndarray, y: np.ndarray, **options: Any) -> Interval:
        """metric(a) − metric(b) with its paired interval."""
        ...

    def summary(self, answers: np.ndarray, y: np.ndarray) -> dict[str, Any]:
        """Every metric, for the report."""
        ...

    def alarms(self, scored: Scored) -> list[str]:
        """What a reader must know before using the model."""
        ...

    def report(self, judged: Judged) -> dict[str, Any]:
        """Fields of a fit's report that only this kind has."""
        ...

    def evaluated(
        self, calibration: Any, answers: np.ndarray, y: np.ndarray, options: Mapping[str, Any]
    ) -> dict[str, Any]:
        """Fields of an evaluation's report that only this kind has. options: of `bootstrap`."""
        ...

    def labels_of(self, source: Source) -> np.ndarray:
        """Y of samples that a finished model is scored on; DataError for labels that it cannot give."""
        ...

    def columns(self, answers: np.ndarray, y: np.ndarray) -> dict[str, list[Any]]:
        """Columns of predictions.parquet: what is true and what was answered."""
        ...

    def map_columns(self, answers: np.ndarray, y: np.ndarray) -> dict[str, list[Any]]:
        """Columns of embedding.parquet: by what the map is coloured, and what is ringed."""
        ...

    def compare(self, found: np.ndarray, reference: np.ndarray, check: Check) -> Agreement:
        """Answers (N, K) of an exported file beside its model's."""
        ...
