"""Labels of which several may apply: mean average precision and F1, a threshold for each label."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from typing import Any, ClassVar

import numpy as np

from regraft.core.errors import DataError, UsageError
from regraft.core.types import Backbone
from regraft.data.labels import Cells, Labelling
from regraft.data.source import Source
from regraft.measure.bootstrap import Interval
from regraft.measure.metrics import Metric
from regraft.measure.verdict import alarms, format_value
from regraft.strategies import KnownClasses, ProbeHead
from regraft.tasks.kind import LOSS_SHARE, Agreement, Check, Judged, Scored, Selection, TaskOptions
from regraft.tasks.kinds import kinds
from regraft.tasks.linear import LinearTask
from regraft.tasks.multilabel.agreement import compare_labels
from regraft.tasks.multilabel.calibration import LabelCalibration, best_thresholds, fit_calibration, fit_shifts
from regraft.tasks.multilabel.calibration import probabilities as calibrated_probabilities
from regraft.tasks.multilabel.intervals import label_bootstrap, label_gain
from regraft.tasks.multilabel.labels import LabelSets, claim, label_sets
from regraft.tasks.multilabel.metrics import METRICS, log_losses, per_label, score
from regraft.tasks.multilabel.probe import fit_label_probe
from regraft.tasks.multilabel.task import MultiLabel, positive_weights
from regraft.tasks.options import check_metric

#: Sets of labels that the map of features tells apart by colour; the rest share one.
SETS_SHOWN = 9


@kinds.register("multilabel")
class LabelsKind:
    """The kind for samples that any number of these labels apply to; an answer is (N, S, 2), as in `metrics.py`."""

    name: ClassVar[str] = "multilabel"
    metrics: ClassVar[Mapping[str, Metric]] = METRICS
    usual_metric: ClassVar[str] = "map"
    #: A crop may lose what a label is about: it stays near to what the scored picture shows.
    view: ClassVar[tuple[float, float]] = (0.6, 5 / 4)
    section: ClassVar[str] = "regraft.tasks.multilabel.section"

    def __init__(self, labels: tuple[str, ...]) -> None:
        self._labels = labels

    @property
    def outputs(self) -> int:
        return len(self._labels)

    @property
    def labels(self) -> tuple[str, ...]:
        return self._labels

    @property
    def uncalibrated(self) -> LabelCalibration:
        return LabelCalibration.plain(self.outputs)

    @classmethod
    def read_labels(cls, cells: Cells | None) -> Labelling:
        return label_sets(cells)

    @classmethod
    def claim(cls, cells: Cells | None) -> tuple[Labelling | None, str]:
        return claim(cells)

    @classmethod
    def check(cls, options: TaskOptions) -> None:
        check_metric(options.metric, cls.metrics, "several of a picture")
        unfit = [f"--{name}" for name in ("mixup", "cutmix") if getattr(options, name)]
        if unfit:
            raise UsageError(
                f"{', '.join(unfit)} mixes pictures of one class each, and a picture here has several labels, some of "
                "which a mixture would hide: leave it out."
            )

    @classmethod
    def of(cls, labelling: Labelling, y: np.ndarray) -> LabelsKind:
        return cls(labelling.names)

    @classmethod
    def blank(cls, backbone: Backbone, labels: tuple[str, ...]) -> MultiLabel:
        return MultiLabel(backbone, len(labels))

    @classmethod
    def of_task(cls, task: LinearTask, labels: tuple[str, ...]) -> LabelsKind:
        return cls(labels)

    @classmethod
    def calibration_of(cls, described: Mapping[str, Any]) -> LabelCalibration:
        return LabelCalibration.read(described)

    def described_task(self, task: MultiLabel) -> dict[str, Any]:
        return {"n_labels": self.outputs}

    def metric(self, asked: str, y: np.ndarray) -> str:
        """Mean average precision: it asks for no threshold, and a rare label counts as much as a common one."""
        return self.usual_metric if asked == "auto" else asked

    def described(self, y: np.ndarray) -> str:
        return f"with {self.outputs} labels ({y.sum(axis=1).mean():.1f} each)"

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
        return fit_label_probe(features, y, folds, settings)

    def task(self, backbone: Backbone, options: TaskOptions, y: np.ndarray | None) -> MultiLabel:
        weights = None if y is None else positive_weights(y)
        return MultiLabel(
            backbone, self.outputs, positive_weights=weights, label_smoothing=options.label_smoothing
        )  # fmt: skip

    def selection(self, metric: str, outputs: np.ndarray, y: np.ndarray) -> Selection:
        """F1 is taken with thresholds that were tuned on the other half of the samples."""
        value, loss = score(metric, _halves(outputs, y), y), float(log_losses(outputs, y).mean())
        oriented = 0.0 if np.isnan(value) else value
        return oriented - LOSS_SHARE * min(loss, 10.0), value, loss

    def losses(self, outputs: np.ndarray, y: np.ndarray) -> np.ndarray:
        """The log-loss after the shifts and the temperature that suit these logits best."""
        shifts, temperature = fit_shifts(outputs, y)
        return log_losses((np.asarray(outputs, dtype=np.float64) - shifts) / temperature, y)

    def calibrated(self, outputs: np.ndarray, y: np.ndarray) -> LabelCalibration:
        return fit_calibration(outputs, y)

    def bootstrap(self, metric: str, answers: np.ndarray, y: np.ndarray, **options: Any) -> Interval:
        return label_bootstrap(metric, answers, y, **options)

    def gain(self, metric: str, a: np.ndarray, b: np.ndarray, y: np.ndarray, **options: Any) -> Interval:
        return label_gain(metric, a, b, y, **options)

    def summary(self, answers: np.ndarray, y: np.ndarray) -> dict[str, Any]:
        figures = {name: score(name, answers, y) for name in METRICS}
        exact = float((answers[..., 1] == y).all(axis=1).mean()) if len(y) else float("nan")
        rows = [{"label": name, **row} for name, row in zip(self._labels, per_label(answers, y), strict=True)]
        return {
            **{name: None if np.isnan(value) else value for name, value in figures.items()},
            "all_labels_right": None if np.isnan(exact) else exact,
            "per_label": rows,
        }

    def alarms(self, scored: Scored) -> list[str]:
        out = alarms(
            metric_name=scored.metric, chosen=scored.own, gain=scored.gain, n_test=scored.n_test,
            validation=scored.validation, control_kept=scored.control_kept,
        )  # fmt: skip
        never = [k for k in range(self.outputs) if scored.labels[:, k].any() and not scored.answers[:, k, 1].any()]
        if never:
            names = ", ".join(self._labels[k] for k in never[:5])
            out.append(f"{names}: the model never gives {'this label' if len(never) == 1 else 'these labels'}.")
        return out

    def report(self, judged: Judged) -> dict[str, Any]:
        return self.evaluated(judged.calibration, judged.answers, judged.labels, judged.bootstrap)

    def evaluated(
        self, calibration: LabelCalibration, answers: np.ndarray, y: np.ndarray, options: Mapping[str, Any]
    ) -> dict[str, Any]:
        return {
            "labels": list(self._labels),
            "thresholds": list(calibration.thresholds),
            "temperature": calibration.temperature,
            "intervals": {name: label_bootstrap(name, answers, y, **options).to_json() for name in METRICS},
        }

    def labels_of(self, source: Source) -> np.ndarray:
        labelling = source.labelling
        names = labelling.names if isinstance(labelling, LabelSets) else ()
        strange = sorted(set(names) - set(self._labels))
        missing = (
            sorted(set(self._labels) - set(names)) if isinstance(labelling, LabelSets) and labelling.columns else []
        )
        if strange or missing or not isinstance(labelling, LabelSets):
            what = f"does not know {', '.join(strange[:5])}" if strange else f"also asks for {', '.join(missing[:5])}"
            raise DataError(
                f"The labels of {source.name} are not the model's: it {what}. Its labels are "
                f"{', '.join(self._labels[:20])}: give them as columns (--label once for each), in one column with a "
                "separator, or as folders."
            )
        y = source.labels()
        return np.stack([y[:, names.index(n)] if n in names else np.zeros(len(y), np.int64) for n in self._labels], 1)

    def columns(self, answers: np.ndarray, y: np.ndarray) -> dict[str, list[Any]]:
        return {
            "labels": y.tolist(),
            "label_probabilities": answers[..., 0].astype(np.float32).tolist(),
            "given": answers[..., 1].astype(int).tolist(),
        }

    def map_columns(self, answers: np.ndarray, y: np.ndarray) -> dict[str, list[Any]]:
        """Coloured by the set of labels; the commonest sets have a colour of their own."""
        sets = [tuple(np.flatnonzero(row).tolist()) for row in y]
        common = [one for one, _ in sorted(Counter(sets).items(), key=lambda item: (-item[1], item[0]))[:SETS_SHOWN]]
        names = [" + ".join(self._labels[k] for k in one) or "none" for one in common] + ["other sets"]
        where = [common.index(one) if one in common else len(common) for one in sets]
        return {"label": where, "predicted": [None] * len(sets), "band": [names[index] for index in where]}

    def compare(self, found: np.ndarray, reference: np.ndarray, check: Check) -> Agreement:
        return compare_labels(found, reference, check)


def _halves(outputs: np.ndarray, y: np.ndarray) -> np.ndarray:
    """Answers (N, S, 2) in which each half was given thresholds that were tuned on the other."""
    plain = np.zeros(outputs.shape[1])
    found = calibrated_probabilities(outputs, plain, 1.0)
    given = np.zeros(found.shape)
    for half in (0, 1):
        own = np.arange(len(y)) % 2 == half
        given[own] = found[own] >= best_thresholds(found[~own], y[~own])
    return np.stack([found, given], axis=2)
