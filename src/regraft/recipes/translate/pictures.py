"""The two sets of a translation: read, audited, a part of each held out; and the streams to train on."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np
import torch
from torch import Tensor

from regraft.adaptation.domains import domain_names
from regraft.core.errors import DataError
from regraft.data.audit import Audit, audit
from regraft.data.facts import units
from regraft.data.reading import Reading, read_source
from regraft.images.modality import PICTURES
from regraft.images.spec import ImageSpec
from regraft.images.square_crop import SquareCrop
from regraft.images.stream import PictureStore, PictureStream
from regraft.images.transform import EvalTransform
from regraft.recipes.translate.options import TranslateConfig

#: Pictures to learn from, and pictures for figures, that each set needs.
LEAST_TRAIN: Final = 2
LEAST_HELD: Final = 4
#: Held-out pictures that figures are taken from; more cost time and change little.
MOST_HELD: Final = 200
#: Without test folders one picture in so many is held out.
HELD_ONE_IN: Final = 10


@dataclass(frozen=True)
class PictureSet:
    """One of the two sets. train and held: files; sha256: of each of them, by part."""

    name: str
    train: tuple[Path, ...]
    held: tuple[Path, ...]
    audit: Audit
    sha256: dict[str, list[str]]


def read_sets(
    config: TranslateConfig, progress: Callable[[int, int], None] | None = None
) -> tuple[PictureSet, PictureSet]:
    """Both sets, A and B. Raises DataError for a folder that is missing or has too few usable pictures."""
    names = domain_names((config.a, config.b))
    return (
        _read(names[0], config.a, config.test_a, config, progress),
        _read(names[1], config.b, config.test_b, config, progress),
    )


def _read(
    name: str, folder: Path, test: Path | None, config: TranslateConfig, progress: Callable[[int, int], None] | None
) -> PictureSet:
    found = read_source([folder], PICTURES, Reading(test=test, labelled=False))
    usable, facts, report = audit(found, PICTURES, max_bad=config.max_bad, progress=progress)
    if test is not None:
        held = np.array([picture.split == "test" for picture in usable.samples])
    else:
        held = held_out(units(usable, facts), config.seed)
    train, kept = np.flatnonzero(~held), np.flatnonzero(held)
    if len(kept) > MOST_HELD:
        kept = np.sort(np.random.default_rng(config.seed).permutation(kept)[:MOST_HELD])
    if len(train) < LEAST_TRAIN or len(kept) < LEAST_HELD:
        raise DataError(
            f"{name} has {len(train)} usable pictures to learn from and {len(kept)} to judge with; at least "
            f"{LEAST_TRAIN} and {LEAST_HELD} are needed, and hundreds are usual."
        )
    return PictureSet(
        name,
        tuple(usable.paths[i] for i in train),
        tuple(usable.paths[i] for i in kept),
        report,
        {part: [facts[i].sha256 for i in rows] for part, rows in (("train", train), ("test", kept))},
    )


def held_out(units: Sequence[str], seed: int) -> np.ndarray:
    """Which pictures are kept for figures, bool (N,): whole units, drawn by the seed, until there are enough."""
    wanted = max(LEAST_HELD, min(MOST_HELD, len(units) // HELD_ONE_IN))
    of_unit: dict[str, list[int]] = {}
    for index, unit in enumerate(units):
        of_unit.setdefault(unit, []).append(index)
    held = np.zeros(len(units), dtype=bool)
    for place in np.random.default_rng(seed).permutation(len(of_unit)):
        if held.sum() >= wanted:
            break
        held[of_unit[sorted(of_unit)[place]]] = True
    return held


def training_stream(paths: tuple[Path, ...], config: TranslateConfig, *, seed: int) -> PictureStream:
    """Random squares of the pictures in batches, in another order each epoch."""
    transform = SquareCrop(square_spec(config.size), flip=config.flip)
    store = PictureStore(paths, short_side_px=round(config.size / transform.least))
    return PictureStream(
        paths, None, transform, batch_size=min(config.batch_size, len(paths)), shuffle=True, seed=seed, drop_last=True,
        threads=config.threads, store=store,
    )  # fmt: skip


def squares(paths: tuple[Path, ...], config: TranslateConfig) -> Tensor:
    """The centre square of each picture at the training's size, uint8 (N, 3, size, size)."""
    stream = PictureStream(paths, None, EvalTransform(square_spec(config.size)), batch_size=16, threads=config.threads)
    return torch.cat([batch.x for batch in stream.epoch(0)])


def square_spec(side_px: int) -> ImageSpec:
    return ImageSpec((3, side_px, side_px), interpolation="bicubic", crop_pct=1.0)


def split_record(a: PictureSet, b: PictureSet) -> dict[str, Any]:
    """Format `regraft.split/1`: the SHA-256 of every file, by set and part."""
    parts = {f"{side}_{part}": hashes for side, of in (("a", a), ("b", b)) for part, hashes in of.sha256.items()}
    return {"format": "regraft.split/1", "source": f"{a.name}, {b.name}", "kind": "domains", "rounds": [parts]}
