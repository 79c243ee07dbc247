"""The whole front of style against fidelity, drawn: every method at several settings, and what doing nothing gives.

    python bench/style_front.py --shared ../shared --out docs/figures/style_front.png [--pairs 90] [--gatys-pairs 10]

One-pass methods are run at a row of values of keep, `gatys` on the dial at a row of bounds of SSIM (its pairs are
fewer, since each run takes half a minute), plain colour transfer is blended with the photo. Points are medians over
pairs of `data/style` at 256 px, measured as in `style.py`. Prints the points and one line of JSON.
"""

from __future__ import annotations

import argparse
import json
import statistics
from collections.abc import Callable, Iterator
from pathlib import Path

import matplotlib.pyplot as plt
import torch
from torch import Tensor

from regraft.style.base import StyleSettings, methods
from regraft.style.figures.dial import blend, search
from regraft.style.figures.evaluation import Evaluator, yardstick
from style import chosen, squares

KEEPS = (0.0, 0.15, 0.3, 0.45, 0.6, 0.75, 0.9)
BOUNDS = (0.5, 0.6, 0.7, 0.8, 0.85, 0.9, 0.95)
STRENGTHS = (0.25, 0.5, 0.75, 1.0)
LOOKS = {"gatys": ("#b3541e", "o"), "adain": ("#1f5f8b", "s"), "adaattn": ("#5b8c5a", "^"),
         "colour transfer": ("#8a8a8a", "D")}  # fmt: skip

Points = Iterator[tuple[float, Tensor]]


def one_pass(name: str) -> Callable[[Tensor, Tensor], Points]:
    def points(content: Tensor, style: Tensor) -> Points:
        for keep in KEEPS:
            yield keep, methods.get(name)(StyleSettings(keep=keep)).stylize(content, [(style, 1.0)])

    return points


def optimised(steps: int) -> Callable[[Tensor, Tensor], Points]:
    def points(content: Tensor, style: Tensor) -> Points:
        for bound in BOUNDS:
            settings = StyleSettings(steps=steps, ssim=bound)
            yield bound, search(content, methods.get("gatys")(settings).stylize(content, [(style, 1.0)]), bound).image

    return points


def recoloured(content: Tensor, style: Tensor) -> Points:
    found = methods.get("colour")().stylize(content, [(style, 1.0)])
    for strength in STRENGTHS:
        yield strength, blend(content, found, strength)


def draw(fronts: dict[str, list[tuple[float, float, float]]], nothing: tuple[float, float], out: Path) -> None:
    figure, axes = plt.subplots(figsize=(7.2, 4.6), dpi=150)
    axes.axvspan(0.85, 1.0, ymin=(0.92 - 0.55) / 0.45, color="#e8e2d0", zorder=0)
    axes.text(0.995, 0.992, "SSIM > 0.85\nGram cosine > 0.92", ha="right", va="top", fontsize=8, color="#6b6250")
    for name, points in fronts.items():
        colour, mark = LOOKS[name]
        axes.plot([p[1] for p in points], [p[2] for p in points], color=colour, marker=mark, ms=4, lw=1.4, label=name)
    axes.plot(*nothing, marker="*", ms=11, color="black", ls="none", label="photo untouched")
    axes.set(xlim=(0.2, 1.01), ylim=(0.55, 1.0), xlabel="SSIM to the photo", ylabel="Gram cosine to the painting")
    axes.spines[["top", "right"]].set_visible(False)
    axes.legend(frameon=False, fontsize=8, loc="lower left")
    figure.tight_layout()
    out.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(out)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--shared", type=Path, default=Path(__file__).resolve().parents[2] / "shared")
    parser.add_argument("--weights", type=Path, help="SqueezeNet 1.1 for the figures")
    parser.add_argument("--methods", default="adain,adaattn,gatys")
    parser.add_argument("--size", type=int, default=256)
    parser.add_argument("--steps", type=int, default=150, help="of gatys")
    parser.add_argument("--pairs", type=int, default=90)
    parser.add_argument("--gatys-pairs", type=int, default=10)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", type=Path, required=True)
    arguments = parser.parse_args()

    folder = arguments.shared / "data" / "style"
    measure = yardstick(arguments.weights or arguments.shared / "weights" / "squeezenet1_1.safetensors")
    contents, styles = (squares(folder / part, arguments.size) for part in ("content", "style"))
    every = [(c, s) for c in contents for s in styles]
    ways = {name: optimised(arguments.steps) if name == "gatys" else one_pass(name)
            for name in arguments.methods.split(",")}  # fmt: skip
    fronts: dict[str, list[tuple[float, float, float]]] = {}
    nothing: list[tuple[float, float]] = []
    for name, way in {"colour transfer": recoloured, **ways}.items():
        count = arguments.gatys_pairs if name == "gatys" else arguments.pairs
        found: dict[float, list[tuple[float, float]]] = {}
        for content_name, style_name in chosen(every, count, arguments.seed):
            content, style = contents[content_name], styles[style_name]
            evaluator = Evaluator(content, [(style, 1.0)], measure)
            for setting, picture in way(content, style):
                figures = evaluator.figures(picture)
                found.setdefault(setting, []).append((figures.ssim, figures.gram_cosine))
            if name == "colour transfer":
                nothing.append((1.0, evaluator.gram_cosine(content)))
        fronts[name] = [
            (setting, *(statistics.median(column) for column in zip(*rows, strict=True)))
            for setting, rows in sorted(found.items())
        ]
        print(f"{name}, {min(count, len(every))} pairs", flush=True)
        for setting, ssim, cosine in fronts[name]:
            print(f"  {setting:5.2f}: SSIM {ssim:.3f}, Gram cosine {cosine:.3f}", flush=True)
    untouched = 1.0, statistics.median(cosine for _, cosine in nothing)
    draw(fronts, untouched, arguments.out)
    told = {
        "bench": "style_front", "size_px": arguments.size, "steps": arguments.steps, "pairs": arguments.pairs,
        "gatys_pairs": arguments.gatys_pairs, "seed": arguments.seed, "figures": measure.described,
        "untouched": untouched, "threads": torch.get_num_threads(), **fronts,
    }  # fmt: skip
    print(json.dumps(told))


if __name__ == "__main__":
    main()
