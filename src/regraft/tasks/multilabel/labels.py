"""Several labels of a sample: 0/1 columns, one column with a separator, or the same file in several class folders."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import ClassVar, Final

import numpy as np

from regraft.core.errors import DataError
from regraft.data.findings import EXAMPLES, Finding, counted, listed
from regraft.data.labels import Cells
from regraft.data.sample import Label, Sample
from regraft.data.words import Words

#: Signs that part labels in one cell, the rarest in ordinary names first.
SEPARATORS: Final = (";", "|", ",")
_YES: Final = frozenset({"1", "true", "yes", "y", "x"})
_NO: Final = frozenset({"0", "false", "no", "n"})
_FEW: Final = 5


@dataclass(frozen=True)
class LabelSets:
    """Any number of labels per sample: a sample's label is the tuple of those that apply, its y a row of 0 and 1.

    columns: the 0/1 columns, where the labels are those. separator: what parts them in one column. Without either each
    row or folder names one label, and copies of a file have the labels of all of them.
    """

    columns: tuple[str, ...] = ()
    separator: str = ""
    names: tuple[str, ...] = ()
    assumed: str = ""

    kind: ClassVar[str] = "multilabel"
    noun: ClassVar[str] = "labels"
    #: What looks the same may well show one thing more or less.
    suspicious: ClassVar[bool] = False
    named: ClassVar[bool] = False

    def read(self, texts: tuple[str | None, ...], where: str) -> Label | None:
        if self.columns:
            if any(text is None for text in texts):
                return None
            found = zip(self.columns, texts, strict=True)
            return tuple(name for name, text in found if _applies(str(text), f"{where}, column {name!r}"))
        if self.separator:
            return parted(texts[0] or "", self.separator)
        return None if texts[0] is None else (texts[0],)

    def settled(self, samples: Sequence[Sample], source: str, least: int, words: Words) -> LabelSets:
        found = {name for sample in samples for name in _tuple(sample.label)}
        names = self.columns or tuple(sorted(found))
        if not found:
            raise DataError(f"No {words.one} of {source} has any label: there is nothing to learn.")
        if all(all(name in _tuple(sample.label) for sample in samples) for name in found):
            raise DataError(
                f"Every {words.one} of {source} has the same labels ({listed(sorted(found))}): there is nothing to "
                f"tell apart. A label is learned from {words.many} that have it and {words.many} that do not."
            )
        return replace(self, names=names)

    def encode(self, labels: Sequence[Label]) -> np.ndarray:
        place = {name: column for column, name in enumerate(self.names)}
        y = np.zeros((len(labels), len(self.names)), dtype=np.int64)
        for row, label in enumerate(labels):
            for name in _tuple(label):
                y[row, place[name]] = 1
        return y

    def strata(self, y: np.ndarray) -> np.ndarray:
        """Bool (N, 2 S): who has each label, and who has it not; both are wanted in every part."""
        return np.concatenate([y > 0, y == 0], axis=1)

    def joined(self, labels: Sequence[Label]) -> Label | None:
        if self.columns or self.separator:  # each row says all: two that differ contradict each other
            return labels[0] if len({_tuple(label) for label in labels}) == 1 else None
        return tuple(sorted({name for label in labels for name in _tuple(label)}))

    def findings(self, samples: Sequence[Sample], many: str) -> list[Finding]:
        total = Counter(name for sample in samples for name in _tuple(sample.label))
        n, found = len(samples), []
        one = many.removesuffix("s")
        bare = sum(not _tuple(sample.label) for sample in samples)
        if bare:
            said = f"{counted(bare, one)} {'has' if bare == 1 else 'have'} none of the labels."
            found.append(Finding("no-label", "info", bare, said))
        found += _named(
            "empty-label",
            "error",
            [k for k in self.names if not total[k]],
            f"No usable {one} has {{}}.",
        )
        always = [name for name in self.names if total[name] == n]
        found += _named(
            "constant-label",
            "error",
            always,
            f"Every usable {one} has {{}}: it tells nothing apart.",
        )
        few = [f"{name} ({total[name]} of {n})" for name in self.names if 0 < min(total[name], n - total[name]) < _FEW]
        said = f"Fewer than {_FEW} {many} have, or lack, {{}}. Scores on such labels say little."
        found += _named("few-pictures", "warning", few, said)
        for part in ("test", "val"):
            held = Counter(name for sample in samples if sample.split == part for name in _tuple(sample.label))
            if any(sample.split == part for sample in samples):
                unseen = [name for name in self.names if total[name] and held[name] == total[name]]
                said = f"Only the {part} part has {{}}: nothing can learn what it never sees."
                found += _named("test-only-class", "error", unseen, said)
                break
        return found


def label_sets(cells: Cells | None) -> LabelSets:
    """Labels are said to be several; how they are written is seen from the table. None: a folder for each label."""
    if cells is None:
        return LabelSets()
    if len(cells.columns) > 1 or all(text is None or _binary(text) for text in cells.one().values()):
        return LabelSets(cells.columns)
    texts = [text for text in cells.one().values() if text is not None]
    counts = {sign: sum(sign in text for text in texts) for sign in SEPARATORS}
    best = max(SEPARATORS, key=lambda sign: counts[sign])
    return LabelSets(separator=best) if counts[best] else LabelSets()


def claim(cells: Cells | None) -> tuple[LabelSets | None, str]:
    """The labelling of a table that looks as if it had several labels of a picture, else None; and what was assumed.

    It looks so with several columns, or where a sign parts cells into names that come alone or in other company too.
    DataError for several columns that are not of 0 and 1.
    """
    if cells is None:
        return None, ""
    if len(cells.columns) > 1:
        named = listed(list(cells.columns))
        said = f"{len(cells.columns)} columns of 0 and 1 ({named}): labels that a picture can have together."
        _check_binary(cells)
        return LabelSets(cells.columns, assumed=said), said
    texts = list(cells.one().values())
    given = {text for text in texts if text is not None}
    for sign in SEPARATORS:
        cut = {text: parted(text, sign) for text in given}
        several = {text for text, names in cut.items() if len(names) > 1}
        if not several:
            continue
        names = {name for parts in cut.values() for name in parts}
        where = Counter(name for parts in cut.values() for name in parts)
        again = any(where[name] > 1 for text in several for name in cut[text])
        numbers = all(len(cut[text]) == 2 and all(name.isdigit() for name in cut[text]) for text in several)
        column = cells.columns[0]
        if again and len(names) <= len(given) and not (sign == "," and numbers):
            empty = sum(text is None for text in texts)
            said = (
                f"The column {column!r} parts names by {sign!r}: taken for {len(names)} labels that a picture can have "
                "together (--task multilabel). If each cell is one class, say --task classification."
            )
            said += f" {empty} empty cells are pictures with none of them." if empty else ""
            return LabelSets(separator=sign, assumed=said), said
        return None, (
            f"The column {column!r} has {sign!r} in {len(several)} of its different cells: taken for names of classes. "
            "If it parts several labels of a picture, say --task multilabel."
        )
    return None, ""


def parted(text: str, separator: str) -> tuple[str, ...]:
    """The different names in a cell, sorted."""
    return tuple(sorted({name for part in text.split(separator) if (name := part.strip())}))


def _check_binary(cells: Cells) -> None:
    for row, texts in cells.rows.items():
        for column, text in zip(cells.columns, texts, strict=True):
            if text is not None:
                _applies(text, f"{cells.table}, row {row}, column {column!r}")


def _applies(text: str, where: str | Path) -> bool:
    if not _binary(text):
        raise DataError(
            f"{where}: got {text[:40]!r}; a column for each label holds 1 where it applies and 0 where it does not "
            "(yes and no, true and false are read too). For one class per picture give one --label."
        )
    return text.lower() in _YES


def _binary(text: str) -> bool:
    return text.lower() in _YES or text.lower() in _NO


def _tuple(label: Label | None) -> tuple[str, ...]:
    """A folder's name is one label."""
    return () if label is None else (label,) if isinstance(label, str) else label


def _named(kind: str, severity: str, names: Sequence[str], sentence: str) -> list[Finding]:
    """One finding that names them, none where there are none."""
    if not names:
        return []
    return [Finding(kind, severity, len(names), sentence.format(listed(names)), tuple(names[:EXAMPLES]))]
