"""From the options to samples that can be used: read, audit, split, and the streams over them."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from regraft.core.errors import UsageError
from regraft.core.types import Backbone
from regraft.data.audit import Audit, audit
from regraft.data.facts import Facts, units
from regraft.data.modality import Modality, StreamOptions, Streams
from regraft.data.reading import Reading, read_source
from regraft.data.source import Source
from regraft.data.split import Splits, folds_for, make_splits
from regraft.recipes.fit.options import FitConfig
from regraft.strategies.base import trained
from regraft.tasks.kinds import kind_type
from regraft.tasks.kinds import reading as labels_as
from regraft.tasks.modalities import modality_in, modality_named


@dataclass(frozen=True)
class Prepared:
    """Usable samples with what the audit knows of them, and who is in which part.

    labels: y (N, …) as the kind encodes it. strata: what every part should have some of, int64 (N,) or bool (N, S).
    """

    source: Source
    facts: list[Facts]
    audit: Audit
    splits: Splits
    labels: np.ndarray
    strata: np.ndarray
    modality: Modality

    def known(self) -> np.ndarray:
        """Samples that are for training or validation in some round, sorted: all but a held-out test."""
        rounds = self.splits.rounds
        return np.unique(np.concatenate([np.concatenate([r.train, r.val]) for r in rounds]))

    def units(self, indices: np.ndarray) -> list[str]:
        """What must stay together: the sample's group, else its own content."""
        return units(self.source, self.facts, indices)

    def groups(self, indices: np.ndarray) -> np.ndarray | None:
        """Group numbers for a cluster bootstrap; None where every sample stands alone."""
        if all(self.source.samples[i].group is None for i in indices):
            return None
        return np.unique(self.units(indices), return_inverse=True)[1]

    def folds(self, indices: np.ndarray, seed: int, k: int = 5) -> np.ndarray:
        """Fold numbers for a cross-validation inside these samples; every class with two units is in two folds."""
        return folds_for(self.units(indices), self.strata[indices], seed, k)

    def streams(self, backbone: Backbone, config: FitConfig) -> Streams:
        """The streams over these samples as this backbone expects them."""
        view = kind_type(self.source).view
        alters = self.modality.augment
        changes = alters(**{name: getattr(config, name) for name in alters.model_fields if hasattr(config, name)})
        options = StreamOptions(config.batch_size, config.seed, config.threads, view, changes)
        return self.modality.streams(backbone, self.source.samples, self.labels, options)


def modality_of(config: FitConfig) -> Modality:
    """What is to be learned from: texts where their column is named, else what the folders hold."""
    if config.text is not None:
        return modality_named("text")
    return modality_named("image") if config.table is not None else modality_in(config.roots)


def prepare(config: FitConfig, progress: Callable[[int, int], None] | None = None) -> Prepared:
    """Read, audit and split. Raises DataError where nothing sensible can be done."""
    modality = modality_of(config)
    reading = Reading(
        table=config.table,
        column=config.text if modality.inline else config.image,
        label=config.label,
        group=config.group,
        split=config.split,
        test=config.test,
        read_labels=labels_as(config.task),
    )
    source = read_source(list(config.roots), modality, reading)
    kind_type(source).check(config)
    unfit = [f"--{name.replace('_', '-')}" for name in modality.unfit if getattr(config, name)]
    if unfit:
        raise UsageError(f"{', '.join(unfit)} has no meaning for {modality.words.many}: leave it out.")
    usable, facts, report = audit(source, modality, max_bad=config.max_bad, threads=config.threads, progress=progress)
    # Few samples: one random partition says little, so it is drawn again; solving a probe is cheap, training is not.
    repeats = 2 if trained(config.strategies) else 3
    splits = make_splits(usable, facts, seed=config.seed, repeats=repeats)
    return Prepared(usable, facts, report, splits, usable.labels(), usable.strata(), modality)
