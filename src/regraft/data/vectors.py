"""Batches of cached vectors: features that were computed once, trained on many times."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import torch

from regraft.core.errors import DataError
from regraft.core.types import Batch
from regraft.data.labels import as_labels


class VectorStream:
    """Rows (N, D) float32 with labels (N,) or without, shuffled anew each epoch; a `core.types.Stream`.

    domains (N,): from which of several domains each row is. The same (seed, epoch, index) gives the same batch. A short
    last batch is dropped, unless it is the only one.
    """

    def __init__(
        self,
        rows: np.ndarray,
        labels: np.ndarray | None,
        *,
        batch_size: int,
        seed: int = 0,
        domains: np.ndarray | None = None,
    ) -> None:
        if rows.ndim != 2 or len(rows) == 0 or batch_size < 1:
            raise DataError(f"A stream of vectors takes rows (N, D), N and batch_size ≥ 1; {rows.shape} came.")
        if labels is not None and len(labels) != len(rows):
            raise DataError(f"The stream got {len(rows)} vectors but {len(labels)} labels.")
        if domains is not None and len(domains) != len(rows):
            raise DataError(f"The stream got {len(rows)} vectors but the domains of {len(domains)}.")
        self.rows = torch.from_numpy(np.ascontiguousarray(rows, dtype=np.float32))
        self.labels = None if labels is None else torch.from_numpy(as_labels(np.asarray(labels)))
        self.domains = None if domains is None else torch.from_numpy(np.asarray(domains, dtype=np.int64))
        self.batch_size, self.seed = min(batch_size, len(rows)), seed

    def __len__(self) -> int:
        return len(self.rows) // self.batch_size

    def epoch(self, index: int, start: int = 0) -> Iterator[Batch]:
        """Batches `start`, `start + 1`, … of epoch `index`."""
        order = torch.from_numpy(np.random.default_rng([self.seed, index]).permutation(len(self.rows)))
        for number in range(start, len(self)):
            chosen = order[number * self.batch_size : (number + 1) * self.batch_size]
            labels, domains = (None if of is None else of[chosen] for of in (self.labels, self.domains))
            yield Batch(self.rows[chosen], labels, domain=domains)
