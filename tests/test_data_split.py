"""Splits: by hash, stable when files are added, groups whole, classes everywhere, declared parts obeyed."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest

from regraft.core.errors import DataError
from regraft.data.classes import ClassNames
from regraft.data.facts import Facts
from regraft.data.source import Sample, Source
from regraft.data.split import Round, fold_of, make_splits


def made(
    n: int, *, classes: int = 2, groups: int = 0, split: Sequence[str | None] = (None,), first: int = 0
) -> tuple[Source, list[Facts]]:
    pictures, facts = [], []
    for i in range(first, first + n):
        group = f"g{i % groups}" if groups else None
        part = split[i % len(split)]
        pictures.append(Sample(Path(f"{part or 'all'}/{i}.jpg"), f"c{i % classes}", group, part))
        facts.append(Facts(hashlib.sha256(str(i).encode()).hexdigest()))
    return Source("made", tuple(pictures), ClassNames(tuple(sorted({str(p.label) for p in pictures})))), facts


def parts(one: Round) -> dict[str, np.ndarray]:
    return {"train": one.train, "val": one.val, "test": one.test}


def where(source: Source, one: Round) -> dict[str, str]:
    return {source.samples[i].path.name: part for part, indices in parts(one).items() for i in indices}


@pytest.mark.parametrize("n", [60, 400])
@pytest.mark.parametrize("groups", [0, 40])
def test_every_round_is_a_partition_and_groups_stay_whole(n: int, groups: int) -> None:
    source, facts = made(n, classes=3, groups=groups)
    splits = make_splits(source, facts)
    assert splits.kind == ("kfold" if n == 60 else "holdout")
    for one in splits.rounds:
        assert sorted(np.concatenate(list(parts(one).values())).tolist()) == list(range(n))
        sides: dict[str, set[str]] = {}
        for part, indices in parts(one).items():
            assert indices.dtype == np.int64
            assert set(source.labels()[indices]) == {0, 1, 2}, part
            for i in indices:
                sides.setdefault(str(source.samples[i].group or i), set()).add(part)
        assert all(len(side) == 1 for side in sides.values())


def test_adding_files_moves_none_of_the_old() -> None:
    few, few_facts = made(400, classes=4)
    many, many_facts = made(700, classes=4)
    order = np.random.default_rng(0).permutation(700)
    many, many_facts = many.subset(order), [many_facts[i] for i in order]
    before, after = (
        where(few, make_splits(few, few_facts).rounds[0]),
        where(many, make_splits(many, many_facts).rounds[0]),
    )
    assert all(after[name] == part for name, part in before.items())


def test_the_share_is_the_fraction_and_the_seed_decides() -> None:
    source, facts = made(3000)
    one = make_splits(source, facts, test_fraction=0.3, val_fraction=0.1).rounds[0]
    assert len(one.test) == pytest.approx(900, abs=90)
    assert len(one.val) == pytest.approx(210, abs=50)
    other = make_splits(source, facts, seed=1, test_fraction=0.3).rounds[0]
    assert len(np.intersect1d(one.test, other.test)) < 400


def test_a_rare_class_is_in_every_part_that_it_can_be_in() -> None:
    for seed in range(20):
        source, facts = made(400)
        rare = {7: "rare", 8: "rare", 9: "rare", 11: "single"}
        pictures = [Sample(p.path, rare.get(i, p.label)) for i, p in enumerate(source.samples)]
        source = Source("made", tuple(pictures), ClassNames(("c0", "c1", "rare", "single")))
        one = make_splits(source, facts, seed=seed).rounds[0]
        labels = source.labels()
        assert all(2 in labels[indices] for indices in parts(one).values())
        assert 3 in labels[one.train]


def test_copies_by_content_share_a_side() -> None:
    source, facts = made(400)
    facts = [facts[i // 2] for i in range(400)]
    one = make_splits(source, facts).rounds[0]
    sides = where(source, one)
    assert all(sides[f"{i}.jpg"] == sides[f"{i + 1}.jpg"] for i in range(0, 400, 2))


def test_declared_test_and_val() -> None:
    source, facts = made(300, split=("train", "train", "val", "test"), classes=3)
    splits = make_splits(source, facts)
    assert splits.kind == "declared"
    assert splits.evaluated_on == "test/ folder (75 pictures), scored once"
    for part, indices in parts(splits.rounds[0]).items():
        assert {source.samples[i].split for i in indices} == {part}


def test_declared_val_alone_becomes_the_test_and_validation_is_carved() -> None:
    source, facts = made(300, split=("train", "train", "val"), classes=2)
    splits = make_splits(source, facts)
    one = splits.rounds[0]
    assert {source.samples[i].split for i in one.test} == {"val"}
    assert {source.samples[i].split for i in np.concatenate([one.train, one.val])} == {"train"}
    assert len(one.val) == pytest.approx(40, abs=20)
    assert splits.evaluated_on == "val/ folder (100 pictures), scored once"
    assert "no test part" in splits.notes[0]


def test_folds_cover_everything_once_per_repeat() -> None:
    source, facts = made(90)
    splits = make_splits(source, facts, folds=5, repeats=2)
    assert len(splits.rounds) == 10
    for five in (splits.rounds[:5], splits.rounds[5:]):
        assert sorted(np.concatenate([one.test for one in five]).tolist()) == list(range(90))
    assert splits.evaluated_on == "5-fold cross-validation, 2 times, 90 pictures"
    assert not np.array_equal(splits.rounds[0].test, splits.rounds[5].test)


def test_fold_of_is_stable_and_keeps_equal_keys_together() -> None:
    keys = [f"k{i % 60}" for i in range(150)]
    labels = np.arange(150) % 2
    fold = fold_of(keys, labels, 5, 0)
    assert set(fold.tolist()) == {0, 1, 2, 3, 4}
    assert all(len({int(f) for key, f in zip(keys, fold, strict=True) if key == one}) == 1 for one in set(keys))
    more = fold_of([*keys, *(f"n{i}" for i in range(50))], np.zeros(200, dtype=int), 5, 0)
    assert np.array_equal(more[:150], fold)


def test_a_class_never_falls_into_one_fold_alone() -> None:
    for seed in range(30):
        fold = fold_of(["a", "b", *(f"x{i}" for i in range(30))], np.array([1, 1] + [0] * 30), 5, seed)
        assert fold[0] != fold[1]


def test_json_names_files_by_content() -> None:
    source, facts = made(300)
    splits = make_splits(source, facts)
    value = splits.to_json(source, facts)
    assert value["format"] == "regraft.split/1"
    assert value["rounds"][0]["test"] == [facts[i].sha256 for i in splits.rounds[0].test]


def test_what_cannot_be_split_is_said() -> None:
    source, facts = made(50, split=("test",))
    with pytest.raises(DataError, match="No training pictures"):
        make_splits(source, facts)
    source, facts = made(50, groups=1)
    with pytest.raises(DataError, match="one group"):
        make_splits(source, facts)
    with pytest.raises(DataError, match="between 0 and 1"):
        make_splits(source, facts, val_fraction=1.5)
