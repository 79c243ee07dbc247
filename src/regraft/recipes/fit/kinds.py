"""Which objective a source of pictures, or a finished model, asks for."""

from __future__ import annotations

from regraft.recipes.fit.objective import Objective
from regraft.recipes.fit.of_classes import ClassObjective
from regraft.recipes.fit.of_numbers import NumberObjective
from regraft.recipes.fit.pictures import Prepared
from regraft.tasks.packing import PackedClassifier, PackedRegressor


def objective_of(prepared: Prepared, name: str) -> Objective:
    """For pictures that are to be learned from; name: of the label, where it is a number.

    The numbers' mean and deviation are of pictures that are not for the test in every round.
    """
    if not prepared.source.numeric:
        return ClassObjective(prepared.source.classes)
    known = prepared.labels[prepared.known()]
    return NumberObjective(name, float(known.mean()), float(known.std()) or 1.0)


def objective_for(packed: PackedClassifier | PackedRegressor) -> Objective:
    """For a model that is to be scored."""
    if isinstance(packed, PackedRegressor):
        return NumberObjective(packed.labels[0], float(packed.task.centre[0]), float(packed.task.scale[0]))
    return ClassObjective(packed.labels)
