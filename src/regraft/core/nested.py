"""What a batch may be made of: tensors, mappings of them, and lists with one entry for each sample.

A tensor has its samples along the first dimension. A mapping's values (`{"ids": (N, T), "mask": (N, T)}`) each hold all
samples. A list or tuple has one entry for each sample, which may be anything: a picture of its own size, a dict of
boxes, the name of a class. What cannot be divided (None, text, numbers, tensors without a dimension) belongs to every
sample.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from itertools import pairwise
from typing import Any, TypeGuard

import torch
from torch import Tensor

#: Belongs to every sample where it stands in the place of a tensor.
_SHARED = (type(None), str, bytes, bool, int, float, complex)


def length(x: Any) -> int:
    """How many samples x holds. Raises TypeError for what holds none in particular, and for other types."""
    found = _length(x)
    if found is None:
        raise TypeError(f"A {type(x).__name__} without a tensor or a list in it has no number of samples.")
    return found


def map_tensors(x: Any, function: Callable[[Tensor], Tensor]) -> Any:
    """Replace every tensor in x by what the function gives for it; lists stay lists, tuples tuples."""
    if isinstance(x, Tensor):
        return function(x)
    if isinstance(x, Mapping):
        return {key: map_tensors(value, function) for key, value in x.items()}
    if _is_rows(x):
        return _like(x, [map_tensors(value, function) for value in x])
    return x


def move(x: Any, device: Any) -> Any:
    """Bring x to that device, without waiting for the copies; what is no tensor stays as it is."""
    return map_tensors(x, lambda value: value.to(device, non_blocking=True))


def to_cpu_float(x: Any) -> Any:
    """Bring x to the CPU, with float32 in place of other floating types; whole numbers keep theirs."""
    return map_tensors(x, lambda value: (value.float() if value.is_floating_point() else value).cpu())


def cut(x: Any, parts: int) -> list[Any]:
    """Divide x into that many pieces of nearly equal length, the longer ones first, as `torch.tensor_split` does."""
    if isinstance(x, Tensor) and x.dim():
        return list(torch.tensor_split(x, parts))
    if isinstance(x, Mapping):
        pieces = {key: cut(value, parts) for key, value in x.items()}
        return [{key: piece[index] for key, piece in pieces.items()} for index in range(parts)]
    if _is_rows(x):
        size, longer = divmod(len(x), parts)
        ends = [index * size + min(index, longer) for index in range(parts + 1)]
        return [x[start:end] for start, end in pairwise(ends)]
    return [_shared(x)] * parts


def gather(x: Any, indices: Tensor | Sequence[int]) -> Any:
    """The samples of those numbers, in their order. indices: whole numbers (M,), or a mask bool (N,)."""
    if isinstance(x, Tensor) and x.dim():
        return x[_as_index(indices).to(x.device)]
    if isinstance(x, Mapping):
        return {key: gather(value, indices) for key, value in x.items()}
    if _is_rows(x):
        chosen = _as_index(indices)
        numbers = chosen.nonzero().flatten() if chosen.dtype == torch.bool else chosen
        return _like(x, [x[number] for number in numbers.tolist()])
    return _shared(x)


def concatenate(parts: Sequence[Any]) -> Any:
    """One x out of several of the same make, in their order.

    Tensors whose samples differ in size become a list with one entry for each sample. Raises ValueError where there is
    nothing, TypeError where one part is a tensor or mapping and another is not.
    """
    if not parts:
        raise ValueError("There is nothing to put together: the list of parts is empty.")
    first = parts[0]
    if isinstance(first, Mapping):
        _check(parts, all(isinstance(part, Mapping) and part.keys() == first.keys() for part in parts))
        return {key: concatenate([part[key] for part in parts]) for key in first}
    if isinstance(first, Tensor) and first.dim():
        _check(parts, all(isinstance(part, Tensor) and part.dim() for part in parts))
        if all(part.shape[1:] == first.shape[1:] for part in parts):
            return torch.cat(list(parts))
        return [row for part in parts for row in part]
    if _is_rows(first):
        _check(parts, all(_is_rows(part) for part in parts))
        return [row for part in parts for row in part]
    return _shared(first)


def _length(x: Any) -> int | None:
    if isinstance(x, Tensor):
        return len(x) if x.dim() else None
    if isinstance(x, Mapping):
        return next((found for value in x.values() if (found := _length(value)) is not None), None)
    if _is_rows(x):
        return len(x)
    _shared(x)
    return None


def _as_index(indices: Tensor | Sequence[int]) -> Tensor:
    return indices if isinstance(indices, Tensor) else torch.tensor(list(indices), dtype=torch.int64)


def _is_rows(x: Any) -> TypeGuard[list[Any] | tuple[Any, ...]]:
    return isinstance(x, list | tuple)


def _like(x: list[Any] | tuple[Any, ...], values: list[Any]) -> list[Any] | tuple[Any, ...]:
    """The values as what x is; a named tuple's fields would be samples, so it becomes a plain one."""
    return tuple(values) if isinstance(x, tuple) else values


def _shared(x: Any) -> Any:
    if isinstance(x, _SHARED) or (isinstance(x, Tensor) and not x.dim()):
        return x
    raise TypeError(f"A batch is made of tensors, mappings and lists, got a {type(x).__name__}: make it one of these.")


def _check(parts: Sequence[Any], same: bool) -> None:
    if not same:
        kinds = ", ".join(sorted({type(part).__name__ for part in parts}))
        raise TypeError(f"Parts of different make do not go together: got {kinds} with unlike keys or dimensions.")
