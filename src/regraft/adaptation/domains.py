"""Labelled sources and an unlabelled target, read and audited; the target's folders are never taken for labels."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from regraft.core.errors import DataError
from regraft.data.audit import Audit, audit
from regraft.data.classes import class_names
from regraft.data.facts import Facts, units
from regraft.data.labels import ReadLabels
from regraft.data.reading import Reading, read_source
from regraft.data.source import Source
from regraft.data.split import fold_of
from regraft.images.idx import expand_idx, is_idx_folder
from regraft.images.modality import PICTURES
from regraft.tasks.regression.labels import NumberColumn, number_column

Progress = Callable[[int, int], None]

#: Source pictures with numbers that an adaptation takes at least.
LEAST_NUMBERS = 20


@dataclass(frozen=True)
class Labelled:
    """Labelled pictures: one source or several. train and held: indices; every fifth unit is held out.

    domains: int64 (N,), from which of `names` each picture is; of a single folder, or of a table, all 0.
    """

    source: Source
    facts: list[Facts]
    audit: Audit
    labels: np.ndarray
    train: np.ndarray
    held: np.ndarray
    domains: np.ndarray
    names: tuple[str, ...]

    @property
    def classes(self) -> tuple[str, ...]:
        return self.source.classes

    @property
    def several(self) -> bool:
        """Whether there is more than one source domain."""
        return len(self.names) > 1


@dataclass(frozen=True)
class Unlabelled:
    """The target: pictures and what the audit says of them. There is no label in it to be read."""

    source: Source
    facts: list[Facts]
    audit: Audit


@dataclass(frozen=True)
class Oracle:
    """Labelled target pictures, for a figure beside the choice.

    labels: indices into the source's K classes, or numbers float64 (N,). unknown: how many pictures had a class that
    the source does not have; with keeps_unknown their label is K, else they are left out.
    """

    source: Source
    labels: np.ndarray
    unknown: int = 0
    unknown_classes: tuple[str, ...] = ()
    keeps_unknown: bool = False


def read_labelled(
    roots: tuple[Path, ...], *, table: Path | None, image: str, label: str, group: str | None, max_bad: float,
    seed: int, progress: Progress | None = None, read_labels: ReadLabels = class_names,
) -> Labelled:  # fmt: skip
    """The source. All its parts (train, val, test folders) are used; a fifth of the units is held out to judge with.

    Each root is a domain of its own, and classes are matched by name over all of them; with a table there is one
    domain. Raises DataError where a class has fewer than two pictures, or a domain fewer than two to learn from.
    """
    folders = [_as_folder(root) for root in roots]
    reading = Reading(table=table, column=image, label=label, group=group, read_labels=read_labels)
    found = read_source(folders, PICTURES, reading)
    found = replace(found, samples=tuple(replace(picture, split=None) for picture in found.samples))
    usable, facts, report = audit(found, PICTURES, max_bad=max_bad, progress=progress)
    labels, strata = usable.labels(), usable.strata()
    if isinstance(usable.labelling, NumberColumn) and len(usable) < LEAST_NUMBERS:
        raise DataError(f"The source has {len(usable)} usable pictures; a regression to adapt takes {LEAST_NUMBERS}.")
    smallest = int(np.bincount(strata, minlength=len(usable.classes)).min())
    if smallest < 2:
        raise DataError("Every class of the source needs at least two pictures: one to learn from, one to judge with.")
    folds = fold_of(units(usable, facts), strata, max(2, min(5, smallest)), seed)
    names = domain_names(roots) if table is None else (usable.name,)
    domains = domain_of(usable, folders) if len(names) > 1 else np.zeros(len(usable), dtype=np.int64)
    train = np.flatnonzero(folds != 0)
    for index, count in enumerate(np.bincount(domains[train], minlength=len(names))):
        if count < 2:
            raise DataError(
                f"The domain {names[index]} has {count} pictures of its own to learn from, at least 2 are needed: name "
                "each folder once, with its classes inside, and look at the audit for pictures that were left out."
            )
    return Labelled(usable, facts, report, labels, train, np.flatnonzero(folds == 0), domains, names)


def domain_of(source: Source, folders: Sequence[Path]) -> np.ndarray:
    """Indices int64 (N,) of the folder that each picture lies in; of nested folders the inner one."""
    inner_first = sorted(enumerate(folders), key=lambda item: -len(item[1].parts))
    found = [next((i for i, folder in inner_first if path.is_relative_to(folder)), 0) for path in source.paths]
    return np.array(found, dtype=np.int64)


def domain_names(roots: Sequence[Path]) -> tuple[str, ...]:
    """A name for each folder: its own, with its parent's where two are called the same, and a number if need be."""
    paths = [root.resolve() for root in roots]
    names = [
        path.name if [p.name for p in paths].count(path.name) == 1 else "/".join(path.parts[-2:]) for path in paths
    ]
    return tuple(f"{n} ({i + 1})" if names.count(n) > 1 else n for i, n in enumerate(names))


def read_unlabelled(roots: tuple[Path, ...], *, max_bad: float, progress: Progress | None = None) -> Unlabelled:
    """The target: every picture below the folders, without a label, whatever the folders are called.

    Of an idx folder with a train part only that part is used, so that its test part stays unseen for `--oracle`.
    """
    found = read_source([_training_part(_as_folder(root)) for root in roots], PICTURES, Reading(labelled=False))
    usable, facts, report = audit(found, PICTURES, max_bad=max_bad, progress=progress)
    if len(usable) < 10:
        raise DataError(f"The target has {len(usable)} usable pictures; adapting to it takes at least 10.")
    return Unlabelled(usable, facts, report)


def read_oracle(root: Path, classes: tuple[str, ...], *, max_bad: float, keep_unknown: bool = False) -> Oracle:
    """Labelled target pictures; classes are matched with the source's by name. Of an idx folder: its test part.

    keep_unknown: pictures of other classes stay, as one class more.
    """
    folder = _as_folder(root)
    if is_idx_folder(root) and (folder / "test").is_dir():
        folder = folder / "test"
    found = read_source([folder], PICTURES, Reading(min_classes=1))
    usable, _, _ = audit(found, PICTURES, max_bad=max_bad)
    known = [i for i, picture in enumerate(usable.samples) if picture.label in classes]
    if not known:
        raise DataError(
            f"No class of --oracle {root} ({', '.join(usable.classes[:8])}) is a class of the source "
            f"({', '.join(classes[:8])}): they are matched by name."
        )
    kept = usable if keep_unknown else usable.subset(known)
    place = {name: index for index, name in enumerate(classes)}
    labels = np.array([place.get(str(picture.label), len(classes)) for picture in kept.samples], dtype=np.int64)
    strange = tuple(name for name in usable.classes if name not in classes)
    return Oracle(kept, labels, len(usable) - len(known), strange, keep_unknown)


def read_oracle_numbers(table: Path, target: tuple[Path, ...], *, image: str, label: str, max_bad: float) -> Oracle:
    """Target pictures with their numbers, from a table whose paths are below the target's folders or beside it."""
    reading = Reading(table=table, column=image, label=label, read_labels=number_column)
    found = read_source(list(target), PICTURES, reading)
    usable, _, _ = audit(found, PICTURES, max_bad=max_bad)
    return Oracle(usable, usable.labels())


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
