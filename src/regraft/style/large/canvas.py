"""Pictures of any size through a network in bounded memory: the statistics of the whole picture first, then its parts.

A network whose norms look at the whole picture (`frozen_norms.py`) would give every part a look of its own. So those
statistics are found first and held while the parts are run.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from fractions import Fraction
from pathlib import Path
from typing import Final

import torch
from torch import Tensor, nn

from regraft.core.errors import UsageError, unknown_name
from regraft.style.base import resize
from regraft.style.large.footprint import Footprint, measure_footprint
from regraft.style.large.frozen_norms import (
    PROBE_SIDE_PX,
    Accumulator,
    Freezer,
    Statistics,
    evaluating,
    features_before,
    placement,
    statistics_of,
    watching,
)
from regraft.style.large.pyramid import LOW_PX, levels, octaves
from regraft.style.large.raising import Raising
from regraft.style.large.tiling import OnTile, Span, Tile, least_pixels, plan_tiles, run_tiled, take

#: "exact": of the whole picture, one pass per global layer. "low": of one pass over the picture at 1 Mpx or less.
STATISTICS: Final = ("exact", "low")
LOW_PIXELS: Final = 1_000_000
#: What a pass over one part may take where no bound is given.
DEFAULT_PASS_BYTES: Final = 512 * 2**20


def stylize_large(
    module: nn.Module, picture: Tensor, *, max_memory_bytes: int | None = None, statistics: str = "exact",
    on_tile: OnTile | None = None, footprint: Footprint | None = None, out: Tensor | None = None,
) -> Tensor:  # fmt: skip
    """module(picture) for a picture of any size: (3, H, W) → (3, H, W), values as the module gives them.

    module: (N, 3, H, W) → (N, 3, H, W), on any device; it is run in evaluation mode and is afterwards as before.
    max_memory_bytes: the most that this process (on a GPU: its tensors there) may hold, what it holds already included.
    statistics: for modules with global layers. "exact" passes over the parts once per such layer, each time up to that
    layer, so that tiled and whole agree; "low" takes them from the picture reduced to 1 Mpx: one small pass, and a
    slightly other look. Neither is needed where the picture is one part. footprint: as measured before for this module.
    picture, out: as in `tiling.run_tiled`. on_tile counts the passes for statistics too.

    Raises UsageError for a module that cannot be run in parts, and where the smallest part does not fit.
    """
    if picture.ndim != 3 or picture.shape[0] != 3 or 0 in picture.shape:
        raise UsageError(f"A picture of shape {tuple(picture.shape)} came; accepted is (3, H, W).")
    if statistics not in STATISTICS:
        raise unknown_name("way to find statistics", statistics, STATISTICS)
    footprint = footprint or measure_footprint(module)
    result = torch.empty_like(picture) if out is None else out
    most = _most_pixels(module, footprint, picture, max_memory_bytes, out is None)
    tiles = plan_tiles(picture.shape[-2:], footprint, most)
    with Freezer(module) as freezer:
        if len(tiles) > 1 and freezer.layers:
            if statistics == "exact":
                on_tile = _freeze_exactly(freezer, picture, tiles, footprint, on_tile)
            else:
                _freeze_low(freezer, picture, min(LOW_PIXELS, most), footprint)
        return run_tiled(module, picture, tiles, footprint, out=result, on_tile=on_tile)


def stylize_by_pyramid(run: Callable[[Tensor], Tensor], content: Tensor, *, low_px: int = LOW_PX) -> Tensor:
    """A network's look at full size for a part of its work: run at low_px and at twice that, the rest learnt from both.

    content: (3, H, W) in [0, 1]. run: (3, h, w) → (3, h, w), the network at any size. The low level is the content
    halved until its longer side is low_px or less (once more where that is the half itself). The next one gives the
    texture; from it to full size each octave's edges come from the content by `Raising`, learnt between the two. A
    picture of low_px or less is run as it is. Neither strokes as fine as the network's at full size nor its grain
    appear: `bench/style_4k.py` says how near it comes.
    """
    count = octaves(content.shape[-2:], low_px)
    if count == 0:
        return run(content)
    level = levels(content, max(2, count))
    low, middle = run(level[-1]), run(level[-2])
    raising = Raising(low, level[-2], middle)
    for finer in reversed(level[:-2]):
        middle = raising(middle, finer)
    return middle[:, : content.shape[-2], : content.shape[-1]]


def held_bytes(device: torch.device) -> int:
    """What is held now: by tensors on a GPU; on a CPU the process's resident memory, its most so far where the system
    does not tell what it is now, 0 where it tells neither."""
    if device.type == "cuda":
        return int(torch.cuda.memory_allocated(device))
    try:
        return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")
    except (OSError, ValueError, IndexError):
        from regraft.style.figures.evaluation import peak_memory_bytes

        return peak_memory_bytes(torch.device("cpu")) or 0


def _most_pixels(
    module: nn.Module, footprint: Footprint, picture: Tensor, max_memory_bytes: int | None, makes_out: bool
) -> int:
    """How many px a part may have. Raises UsageError where the bound leaves no room for the smallest."""
    device, _ = placement(module)
    room = DEFAULT_PASS_BYTES
    if max_memory_bytes is not None:
        made = picture.numel() * picture.element_size() if makes_out and picture.device.type == device.type else 0
        room = max_memory_bytes - held_bytes(device) - made
    least = least_pixels(picture.shape[-2:], footprint)
    lacking = footprint.peak_bytes(least) - room
    if max_memory_bytes is None:
        room = max(room, footprint.peak_bytes(least))
    elif lacking > 0:
        raise UsageError(
            f"{max_memory_bytes / 2**20:.0f} MiB are too little for a picture of {picture.shape[-1]} × "
            f"{picture.shape[-2]} px: with its smallest parts {-(-(max_memory_bytes + lacking) // 2**20)} MiB are "
            "needed. Raise --max-memory to that, or lower --size."
        )
    if footprint.bytes_per_px <= 0:
        return max(least, picture.shape[-2] * picture.shape[-1])
    return max(least, int((room - footprint.fixed_bytes) / footprint.bytes_per_px))


def _freeze_low(freezer: Freezer, picture: Tensor, most_pixels: int, footprint: Footprint) -> None:
    """Every global layer at the statistics that it has in one pass over the reduced picture."""
    height, width = picture.shape[-2:]
    scale = min(1.0, (most_pixels / (height * width)) ** 0.5)
    floating = picture.float() / 255 if picture.dtype == torch.uint8 else picture
    small = resize(floating, (max(1, int(height * scale)), max(1, int(width * scale))))
    found: dict[str, Statistics] = {}

    def seen(name: str, features: Tensor) -> None:
        found[name] = statistics_of(features)

    with evaluating(freezer.module), torch.no_grad(), watching(freezer.layers, seen):
        whole = Tile(*(Span(0, side, 0, side) for side in small.shape[-2:]))
        freezer.module(take(small, whole, footprint, *placement(freezer.module)))
    for name, statistics in found.items():
        freezer.freeze(name, statistics)


def _freeze_exactly(
    freezer: Freezer, picture: Tensor, tiles: Sequence[Tile], footprint: Footprint, on_tile: OnTile | None
) -> OnTile | None:
    """Layer after layer at the statistics of the whole picture, each found with those before it held.

    Of every part's feature map the rows and columns that are the part's own count, so each position counts once.
    Returns on_tile for the run that follows, counting on.
    """
    module, total = freezer.module, (len(freezer.layers) + 1) * len(tiles)
    done = 0
    with evaluating(module), torch.no_grad():
        for name, layer in freezer.layers.items():
            scales = _scales(module, layer, footprint)
            accumulator = Accumulator()
            for tile in tiles:
                features = features_before(module, layer, take(picture, tile, footprint, *placement(module)))
                for axis, (span, side) in enumerate(zip((tile.rows, tile.columns), picture.shape[-2:], strict=True)):
                    start, stop = _own(span, side, features.shape[2 + axis], *scales[axis])
                    features = features.narrow(2 + axis, start, stop - start)
                if features.numel():
                    accumulator.add(features)
                done += 1
                if on_tile is not None:
                    on_tile(done, total)
            freezer.freeze(name, accumulator.result())
    shown = on_tile
    return None if shown is None else lambda number, _: shown(done + number, total)


def _scales(module: nn.Module, layer: nn.Module, footprint: Footprint) -> list[tuple[Fraction, Fraction]]:
    """Per axis (a, b): of n px on the grid the layer is given a · n + b positions."""
    small = max(PROBE_SIDE_PX, -(-footprint.halo_px // PROBE_SIDE_PX) * PROBE_SIDE_PX)
    device, dtype = placement(module)
    blank = torch.zeros((1, 3, 2 * small, 2 * small), device=device, dtype=dtype)
    a, b = (features_before(module, layer, blank[:, :, :side, :side]).shape[-2:] for side in (small, 2 * small))
    return [(Fraction(y - x, small), Fraction(2 * x - y)) for x, y in zip(a, b, strict=True)]


def _own(span: Span, side_px: int, positions: int, per_px: Fraction, extra: Fraction) -> tuple[int, int]:
    """Which positions of a part's feature map are its own: from the picture's border, or from where the part before
    ends. `extra` positions come from padding; half of them lie before the picture's start."""

    def at(px: int) -> int:
        return int(per_px * px + extra / 2) - int(per_px * span.outer_start)

    start = 0 if span.start == 0 else at(span.start)
    return start, positions if span.stop == side_px else at(span.stop)
