"""Who trains, who chooses, who is scored: declared by the folders, or decided by each sample's own hash.

A unit is a group, else a file's content. Which part it belongs to follows from a hash of (seed, unit) alone,
compared with the part's share; so files that are added later move none of those that were there. Only a part
that a class would be missing from is repaired, by the unit that was nearest to belonging there.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from regraft.core.errors import DataError
from regraft.data.facts import Facts, units
from regraft.data.source import SPLITS, Source
from regraft.data.stratify import stratified


@dataclass(frozen=True)
class Round:
    """Indices int64 into the source, sorted, disjoint. Choices are made on `val`; `test` is scored once."""

    train: np.ndarray
    val: np.ndarray
    test: np.ndarray


@dataclass(frozen=True)
class Splits:
    """kind: "declared", "holdout" or "kfold". evaluated_on, notes: plain phrases for the report."""

    kind: str
    rounds: tuple[Round, ...]
    evaluated_on: str
    notes: tuple[str, ...] = ()

    def to_json(self, source: Source, facts: Sequence[Facts]) -> dict[str, Any]:
        """Format `regraft.split/1`: the SHA-256 of every file, per round and part."""
        if len(facts) != len(source):
            raise DataError(
                f"The split got {len(source)} {source.many} but {len(facts)} facts; the audit gives one for each."
            )
        return {
            "format": "regraft.split/1",
            "source": source.name,
            "kind": self.kind,
            "evaluated_on": self.evaluated_on,
            "notes": list(self.notes),
            "rounds": [
                {part: [facts[i].sha256 for i in getattr(one, part)] for part in ("train", "val", "test")}
                for one in self.rounds
            ],
        }


def make_splits(
    source: Source,
    facts: Sequence[Facts],
    *,
    seed: int = 0,
    val_fraction: float = 0.2,
    test_fraction: float = 0.2,
    kfold_below: int = 200,
    folds: int = 5,
    repeats: int = 1,
) -> Splits:
    """Train, validation and test parts of audited samples; `facts` has one entry per sample.

    A declared test part is the test. Declared train and val without a test: val is the test, scored once, and
    validation is carved from train. Nothing declared: test_fraction is held out first; below kfold_below
    samples, `folds`-fold cross-validation, `repeats` times. Raises DataError where fractions mean nothing or
    no training samples remain.
    """
    if not (0 < val_fraction < 1 and 0 < test_fraction < 1) or folds < 2 or repeats < 1:
        raise DataError(
            f"The split got val_fraction={val_fraction}, test_fraction={test_fraction}, folds={folds}, "
            f"repeats={repeats}; "
            "accepted: fractions between 0 and 1, folds ≥ 2, repeats ≥ 1."
        )
    if len(facts) != len(source):
        raise DataError(
            f"The split got {len(source)} {source.many} but {len(facts)} facts; the audit gives one for each."
        )
    labelled = all(sample.label is not None for sample in source.samples)
    labels = source.strata() if labelled else np.zeros(len(source), dtype=np.int64)
    keys = units(source, facts)
    declared = np.array([sample.split or "train" for sample in source.samples])
    parts = {part: np.flatnonzero(declared == part) for part in ("train", "val", "test")}
    everything = np.arange(len(source))

    def carved(among: np.ndarray, fraction: float, salt: str) -> tuple[np.ndarray, np.ndarray]:
        out = _carve([keys[i] for i in among], labels[among], fraction, seed, salt)
        return among[~out], among[out]

    def validation(among: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        return carved(among, val_fraction, "val")

    if len(parts["test"]) or len(parts["val"]):
        return _declared(source, parts, validation)
    if len(source) < kfold_below:
        return _folded(keys, labels, source.many, seed, folds, repeats, validation)
    rest, test = carved(everything, test_fraction, "test")
    train, val = carved(rest, val_fraction, "val")
    _check(train, test, source.name, source.many)
    share = round(100 * len(test) / len(source))
    return Splits(
        "holdout",
        (Round(train, val, test),),
        f"held-out {share} % ({len(test)} {source.many}), scored once",
        _thin(labels, train, source) if source.labelling is not None and source.labelling.named else (),
    )


def folds_for(keys: Sequence[str], strata: np.ndarray, seed: int, k: int = 5) -> np.ndarray:
    """`fold_of` with at most k folds, and no more than the rarest stratum has samples."""
    counts = strata.sum(axis=0) if strata.ndim > 1 else np.bincount(strata)
    return fold_of(keys, strata, max(2, min(k, int(counts[counts > 0].min(initial=len(keys))))), seed)


def fold_of(keys: Sequence[str], labels: np.ndarray, k: int, seed: int) -> np.ndarray:
    """Fold 0…k−1 of every unit key, int64 (N,): equal keys, equal folds.

    labels: int64 (N,), of which added files move no others; or bool (N, S) of samples in several strata. A class that
    falls into one fold alone, so that training without that fold would not know it, is repaired; so is an empty fold,
    where there are enough units.
    """
    place = {key: _chance(seed, "fold", key) for key in keys}
    if labels.ndim > 1:
        fold = stratified(keys, labels, [1 / k] * k, place)
    else:
        fold = {key: int(value * k) for key, value in place.items()}
    for members in _units(keys, labels).values():
        if len(members) > 1 and len({fold[key] for key in members}) == 1:
            moved = max(members, key=lambda key: place[key])
            fold[moved] = (fold[moved] + 1) % k
    for empty in range(min(k, len(fold))):
        if empty not in fold.values():
            sizes = np.bincount(list(fold.values()), minlength=k)
            largest = int(sizes.argmax())
            fold[max((key for key in fold if fold[key] == largest), key=lambda key: place[key])] = empty
    return np.array([fold[key] for key in keys], dtype=np.int64)


def _declared(source: Source, parts: dict[str, np.ndarray], carve: Any) -> Splits:
    train, val, test = parts["train"], parts["val"], parts["test"]
    notes: list[str] = []
    scored = "test"
    if not len(test):
        test, val, scored = val, np.array([], dtype=np.int64), "val"
    name = _folder_name(source.samples[int(test[0])].path, scored)
    if scored == "val":
        notes.append(
            f"There is no test part, so {name} is the test and is scored once; what choices are made on is "
            "carved from train."
        )
    if not len(val):
        train, val = carve(train)
        notes.append(f"Validation: {len(val)} {source.many} carved from the training part.")
    _check(train, test, source.name, source.many)
    phrase = f"{name} ({len(test)} {source.many}), scored once"
    return Splits("declared", (Round(train, val, test),), phrase, tuple(notes))


def _folded(
    keys: Sequence[str],
    labels: np.ndarray,
    many: str,
    seed: int,
    folds: int,
    repeats: int,
    carve: Any,
) -> Splits:
    everything, folds = np.arange(len(keys)), min(folds, len(set(keys)))
    if folds < 2:
        raise DataError(
            f"All {many} belong to one group, so nothing can be held out. Give more groups, or a test folder."
        )
    rounds = []
    for repeat in range(repeats):
        fold = fold_of(keys, labels, folds, seed + 7919 * repeat)  # any step that other seeds rarely meet
        for held in range(folds):
            train, val = carve(everything[fold != held])
            rounds.append(Round(train, val, everything[fold == held]))
    rounds = [one for one in rounds if len(one.test)]
    for one in rounds:
        _check(one.train, one.test, "this source", many)
    times = f", {repeats} times" if repeats > 1 else ""
    notes = (
        f"Fewer {many} than a single test part needs: {folds} folds, each scored once by a model that never saw it.",
    )
    phrase = f"{folds}-fold cross-validation{times}, {len(everything)} {many}"
    return Splits("kfold", tuple(rounds), phrase, notes)


def _carve(keys: Sequence[str], labels: np.ndarray, fraction: float, seed: int, salt: str) -> np.ndarray:
    """Who belongs to the carved part, bool (N,): whole units, every class of two units on both sides."""
    chance = {key: _chance(seed, salt, key) for key in keys}
    if labels.ndim > 1:
        out = {key: part == 1 for key, part in stratified(keys, labels, (1 - fraction, fraction), chance).items()}
    else:
        out = {key: value < fraction for key, value in chance.items()}
    units = _units(keys, labels)

    def needed(key: str) -> bool:
        """Whether some class has this unit as its only one on its side."""
        return any(key in members and sum(out[k] == out[key] for k in members) == 1 for members in units.values())

    for label in sorted(units):
        members = sorted(units[label], key=lambda key: chance[key])
        if len(members) < 2:
            continue
        if not any(out[key] for key in members):
            moved = next((key for key in members if not needed(key)), None)
        elif all(out[key] for key in members):
            moved = next((key for key in reversed(members) if not needed(key)), members[-1])
        else:
            continue
        if moved is not None:
            out[moved] = not out[moved]
    for label in units:  # a class of one unit is for training: it cannot be learned from the part that is held out
        if len(units[label]) == 1 and not any(other != label and units[label] <= units[other] for other in units):
            out[next(iter(units[label]))] = False
    return np.array([out[key] for key in keys], dtype=bool)


def _units(keys: Sequence[str], labels: np.ndarray) -> dict[int, set[str]]:
    """The units of every stratum, from labels int64 (N,) or membership bool (N, S)."""
    units: dict[int, set[str]] = {}
    for key, label in zip(keys, labels, strict=True):
        for stratum in np.flatnonzero(label) if labels.ndim > 1 else (label,):
            units.setdefault(int(stratum), set()).add(key)
    return units


def _chance(seed: int, salt: str, key: str) -> float:
    """A number in [0, 1) that belongs to (seed, salt, key), the same on every machine."""
    digest = hashlib.sha256(f"{seed}\0{salt}\0{key}".encode(errors="surrogateescape")).digest()
    return int.from_bytes(digest[:6], "big") / 2**48


def _check(train: np.ndarray, test: np.ndarray, name: str, many: str) -> None:
    if not len(train) or not len(test):
        empty = "training" if not len(train) else "test"
        raise DataError(
            f"No {empty} {many} are left of {name}. Give more {many} or groups, or declare train/ and test/."
        )


def _thin(labels: np.ndarray, train: np.ndarray, source: Source) -> tuple[str, ...]:
    if labels.ndim > 1:
        lost = int((labels.any(axis=0) & ~labels[train].any(axis=0)).sum())
    else:
        lost = len(set(labels.tolist()) - set(labels[train].tolist()))
    noun = source.labelling.noun if source.labelling is not None else "strata"
    one = source.many.removesuffix("s")
    return (f"{lost} {noun} have no training {one}, since one group holds all of each.",) if lost else ()


def _folder_name(path: Path, part: str) -> str:
    for name in reversed(path.parts[:-1]):
        if SPLITS.get(name.lower()) == part:
            return f"{name}/ folder"
    return f"declared {part} part"
