"""From folders or a table to a source; nothing is decoded here."""

from __future__ import annotations

import os
import re
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from regraft.core.errors import DataError
from regraft.data.classes import class_names
from regraft.data.extensions import EXTENSIONS
from regraft.data.labels import Label, Labelling, ReadLabels
from regraft.data.source import SHORTCUTS, SPLITS, Sample, Source


def read_source(
    roots: Sequence[Path],
    *,
    table: Path | None = None,
    image_column: str = "image",
    label_column: str | tuple[str, ...] = "label",
    group: str | None = None,
    split_column: str | None = None,
    test: Path | None = None,
    labelled: bool = True,
    min_classes: int = 2,
    read_labels: ReadLabels = class_names,
) -> Source:
    """The pictures of one or more folders, or of a table whose paths are relative to them.

    Without a table: class folders, or train/ (with val/ or valid/, test/) of class folders, in any mixture
    over the roots; with labelled=False every picture found, at any depth. test: one more folder per class,
    all of it for the test. group: with a table a column; else a regular expression on the file name (its
    first group, or what it matches), or "patient", "subject", "prefix" for the name's first field. read_labels:
    what the labels are taken for, classes unless told. Raises DataError, in a sentence, for what is missing, empty,
    unlabelled, of fewer than `min_classes`, or contradictory.
    """
    folders = [Path(root) for root in ([roots] if isinstance(roots, (str, Path)) else roots)]
    if not folders and table is None:
        raise DataError("No folder was given. Name at least one folder of pictures, or a table.")
    for folder in folders:
        _check_folder(folder)
    skipped: list[str] = []
    labelling: Labelling | None = None
    if table is not None:
        from regraft.data.table import Columns, read_table  # a table is the rarer way in

        named = (label_column,) if isinstance(label_column, str) else label_column
        columns = Columns(image_column, named if labelled else (), group, split_column)
        pictures, labelling = read_table(Path(table), folders, columns, skipped, read_labels)
        name = folders[0].resolve().name if folders else Path(table).stem
    else:
        labelling = read_labels(None) if labelled else None
        pictures = [p for folder in folders for p in _read_folder(folder, labelled, skipped)]
        name = "+".join(folder.resolve().name or "root" for folder in folders)
    if test is not None:
        _check_folder(Path(test))
        extra = _read_folder(Path(test), labelled, skipped)
        pictures += [replace(picture, split="test") for picture in extra]
    if group is not None:
        pictures = _grouped(pictures, group, table is not None)
    pictures = _settled_splits(_unique(pictures, skipped), skipped)
    if not pictures:
        raise DataError(_empty(folders, table))
    if labelling is not None:
        labelling = labelling.settled(pictures, name, min_classes)
    return Source(name, tuple(pictures), labelling, tuple(skipped))


def _check_folder(folder: Path) -> None:
    if folder.is_dir():
        return
    if folder.exists():
        raise DataError(f"{folder} is a file, not a folder. A table of pictures is given by --table {folder}.")
    parent = folder.parent
    near = ""
    if parent.is_dir():
        names = sorted(p.name for p in parent.iterdir() if p.is_dir() and not p.name.startswith("."))
        near = f" {parent} has: {', '.join(names[:8])}." if names else f" {parent} has no folders."
    raise DataError(f"There is no folder {folder}.{near}")


def _empty(folders: Sequence[Path], table: Path | None) -> str:
    if table is not None:
        return f"{table} names no picture."
    where = ", ".join(map(str, folders))
    kinds = " ".join(sorted(EXTENSIONS))
    return f"There are no pictures in {where}. Pictures are files named {kinds}, in one folder per class."


def _read_folder(root: Path, labelled: bool, skipped: list[str]) -> list[Sample]:
    if not labelled:
        return [Sample(path) for path in _walk(root, root, skipped)]
    children = _children(root, root, skipped)
    splits = {child: SPLITS[child.name.lower()] for child in children if child.name.lower() in SPLITS}
    train = [child for child, split in splits.items() if split == "train" and _children(child, root, [])]
    if not train:
        if splits and len(splits) == len(children) and any(_children(child, root, []) for child in splits):
            names = ", ".join(sorted(child.name for child in splits))
            raise DataError(
                f"{root} has the split folders {names} but no train/ beside them. Add one, or name {names} itself."
            )
        return _read_classes(root, root, None, skipped)
    for child in children:
        if child not in splits and (lost := _walk(child, root, skipped)):
            skipped.append(f"{child} is beside train/ but no split folder: its {len(lost)} pictures are not used.")
    _report_loose(root, skipped)
    return [p for child, split in splits.items() for p in _read_classes(child, root, split, skipped)]


def _read_classes(folder: Path, root: Path, split: str | None, skipped: list[str]) -> list[Sample]:
    pictures: list[Sample] = []
    for child in _children(folder, root, skipped if folder != root else []):
        found = _walk(child, root, skipped)
        if not found:
            skipped.append(f"{child} has no pictures: it is no class.")
        pictures += [Sample(path, label=child.name, split=split) for path in found]
    loose = _report_loose(folder, skipped)
    if not pictures and loose:
        raise DataError(
            f"{folder} has {loose} pictures but no folders of them, so their classes are unknown. Put them "
            "into one folder "
            "per class, or name their classes in a table (--table labels.csv)."
        )
    return pictures


def _report_loose(folder: Path, skipped: list[str]) -> int:
    loose = sorted(p.name for p in folder.iterdir() if _is_picture_name(p.name) and p.is_file())
    if loose:
        skipped.append(
            f"{len(loose)} pictures lie directly in {folder}, in no class folder: not used (first: {loose[0]})."
        )
    return len(loose)


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


def _walk(folder: Path, root: Path, skipped: list[str]) -> list[Path]:
    """Every picture file below `folder`, in order, but hidden ones, other files and links out of `root`."""
    found: list[Path] = []
    for parent, directories, files in os.walk(folder):
        visible = sorted(name for name in directories if not name.startswith("."))
        linked = [name for name in visible if (Path(parent) / name).is_symlink()]
        skipped.extend(f"{Path(parent) / name} is a linked folder: not followed." for name in linked)
        directories[:] = [name for name in visible if name not in linked]
        for name in sorted(files):
            path = Path(parent) / name
            if not _is_picture_name(name):
                continue
            if path.is_symlink() and not _stays_inside(path, root):
                skipped.append(f"{path} is a link that leaves {root}, or leads nowhere: not followed.")
            elif not path.is_file():
                skipped.append(f"{path} is no regular file: not read.")
            else:
                found.append(path)
    return found


def _is_picture_name(name: str) -> bool:
    return not name.startswith(".") and os.path.splitext(name)[1].lower() in EXTENSIONS


def _stays_inside(path: Path, root: Path) -> bool:
    try:
        return path.resolve(strict=True).is_relative_to(root.resolve())
    except (OSError, RuntimeError):  # a link to nothing, or to itself
        return False


def _grouped(pictures: list[Sample], group: str, from_table: bool) -> list[Sample]:
    """Groups by file name; pictures that a table has grouped keep theirs."""
    try:
        pattern = re.compile(r"[^_\-.]+" if group in SHORTCUTS else group)
    except re.error as error:
        raise DataError(
            f"--group {group!r} is no regular expression: {error}. Words: {', '.join(SHORTCUTS)}."
        ) from error
    if from_table:
        return pictures
    result, missed = [], []
    for picture in pictures:
        match = pattern.match(picture.path.name) if group in SHORTCUTS else pattern.search(picture.path.name)
        value = (match.group(1) if pattern.groups else match.group(0)) if match else None
        if not value:
            missed.append(picture.path.name)
        result.append(replace(picture, group=value))
    if missed:
        raise DataError(
            f"--group {group!r} does not match {len(missed)} of {len(pictures)} file names, such as "
            f"{missed[0]!r}. Every name "
            f"must match, since an unnamed group could end up on both sides. Words: {', '.join(SHORTCUTS)}."
        )
    return result


def _unique(pictures: list[Sample], skipped: list[str]) -> list[Sample]:
    """Each (file, label, split) once: overlapping roots and repeated table rows name some twice."""
    seen: dict[tuple[Path, Label | None, str | None], Sample] = {}
    for picture in pictures:
        full = replace(picture, path=picture.path.absolute())
        seen.setdefault((full.path, full.label, full.split), full)
    if len(seen) < len(pictures):
        skipped.append(f"{len(pictures) - len(seen)} files were named more than once: each is taken once.")
    return list(seen.values())


def _settled_splits(pictures: list[Sample], skipped: list[str]) -> list[Sample]:
    """Where some pictures declare "train" or "val", those that declare nothing are for training."""
    declared = {picture.split for picture in pictures}
    if None not in declared or declared <= {None, "test"}:
        return pictures
    open_ = sum(picture.split is None for picture in pictures)
    skipped.append(f"{open_} pictures have no split while others have one: they are used for training.")
    return [replace(picture, split=picture.split or "train") for picture in pictures]
