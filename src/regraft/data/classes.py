"""Labels that are names of classes: what the labels of a source are where nobody says otherwise."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import ClassVar, Final

import numpy as np

from regraft.core.errors import DataError
from regraft.data.findings import EXAMPLES, Finding, counted, listed
from regraft.data.labels import Cells
from regraft.data.sample import Label, Sample
from regraft.data.words import Words

_FEW: Final = 5
_IMBALANCE: Final = 3.0


@dataclass(frozen=True)
class ClassNames:
    """One class per sample. names: sorted; a sample's y is the index of its class, int64."""

    names: tuple[str, ...] = ()
    assumed: str = ""

    kind: ClassVar[str] = "classification"
    noun: ClassVar[str] = "classes"
    suspicious: ClassVar[bool] = True
    named: ClassVar[bool] = True

    def read(self, texts: tuple[str | None, ...], where: str) -> Label | None:
        return texts[0]

    def settled(self, samples: Sequence[Sample], source: str, least: int, words: Words) -> ClassNames:
        classes = tuple(sorted({str(p.label) for p in samples if p.label is not None}))
        if len(classes) < least:
            raise DataError(
                f"Every {words.one} of {source} has the class {classes[0]!r}; telling classes apart needs at least "
                f"{least}. "
                f"One folder per class is expected, such as {words.folders}."
            )
        return replace(self, names=classes)

    def encode(self, labels: Sequence[Label]) -> np.ndarray:
        index = {name: i for i, name in enumerate(self.names)}
        return np.array([index[str(label)] for label in labels], dtype=np.int64)

    def strata(self, y: np.ndarray) -> np.ndarray:
        return y

    def joined(self, labels: Sequence[Label]) -> Label | None:
        return labels[0] if len(set(labels)) == 1 else None

    def findings(self, samples: Sequence[Sample], many: str) -> list[Finding]:
        total = Counter(str(sample.label) for sample in samples)
        findings = _counts(self.names, total, many)
        tested = Counter(str(sample.label) for sample in samples if sample.split == "test")
        valued = Counter(str(sample.label) for sample in samples if sample.split == "val")
        if held := tested or valued:
            findings += _parts(
                {n: total[n] for n in self.names if total[n]}, held, "test" if tested else "validation", many
            )
        return findings


def class_names(cells: Cells | None) -> ClassNames:
    """Labels are classes. DataError for a table with several columns of labels."""
    if cells is not None and len(cells.columns) > 1:
        raise DataError(
            f"{cells.table}: {len(cells.columns)} columns of labels were given ({', '.join(cells.columns)}), and a "
            "picture has one class. Give one --label; for several labels of a picture say --task multilabel."
        )
    return ClassNames()


def _counts(names: tuple[str, ...], total: Counter[str], many: str) -> list[Finding]:
    """Of classes without pictures, with few, and of uneven ones."""
    findings = []
    empty = [name for name in names if not total[name]]
    if empty:
        sentence = f"No usable {many.removesuffix('s')} is left of {listed(empty)}."
        findings.append(Finding("empty-class", "error", len(empty), sentence, tuple(empty[:EXAMPLES])))
    few = [name for name in names if 0 < total[name] < _FEW]
    if few:
        counts = listed([f"{name} ({total[name]})" for name in few])
        sentence = (
            f"{counted(len(few), 'class', 'classes')} with fewer than {_FEW} {many}: {counts}. "
            "Scores on them say little."
        )
        findings.append(Finding("few-pictures", "warning", len(few), sentence, tuple(few[:EXAMPLES])))
    there = {name: total[name] for name in names if total[name]}
    most, least = max(there, key=lambda name: there[name]), min(there, key=lambda name: there[name])
    if there[most] >= _IMBALANCE * there[least]:
        sentence = (
            f"The classes are uneven: {there[most]} {many} of {most}, {there[least]} of {least} "
            f"({there[most] / there[least]:.1f} to 1). Read balanced accuracy beside accuracy."
        )
        findings.append(Finding("imbalance", "warning", len(there), sentence, (most, least)))
    return findings


def _parts(there: dict[str, int], held: Counter[str], part: str, many: str) -> list[Finding]:
    """Of classes that are on one side of a declared split alone."""
    findings = []
    unseen = [name for name in there if held[name] == there[name]]
    if unseen:
        sentence = f"Only the {part} part has {listed(unseen)}: nothing can learn what it never sees."
        findings.append(Finding("test-only-class", "error", len(unseen), sentence, tuple(unseen[:EXAMPLES])))
    untested = [name for name in there if not held[name]]
    if untested:
        sentence = (
            f"The {part} part has no {many.removesuffix('s')} of {listed(untested)}: the scores say nothing about it."
        )
        findings.append(Finding("train-only-class", "warning", len(untested), sentence, tuple(untested[:EXAMPLES])))
    return findings
