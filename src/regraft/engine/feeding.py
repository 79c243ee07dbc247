"""Which batches a step gets: a function of the step's number alone, so that a resumed run gets the same ones."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from regraft.core import nested
from regraft.core.types import Batch, Stream


@dataclass(frozen=True)
class _Size:
    size: int


class Feeder:
    """Batches of all streams by step number; the first stream sets the epoch."""

    def __init__(self, streams: Mapping[str, Stream], accumulate: int, start: int) -> None:
        self.streams = streams
        self.accumulate = accumulate
        self.lengths = {name: len(stream) for name, stream in streams.items()}
        self.steps_per_epoch = next(iter(self.lengths.values())) / accumulate
        self._open: dict[str, Iterator[Batch]] = {}
        self._next: dict[str, int] = dict.fromkeys(streams, start * accumulate)

    def take(self, step: int) -> list[dict[str, Any]]:
        """The step's batches: one mapping per accumulated batch, with the first stream's size under "_"."""
        taken: list[dict[str, Any]] = []
        for _ in range(self.accumulate):
            batches: dict[str, Any] = {name: self._one(name) for name in self.streams}
            first = next(iter(batches.values()))
            batches["_"] = _Size(nested.length(first.x))
            taken.append(batches)
        return taken

    def _one(self, name: str) -> Batch:
        position = self._next[name]
        epoch, index = divmod(position, self.lengths[name])
        if name not in self._open or index == 0:
            self._open[name] = self.streams[name].epoch(epoch, index)
        self._next[name] = position + 1
        return next(self._open[name])
