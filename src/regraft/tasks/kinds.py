"""Which kind a source of samples, or a finished model, asks for."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from regraft.data.classes import class_names
from regraft.data.labels import Cells, Labelling, ReadLabels
from regraft.data.source import Source
from regraft.tasks.classification.kind import ClassKind
from regraft.tasks.kind import Kind
from regraft.tasks.packing import PackedClassifier, PackedRegressor
from regraft.tasks.regression.kind import NumberKind
from regraft.tasks.regression.labels import NumberColumn, claim, number_column


def reading(task: str) -> ReadLabels:
    """How the labels of a job are read; task: a kind's name, or "auto", where the labels themselves decide."""
    known: dict[str, ReadLabels] = {"classification": class_names, "regression": number_column, "auto": recognised}
    return known[task]


def recognised(cells: Cells | None) -> Labelling:
    """The kind that the labels look like."""
    found, assumed = claim(cells)
    return found if found is not None else replace(class_names(cells), assumed=assumed)


def kind_of(source: Source, labels: np.ndarray, name: str) -> Kind:
    """For samples that are to be learned from; name: of the label, where it is a number.

    labels (N,): of samples that are not for the test in every round; the numbers' mean and deviation are of these.
    """
    if not isinstance(source.labelling, NumberColumn):
        return ClassKind(source.classes)
    return NumberKind(name, float(labels.mean()), float(labels.std()) or 1.0)


def kind_for(packed: PackedClassifier | PackedRegressor) -> Kind:
    """For a model that is to be scored."""
    if isinstance(packed, PackedRegressor):
        return NumberKind(packed.labels[0], float(packed.task.centre[0]), float(packed.task.scale[0]))
    return ClassKind(packed.labels)
