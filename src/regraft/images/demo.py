"""The demo's pictures: patches of the photographs that scikit-image carries. Which surface is this?

Each surface is a part of a photograph, and that part is cut in two: one side gives training patches, the
other gives test patches, with a gap between, so no neighbour of a test pixel is ever trained on. Every patch
is a square of the photograph's own pixels, unscaled.
"""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import NamedTuple

from PIL import Image

from regraft.core.errors import DataError, MissingExtraError
from regraft.core.files import write_text

GAP_PX = 16
TRAIN_PER_CLASS = 20
TEST_PER_CLASS = 25
SOURCES = "SOURCES.md"
TRIES = 16  # candidates per patch, of which the one that overlaps the earlier patches least is taken


class Box(NamedTuple):
    """A rectangle in px of its photograph; right and bottom are the first column and row outside it."""

    left: int
    top: int
    right: int
    bottom: int

    def shared_px(self, other: Box) -> int:
        """How many pixels two boxes have in common."""
        wide = min(self.right, other.right) - max(self.left, other.left)
        high = min(self.bottom, other.bottom) - max(self.top, other.top)
        return max(0, wide) * max(0, high)


@dataclass(frozen=True)
class Surface:
    """One class: the parts of a photograph that give training and test patches, and the sides of these."""

    name: str
    picture: str
    train: tuple[Box, ...]
    test: tuple[Box, ...]
    sides_px: tuple[int, ...] = (48, 64)


@dataclass(frozen=True)
class Source:
    """What scikit-image says about one of its photographs."""

    shows: str
    licence: str


PICTURES: dict[str, Source] = {
    "astronaut.png": Source("the astronaut Eileen Collins; NASA", "no known copyright restrictions, public domain"),
    "brick.png": Source("a brick wall; CC0Textures", "CC0"),
    "camera.png": Source("a cameraman; Lav Varshney", "CC0"),
    "chelsea.png": Source("Chelsea the cat; Stéfan van der Walt", "CC0"),
    "coffee.png": Source("a cup of coffee; Rachel Michetti", "CC0"),
    "coins.png": Source("Greek coins from Pompeii; Brooklyn Museum", "no known copyright restrictions"),
    "grass.png": Source("grass", "CC0"),
    "gravel.png": Source("gravel; CC0Textures", "CC0"),
    "hubble_deep_field.jpg": Source("the Hubble eXtreme Deep Field; NASA", "may be used freely, public domain"),
    "ihc.png": Source("stained colonic glands; CMMI", "no known copyright restrictions"),
    "moon.png": Source("the surface of the moon", "none stated"),
    "page.png": Source("a scanned page", "none stated"),
    "retina.jpg": Source("a human retina; Häggström", "CC0"),
    "rocket.jpg": Source("a Falcon 9 before its launch; SpaceX", "public domain"),
    "text.png": Source("handwriting on lined paper; Wikipedia", "no known copyright restrictions, public domain"),
}

LEFT, RIGHT = (Box(0, 0, 248, 512),), (Box(264, 0, 512, 512),)

SURFACES: tuple[Surface, ...] = (
    Surface("brick", "brick.png", LEFT, RIGHT),
    Surface("coins", "coins.png", (Box(0, 10, 384, 148),), (Box(0, 166, 384, 303),)),
    Surface("cup", "coffee.png", (Box(90, 30, 262, 380),), (Box(280, 30, 420, 360),)),
    Surface("fur", "chelsea.png", (Box(30, 20, 200, 300),), (Box(220, 10, 350, 205),)),
    Surface(
        "gland",
        "ihc.png",
        (Box(10, 5, 250, 165), Box(55, 310, 150, 512)),
        (Box(285, 0, 440, 220), Box(270, 325, 370, 500)),
    ),
    Surface("grass", "grass.png", LEFT, RIGHT),
    Surface("gravel", "gravel.png", LEFT, RIGHT),
    Surface("handwriting", "text.png", (Box(0, 0, 216, 172),), (Box(232, 0, 448, 172),)),
    Surface("lawn", "camera.png", (Box(400, 255, 512, 512),), (Box(160, 370, 234, 512),)),
    Surface("moon", "moon.png", LEFT, RIGHT),
    Surface("print", "page.png", (Box(0, 0, 184, 150),), (Box(200, 0, 384, 125),)),
    Surface("retina", "retina.jpg", (Box(250, 200, 690, 1200),), (Box(720, 200, 1160, 1200),), (96, 128)),
    Surface("stars", "hubble_deep_field.jpg", (Box(0, 0, 490, 872),), (Box(510, 0, 1000, 872),), (96, 128)),
    Surface("stroma", "ihc.png", (Box(165, 275, 250, 512),), (Box(395, 310, 512, 430), Box(456, 40, 512, 310))),
    Surface(
        "suit",
        "astronaut.png",
        (Box(40, 235, 125, 335), Box(125, 287, 230, 335), Box(265, 280, 345, 335)),
        (Box(40, 352, 134, 480),),
    ),
    Surface(
        "tower",
        "rocket.jpg",
        (Box(0, 0, 95, 400), Box(165, 190, 225, 427)),
        (Box(560, 0, 640, 427), Box(425, 190, 485, 427)),
    ),
    Surface("wood", "coffee.png", (Box(440, 0, 600, 130), Box(495, 130, 600, 400)), (Box(0, 120, 72, 400),)),
)


def make_demo(folder: Path, *, seed: int = 0) -> Path:
    """Write `train/<surface>/*.png`, `test/<surface>/*.png` and `SOURCES.md` into `folder`; return it.

    17 surfaces, 20 training and 25 test patches each, 48 to 128 px, RGB. The same seed gives the same files.
    Raises MissingExtraError without scikit-image, DataError where one of its photographs is missing.
    """
    carried = photographs()
    for name in PICTURES:
        if not (carried / name).is_file():
            raise DataError(f"scikit-image has no {name} in {carried}: install its wheel again.")
    opened: dict[str, Image.Image] = {}
    for surface in SURFACES:
        if surface.picture not in opened:
            with Image.open(carried / surface.picture) as picture:
                opened[surface.picture] = picture.convert("RGB")
        for split in ("train", "test"):
            patches = folder / split / surface.name
            patches.mkdir(parents=True, exist_ok=True)
            for number, box in enumerate(patch_boxes(surface, split, seed=seed)):
                opened[surface.picture].crop(box).save(patches / f"{number:02d}.png", compress_level=4)
    write_text(folder / SOURCES, _sources())
    return folder


def patch_boxes(surface: Surface, split: str, *, seed: int = 0) -> list[Box]:
    """Where the patches of a surface are cut for split "train" or "test", spread out over its region."""
    region, count = (surface.train, TRAIN_PER_CLASS) if split == "train" else (surface.test, TEST_PER_CLASS)
    draw = random.Random(f"{seed} {surface.name} {split}")
    chosen: list[Box] = []
    while len(chosen) < count:
        side = surface.sides_px[len(chosen) % len(surface.sides_px)]
        candidates = [_square(region, side, draw) for _ in range(TRIES)]
        chosen.append(min(candidates, key=lambda box: sum(box.shared_px(earlier) for earlier in chosen)))
    return chosen


def _square(region: Sequence[Box], side: int, draw: random.Random) -> Box:
    """A random square inside one rectangle of the region, each rectangle as likely as it has room."""
    roomy = [box for box in region if min(box.right - box.left, box.bottom - box.top) >= side]
    room = [(box.right - box.left - side + 1) * (box.bottom - box.top - side + 1) for box in roomy]
    box = draw.choices(roomy, weights=room)[0]
    left, top = draw.randint(box.left, box.right - side), draw.randint(box.top, box.bottom - side)
    return Box(left, top, left + side, top + side)


def photographs() -> Path:
    """The photographs' folder in the installed wheel. Nothing is imported from it, so nothing is fetched."""
    found = find_spec("skimage")
    if found is None or not found.submodule_search_locations:
        raise MissingExtraError("The demo", "demo")
    return Path(next(iter(found.submodule_search_locations))) / "data"


def _sources() -> str:
    lines = [
        "# Sources",
        "",
        "Patches of photographs that scikit-image carries, with the licences that its documentation states.",
        "",
        "| photograph | shows | licence | surfaces cut from it |",
        "|---|---|---|---|",
    ]
    for name, source in PICTURES.items():
        cut = ", ".join(surface.name for surface in SURFACES if surface.picture == name)
        lines.append(f"| `{name}` | {source.shows} | {source.licence} | {cut} |")
    return "\n".join(lines) + "\n"
