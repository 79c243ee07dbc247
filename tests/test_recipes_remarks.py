"""The word about edges that the weights' own crop cuts off: where it is said, and what it advises."""

from __future__ import annotations

import pytest

from regraft.images.backbones import create
from regraft.images.backbones.base import ImageBackbone
from regraft.images.look import PictureFacts
from regraft.images.remarks import unseen_edges


def of_sizes(*sizes: tuple[int, int]) -> list[PictureFacts]:
    return [PictureFacts(f"{i:064x}", i, width, height) for i, (width, height) in enumerate(sizes)]


def cropping(crop: float, *, asked: bool) -> ImageBackbone:
    """A small network with this crop, which came with its weights or was asked for."""
    backbone = create(f"test_resnet:size=32,crop_pct={crop}", pretrained=False)
    if not asked:
        del backbone.recipe["options"]["crop_pct"]
        backbone.recipe["name"] = "test_resnet:size=32"
    return backbone


def test_pictures_of_one_size_lose_their_edges() -> None:
    sentence = unseen_edges(of_sizes((200, 100), (200, 100)), cropping(0.8, asked=False))
    assert sentence is not None and "200 × 100 px" in sentence and "10%" in sentence
    advice = sentence.partition("--backbone ")[2].split()[0]
    assert create(advice, pretrained=False).input_spec.crop_pct == 1.0
    assert create(advice, pretrained=False).input_spec.shape == (3, 32, 32)


@pytest.mark.parametrize(
    ("crop", "asked", "sizes"),
    [
        (0.8, False, [(200, 200), (200, 201)]),  # from several devices, or cut by hand
        (0.8, True, [(200, 200), (200, 200)]),  # as was asked for
        (0.95, False, [(200, 200), (200, 200)]),  # it sees nearly all
    ],
)
def test_nothing_is_said_elsewhere(crop: float, asked: bool, sizes: list[tuple[int, int]]) -> None:
    assert unseen_edges(of_sizes(*sizes), cropping(crop, asked=asked)) is None
