"""A labelled source and an unlabelled target, read and audited; the target's folders are never taken for labels."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from regraft.core.errors import DataError
from regraft.data.audit import Audit, Facts, audit
from regraft.data.idx import expand_idx, is_idx_folder
from regraft.data.source import Source, read_source
from regraft.data.split import fold_of

Progress = Callable[[int, int], None]

#: Source pictures with numbers that an adaptation takes at least.
LEAST_NUMBERS = 20


@dataclass(frozen=True)
class Labelled:
    """Labelled pictures: the source, or the oracle. train and held: indices; every fifth unit is held out."""

    source: Source
    facts: list[Facts]
    audit: Audit
    labels: np.ndarray
    train: np.ndarray
    held: np.ndarray

    @property
    def classes(self) -> tuple[str, ...]:
        return self.source.classes


@dataclass(frozen=True)
class Unlabelled:
    """The target: pictures and what the audit says of them. There is no label in it to be read."""

    source: Source
    facts: list[Facts]
    audit: Audit


@dataclass(frozen=True)
class Oracle:
    """Labelled target pictures, for a figure beside the choice. labels: indices into the source's classes.

    unknown: how many pictures had a class that the source does not have; they are left out.
    """

    source: Source
    labels: np.ndarray
    unknown: int
    unknown_classes: tuple[str, ...]


@dataclass(frozen=True)
class OracleNumbers:
    """Target pictures with their numbers float64 (N,), for a figure beside the choice."""

    source: Source
    numbers: np.ndarray


def read_labelled(
    roots: tuple[Path, ...], *, table: Path | None, image: str, label: str, group: str | None, max_bad: float,
    seed: int, progress: Progress | None = None, numeric: bool = False,
) -> Labelled:  # fmt: skip
    """The source. All its parts (train, val, test folders) are used; a fifth of the units is held out to judge with."""
    folders = [_as_folder(root) for root in roots]
    found = read_source(folders, table=table, image_column=image, label_column=label, group=group, numeric=numeric)
    found = replace(found, pictures=tuple(replace(picture, split=None) for picture in found.pictures))
    usable, facts, report = audit(found, max_bad=max_bad, progress=progress)
    labels, strata = usable.labels(), usable.strata()
    units = [picture.group or fact.sha256 for picture, fact in zip(usable.pictures, facts, strict=True)]
    if numeric and len(usable) < LEAST_NUMBERS:
        raise DataError(f"The source has {len(usable)} usable pictures; a regression to adapt takes {LEAST_NUMBERS}.")
    smallest = int(np.bincount(strata, minlength=len(usable.classes)).min())
    if smallest < 2:
        raise DataError("Every class of the source needs at least two pictures: one to learn from, one to judge with.")
    folds = fold_of(units, strata, max(2, min(5, smallest)), seed)
    return Labelled(usable, facts, report, labels, np.flatnonzero(folds != 0), np.flatnonzero(folds == 0))


def read_unlabelled(roots: tuple[Path, ...], *, max_bad: float, progress: Progress | None = None) -> Unlabelled:
    """The target: every picture below the folders, without a label, whatever the folders are called.

    Of an idx folder with a train part only that part is used, so that its test part stays unseen for `--oracle`.
    """
    found = read_source([_training_part(_as_folder(root)) for root in roots], labelled=False)
    usable, facts, report = audit(found, max_bad=max_bad, progress=progress)
    if len(usable) < 10:
        raise DataError(f"The target has {len(usable)} usable pictures; adapting to it takes at least 10.")
    return Unlabelled(usable, facts, report)


def read_oracle(root: Path, classes: tuple[str, ...], *, max_bad: float) -> Oracle:
    """Labelled target pictures; classes are matched with the source's by name. Of an idx folder: its test part."""
    folder = _as_folder(root)
    if is_idx_folder(root) and (folder / "test").is_dir():
        folder = folder / "test"
    found = read_source([folder], min_classes=1)
    usable, _, _ = audit(found, max_bad=max_bad)
    known = [i for i, picture in enumerate(usable.pictures) if picture.label in classes]
    if not known:
        raise DataError(
            f"No class of --oracle {root} ({', '.join(usable.classes[:8])}) is a class of the source "
            f"({', '.join(classes[:8])}): they are matched by name."
        )
    kept = usable.subset(known)
    labels = np.array([classes.index(str(picture.label)) for picture in kept.pictures], dtype=np.int64)
    strange = tuple(name for name in usable.classes if name not in classes)
    return Oracle(kept, labels, len(usable) - len(known), strange)


def read_oracle_numbers(
    table: Path, target: tuple[Path, ...], *, image: str, label: str, max_bad: float
) -> OracleNumbers:
    """Target pictures with their numbers, from a table whose paths are below the target's folders or beside it."""
    found = read_source(list(target), table=table, image_column=image, label_column=label, numeric=True)
    usable, _, _ = audit(found, max_bad=max_bad)
    return OracleNumbers(usable, usable.labels())


def split_record(source: Labelled | None, target: Unlabelled) -> dict[str, Any]:
    """Format `regraft.split/1`: the SHA-256 of every file, by what it was used for."""
    parts = {"target": [fact.sha256 for fact in target.facts]}
    if source is not None:
        parts["train"] = [source.facts[i].sha256 for i in source.train]
        parts["val"] = [source.facts[i].sha256 for i in source.held]
    return {"format": "regraft.split/1", "source": target.source.name, "kind": "domains", "rounds": [parts]}


def _as_folder(root: Path) -> Path:
    return expand_idx(root) if is_idx_folder(root) else root


def _training_part(folder: Path) -> Path:
    return folder / "train" if (folder / "COMPLETE").is_file() and (folder / "train").is_dir() else folder
