"""A picture run through a network in parts that fit in memory, with the result of running it whole.

Each part is read with a margin as wide as the network looks (`footprint.py`), and the margin's output is dropped. At
the picture's own border there is no margin, so the network's padding stands where it stands in the whole picture. Parts
therefore meet without blending: what two of them would give at one place is the same.
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Protocol, runtime_checkable

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from regraft.core.errors import UsageError
from regraft.style.large.footprint import Footprint
from regraft.style.large.frozen_norms import evaluating, placement

#: The least side of a part in px: smaller ones would be margin for the most part.
LEAST_SIDE_PX: Final = 32

#: Called after each part with the number of those done and of all.
OnTile = Callable[[int, int], None]


@runtime_checkable
class Placed(Protocol):
    """A network whose result for a part hangs on the whole picture, and on where in it the part lies."""

    def begin(self, whole: Tensor | None) -> None: ...

    def place(self, row_px: int, column_px: int) -> None: ...


@dataclass(frozen=True)
class Span:
    """One side of a part: px start … stop are its own, outer_start … outer_stop are read."""

    start: int
    stop: int
    outer_start: int
    outer_stop: int

    @property
    def outer_px(self) -> int:
        return self.outer_stop - self.outer_start


@dataclass(frozen=True)
class Tile:
    rows: Span
    columns: Span

    @property
    def outer_pixels(self) -> int:
        return self.rows.outer_px * self.columns.outer_px


def plan_tiles(size_px: Sequence[int], footprint: Footprint, most_pixels: int) -> list[Tile]:
    """Parts of a picture (height, width) in order of reading, each of at most most_pixels with its margin.

    Of all even grids that fit the one that computes the fewest pixels is taken. Raises UsageError where none fits.
    """
    height, width = int(size_px[0]), int(size_px[1])
    best: tuple[int, list[Span], list[Span]] | None = None
    for columns in _grids(width, footprint):
        widest = max(span.outer_px for span in columns)
        for rows in _grids(height, footprint):
            if max(span.outer_px for span in rows) * widest <= most_pixels:
                work = sum(span.outer_px for span in rows) * sum(span.outer_px for span in columns)
                if best is None or work < best[0]:
                    best = work, rows, columns
                break  # a finer grid of rows has more margins
    if best is None:
        raise UsageError(
            f"A part of the picture with its margins has {least_pixels(size_px, footprint)} px or more; room was left "
            f"for {most_pixels}."
        )
    return [Tile(row, column) for row in best[1] for column in best[2]]


def least_pixels(size_px: Sequence[int], footprint: Footprint) -> int:
    """The pixels of the largest part, margin included, of the finest grid."""
    sides = [max(span.outer_px for span in [*_grids(int(side), footprint)][-1]) for side in size_px]
    return sides[0] * sides[1]


def _grids(side_px: int, footprint: Footprint) -> Iterator[list[Span]]:
    """One side in 1, 2, 3 … even spans on the network's grid, down to the least side."""
    multiple, halo = footprint.multiple_px, footprint.halo_px
    least = -(-max(LEAST_SIDE_PX, multiple) // multiple) * multiple
    before = 0
    for count in range(1, max(1, side_px // least) + 1):
        step = -(-side_px // (count * multiple)) * multiple
        starts = range(0, side_px, step)
        if len(starts) == before:
            continue
        before = len(starts)
        yield [
            Span(start, min(side_px, start + step), max(0, start - halo), min(side_px, start + step + halo))
            for start in starts
        ]


def run_tiled(
    module: nn.Module, picture: Tensor, tiles: Sequence[Tile], footprint: Footprint,
    *, out: Tensor | None = None, on_tile: OnTile | None = None,
) -> Tensor:  # fmt: skip
    """module(picture), part by part, into `out`.

    picture: (3, H, W) float in [0, 1], or uint8. out: the same shape, float or uint8 (then cut and rounded), made where
    none is given; it may lie in a file (`mapped_picture`). Parts travel to the module's device one at a time. What
    on_tile raises ends the run; parts that are done stand in `out`.
    """
    found = torch.empty_like(picture) if out is None else out
    with _whole_told(module, picture), evaluating(module), torch.no_grad():
        for number, tile in enumerate(tiles, start=1):
            if isinstance(module, Placed):
                module.place(tile.rows.outer_start, tile.columns.outer_start)
            part = module(take(picture, tile, footprint, *placement(module)))
            _store(found, tile, part)
            del part  # else the next pass begins with this one's output still held
            if on_tile is not None:
                on_tile(number, len(tiles))
    return found


@contextmanager
def _whole_told(module: nn.Module, picture: Tensor) -> Iterator[None]:
    """A placed module knows the whole picture inside, and nothing of it after, however that ends."""
    if not isinstance(module, Placed):
        yield
        return
    module.begin(picture)
    try:
        yield
    finally:
        module.begin(None)


def take(picture: Tensor, tile: Tile, footprint: Footprint, device: torch.device, dtype: torch.dtype) -> Tensor:
    """A part with its margin as (1, 3, h, w). At the picture's end a network that takes no size off its grid gets the
    last row and column repeated up to the grid."""
    rows, columns = tile.rows, tile.columns
    part = picture[:, rows.outer_start : rows.outer_stop, columns.outer_start : columns.outer_stop][None]
    part = part.to(device, dtype) / 255 if picture.dtype == torch.uint8 else part.to(device, dtype)
    below, right = (0 if footprint.any_size else -side % footprint.multiple_px for side in part.shape[-2:])
    return F.pad(part, (0, right, 0, below), mode="replicate") if below or right else part.contiguous()


def _store(out: Tensor, tile: Tile, part: Tensor) -> None:
    rows, columns = tile.rows, tile.columns
    top, left = rows.start - rows.outer_start, columns.start - columns.outer_start
    own = part[0, :, top : top + rows.stop - rows.start, left : left + columns.stop - columns.start]
    if out.dtype == torch.uint8:
        own = (own.clamp(0, 1) * 255).round_()
    out[:, rows.start : rows.stop, columns.start : columns.stop] = own.to(out.device, out.dtype)


@contextmanager
def mapped_picture(
    size_px: Sequence[int], *, dtype: torch.dtype = torch.uint8, folder: Path | None = None
) -> Iterator[Tensor]:
    """(3, H, W) of zeros that lies in a file, so that the system can take its memory back; gone when the block ends.

    folder: where the file is made, the system's place for such files where None.
    """
    pixels = 3 * int(size_px[0]) * int(size_px[1])
    with tempfile.TemporaryDirectory(prefix="regraft-", dir=folder, ignore_cleanup_errors=True) as made:
        flat = torch.from_file(str(Path(made) / "picture"), shared=True, size=pixels, dtype=dtype)
        yield flat.view(3, int(size_px[0]), int(size_px[1]))
