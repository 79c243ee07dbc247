"""How far a network looks, on which grid it works and what memory a picture takes: measured on small pictures, once.

A pixel that is no number makes every output that depends on it no number, whatever the weights are: that is how the
support is found. What swallows such values is caught by a second run, where the pixel is merely changed.
"""

from __future__ import annotations

import weakref
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final

import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from regraft.core.errors import UsageError
from regraft.style.large.frozen_norms import PROBE_SIDE_PX, Freezer, evaluating, placement

#: Grids that are tried, in px, each a divisor of PROBE_SIDE_PX.
MULTIPLES: Final = (1, 2, 4, 8, 16, 32, 64)
#: A field that reaches further than half of this is taken for the whole picture.
LONGEST_PX: Final = 2048
#: Convolutions take workspaces of their own, which are not seen as tensors; so much more than was measured is counted.
SLACK: Final = 1.25


@dataclass(frozen=True)
class Footprint:
    """What running a module on a part of a picture takes.

    halo_px: how far beyond a part's edge its output depends on the input; a multiple of multiple_px. multiple_px: parts
    that start on this grid give what the whole gives there. any_size: the module takes sizes off the grid by itself,
    and places them as the grid does. A forward pass on n px holds at most fixed_bytes + n · bytes_per_px.
    """

    halo_px: int
    multiple_px: int
    any_size: bool
    fixed_bytes: int
    bytes_per_px: float

    def peak_bytes(self, pixels: int) -> int:
        return self.fixed_bytes + round(self.bytes_per_px * pixels)


@torch.no_grad()
def measure_footprint(module: nn.Module) -> Footprint:
    """The footprint of a module (N, 3, H, W) → (N, 3, H, W), with its global layers (`frozen_norms`) held.

    Takes a few dozen passes over strips of some hundred px. Raises UsageError for a module whose output at one place
    still depends on the whole picture, or that gives another size.
    """
    with evaluating(module), Freezer(module) as freezer:
        freezer.blank()
        rough = _rough_reach(module)
        multiple = _multiple(module, rough)
        while True:
            length = _enough(module, rough + 2 * multiple)
            at = range(length // 2, length // 2 + 2 * multiple)
            rows = [_extents(module, axis, length, at) for axis in (2, 3)]
            if all(row is not None and row[:multiple] == row[multiple:] for row in rows):
                break
            if multiple == MULTIPLES[-1]:
                raise _whole(module)
            multiple *= 2  # the weights of now do not show the grid that the layers have
        # Parts begin on the grid, so what counts is how many cells of it the influence of a line goes.
        cells = 0
        for row in rows:
            for line, (before, behind) in zip(at, row or (), strict=True):
                own = line // multiple
                cells = max(cells, own - (line - before) // multiple, (line + behind) // multiple - own)
        halo = cells * multiple
        fixed, per_px = _memory(module)
        return Footprint(halo, multiple, _takes_any_size(module, multiple, halo), fixed, per_px)


def _whole(module: nn.Module) -> UsageError:
    return UsageError(
        f"{type(module).__name__} cannot be run in parts: what it gives at one place depends on places more than "
        f"{LONGEST_PX // 2} px away, or it works on a grid coarser than {MULTIPLES[-1]} px."
    )


def _enough(module: nn.Module, margin: int) -> int:
    """A length with that margin on both sides of its middle."""
    length = -(-(2 * margin + PROBE_SIDE_PX // 2) // PROBE_SIDE_PX) * PROBE_SIDE_PX
    if length > LONGEST_PX:
        raise _whole(module)
    return length


def _strip(module: nn.Module, axis: int, length: int) -> Tensor:
    """Noise of `length` px along the axis, PROBE_SIDE_PX across, always the same."""
    device, dtype = placement(module)
    draw = torch.Generator().manual_seed(0)
    across = PROBE_SIDE_PX
    noise = torch.rand((1, 3, LONGEST_PX + PROBE_SIDE_PX, across), generator=draw)[:, :, :length]
    return (noise if axis == 2 else noise.transpose(2, 3)).contiguous().to(device, dtype)


def _run(module: nn.Module, x: Tensor) -> Tensor:
    y = module(x)
    if not isinstance(y, Tensor) or y.shape != x.shape:
        came = tuple(y.shape) if isinstance(y, Tensor) else type(y).__name__
        raise UsageError(
            f"{type(module).__name__} made {came} of a picture {tuple(x.shape)}: accepted is a network that gives a "
            "picture of the same size."
        )
    return y


def _tolerance(y: Tensor) -> float:
    """Differences below this are those of rounding."""
    rounding = 1e-4 if y.dtype in (torch.float32, torch.float64) else 2e-2
    return rounding * float(y.float().abs().max().clamp(min=1e-6))


def _extents(module: nn.Module, axis: int, length: int, at: Sequence[int]) -> list[tuple[int, int]] | None:
    """Per changed line: by how many px the first touched output lies before it, the last one behind it; each ≥ 0.

    None where the touched ones reach the strip's end, so that the true extent is not known.
    """
    x = _strip(module, axis, length)
    changed, broken = x.repeat(len(at), 1, 1, 1), x.repeat(len(at), 1, 1, 1)
    for k, position in enumerate(at):
        line = changed[k].select(axis - 1, position)
        line.copy_(1 - line)
        broken[k].select(axis - 1, position).fill_(float("nan"))
    base = _run(module, x)
    apart = (_run(module, changed) - base).abs() > _tolerance(base)
    touched = (apart | _run(module, broken).isnan()).any(dim=1).any(dim=5 - axis - 1)
    found = []
    for row, position in zip(touched.cpu(), at, strict=True):
        where = row.nonzero().flatten()
        if len(where) == 0:
            found.append((0, 0))
            continue
        first, last = int(where[0]), int(where[-1])
        if first == 0 or last == length - 1:
            return None
        found.append((max(0, position - first), max(0, last - position)))
    return found


def _rough_reach(module: nn.Module) -> int:
    """How far the influence of one line goes; another line may reach further by less than the grid."""
    length = 2 * PROBE_SIDE_PX
    while length <= LONGEST_PX:
        found = [_extents(module, axis, length, [length // 2]) for axis in (2, 3)]
        rough = [max(pair) for row in found if row is not None for pair in row]
        if len(rough) == len(found):
            return max(rough)
        length *= 2
    raise _whole(module)


def _multiple(module: nn.Module, rough: int) -> int:
    """The finest grid on which moving the input moves the output."""
    for multiple in MULTIPLES:
        margin = rough + 2 * multiple  # one for the other lines, one since the moved run begins later
        length = _enough(module, margin)
        moves = True
        for axis in (2, 3):
            x = _strip(module, axis, length + multiple)
            base = _run(module, x.narrow(axis, 0, length).contiguous()).narrow(axis, margin, length - 2 * margin)
            moved = _run(module, x.narrow(axis, multiple, length).contiguous())
            moved = moved.narrow(axis, margin - multiple, length - 2 * margin)
            moves = moves and bool(((base - moved).abs() <= _tolerance(base)).all())
        if moves:
            return multiple
    raise _whole(module)


def _takes_any_size(module: nn.Module, multiple: int, halo: int) -> bool:
    """Whether a size off the grid gives, away from its end, what a longer one on the grid gives there."""
    if multiple == 1:
        return True
    length = _enough(module, halo + multiple)
    for axis in (2, 3):
        x = _strip(module, axis, length)
        base = _run(module, x)
        for short in {1, multiple - 1}:
            cut = x.narrow(axis, 0, length - short).contiguous()
            try:
                found = module(cut)
            except (RuntimeError, ValueError, AssertionError):  # what networks raise for sizes that do not fit
                return False
            kept = (length - short) // multiple * multiple - halo  # the last cell is not whole
            same = isinstance(found, Tensor) and found.shape == cut.shape
            if not same or bool(
                ((found - base.narrow(axis, 0, length - short)).narrow(axis, 0, kept).abs() > _tolerance(base)).any()
            ):
                return False
    return True


def _memory(module: nn.Module) -> tuple[int, float]:
    """Fixed bytes and bytes per px of a pass, from two squares."""
    small, large = (_peak_bytes(module, side) for side in (2 * PROBE_SIDE_PX, 4 * PROBE_SIDE_PX))
    pixels = (4 * PROBE_SIDE_PX**2, 16 * PROBE_SIDE_PX**2)
    per_px = max(0.0, (large - small) / (pixels[1] - pixels[0]))
    return round(SLACK * max(0.0, small - per_px * pixels[0])), SLACK * per_px


def _peak_bytes(module: nn.Module, side_px: int) -> int:
    device, dtype = placement(module)
    with LiveBytes() as live:
        _run(module, torch.zeros((1, 3, side_px, side_px), device=device, dtype=dtype))
    peak: int = live.peak
    return peak


class LiveBytes(TorchDispatchMode):  # type: ignore[no-untyped-call]  # PyTorch has no types for it
    """Counts the bytes of tensors that are made inside the context and still held; `peak` is the most at once."""

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]  # nor for this
        self.held = self.peak = 0
        self._known: weakref.WeakSet[Any] = weakref.WeakSet()

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        before = {t.untyped_storage() for t in tree_leaves((args, kwargs)) if isinstance(t, Tensor)}
        out = func(*args, **(kwargs or {}))
        for tensor in tree_leaves(out):
            if isinstance(tensor, Tensor):
                storage = tensor.untyped_storage()
                if storage not in self._known and storage not in before:
                    self._known.add(storage)
                    self.held += storage.nbytes()
                    weakref.finalize(storage, self._freed, storage.nbytes())
        self.peak = max(self.peak, self.held)
        return out

    def _freed(self, size_bytes: int) -> None:
        self.held -= size_bytes
