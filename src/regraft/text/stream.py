"""Batches of texts, the same ones for the same (seed, epoch) whatever the number of processes."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import torch
from pydantic import BaseModel, ConfigDict

from regraft.core.types import Batch
from regraft.data.labels import as_labels
from regraft.data.modality import StreamOptions
from regraft.text.read import read_text
from regraft.text.tokens import Tokens

#: Texts that are cut into tokens in one call.
_AT_ONCE = 1024


class TextChanges(BaseModel):
    """How training texts are altered: not at all, so far."""

    model_config = ConfigDict(extra="forbid", frozen=True)


class TextStream:
    """Texts and their labels in batches; a `core.types.Stream`.

    rows: token numbers int64 (T,) of each text. labels: (N, …) or None. Every process passes the same arguments but its
    own `rank`, and gets its slice of each global batch of batch_size × world_size; a short last batch is made even by
    repeats of weight 0.
    """

    many = "texts"

    def __init__(
        self, rows: Sequence[np.ndarray], labels: np.ndarray | None, tokens: Tokens, options: StreamOptions,
        *, shuffle: bool = False, rank: int = 0, world_size: int = 1,
    ) -> None:  # fmt: skip
        self.rows, self.tokens = rows, tokens
        self.labels = None if labels is None else as_labels(np.asarray(labels))
        self.batch_size, self.seed = options.batch_size, options.seed
        self.shuffle, self.drop_last = shuffle, shuffle
        self.rank, self.world_size = rank, world_size
        self.samples = len(rows)

    def __len__(self) -> int:
        """Batches per epoch, the same for every rank."""
        batch = self.batch_size * self.world_size
        return self.samples // batch if self.drop_last else -(-self.samples // batch)

    def epoch(self, index: int, start: int = 0) -> Iterator[Batch]:
        """Batches `start`, `start + 1`, … of epoch `index`: x as the tokenizer collates, y, weight float32 (N,)."""
        order = np.arange(self.samples)
        if self.shuffle:
            order = np.random.default_rng([self.seed, index]).permutation(self.samples)
        size = self.batch_size * self.world_size
        for batch in range(start, len(self)):
            whole = order[batch * size : (batch + 1) * size]
            each = -(-len(whole) // self.world_size)
            at = np.arange(self.rank * each, (self.rank + 1) * each)
            chosen = whole[at % len(whole)]
            y = None if self.labels is None else torch.from_numpy(self.labels[chosen])
            weight = torch.from_numpy((at < len(whole)).astype(np.float32))
            yield Batch(self.tokens.collate([self.rows[int(i)] for i in chosen]), y, weight)


class TextStreams:
    """`data.modality.Streams` over texts; each is cut into tokens once. labels: (N, …) of the samples, or None."""

    def __init__(
        self, tokens: Tokens, samples: Sequence[Any], labels: np.ndarray | None, options: StreamOptions
    ) -> None:
        self.tokens, self.samples, self.labels, self.options = tokens, samples, labels, options
        self._rows: dict[int, np.ndarray] = {}

    def train(self, indices: np.ndarray, rank: int = 0, world_size: int = 1) -> TextStream:
        """Shuffled batches. Small sets get smaller batches, so that an epoch has at least eight steps."""
        batch = max(1, min(self.options.batch_size, max(4, len(indices) // 8), len(indices)))
        options = StreamOptions(max(1, batch // world_size), self.options.seed)
        return TextStream(
            self._encoded(indices), self._labels(indices), self.tokens, options,
            shuffle=True, rank=rank, world_size=world_size,
        )  # fmt: skip

    def plain(self, indices: np.ndarray, *, cache: bool = False) -> TextStream:
        """Each text once, in order."""
        return TextStream(self._encoded(indices), self._labels(indices), self.tokens, StreamOptions(batch_size=32))

    def _labels(self, indices: np.ndarray) -> np.ndarray | None:
        return None if self.labels is None else self.labels[indices]

    def _encoded(self, indices: np.ndarray) -> list[np.ndarray]:
        new = [int(i) for i in indices if int(i) not in self._rows]
        for at in range(0, len(new), _AT_ONCE):
            some = new[at : at + _AT_ONCE]
            found = self.tokens.encode([read_text(self.samples[i]) for i in some])
            self._rows.update(zip(some, found, strict=True))
        return [self._rows[int(i)] for i in indices]
