"""Style and fidelity of a method over all pairs of content and style: SSIM, Gram cosine, both baselines, the dial.

    python bench/style.py --shared ../shared --method gatys --size 256 --steps 200 [--pairs 6] [--no-free]

Every content and style picture of `data/style` is cut to its centre square and brought to --size. Each pair runs twice:
freely, and on the dial, where SSIM of at least --ssim is asked. SSIM is torchmetrics', the Gram cosine the mean over
SqueezeNet-1.1 feature layers 1, 4, 6 and 7 at 256 px (`--weights`, else the shared file), a network that the
optimisation does not see unless it is asked to. Prints medians, shares of pairs, both baselines, and one line of JSON.
"""

from __future__ import annotations

import argparse
import json
import statistics
import time
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from regraft.images.extensions import EXTENSIONS
from regraft.images.picture import read_picture
from regraft.style import perceptual
from regraft.style.base import StyleSettings, methods
from regraft.style.figures.dial import search
from regraft.style.figures.evaluation import Evaluator, Figures, centre_square, yardstick


def squares(folder: Path, side_px: int) -> dict[str, Tensor]:
    """Name → (3, side, side), in order."""
    paths = sorted(path for path in folder.iterdir() if path.suffix.lower() in EXTENSIONS)
    return {path.stem: centre_square(read_picture(path).pixels, side_px) for path in paths}


def chosen(pairs: list[tuple[str, str]], count: int | None, seed: int) -> list[tuple[str, str]]:
    """All pairs, or `count` of them drawn by the seed."""
    if count is None or count >= len(pairs):
        return pairs
    order = torch.randperm(len(pairs), generator=torch.Generator().manual_seed(seed)).tolist()
    return [pairs[index] for index in sorted(order[:count])]


def summary(rows: list[Figures], least_ssim: float, least_cosine: float) -> dict[str, float]:
    """Medians, and the share of pairs above both thresholds."""
    both = [row.ssim > least_ssim and row.gram_cosine > least_cosine for row in rows]
    return {
        "ssim": round(statistics.median(row.ssim for row in rows), 4),
        "gram_cosine": round(statistics.median(row.gram_cosine for row in rows), 4),
        "lift": round(statistics.median(row.lift for row in rows), 4),
        "content_distance": round(statistics.median(row.content_distance for row in rows), 4),
        "above_both": round(sum(both) / len(both), 4),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--shared", type=Path, default=Path(__file__).resolve().parents[2] / "shared")
    parser.add_argument("--weights", type=Path, help="SqueezeNet 1.1 for the figures")
    parser.add_argument("--method", default="gatys")
    parser.add_argument("--perceptual", help="another network to optimise with")
    parser.add_argument("--perceptual-weights", type=Path)
    parser.add_argument("--steps", type=int)
    parser.add_argument("--passes", type=int, help="of adain and adaattn")
    parser.add_argument("--refine", type=int, help="steps of optimisation after adain or adaattn")
    parser.add_argument("--size", type=int, default=256)
    parser.add_argument("--ssim", type=float, default=0.85)
    parser.add_argument("--gram-cosine", type=float, default=0.92)
    parser.add_argument("--pairs", type=int, help="so many pairs, drawn; all unless told")
    parser.add_argument("--no-free", action="store_true", help="the dial alone")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--device", default="cpu")
    arguments = parser.parse_args()

    folder = arguments.shared / "data" / "style"
    measure = yardstick(arguments.weights or arguments.shared / "weights" / "squeezenet1_1.safetensors")
    contents, styles = (squares(folder / part, arguments.size) for part in ("content", "style"))
    pairs = chosen([(c, s) for c in contents for s in styles], arguments.pairs, arguments.seed)
    kind = methods.get(arguments.method)
    told = {name: getattr(arguments, name) for name in ("steps", "passes", "refine")}
    values: dict[str, Any] = {name: value for name, value in told.items() if value is not None}
    if arguments.perceptual:
        values["perceptual"] = perceptual(arguments.perceptual, arguments.perceptual_weights)
    held = {"ssim": arguments.ssim} if "ssim" in kind.heeded else {}

    rows: dict[str, list[Figures]] = {"unstylised": [], "colour transfer": [], "colour transfer on the dial": []}
    rows |= {name: [] for name in ("free", "dial") if name == "dial" or not arguments.no_free}
    seconds: list[float] = []
    print(f"{len(pairs)} pairs, {arguments.method}, {arguments.size} px; figures: {measure.described}")
    for content_name, style_name in pairs:
        content, style = (p.to(arguments.device) for p in (contents[content_name], styles[style_name]))
        evaluator = Evaluator(content, [(style, 1.0)], measure)
        for name, found in evaluator.baselines().items():
            rows[name].append(found)
        recoloured = methods.get("colour")().stylize(content, [(style, 1.0)])
        rows["colour transfer on the dial"].append(evaluator.figures(search(content, recoloured, arguments.ssim).image))
        free = None
        if not arguments.no_free or not held:
            free = kind(StyleSettings(**values)).stylize(content, [(style, 1.0)])
            if "free" in rows:
                rows["free"].append(evaluator.figures(free))
        started = time.perf_counter()
        stylised = kind(StyleSettings(**values, **held)).stylize(content, [(style, 1.0)]) if held else free
        seconds.append(time.perf_counter() - started)
        assert stylised is not None
        found = evaluator.figures(search(content, stylised, arguments.ssim).image)
        rows["dial"].append(found)
        print(
            f"{content_name} × {style_name}: SSIM {found.ssim:.3f}, Gram cosine {found.gram_cosine:.3f} "
            f"(unstylised {found.gram_cosine_unstylised:.3f}), {seconds[-1]:.0f} s",
            flush=True,
        )

    table = {name: summary(found, arguments.ssim, arguments.gram_cosine) for name, found in rows.items()}
    print(f"\n{'':28} {'SSIM':>6} {'Gram':>6} {'lift':>6} {'content':>8} {'above both':>11}")
    for name, row in table.items():
        print(
            f"{name:28} {row['ssim']:6.3f} {row['gram_cosine']:6.3f} {row['lift']:6.3f} "
            f"{row['content_distance']:8.3f} {row['above_both']:11.1%}"
        )
    print(
        json.dumps(
            {
                "bench": "style", "method": arguments.method, "size_px": arguments.size, **told,
                "pairs": len(pairs), "seed": arguments.seed, "thresholds": [arguments.ssim, arguments.gram_cosine],
                "figures": measure.described, "perceptual": arguments.perceptual or "sprig",
                "seconds_per_pair": round(statistics.median(seconds), 2), "threads": torch.get_num_threads(), **table,
            }
        )
    )  # fmt: skip


if __name__ == "__main__":
    main()
