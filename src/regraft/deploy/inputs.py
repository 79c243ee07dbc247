"""What a person hands over, read by threads while the model computes on what came before."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any, Final

from regraft.core.errors import RegraftError
from regraft.core.hardware import default_threads

#: Batches that are being read while the model computes an earlier one.
_AHEAD: Final = 3


def read_ahead(
    items: Sequence[Any], read_one: Callable[[Any], Any], batch_size: int
) -> Iterator[list[Any | RegraftError]]:
    """Batches of items in order, read by threads; an unreadable one is its error instead."""

    def read(item: Any) -> Any | RegraftError:
        try:
            return read_one(item)
        except RegraftError as error:
            return error

    pool = ThreadPoolExecutor(default_threads(), thread_name_prefix="reading")
    waiting: deque[list[Future[Any]]] = deque()
    following = 0
    try:
        while waiting or following < len(items):
            while following < len(items) and len(waiting) < _AHEAD:
                waiting.append([pool.submit(read, item) for item in items[following : following + batch_size]])
                following += batch_size
            yield [future.result() for future in waiting.popleft()]
    finally:
        pool.shutdown(wait=True, cancel_futures=True)
