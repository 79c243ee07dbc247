"""Which kinds of labels there are, and which one the labels of a source ask for.

A kind is added by its folder's name in `BUILT_IN`, or by another package through the entry-point group `regraft.kind`.
"""

from __future__ import annotations

from dataclasses import replace
from importlib import import_module
from importlib.util import find_spec

import numpy as np

from regraft.core.errors import DataError
from regraft.core.registry import Registry
from regraft.data.classes import class_names
from regraft.data.labels import Cells, Labelling, ReadLabels
from regraft.data.source import Source
from regraft.measure.metrics import Metric, named_metrics
from regraft.tasks.kind import Kind

#: Folders of `tasks/`, in the order in which labels are offered to them; what none claims are classes.
BUILT_IN = ("classification", "regression", "multilabel")

kinds: Registry[type[Kind]] = Registry("kind", [f"regraft.tasks.{name}.kind" for name in BUILT_IN])


def reading(task: str) -> ReadLabels:
    """How the labels of a job are read; task: a kind's name, or "auto", where the labels themselves decide."""
    return recognised if task == "auto" else kinds.get(task).read_labels


def recognised(cells: Cells | None) -> Labelling:
    """The kind that the labels look like; classes where none claims them."""
    said = ""
    for name in (*BUILT_IN, *(name for name in kinds if name not in BUILT_IN)):
        found, assumed = kinds.get(name).claim(cells)
        if found is not None:
            return found
        said = said or assumed
    return replace(class_names(cells), assumed=said)


def kind_type(source: Source) -> type[Kind]:
    """The kind of a source's labels; DataError where it has none."""
    if source.labelling is None:
        raise DataError(f"The samples of {source.name} have no labels.")
    return kinds.get(source.labelling.kind)


def kind_of(source: Source, y: np.ndarray) -> Kind:
    """For samples that are to be learned from; y: of those that are not for the test in every round."""
    assert source.labelling is not None, "kind_type refuses a source without labels"
    return kind_type(source).of(source.labelling, y)


def known_metrics() -> dict[str, Metric]:
    """Every metric of every kind. A kind's own are in its `metrics.py`, which is quick to import."""
    for name in BUILT_IN:
        if find_spec(module := f"regraft.tasks.{name}.metrics") is not None:
            import_module(module)
    return named_metrics()
