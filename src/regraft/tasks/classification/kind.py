"""Labels that are classes: accuracy and its kin, a temperature, a threshold below which the model abstains."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any, ClassVar

import numpy as np

from regraft.core.errors import DataError
from regraft.core.types import Backbone
from regraft.data.classes import class_names
from regraft.data.labels import Cells, Labelling
from regraft.data.source import Source
from regraft.measure.bootstrap import Interval, bootstrap, paired_gain
from regraft.measure.calibration import abstention, fit_temperature, reliability
from regraft.measure.choice import class_losses
from regraft.measure.metrics import METRICS, Metric, score, summary
from regraft.measure.probabilities import softmax
from regraft.measure.verdict import alarms
from regraft.strategies import KnownClasses, ProbeHead, fit_probe
from regraft.tasks.classification.agreement import compare_probabilities
from regraft.tasks.classification.calibration import ClassCalibration
from regraft.tasks.classification.task import Classification, class_weights
from regraft.tasks.kind import LOSS_SHARE, Agreement, Check, Judged, Scored, Selection, TaskOptions
from regraft.tasks.kinds import kinds
from regraft.tasks.linear import LinearTask
from regraft.tasks.options import check_metric


@kinds.register("classification")
class ClassKind:
    """The kind for samples in these classes."""

    name: ClassVar[str] = "classification"
    metrics: ClassVar[Mapping[str, Metric]] = METRICS
    usual_metric: ClassVar[str] = "accuracy"
    view: ClassVar[tuple[float, float]] = (0.35, 4 / 3)
    section: ClassVar[str] = "regraft.tasks.classification.section"

    def __init__(self, classes: tuple[str, ...]) -> None:
        self.classes = classes

    @property
    def outputs(self) -> int:
        return len(self.classes)

    @property
    def uncalibrated(self) -> ClassCalibration:
        return ClassCalibration()

    @property
    def labels(self) -> tuple[str, ...]:
        return self.classes

    @classmethod
    def read_labels(cls, cells: Cells | None) -> Labelling:
        return class_names(cells)

    @classmethod
    def claim(cls, cells: Cells | None) -> tuple[Labelling | None, str]:
        return None, ""  # what no other kind claims are classes

    @classmethod
    def check(cls, options: TaskOptions) -> None:
        check_metric(options.metric, cls.metrics, "classes")

    @classmethod
    def of(cls, labelling: Labelling, y: np.ndarray) -> ClassKind:
        return cls(labelling.names)

    @classmethod
    def blank(cls, backbone: Backbone, labels: tuple[str, ...]) -> Classification:
        return Classification(backbone, len(labels))

    @classmethod
    def of_task(cls, task: LinearTask, labels: tuple[str, ...]) -> ClassKind:
        return cls(labels)

    @classmethod
    def calibration_of(cls, described: Mapping[str, Any]) -> ClassCalibration:
        return ClassCalibration.read(described)

    def described_task(self, task: Classification) -> dict[str, Any]:
        return {"n_classes": len(self.classes)}

    def metric(self, asked: str, y: np.ndarray) -> str:
        """Accuracy, or balanced accuracy where one class is at least three times another."""
        if asked != "auto":
            return asked
        counts = np.bincount(y, minlength=self.outputs)
        return "balanced_accuracy" if counts.max() >= 3 * max(1, counts.min()) else "accuracy"

    def described(self, y: np.ndarray) -> str:
        return f"in {self.outputs} classes"

    def shown(self, metric: str, value: float) -> str:
        return f"{value:.1%}"

    def solve(
        self,
        features: np.ndarray,
        y: np.ndarray,
        folds: np.ndarray,
        settings: tuple[tuple[str, float], ...] | None = None,
        known: KnownClasses | None = None,
    ) -> ProbeHead:
        return fit_probe(features, y, folds, self.outputs, settings=settings, known=known)

    def task(self, backbone: Backbone, options: TaskOptions, y: np.ndarray | None) -> Classification:
        weights = None if y is None else class_weights(y, self.outputs)
        return Classification(
            backbone,
            self.outputs,
            label_smoothing=options.label_smoothing,
            class_weights=weights,
            mixup=options.mixup,
            cutmix=options.cutmix,
        )

    def selection(self, metric: str, outputs: np.ndarray, y: np.ndarray) -> Selection:
        return selection_score(metric, outputs, y)

    def losses(self, outputs: np.ndarray, y: np.ndarray) -> np.ndarray:
        return class_losses(outputs, y)

    def calibrated(self, outputs: np.ndarray, y: np.ndarray) -> ClassCalibration:
        temperature = fit_temperature(outputs, y)
        return ClassCalibration(temperature, abstention(softmax(outputs, temperature), y))

    def bootstrap(self, metric: str, answers: np.ndarray, y: np.ndarray, **options: Any) -> Interval:
        return bootstrap(metric, answers, y, **options)

    def gain(self, metric: str, a: np.ndarray, b: np.ndarray, y: np.ndarray, **options: Any) -> Interval:
        return paired_gain(metric, a, b, y, **options)

    def summary(self, answers: np.ndarray, y: np.ndarray) -> dict[str, Any]:
        return summary(answers, y, self.classes)

    def alarms(self, scored: Scored) -> list[str]:
        return alarms(
            metric_name=scored.metric, chosen=scored.own, gain=scored.gain, summary=scored.figures,
            n_test=scored.n_test, validation=scored.validation, control_kept=scored.control_kept,
        )  # fmt: skip

    def report(self, judged: Judged) -> dict[str, Any]:
        before = softmax(judged.outputs)
        return {
            "classes": list(self.classes),
            "reliability_before": reliability(before, judged.labels),
            "reliability_after": reliability(judged.answers, judged.labels),
            "temperature": judged.calibration.temperature,
            "abstention": judged.calibration.rule,
            "uncalibrated_ece": score("ece", before, judged.labels),
        }

    def evaluated(
        self, calibration: ClassCalibration, answers: np.ndarray, y: np.ndarray, options: Mapping[str, Any]
    ) -> dict[str, Any]:
        names = ("accuracy", "balanced_accuracy", "macro_f1", "auc", "ece")
        return {
            "classes": list(self.classes),
            "reliability_after": reliability(answers, y),
            "temperature": calibration.temperature,
            "intervals": {name: bootstrap(name, answers, y, **options).to_json() for name in names},
        }

    def labels_of(self, source: Source) -> np.ndarray:
        strange = sorted(set(source.classes) - set(self.classes))
        if strange:
            raise DataError(
                f"The pictures have classes that the model does not know ({', '.join(strange[:5])}); it knows "
                f"{', '.join(self.classes[:20])}. Rename the folders, or leave these out."
            )
        index = {name: i for i, name in enumerate(self.classes)}
        return np.asarray([index[str(picture.label)] for picture in source.samples], dtype=np.int64)

    def columns(self, answers: np.ndarray, y: np.ndarray) -> dict[str, list[Any]]:
        return {"label": y.tolist(), "probabilities": answers.astype(np.float32).tolist()}

    def map_columns(self, answers: np.ndarray, y: np.ndarray) -> dict[str, list[Any]]:
        return {"label": y.tolist(), "predicted": answers.argmax(axis=1).tolist()}

    def compare(self, found: np.ndarray, reference: np.ndarray, check: Check) -> Agreement:
        return compare_probabilities(found, reference, check)


def selection_score(metric: str, logits: np.ndarray, labels: np.ndarray) -> Selection:
    """(what is maximised, the metric, the log-loss) on the pictures that choices are made on."""
    probabilities = softmax(logits)
    value = score(metric, probabilities, labels)
    loss = score("nll", probabilities, labels)
    oriented = value if METRICS[metric].higher_is_better else -value
    if math.isnan(oriented):
        oriented = 0.0
    return oriented - LOSS_SHARE * min(loss, 10.0), value, loss
