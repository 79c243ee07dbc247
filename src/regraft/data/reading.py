"""From folders or a table to a source; nothing is decoded here."""

from __future__ import annotations

import os
import re
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from regraft.core.errors import DataError
from regraft.data.classes import class_names
from regraft.data.labels import Label, Labelling, ReadLabels
from regraft.data.modality import Modality
from regraft.data.source import SHORTCUTS, SPLITS, Sample, Source


@dataclass(frozen=True)
class Reading:
    """How a source is to be read.

    column, label, split: columns of `table`; column None is the modality's usual one. group: with a table a column;
    else a regular expression on the file name (its first group, or what it matches), or "patient", "subject", "prefix"
    for the name's first field. test: one more folder per class, all of it for the test. labelled=False takes every
    sample found, at any depth. read_labels: what the labels are taken for, classes unless told.
    """

    table: Path | None = None
    column: str | None = None
    label: str | tuple[str, ...] = "label"
    group: str | None = None
    split: str | None = None
    test: Path | None = None
    labelled: bool = True
    min_classes: int = 2
    read_labels: ReadLabels = class_names


def read_source(roots: Sequence[Path], modality: Modality, reading: Reading | None = None) -> Source:
    """The samples of one or more folders, or of a table whose paths are relative to them.

    Without a table: class folders, or train/ (with val/ or valid/, test/) of class folders, in any mixture over the
    roots. Raises DataError, in a sentence, for what is missing, empty, unlabelled, of fewer than `min_classes`, or
    contradictory.
    """
    how, many = reading or Reading(), modality.words.many
    folders = [Path(root) for root in ([roots] if isinstance(roots, (str, Path)) else roots)]
    if not folders and how.table is None:
        raise DataError(f"No folder was given. Name at least one folder of {many}, or a table.")
    for folder in folders:
        _check_folder(folder, many)
    skipped: list[str] = []
    labelling: Labelling | None = None
    if how.table is not None:
        from regraft.data.table import Columns, read_table  # a table is the rarer way in

        column = how.column or modality.words.option
        named = (how.label,) if isinstance(how.label, str) else how.label
        columns = Columns(column, named if how.labelled else (), how.group, how.split)
        found, labelling = read_table(Path(how.table), folders, modality, columns, skipped, how.read_labels)
        name = folders[0].resolve().name if folders else Path(how.table).stem
    else:
        labelling = how.read_labels(None) if how.labelled else None
        found = [p for folder in folders for p in _Folders(folder, modality, skipped).read(how.labelled)]
        name = "+".join(folder.resolve().name or "root" for folder in folders)
    if how.test is not None:
        _check_folder(Path(how.test), many)
        extra = _Folders(Path(how.test), modality, skipped).read(how.labelled)
        found += [replace(sample, split="test") for sample in extra]
    if how.group is not None:
        found = _grouped(found, how.group, how.table is not None)
    found = _settled_splits(_unique(found, skipped), skipped, many)
    if not found:
        raise DataError(_empty(folders, how.table, modality))
    if labelling is not None:
        labelling = labelling.settled(found, name, how.min_classes, modality.words)
    return Source(name, tuple(found), labelling, tuple(skipped), many)


def _check_folder(folder: Path, many: str) -> None:
    if folder.is_dir():
        return
    if folder.exists():
        raise DataError(f"{folder} is a file, not a folder. A table of {many} is given by --table {folder}.")
    parent = folder.parent
    near = ""
    if parent.is_dir():
        names = sorted(p.name for p in parent.iterdir() if p.is_dir() and not p.name.startswith("."))
        near = f" {parent} has: {', '.join(names[:8])}." if names else f" {parent} has no folders."
    raise DataError(f"There is no folder {folder}.{near}")


def _empty(folders: Sequence[Path], table: Path | None, modality: Modality) -> str:
    words = modality.words
    if table is not None:
        return f"{table} names no {words.one}."
    where = ", ".join(map(str, folders))
    kinds = " ".join(sorted(modality.extensions))
    return (
        f"There are no {words.many} in {where}. {words.many.capitalize()} are files named {kinds}, in one folder per "
        "class."
    )


@dataclass(frozen=True)
class _Folders:
    """The samples below one root; what is not used is added to `skipped`."""

    root: Path
    modality: Modality
    skipped: list[str]

    def read(self, labelled: bool) -> list[Sample]:
        root, skipped = self.root, self.skipped
        if not labelled:
            return [Sample(path) for path in self._walk(root)]
        children = _children(root, root, skipped)
        splits = {child: SPLITS[child.name.lower()] for child in children if child.name.lower() in SPLITS}
        train = [child for child, split in splits.items() if split == "train" and _children(child, root, [])]
        if not train:
            if splits and len(splits) == len(children) and any(_children(child, root, []) for child in splits):
                names = ", ".join(sorted(child.name for child in splits))
                raise DataError(
                    f"{root} has the split folders {names} but no train/ beside them. Add one, or name {names} itself."
                )
            return self._read_classes(root, None)
        for child in children:
            if child not in splits and (lost := self._walk(child)):
                skipped.append(
                    f"{child} is beside train/ but no split folder: its {len(lost)} {self.modality.words.many} are not "
                    "used."
                )
        self._report_loose(root)
        return [p for child, split in splits.items() for p in self._read_classes(child, split)]

    def _read_classes(self, folder: Path, split: str | None) -> list[Sample]:
        many = self.modality.words.many
        samples: list[Sample] = []
        for child in _children(folder, self.root, self.skipped if folder != self.root else []):
            found = self._walk(child)
            if not found:
                self.skipped.append(f"{child} has no {many}: it is no class.")
            samples += [Sample(path, label=child.name, split=split) for path in found]
        loose = self._report_loose(folder)
        if not samples and loose:
            raise DataError(
                f"{folder} has {loose} {many} but no folders of them, so their classes are unknown. Put them "
                "into one folder "
                "per class, or name their classes in a table (--table labels.csv)."
            )
        return samples

    def _report_loose(self, folder: Path) -> int:
        loose = sorted(p.name for p in folder.iterdir() if self._is_named(p.name) and p.is_file())
        if loose:
            self.skipped.append(
                f"{len(loose)} {self.modality.words.many} lie directly in {folder}, in no class folder: not used "
                f"(first: {loose[0]})."
            )
        return len(loose)

    def _walk(self, folder: Path) -> list[Path]:
        """Every sample's file below `folder`, in order, but hidden ones, other files and links out of the root."""
        found: list[Path] = []
        skipped = self.skipped
        for parent, directories, files in os.walk(folder):
            visible = sorted(name for name in directories if not name.startswith("."))
            linked = [name for name in visible if (Path(parent) / name).is_symlink()]
            skipped.extend(f"{Path(parent) / name} is a linked folder: not followed." for name in linked)
            directories[:] = [name for name in visible if name not in linked]
            for name in sorted(files):
                path = Path(parent) / name
                if not self._is_named(name):
                    continue
                if path.is_symlink() and not _stays_inside(path, self.root):
                    skipped.append(f"{path} is a link that leaves {self.root}, or leads nowhere: not followed.")
                elif not path.is_file():
                    skipped.append(f"{path} is no regular file: not read.")
                else:
                    found.append(path)
        return found

    def _is_named(self, name: str) -> bool:
        return not name.startswith(".") and os.path.splitext(name)[1].lower() in self.modality.extensions


def _children(folder: Path, root: Path, skipped: list[str]) -> list[Path]:
    """The visible folders in `folder`, sorted; a link is followed where it stays inside `root`."""
    found = []
    for entry in sorted(os.scandir(folder), key=lambda entry: entry.name):
        if entry.name.startswith(".") or not entry.is_dir():
            continue
        path = Path(entry.path)
        if entry.is_symlink() and not _stays_inside(path, root):
            skipped.append(f"{path} is a link that leaves {root}: not followed.")
            continue
        found.append(path)
    return found


def _stays_inside(path: Path, root: Path) -> bool:
    try:
        return path.resolve(strict=True).is_relative_to(root.resolve())
    except (OSError, RuntimeError):  # a link to nothing, or to itself
        return False


def _grouped(samples: list[Sample], group: str, from_table: bool) -> list[Sample]:
    """Groups by file name; samples that a table has grouped keep theirs."""
    try:
        pattern = re.compile(r"[^_\-.]+" if group in SHORTCUTS else group)
    except re.error as error:
        raise DataError(
            f"--group {group!r} is no regular expression: {error}. Words: {', '.join(SHORTCUTS)}."
        ) from error
    if from_table:
        return samples
    result, missed = [], []
    for sample in samples:
        match = pattern.match(sample.path.name) if group in SHORTCUTS else pattern.search(sample.path.name)
        value = (match.group(1) if pattern.groups else match.group(0)) if match else None
        if not value:
            missed.append(sample.path.name)
        result.append(replace(sample, group=value))
    if missed:
        raise DataError(
            f"--group {group!r} does not match {len(missed)} of {len(samples)} file names, such as "
            f"{missed[0]!r}. Every name "
            f"must match, since an unnamed group could end up on both sides. Words: {', '.join(SHORTCUTS)}."
        )
    return result


def _unique(samples: list[Sample], skipped: list[str]) -> list[Sample]:
    """Each (file, label, split) once: overlapping roots and repeated table rows name some twice. Rows that hold their
    content are each their own."""
    seen: dict[tuple[Path, int | None, Label | None, str | None], Sample] = {}
    for sample in samples:
        full = replace(sample, path=sample.path.absolute())
        seen.setdefault((full.path, full.row, full.label, full.split), full)
    if len(seen) < len(samples):
        skipped.append(f"{len(samples) - len(seen)} files were named more than once: each is taken once.")
    return list(seen.values())


def _settled_splits(samples: list[Sample], skipped: list[str], many: str) -> list[Sample]:
    """Where some samples declare "train" or "val", those that declare nothing are for training."""
    declared = {sample.split for sample in samples}
    if None not in declared or declared <= {None, "test"}:
        return samples
    open_ = sum(sample.split is None for sample in samples)
    skipped.append(f"{open_} {many} have no split while others have one: they are used for training.")
    return [replace(sample, split=sample.split or "train") for sample in samples]
