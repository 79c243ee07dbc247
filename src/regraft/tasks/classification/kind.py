"""Labels that are classes: accuracy and its kin, a temperature, a threshold below which the model abstains."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from regraft.core.errors import DataError
from regraft.data.source import Source
from regraft.images.backbones.base import ImageBackbone
from regraft.measure.bootstrap import Interval, bootstrap, paired_gain
from regraft.measure.calibration import abstention, fit_temperature, reliability
from regraft.measure.choice import class_losses
from regraft.measure.metrics import METRICS, score, summary
from regraft.measure.probabilities import softmax
from regraft.measure.verdict import alarms
from regraft.strategies import KnownClasses, ProbeHead, fit_probe
from regraft.tasks.classification.section import SECTION
from regraft.tasks.classification.task import Classification, balanced_weights
from regraft.tasks.kind import LOSS_SHARE, Judged, TaskOptions
from regraft.tasks.packing import PackedClassifier, pack


@dataclass(frozen=True)
class ClassCalibration:
    """temperature divides the logits; rule: of `measure.abstention`, with the threshold."""

    temperature: float
    rule: Mapping[str, float]

    def answers(self, outputs: np.ndarray) -> np.ndarray:
        return softmax(outputs, self.temperature)


class ClassKind:
    """The kind for pictures in these classes."""

    section = SECTION
    usual_metric = "accuracy"
    uncalibrated = ClassCalibration(1.0, {"threshold": 0.0})

    def __init__(self, classes: tuple[str, ...]) -> None:
        self.classes = classes
        self.outputs = len(classes)

    def metric(self, asked: str, labels: np.ndarray) -> str:
        """Accuracy, or balanced accuracy where one class is at least three times another."""
        if asked != "auto":
            return asked
        counts = np.bincount(labels, minlength=self.outputs)
        return "balanced_accuracy" if counts.max() >= 3 * max(1, counts.min()) else "accuracy"

    def described(self, labels: np.ndarray) -> str:
        return f"in {self.outputs} classes"

    def shown(self, metric: str, value: float) -> str:
        return f"{value:.1%}"

    def solve(
        self,
        features: np.ndarray,
        labels: np.ndarray,
        folds: np.ndarray,
        settings: tuple[tuple[str, float], ...] | None = None,
        known: KnownClasses | None = None,
    ) -> ProbeHead:
        return fit_probe(features, labels, folds, self.outputs, settings=settings, known=known)

    def task(self, backbone: ImageBackbone, options: TaskOptions, labels: np.ndarray | None) -> Classification:
        weights = None
        if labels is not None:
            counts = np.bincount(labels, minlength=self.outputs)
            if counts.max() >= 1.5 * max(1, counts.min()):
                weights = balanced_weights(torch.from_numpy(counts))
        return Classification(
            backbone,
            self.outputs,
            label_smoothing=options.label_smoothing,
            class_weights=weights,
            mixup=options.mixup,
            cutmix=options.cutmix,
        )

    def selection(self, metric: str, outputs: np.ndarray, labels: np.ndarray) -> tuple[float, float, float]:
        return selection_score(metric, outputs, labels)

    def losses(self, outputs: np.ndarray, labels: np.ndarray) -> np.ndarray:
        return class_losses(outputs, labels)

    def calibrated(self, outputs: np.ndarray, labels: np.ndarray) -> ClassCalibration:
        temperature = fit_temperature(outputs, labels)
        return ClassCalibration(temperature, abstention(softmax(outputs, temperature), labels))

    def bootstrap(self, metric: str, answers: np.ndarray, labels: np.ndarray, **options: Any) -> Interval:
        return bootstrap(metric, answers, labels, **options)

    def gain(self, metric: str, a: np.ndarray, b: np.ndarray, labels: np.ndarray, **options: Any) -> Interval:
        return paired_gain(metric, a, b, labels, **options)

    def summary(self, answers: np.ndarray, labels: np.ndarray) -> dict[str, Any]:
        return summary(answers, labels, self.classes)

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
        return alarms(
            metric_name=metric, chosen=own, gain=gain, summary=figures, n_test=n_test, validation=validation,
            control_kept=control_kept,
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
        self, packed: PackedClassifier, answers: np.ndarray, labels: np.ndarray, options: Any
    ) -> dict[str, Any]:
        names = ("accuracy", "balanced_accuracy", "macro_f1", "auc", "ece")
        return {
            "classes": list(self.classes),
            "reliability_after": reliability(answers, labels),
            "temperature": packed.temperature,
            "intervals": {name: bootstrap(name, answers, labels, **options).to_json() for name in names},
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

    def columns(self, answers: np.ndarray, labels: np.ndarray) -> dict[str, list[Any]]:
        return {"label": labels.tolist(), "probabilities": answers.astype(np.float32).tolist()}

    def map_columns(self, answers: np.ndarray, labels: np.ndarray) -> dict[str, list[Any]]:
        return {"label": labels.tolist(), "predicted": answers.argmax(axis=1).tolist()}

    def pack(
        self,
        folder: Path,
        task: Classification,
        calibration: ClassCalibration,
        *,
        provenance: Mapping[str, Any],
        metrics: Mapping[str, Any],
    ) -> Path:
        return pack(
            folder, task, self.classes, temperature=calibration.temperature,
            threshold=float(calibration.rule["threshold"]), provenance=provenance, metrics=metrics,
        )  # fmt: skip


def selection_score(metric: str, logits: np.ndarray, labels: np.ndarray) -> tuple[float, float, float]:
    """(what is maximised, the metric, the log-loss) on the pictures that choices are made on."""
    probabilities = softmax(logits)
    value = score(metric, probabilities, labels)
    loss = score("nll", probabilities, labels)
    oriented = value if METRICS[metric].higher_is_better else -value
    if math.isnan(oriented):
        oriented = 0.0
    return oriented - LOSS_SHARE * min(loss, 10.0), value, loss
