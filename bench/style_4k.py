"""A network over a 4K picture: seconds, peak memory, tiles against the whole, and the pyramid against enlarging.

    python bench/style_4k.py --style wave [--photo tubingen.jpg] [--max-memory 2g] [--statistics exact]

No photo of `data/style` has 3840 × 2160 px. --canvas enlarged is one of them enlarged to that size by bicubic
interpolation, which has little fine detail; --canvas mosaic is three of them at their own sharpness, cut to
960 × 720 px and laid side by side, some mirrored. The network is a fixed style's (--style NAME or a file of one), or
--module package.module:name, a function or class without arguments that gives a module (N, 3, H, W) → (N, 3, H, W)
(--weights: a safetensors file for it), or with --random a student of random weights: convolutions at half the size,
local, so its timing means something and its pictures do not.

Two processes: one decodes the canvas from a JPEG, runs the network in tiles within --max-memory and writes a JPEG; its
seconds and peak memory are printed. The other has the whole result at once to compare with. Prints a table and one line
of JSON.
"""

from __future__ import annotations

import argparse
import importlib
import json
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from regraft.core.memory import keep_freed_memory
from regraft.core.quantities import memory_bytes
from regraft.core.tensor_files import read_tensors
from regraft.images.picture import Picture, read_picture, write_picture
from regraft.style.base import resize
from regraft.style.figures.evaluation import peak_memory_bytes, psnr_db
from regraft.style.large.canvas import STATISTICS, stylize_by_pyramid, stylize_large
from regraft.style.large.footprint import Footprint, measure_footprint
from regraft.style.large.pyramid import levels
from regraft.style.methods.fixed import student_footprint
from regraft.style.networks.shipped import fixed_style
from regraft.style.networks.transfer_net import StudentNet

HEIGHT_PX, WIDTH_PX = 2160, 3840
CELL_PX = (720, 960)
#: Those with 960 × 720 px or more.
SHARP = ("tubingen.jpg", "amber.jpg", "golden_gate.jpg")


class RandomStudent(nn.Module):
    """What a fast student looks like: pixels unshuffled by 2, depthwise blocks of 16 channels, shuffled back."""

    def __init__(self, channels: int = 16, blocks: int = 4) -> None:
        super().__init__()

        def block() -> nn.Module:
            return nn.Sequential(
                nn.Conv2d(channels, channels, 3, padding=1, groups=channels), nn.Conv2d(channels, channels, 1),
                nn.BatchNorm2d(channels), nn.ReLU(),
            )  # fmt: skip

        self.net = nn.Sequential(
            nn.PixelUnshuffle(2), nn.Conv2d(12, channels, 3, padding=1), nn.ReLU(), *(block() for _ in range(blocks)),
            nn.Conv2d(channels, 12, 3, padding=1), nn.PixelShuffle(2),
        )  # fmt: skip

    def forward(self, x: Tensor) -> Tensor:
        return torch.sigmoid(x - 0.5 + 4 * self.net(x))


def network(arguments: argparse.Namespace) -> nn.Module:
    torch.manual_seed(arguments.seed)
    if arguments.style:
        return fixed_style(arguments.style).net.eval().to(arguments.device)
    if arguments.module:
        place, _, name = arguments.module.partition(":")
        made = getattr(importlib.import_module(place), name)()
    else:
        made = RandomStudent()
    if arguments.weights:
        made.load_state_dict(read_tensors(arguments.weights))
    ready: nn.Module = made.eval().to(arguments.device)
    return ready


def canvas(kind: str, folder: Path, photo: str) -> Tensor:
    """(3, 2160, 3840)."""
    if kind == "enlarged":
        pixels = read_picture(folder / photo).pixels
        height = min(pixels.shape[1], round(pixels.shape[2] * HEIGHT_PX / WIDTH_PX))
        top = (pixels.shape[1] - height) // 2
        return resize(pixels[:, top : top + height], (HEIGHT_PX, WIDTH_PX))
    cells = []
    for name in SHARP:
        pixels = read_picture(folder / name).pixels
        top, left = ((side - wanted) // 2 for side, wanted in zip(pixels.shape[1:], CELL_PX, strict=True))
        cell = pixels[:, top : top + CELL_PX[0], left : left + CELL_PX[1]]
        cells += [cell, cell.flip(2), cell.flip(1), cell.flip(1, 2)]
    return torch.cat([torch.cat(cells[row : row + 4], dim=2) for row in (0, 4, 8)], dim=1)


def footprint_of(module: nn.Module) -> Footprint:
    return student_footprint(module) if isinstance(module, StudentNet) else measure_footprint(module)


def timed_run(arguments: argparse.Namespace) -> dict[str, float | int]:
    """Decode, network, encode, as a user's process does it: in one process that has done nothing else."""
    keep_freed_memory()
    module = network(arguments)
    started = time.perf_counter()
    picture = read_picture(arguments.timed)
    decoded = time.perf_counter()
    tiles: list[int] = []
    bound = memory_bytes(arguments.max_memory)
    footprint = footprint_of(module)
    measured = time.perf_counter()
    found = stylize_large(
        module, picture.pixels, max_memory_bytes=bound, statistics=arguments.statistics, footprint=footprint,
        on_tile=lambda _, count: tiles.append(count),
    )  # fmt: skip
    if found.device.type == "cuda":
        torch.cuda.synchronize()
    run = time.perf_counter()
    after = peak_memory_bytes(torch.device("cpu")) or 0
    write_picture(Picture(found), arguments.timed.with_name("out.jpg"), force=True)
    ended = time.perf_counter()
    return {
        "decode_s": decoded - started, "footprint_s": measured - decoded, "network_s": run - measured,
        "encode_s": ended - run, "all_s": ended - started, "passes": len(tiles),
        "peak_after_network_bytes": after, "peak_bytes": peak_memory_bytes(torch.device("cpu")) or 0,
    }  # fmt: skip


def compared(module: nn.Module, picture: Tensor, statistics: str) -> dict[str, float]:
    """Of tiles, of the pyramid and of plain enlarging: how far from the network's result for the whole picture."""
    height, width = picture.shape[-2:]

    def whole(pixels: Tensor) -> Tensor:
        return stylize_large(module, pixels, max_memory_bytes=2**50, footprint=footprint_of(module))

    with torch.no_grad():
        full = module(picture[None])[0]
    footprint = footprint_of(module)
    tiled = stylize_large(module, picture, footprint=footprint, statistics=statistics)
    started = time.perf_counter()
    pyramid = stylize_by_pyramid(whole, picture)
    pyramid_s = time.perf_counter() - started
    low = whole(levels(picture, 2)[-1])
    enlarged = F.interpolate(low[None], (height, width), mode="bicubic", align_corners=False)[0]
    middle = whole(levels(picture, 2)[1])
    from_half = F.interpolate(middle[None], (height, width), mode="bicubic", align_corners=False)[0]
    return {
        "tiled_max_difference": float((tiled - full).abs().max()),
        "pyramid_s": pyramid_s,
        "pyramid_psnr_db": psnr_db(pyramid.clamp(0, 1), full.clamp(0, 1)),
        "enlarged_psnr_db": psnr_db(enlarged.clamp(0, 1), full.clamp(0, 1)),
        "enlarged_from_half_psnr_db": psnr_db(from_half.clamp(0, 1), full.clamp(0, 1)),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--shared", type=Path, default=Path(__file__).resolve().parents[2] / "shared")
    parser.add_argument("--style", help="a fixed style's name, or a style model")
    parser.add_argument("--module", help="package.module:name of a network without arguments")
    parser.add_argument("--random", action="store_true", help="a student of random weights")
    parser.add_argument("--weights", type=Path, help="safetensors for the network")
    parser.add_argument("--canvas", choices=("enlarged", "mosaic"), default="enlarged")
    parser.add_argument("--photo", default="tubingen.jpg")
    parser.add_argument("--max-memory", default="2g")
    parser.add_argument("--statistics", choices=STATISTICS, default="exact")
    parser.add_argument("--no-comparison", action="store_true", help="seconds and memory alone")
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--timed", type=Path, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if not (arguments.style or arguments.module or arguments.random):
        parser.error("name a network by --style or --module package.module:name, or take --random")
    if arguments.timed:
        print(json.dumps(timed_run(arguments)))
        return
    picture = canvas(arguments.canvas, arguments.shared / "data" / "style" / "content", arguments.photo)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "canvas.jpg"
        write_picture(Picture(picture), path)
        command = [sys.executable, __file__, *sys.argv[1:], "--timed", str(path)]
        out = subprocess.run(command, check=True, capture_output=True, text=True).stdout
    row = json.loads(out.splitlines()[-1])
    if not arguments.no_comparison:
        row |= compared(network(arguments), picture.to(arguments.device), arguments.statistics)
    for name, value in row.items():
        shown = f"{value / 2**20:.0f} MiB" if name.endswith("_bytes") else f"{value:.3g}"
        print(f"{name.removesuffix('_bytes'):28} {shown:>10}")
    print(
        json.dumps(
            {
                "bench": "style_4k", "network": arguments.style or arguments.module or "random student",
                "canvas": arguments.canvas,
                "photo": arguments.photo if arguments.canvas == "enlarged" else list(SHARP),
                "size_px": [WIDTH_PX, HEIGHT_PX], "max_memory": arguments.max_memory,
                "statistics": arguments.statistics, "device": arguments.device, "threads": torch.get_num_threads(),
                "seed": arguments.seed, **row,
            }
        )
    )  # fmt: skip


if __name__ == "__main__":
    main()
