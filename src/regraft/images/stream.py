"""Batches of pictures, decoded by threads, the same ones whatever the number of threads.

What a batch holds depends on (seed, epoch, sample index) alone; so a run that is resumed in the middle of an
epoch, or spread over several processes, sees what an uninterrupted single one would have seen.
"""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Any, Final

import numpy as np
import torch
from torch import Tensor
from torchvision.transforms.v2 import InterpolationMode

from regraft.core.errors import DataError
from regraft.core.hardware import default_threads
from regraft.core.types import Batch
from regraft.data.labels import as_labels
from regraft.images.decode import decode
from regraft.images.transform import resize

#: Batches that are being made while the consumer works on an earlier one.
PREFETCH: Final = 3
_EVAL_CACHE_BYTES: Final = 1 << 30


class PictureStore:
    """Decoded pictures kept in memory, shrunk to a short side of at most `short_side_px`: for training only.

    Scoring reads the file itself, since pixels that were shrunk twice are not those the weights expect. Safe
    to share between threads and streams. Once `cache_bytes` are full nothing is thrown out: an epoch visits
    every picture once, so dropping the oldest would drop what comes next.
    """

    def __init__(self, paths: Sequence[Path], *, short_side_px: int, cache_bytes: int = 2 << 30) -> None:
        if short_side_px < 1:
            raise DataError(f"The store got short_side_px={short_side_px}; it is a number of pixels, at least 1.")
        self.paths = tuple(paths)
        self.short_side_px = short_side_px
        self._cache = _Cache(cache_bytes)
        self._busy = tuple(threading.Lock() for _ in range(64))

    def __len__(self) -> int:
        return len(self.paths)

    def get(self, i: int) -> Tensor:
        """Picture `i` as uint8 (3, H, W); not to be written to. Raises UnreadableError."""
        with self._busy[i % len(self._busy)]:  # two threads that want the same picture decode it once
            picture = self._cache.get(i)
            return picture if picture is not None else self._cache.keep(i, self._shrunk(i))

    def _shrunk(self, i: int) -> Tensor:
        picture = decode(self.paths[i])
        height, width = int(picture.shape[1]), int(picture.shape[2])
        ratio = self.short_side_px / min(height, width)
        if ratio >= 1:
            return picture
        size = max(1, round(height * ratio)), max(1, round(width * ratio))
        return resize(picture, size, InterpolationMode.BILINEAR)


class PictureStream:
    """Pictures and their labels in batches; a `core.types.Stream`.

    labels: class indices (N,), numbers to predict (N,) in floating point, or None where they are withheld;
    domains: from which of several domains each picture is. transform(picture, rng): uint8 (3, H, W) → uint8
    (3, h, w). Every process passes the same arguments but its own `rank`, and gets its slice of each global
    batch of batch_size × world_size; a short last batch is made even by repeats of weight 0. cache keeps the
    results of an exact transform (up to 1 GiB), for a validation set that is scored every epoch.
    Raises DataError where the arguments disagree.
    """

    many = "pictures"

    def __init__(
        self,
        paths: Sequence[Path],
        labels: np.ndarray | None,
        transform: Callable[[Tensor, Any], Tensor],
        *,
        batch_size: int,
        shuffle: bool = False,
        seed: int = 0,
        drop_last: bool = False,
        threads: int | None = None,
        rank: int = 0,
        world_size: int = 1,
        store: PictureStore | None = None,
        cache: bool = False,
        domains: np.ndarray | None = None,
    ) -> None:
        exact = bool(getattr(transform, "exact", False))
        if batch_size < 1 or not 0 <= rank < world_size or (threads is not None and threads < 1):
            raise DataError(
                f"The stream got batch_size={batch_size}, rank={rank}, world_size={world_size}, "
                f"threads={threads}; "
                "accepted: batch_size ≥ 1, 0 ≤ rank < world_size, threads ≥ 1."
            )
        for what, values in (("labels", labels), ("domains", domains)):
            if values is not None and len(values) != len(paths):
                raise DataError(f"The stream got {len(paths)} pictures but {len(values)} {what}.")
        if store is not None and (exact or store.paths != tuple(paths)):
            raise DataError(
                "A store serves training transforms over its own paths; scoring decodes the files themselves."
            )
        if cache and not exact:
            raise DataError("cache=True keeps results, which only an exact transform such as EvalTransform allows.")
        self.paths = tuple(paths)
        self.labels = None if labels is None else as_labels(np.asarray(labels))
        self.domains = None if domains is None else np.asarray(domains, dtype=np.int64)
        self.transform = transform
        self.batch_size, self.shuffle, self.seed, self.drop_last = batch_size, shuffle, seed, drop_last
        self.threads = threads if threads is not None else default_threads()
        self.rank, self.world_size, self.store = rank, world_size, store
        self.samples = len(self.paths)
        self._cache = _Cache(_EVAL_CACHE_BYTES) if cache else None

    def __len__(self) -> int:
        """Batches per epoch, the same for every rank."""
        batch = self.batch_size * self.world_size
        return self.samples // batch if self.drop_last else -(-self.samples // batch)

    def epoch(self, index: int, start: int = 0) -> Iterator[Batch]:
        """Batches `start`, `start + 1`, … of epoch `index`; those before `start` are not decoded.

        x uint8 (N, 3, h, w), y int64 or float32 (N,) or None, weight float32 (N,). Raises UnreadableError where a file
        went bad.
        """
        order = self.order(index)
        pool = ThreadPoolExecutor(self.threads, thread_name_prefix="pictures")
        waiting: deque[tuple[np.ndarray, np.ndarray, list[Future[Tensor]]]] = deque()
        following = start
        try:
            while waiting or following < len(self):
                while following < len(self) and len(waiting) < PREFETCH:
                    chosen, weight = self._share(order, following)
                    waiting.append((chosen, weight, [pool.submit(self._sample, index, int(i)) for i in chosen]))
                    following += 1
                chosen, weight, futures = waiting.popleft()
                x = torch.from_numpy(np.stack([future.result().numpy() for future in futures]))
                y, domain = (None if of is None else torch.from_numpy(of[chosen]) for of in (self.labels, self.domains))
                yield Batch(x, y, torch.from_numpy(weight), domain)
        finally:  # also when the consumer stops early: the generator is closed, and its threads with it
            pool.shutdown(wait=True, cancel_futures=True)

    def order(self, index: int) -> np.ndarray:
        """Sample indices (N,) of epoch `index`, before they are cut into batches; the same on every rank."""
        if not self.shuffle:
            return np.arange(self.samples)
        return np.random.default_rng([self.seed, index]).permutation(self.samples)

    def _share(self, order: np.ndarray, batch: int) -> tuple[np.ndarray, np.ndarray]:
        """This rank's samples of one global batch, and weights: 0 for the repeats that make ranks even."""
        size = self.batch_size * self.world_size
        whole = order[batch * size : (batch + 1) * size]
        each = -(-len(whole) // self.world_size)
        at = np.arange(self.rank * each, (self.rank + 1) * each)
        return whole[at % len(whole)], (at < len(whole)).astype(np.float32)

    def _sample(self, epoch: int, i: int) -> Tensor:
        if self._cache is not None:
            known = self._cache.get(i)
            if known is not None:
                return known
        picture = self.store.get(i) if self.store is not None else decode(self.paths[i])
        done = self.transform(picture, np.random.default_rng([self.seed, epoch, i]))
        return done if self._cache is None else self._cache.keep(i, done)


class _Cache:
    """Tensors by index, up to a number of bytes; beyond it they pass through."""

    def __init__(self, limit_bytes: int) -> None:
        self._limit_bytes, self._held_bytes = limit_bytes, 0
        self._held: dict[int, Tensor] = {}
        self._lock = threading.Lock()

    def get(self, i: int) -> Tensor | None:
        with self._lock:
            return self._held.get(i)

    def keep(self, i: int, value: Tensor) -> Tensor:
        with self._lock:
            size_bytes = value.numel() * value.element_size()
            if i not in self._held and self._held_bytes + size_bytes <= self._limit_bytes:
                self._held[i] = value
                self._held_bytes += size_bytes
        return value
