"""Nested batches: what is divided, moved and put together is what a plain loop over samples would give."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor

from regraft.core import nested
from regraft.core.types import Batch

X = torch.arange(21.0).view(7, 3)
ROWS = [torch.full((3, size, 2), float(size)) for size in (4, 2, 5, 3, 1, 6, 7)]
BOXES = [{"boxes": torch.full((count, 4), float(count)), "name": f"n{count}"} for count in range(7)]
#: The same seven samples in every shape that a batch may have.
SHAPES: dict[str, Any] = {
    "tensor": X,
    "mapping": {"ids": X.long(), "mask": X > 4, "language": "en", "scale": torch.tensor(2.0)},
    "nested mapping": {"text": {"ids": X}, "names": list("abcdefg")},
    "list": ROWS,
    "tuple": tuple(ROWS),
    "list of mappings": BOXES,
    "names": list("abcdefg"),
}


def same(a: Any, b: Any) -> bool:
    if isinstance(a, Tensor):
        return isinstance(b, Tensor) and a.dtype == b.dtype and torch.equal(a, b)
    if isinstance(a, dict):
        return a.keys() == b.keys() and all(same(a[key], b[key]) for key in a)
    if isinstance(a, list | tuple):
        return len(a) == len(b) and all(same(x, y) for x, y in zip(a, b, strict=True))
    return bool(a == b)


@pytest.mark.parametrize("name", SHAPES)
@pytest.mark.parametrize("parts", [1, 2, 3, 4, 7])
def test_pieces_have_the_lengths_of_tensor_split_and_go_together_again(name: str, parts: int) -> None:
    x = SHAPES[name]
    pieces = nested.cut(x, parts)
    assert [nested.length(piece) for piece in pieces] == [len(p) for p in torch.tensor_split(X, parts)]
    assert same(nested.concatenate(pieces), list(x) if isinstance(x, tuple) else x)


@pytest.mark.parametrize("name", SHAPES)
def test_gathering_by_numbers_and_by_mask_takes_the_same_samples(name: str) -> None:
    x = SHAPES[name]
    mask = torch.tensor([True, False, False, True, False, True, True])
    chosen = nested.gather(x, mask)
    assert nested.length(chosen) == 4
    for indices in ([0, 3, 5, 6], torch.tensor([0, 3, 5, 6])):
        assert same(nested.gather(x, indices), chosen)
    singles = [nested.gather(x, [number]) for number in (6, 0, 0)]
    assert same(nested.concatenate(singles), nested.concatenate([nested.gather(x, [6, 0, 0])]))
    assert nested.length(nested.gather(x, [])) == 0


def test_gathered_rows_are_the_right_ones() -> None:
    assert torch.equal(nested.gather(X, [2, 0]), torch.stack([X[2], X[0]]))
    found = nested.gather(BOXES, torch.tensor([5, 1]))
    assert [sample["name"] for sample in found] == ["n5", "n1"] and len(found[0]["boxes"]) == 5
    assert nested.gather({"x": X, "language": "en"}, [1])["language"] == "en"


def test_moving_changes_every_tensor_and_nothing_else() -> None:
    x = {"rows": BOXES, "pair": (X, "a"), "no": None}
    moved = nested.move(x, "meta")
    assert moved["rows"][3]["boxes"].is_meta and moved["pair"][0].is_meta
    assert moved["rows"][3]["name"] == "n3" and moved["pair"][1] == "a" and moved["no"] is None
    assert isinstance(moved["pair"], tuple) and not x["pair"][0].is_meta  # type: ignore[index, union-attr]


def test_results_are_float32_and_whole_numbers_stay() -> None:
    found = nested.to_cpu_float([{"scores": X.bfloat16(), "labels": X.long(), "half": X.half(), "double": X.double()}])
    assert [value.dtype for value in found[0].values()] == [torch.float32, torch.int64, torch.float32, torch.float32]


def test_tensors_of_several_sizes_become_a_list_with_one_entry_a_sample() -> None:
    found = nested.concatenate([torch.zeros(2, 3, 4), torch.ones(1, 3, 5)])
    assert [tuple(row.shape) for row in found] == [(3, 4), (3, 4), (3, 5)]
    of_one = nested.concatenate([torch.zeros(2, 3), torch.ones(1, 3)])
    assert isinstance(of_one, Tensor) and of_one.shape == (3, 3)
    per_key = nested.concatenate([{"a": torch.zeros(1, 2), "b": X[:1]}, {"a": torch.zeros(1, 3), "b": X[1:2]}])
    assert isinstance(per_key["a"], list) and torch.equal(per_key["b"], X[:2])


def test_what_has_no_samples_or_does_not_go_together_is_an_error() -> None:
    with pytest.raises(TypeError, match="got a set"):
        nested.cut({"x": {1, 2}}, 2)
    with pytest.raises(TypeError, match="got a set"):
        nested.length({1, 2})
    with pytest.raises(TypeError, match="no number of samples"):
        nested.length({"language": "en"})
    with pytest.raises(TypeError, match="no number of samples"):
        nested.length(torch.tensor(1.0))
    with pytest.raises(TypeError, match="do not go together"):
        nested.concatenate([X, ROWS])
    with pytest.raises(TypeError, match="do not go together"):
        nested.concatenate([{"a": X}, {"b": X}])
    with pytest.raises(ValueError, match="empty"):
        nested.concatenate([])


def test_a_batch_is_cut_as_one() -> None:
    batch = Batch(ROWS, BOXES, torch.tensor([1.0, 1, 1, 1, 1, 0, 0]))
    pieces = batch.cut(3)
    assert [len(piece.x) for piece in pieces] == [3, 2, 2]
    for piece in pieces:
        assert piece.weight is not None and len(piece.weight) == len(piece.y) == len(piece.x)
        assert piece.domain is None
    assert [sample["name"] for piece in pieces for sample in piece.y] == [f"n{count}" for count in range(7)]
    assert batch.to("meta").y[2]["boxes"].is_meta
