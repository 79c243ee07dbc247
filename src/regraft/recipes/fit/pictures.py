"""From the options to pictures that can be used: read, audit, split, and the streams over them."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from torch import Tensor

from regraft.core.types import InputSpec
from regraft.data.facts import Facts
from regraft.data.reading import read_source
from regraft.data.source import Source
from regraft.data.split import Splits, folds_for, make_splits
from regraft.images.audit import Audit, audit
from regraft.images.stream import PictureStore, PictureStream
from regraft.images.training import training_transform
from regraft.images.transform import EvalTransform
from regraft.recipes.fit.options import FitConfig
from regraft.strategies.base import trained
from regraft.tasks.kinds import kind_type, reading


@dataclass(frozen=True)
class Prepared:
    """Usable pictures with what the audit knows of them, and who is in which part.

    labels: y (N, …) as the kind encodes it. strata: what every part should have some of, int64 (N,) or bool (N, S).
    """

    source: Source
    facts: list[Facts]
    audit: Audit
    splits: Splits
    labels: np.ndarray
    strata: np.ndarray

    def known(self) -> np.ndarray:
        """Pictures that are for training or validation in some round, sorted: all but a held-out test."""
        rounds = self.splits.rounds
        return np.unique(np.concatenate([np.concatenate([r.train, r.val]) for r in rounds]))

    def units(self, indices: np.ndarray) -> list[str]:
        """What must stay together: the picture's group, else its own content."""
        return [self.source.samples[i].group or self.facts[i].sha256 for i in indices]

    def groups(self, indices: np.ndarray) -> np.ndarray | None:
        """Group numbers for a cluster bootstrap; None where every picture stands alone."""
        if all(self.source.samples[i].group is None for i in indices):
            return None
        return np.unique(self.units(indices), return_inverse=True)[1]

    def folds(self, indices: np.ndarray, seed: int, k: int = 5) -> np.ndarray:
        """Fold numbers for a cross-validation inside these pictures; every class with two units is in two folds."""
        return folds_for(self.units(indices), self.strata[indices], seed, k)


def prepare(config: FitConfig, progress: Callable[[int, int], None] | None = None) -> Prepared:
    """Read, audit and split. Raises DataError where nothing sensible can be done."""
    source = read_source(
        list(config.roots),
        table=config.table,
        image_column=config.image,
        label_column=config.label,
        group=config.group,
        split_column=config.split,
        test=config.test,
        read_labels=reading(config.task),
    )
    kind_type(source).check(config)
    usable, facts, report = audit(source, max_bad=config.max_bad, threads=config.threads, progress=progress)
    # Few pictures: one random partition says little, so it is drawn again; solving a probe is cheap, training is not.
    repeats = 2 if trained(config.strategies) else 3
    splits = make_splits(usable, facts, seed=config.seed, repeats=repeats)
    return Prepared(usable, facts, report, splits, usable.labels(), usable.strata())


class Streams:
    """The streams over one set of pictures for one backbone; decoded training pictures are shared between them."""

    def __init__(self, prepared: Prepared, spec: InputSpec, config: FitConfig) -> None:
        self.prepared, self.spec, self.config = prepared, spec, config
        self._store: PictureStore | None = None

    def train(self, indices: np.ndarray, rank: int = 0, world_size: int = 1) -> PictureStream:
        """Shuffled, augmented batches. Small sets get smaller batches, so that an epoch has at least eight steps."""
        config = self.config
        if self._store is None:
            # A crop of the least scale still has about the input's resolution.
            side = round(max(self.spec.shape[1:]) * 1.4)
            self._store = PictureStore([p.path for p in self.prepared.source.samples], short_side_px=side)
        batch = max(1, min(config.batch_size, max(4, len(indices) // 8), len(indices)))
        least, ratio = kind_type(self.prepared.source).view
        least = least if config.crop_scale is None else config.crop_scale
        transform = training_transform(
            self.spec, config.augment, scale=least, ratio=ratio, flip=config.flip, colour=config.colour
        )
        return PictureStream(
            [self.prepared.source.samples[i].path for i in indices],
            self.prepared.labels[indices],
            transform,
            batch_size=max(1, batch // world_size),
            shuffle=True,
            seed=config.seed,
            drop_last=True,
            threads=config.threads,
            rank=rank,
            world_size=world_size,
            store=_Subset(self._store, indices),
        )

    def plain(self, indices: np.ndarray, *, cache: bool = False) -> PictureStream:
        """Each picture once, in order, with the weights' own preprocessing."""
        return PictureStream(
            [self.prepared.source.samples[i].path for i in indices],
            self.prepared.labels[indices],
            EvalTransform(self.spec),
            batch_size=32,
            threads=self.config.threads,
            cache=cache,
        )


class _Subset(PictureStore):
    """The shared store under the numbering of a part."""

    def __init__(self, store: PictureStore, indices: np.ndarray) -> None:
        self._whole, self._indices = store, indices
        self.paths = tuple(store.paths[i] for i in indices)

    def __len__(self) -> int:
        return len(self._indices)

    def get(self, i: int) -> Tensor:
        return self._whole.get(int(self._indices[i]))
