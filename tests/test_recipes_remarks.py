"""The word about edges that the weights' own crop cuts off: where it is said, and what it advises."""

from __future__ import annotations

import pytest

from regraft.backbones import create
from regraft.backbones.base import ImageBackbone
from regraft.data.audit import Facts
from regraft.recipes.remarks import unseen_edges


def of_sizes(*sizes: tuple[int, int]) -> list[Facts]:
    return [Facts(f"{i:064x}", i, width, height) for i, (width, height) in enumerate(sizes)]


def cropping(typed: str, crop: float) -> ImageBackbone:
    """A small network whose weights came with this crop, by the name that was typed for it."""
    backbone = create(f"test_resnet:size=32,crop_pct={crop}", pretrained=False)
    backbone.recipe["name"] = typed
    return backbone


def test_pictures_of_one_size_lose_their_edges() -> None:
    backbone = cropping("test_resnet:size=32", 0.8)
    (sentence,) = unseen_edges(of_sizes((200, 100), (200, 100)), backbone)
    assert "200 × 100 px" in sentence and "10%" in sentence
    advice = sentence.partition("--backbone ")[2].split()[0]
    assert create(advice, pretrained=False).input_spec.options["crop_pct"] == 1.0
    assert create(advice, pretrained=False).input_spec.shape == (3, 32, 32)


@pytest.mark.parametrize(
    ("typed", "crop", "sizes"),
    [
        ("test_resnet:size=32", 0.8, [(200, 200), (200, 201)]),  # from several devices, or cut by hand
        ("test_resnet:size=32,crop_pct=0.8", 0.8, [(200, 200), (200, 200)]),  # as was asked for
        ("test_resnet:size=32", 0.95, [(200, 200), (200, 200)]),  # it sees nearly all
    ],
)
def test_nothing_is_said_elsewhere(typed: str, crop: float, sizes: list[tuple[int, int]]) -> None:
    assert unseen_edges(of_sizes(*sizes), cropping(typed, crop)) == []
