"""How much sooner the optimiser is done with the slim network than with VGG-19, and what kept regions keep.

    python bench/gatys_speed.py --shared ../shared [--size 512] [--steps 6] [--rounds 3] [--kept-pairs 4]

Speed: seconds a step at the finest scale, both networks in turn in one process, the median of the rounds. VGG-19 has
random weights, which cost the same; its picture is therefore not looked at. Content preservation: each pair is
optimised freely and with an ellipse in the middle kept, at --kept-size px; the overflow is the Laplacian distance to
the content inside the ellipse. The bar asks for it at equal Gram loss of the whole picture: of --kept-weights, in
order, the first is taken whose Gram loss is no more than the free picture's. Prints a table and a line of JSON.
"""

from __future__ import annotations

import argparse
import json
import statistics
import tempfile
import time
from itertools import pairwise
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file
from torch import Tensor
from torchvision.models import vgg19

from regraft.style import PerceptualNetwork, perceptual
from regraft.style.base import StyleSettings, methods
from regraft.style.losses import gram_loss, laplacian_loss, moments
from style import chosen, squares


def step_seconds(network: PerceptualNetwork, content: Tensor, style: Tensor, steps: int) -> float:
    """Seconds a step of the finest scale: those of a longer run less those of a shorter one's share."""
    ticks: list[tuple[int, float]] = []
    styler = methods.get("gatys")(StyleSettings(perceptual=network, steps=4 * steps, style_loss="gram"))
    styler.stylize(content, [(style, 1.0)], on_step=lambda step: ticks.append((step.scale_px, time.perf_counter())))
    finest = [tick for px, tick in ticks if px == max(content.shape[-2:])]
    return statistics.median(b - a for a, b in pairwise(finest))


def gram_losses(network: PerceptualNetwork, picture: Tensor, style: Tensor) -> float:
    """The mean over style layers of the relative Gram loss."""
    with torch.no_grad():
        a, b = (network(x[None], network.style_layers) for x in (picture, style))
        return statistics.mean(float(gram_loss(moments(a[n][0]), moments(b[n][0]))) for n in network.style_layers)


def optimised(
    network: PerceptualNetwork, content: Tensor, style: Tensor, kept: Tensor, steps: int, weight: float | None
) -> dict[str, float]:
    """Overflow inside what is kept and the whole picture's Gram loss; freely where no weight is given."""
    asked = None if weight is None else kept
    settings = StyleSettings(perceptual=network, steps=steps, kept=asked, kept_weight=weight)
    found = methods.get("gatys")(settings).stylize(content, [(style, 1.0)])
    overflow = float(laplacian_loss(found, content, (1,), kept))
    return {"overflow": overflow, "gram": gram_losses(network, found, style)}


def ellipse(side_px: int) -> Tensor:
    """(1, side, side): 1 inside the ellipse of half the picture's width and height."""
    line = torch.linspace(-1, 1, side_px)
    return ((line[None] ** 2 + line[:, None] ** 2) < 0.25).float()[None]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--shared", type=Path, default=Path(__file__).resolve().parents[2] / "shared")
    parser.add_argument("--size", type=int, default=512)
    parser.add_argument("--steps", type=int, default=6, help="steps a scale and round")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--kept-pairs", type=int, default=4)
    parser.add_argument("--kept-size", type=int, default=256)
    parser.add_argument("--kept-steps", type=int, default=150)
    parser.add_argument("--kept-weights", default="1,0.3,0.1,0.03,0.01", help="the command's own is 1")
    parser.add_argument("--seed", type=int, default=0)
    args = parser.parse_args()
    folder = args.shared / "data" / "style"
    contents, styles = (squares(folder / part, args.size) for part in ("content", "style"))
    slim = perceptual("sprig")
    seconds: dict[str, list[float]] = {"sprig": [], "vgg19": []}
    if args.rounds:
        with tempfile.TemporaryDirectory() as temporary:
            path = Path(temporary) / "vgg19.safetensors"
            save_file(vgg19().features.state_dict(), path)
            large = perceptual("vgg19", path)
        for _ in range(args.rounds):
            for name, network in (("sprig", slim), ("vgg19", large)):
                seconds[name].append(
                    step_seconds(network, next(iter(contents.values())), next(iter(styles.values())), args.steps)
                )
    medians = {name: round(statistics.median(found), 4) for name, found in seconds.items() if found}
    ratio = round(medians["vgg19"] / medians["sprig"], 2) if medians else None
    print(f"seconds a step at {args.size} px: {medians}; the slim network is {ratio} times as fast")

    contents, styles = (squares(folder / part, args.kept_size) for part in ("content", "style"))
    kept = ellipse(args.kept_size)
    rows: list[dict[str, Any]] = []
    for c, s in chosen([(c, s) for c in contents for s in styles], args.kept_pairs, args.seed):
        content, style = contents[c], styles[s]
        free = optimised(slim, content, style, kept, args.kept_steps, None)
        row: dict[str, Any] = {"pair": f"{c} x {s}", "free": free, "kept": []}
        for weight in (float(weight) for weight in args.kept_weights.split(",")):
            held = optimised(slim, content, style, kept, args.kept_steps, weight)
            row["kept"].append({"weight": weight, **held})
            row["fall"] = 1 - held["overflow"] / free["overflow"]
            row["equal"] = held["gram"] <= free["gram"]
            print(
                f"{row['pair']}, weight {weight:g}: overflow {free['overflow']:.4f} -> {held['overflow']:.4f} "
                f"({row['fall']:.1%} less), Gram loss {free['gram']:.4f} -> {held['gram']:.4f}",
                flush=True,
            )
            if row["equal"]:
                break
        rows.append(row)
    equal = [row["fall"] for row in rows if row["equal"]]
    fall = round(statistics.median(equal), 3) if equal else None
    print(f"at equal Gram loss in {len(equal)} of {len(rows)} pairs: overflow falls by {fall} (median)")
    found = {
        "bench": "gatys-speed", "size_px": args.size, "seconds_a_step": medians, "ratio": ratio,
        "threads": torch.get_num_threads(), "seed": args.seed, "overflow_fall": fall, "pairs": rows,
    }  # fmt: skip
    print(json.dumps(found))


if __name__ == "__main__":
    main()
