"""Copies, exact and near: which leak from training into the test, which disagree, which stay together."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from collections.abc import Set as AbstractSet
from dataclasses import dataclass, replace
from typing import Final

from regraft.data.source import Source
from regraft.data.words import Words

#: The cleaner part keeps its copy: what is scored on outranks what is chosen on, and that what is trained on.
_RANK: Final = {"train": 0, None: 0, "val": 1, "test": 2}


@dataclass(frozen=True)
class Left:
    """Samples by index with one thing said about them; left_out: they do not take part."""

    kind: str
    severity: str
    indices: tuple[int, ...]
    sentence: str
    left_out: bool = False


def exact_copies(source: Source, hashes: Sequence[str], words: Words) -> tuple[Source, list[Left], list[Left]]:
    """Samples of equal content: (the source, what is only reported, what is left out).

    Copies under labels that contradict each other are all left out; where they do not (several labels of one picture,
    a folder each), one stays, with all of them. Of copies across declared parts the test's stay, else the validation's.
    """
    sets: dict[str, list[int]] = {}
    for i, value in enumerate(hashes):
        sets.setdefault(value, []).append(i)
    conflicts: list[int] = []
    leaks: list[int] = []
    same: list[int] = []
    merged: list[int] = []
    samples = list(source.samples)
    for members in sets.values():
        if len(members) < 2:
            continue
        labels = [label for i in members if (label := source.samples[i].label) is not None]
        differ = len(set(labels)) > 1
        if differ:
            whole = source.labelling.joined(labels) if source.labelling else None
            if whole is None:
                conflicts += members
                continue
            for i in members:
                samples[i] = replace(samples[i], label=whole)
        behind = _behind(source, members)
        leaks += behind
        rest = [i for i in members if i not in behind]
        (merged if differ else same).extend(rest[1:])
    noun = source.labelling.noun if source.labelling else "labels"
    reported, left = [], []
    if conflicts:
        left.append(Left(
            "label-conflict", "warning", tuple(conflicts),
            f"{len(conflicts)} {words.file}s are copies of each other under different "
            f"{noun}: nobody can say which "
            "is right, so "
            "all of them are left out.", left_out=True,
        ))  # fmt: skip
    if leaks:
        left.append(Left(
            "duplicate-across-splits", "warning", tuple(leaks),
            f"{len(leaks)} {words.many} of the training or validation part are also in the test or validation "
            "part: left out "
            f"there, so that the scores are of {words.many} never seen.", left_out=True,
        ))  # fmt: skip
    if merged:
        left.append(Left(
            "several-labels", "info", tuple(merged),
            f"{len(merged)} {words.file}s are exact copies of others under other {noun}: "
            f"each such {words.one} is taken once, with all of them.", left_out=True,
        ))  # fmt: skip
    if same:
        reported.append(Left(
            "duplicate", "info", tuple(same),
            f"{len(same)} {words.file}s are exact copies of others of the same label and part: kept, and always on "
            "one side of a "
            "split.",
        ))  # fmt: skip
    return replace(source, samples=tuple(samples)), reported, left


def near_copies(
    source: Source,
    contents: Sequence[str],
    pairs: Iterable[tuple[int, int]],
    gone: AbstractSet[int],
    words: Words,
) -> tuple[Source, list[Left]]:
    """Samples that are the same thing, besides those in `gone`; the source comes back with them in groups.

    contents: SHA-256 of each sample. pairs: of near copies, as the modality finds them.
    """
    first: dict[str, int] = {}
    links = [(first.setdefault(content, i), i) for i, content in enumerate(contents) if i not in gone]
    links += [(i, j) for i, j in pairs if i not in gone and j not in gone]
    sets = clusters(len(source), links)
    leaks = [i for members in sets for i in _behind(source, members)]
    # What looks the same may well have one cell more or less: classes that differ are suspicious, numbers are not.
    suspicious = source.labelling is not None and source.labelling.suspicious
    differing = [m for m in sets if suspicious and len({source.samples[i].label for i in m}) > 1]
    conflicts = [i for members in differing for i in members]
    kept = [[i for i in members if i not in set(leaks)] for members in sets]
    together = [i for members in kept if len({contents[i] for i in members}) > 1 for i in members]
    found: list[Left] = []
    if leaks:
        found.append(Left(
            "near-duplicate-across-splits", "warning", tuple(leaks),
            f"{len(leaks)} {words.many} of the training or validation part {words.same} in the test or "
            "validation "
            f"part: left out there, so that the scores are of {words.many} never seen.", left_out=True,
        ))  # fmt: skip
    if conflicts:
        found.append(Left(
            "near-label-conflict", "warning", tuple(conflicts),
            f"{len(conflicts)} {words.many} {words.alike} of a different class: look at them, one "
            "label of each "
            "pair may be wrong.",
        ))  # fmt: skip
    if together:
        found.append(Left(
            "near-duplicate", "info", tuple(together),
            f"{len(together)} {words.many} are near copies of others ({words.series}): kept, and "
            "always on one side of a split.",
        ))  # fmt: skip
    source = _together(source, contents, kept)
    straddling = _straddling(source, gone | set(leaks))
    if straddling:
        found.append(Left(
            "group-across-splits", "warning", tuple(straddling),
            f"{len(straddling)} {words.many} of the training or validation part belong to groups of the test or "
            "validation "
            "part: left out there, so that no group is on both sides.", left_out=True,
        ))  # fmt: skip
    return source, found


def _straddling(source: Source, gone: AbstractSet[int]) -> list[int]:
    best: dict[str, int] = {}
    for i, sample in enumerate(source.samples):
        if sample.group is not None and i not in gone:
            best[sample.group] = max(best.get(sample.group, 0), _RANK[sample.split])
    return [
        i for i, sample in enumerate(source.samples)
        if sample.group is not None and i not in gone and _RANK[sample.split] < best[sample.group]
    ]  # fmt: skip


def _behind(source: Source, members: Sequence[int]) -> list[int]:
    """Those of a set of copies that are in a lesser part than the best one."""
    ranks = [_RANK[source.samples[i].split] for i in members]
    return [i for i, rank in zip(members, ranks, strict=True) if rank < max(ranks)]


def _together(source: Source, contents: Sequence[str], sets: Sequence[Sequence[int]]) -> Source:
    """One group per set of near copies; where its samples have groups already, those become one.

    A new group is named after its smallest content hash: a lone sample that gets a near copy then often
    keeps its unit, and with it its side of the split.
    """
    links = [(members[0], i) for members in sets for i in members[1:]]
    touched = {i for link in links for i in link}
    first: dict[str, int] = {}
    for i, sample in enumerate(source.samples):
        if sample.group is not None:
            links.append((first.setdefault(sample.group, i), i))
    samples = list(source.samples)
    for members in clusters(len(samples), links):
        if touched.isdisjoint(members):
            continue
        named = sorted({str(samples[i].group) for i in members if samples[i].group is not None})
        key = named[0] if named else min(contents[i] for i in members)
        for i in members:
            samples[i] = replace(samples[i], group=key)
    return replace(source, samples=tuple(samples))


def clusters(n: int, links: Iterable[tuple[int, int]]) -> list[list[int]]:
    """Sets of two or more indices below `n` that `links` connect, each sorted, in order of their first."""
    parent = list(range(n))

    def root(i: int) -> int:
        while parent[i] != i:
            parent[i] = parent[parent[i]]
            i = parent[i]
        return i

    for i, j in links:
        low, high = sorted((root(i), root(j)))
        parent[high] = low
    members: dict[int, list[int]] = {}
    for i in range(n):
        members.setdefault(root(i), []).append(i)
    return [found for found in members.values() if len(found) > 1]
