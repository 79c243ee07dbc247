"""The style networks of the package on the nine photos: what a student keeps of its teacher, and what noise costs.

    python bench/style_shipped.py --shared ../shared [--size 256] [--weights squeezenet1_1.safetensors]

Per fixed style, over the photos of `data/style/content` (centre squares): the style term of the untouched photos, of
the teacher's and of the student's pictures, and the share of the teacher's reduction that the student keeps (per photo,
then the mean); the PSNR that Gaussian noise of deviation 10/255 on the input costs (median, most); SSIM and Gram cosine
(medians). For `adain` and `adaattn`, in one pass and three, the cost of noise and of time. Prints a table and one line
of JSON.
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

from regraft.images.picture import read_picture
from regraft.style import perceptual
from regraft.style.base import StyleSettings, methods
from regraft.style.figures.evaluation import Evaluator, measure_costs, yardstick
from regraft.style.networks.shipped import fixed_style, is_packaged, packaged_net, packaged_styles
from regraft.style.training.batch_losses import StyleTerms, select
from regraft.style.training.task import style_targets
from style import squares

#: The paintings of the shipped styles in `data/style/style`, in the teacher's order.
PAINTINGS = {"starry-night": "starry_night_google", "wave": "wave", "scream": "the_scream", "shipwreck": "shipwreck",
             "composition": "composition_vii"}  # fmt: skip


def fixed(name: str, photos: Tensor, painting: Tensor, measure: Any, seed: int) -> dict[str, float]:
    student, teacher = fixed_style(name), packaged_net("teacher")
    shares = torch.eye(len(PAINTINGS))[[list(PAINTINGS).index(name)]]
    terms = StyleTerms(perceptual("sprig"))
    targets = select(style_targets(terms, [painting], photos.shape[-1]), torch.ones(1, 1))

    def run(picture: Tensor) -> Tensor:
        return methods.get("fixed")().stylize(picture, [(student, 1.0)])

    def term(pictures: Tensor) -> Tensor:
        features = terms.network(pictures.clamp(0, 1), terms.network.style_layers)
        return terms.style(terms.moments(features), targets)

    with torch.no_grad():
        painted = torch.stack([run(photo) for photo in photos])
        before, taught, learnt = (
            term(pictures) for pictures in (photos, teacher(photos, shares.expand(len(photos), -1)), painted)
        )
    drops = [measure_costs(run, photo, repeats=1, noise=True, seed=seed)[1].noise_psnr_drop_db for photo in photos]
    found = [Evaluator(photo, [(painting, 1.0)], measure).figures(result)
             for photo, result in zip(photos, painted, strict=True)]  # fmt: skip
    return {
        "term_unstylised": float(before.mean()), "term_teacher": float(taught.mean()),
        "term_student": float(learnt.mean()),
        "kept_share": float(((before - learnt) / (before - taught)).mean()),
        "noise_drop_db": statistics.median(d for d in drops if d is not None),
        "noise_drop_db_most": max(d for d in drops if d is not None),
        "ssim": statistics.median(figures.ssim for figures in found),
        "gram_cosine": statistics.median(figures.gram_cosine for figures in found),
    }  # fmt: skip


def any_painting(
    name: str, passes: int, photos: Tensor, paintings: dict[str, Tensor], seed: int
) -> dict[str, float]:  # fmt: skip
    method = methods.get(name)(StyleSettings(passes=passes))
    drops: list[float] = []
    for number, photo in enumerate(photos):
        painting = list(paintings.values())[number % len(paintings)]

        def run(picture: Tensor, painting: Tensor = painting) -> Tensor:
            return method.stylize(picture, [(painting, 1.0)])

        drop = measure_costs(run, photo, repeats=1, noise=True, seed=seed)[1].noise_psnr_drop_db
        drops.append(0.0 if drop is None else drop)
    large = torch.nn.functional.interpolate(photos[:1], (512, 512), mode="bilinear")[0]
    painting = next(iter(paintings.values()))
    seconds, spent = [], []
    for _ in range(12):
        started, processor = time.perf_counter(), time.process_time()
        method.stylize(large, [(painting.clone(), 1.0)])  # a painting seen for the first time
        seconds.append(time.perf_counter() - started)
        spent.append(time.process_time() - processor)
    return {
        "noise_drop_db": statistics.median(drops), "noise_drop_db_most": max(drops),
        "ms_512_median": 1000 * statistics.median(seconds), "ms_512_least": 1000 * min(seconds),
        "processor_ms_512_least": 1000 * min(spent),
    }  # fmt: skip


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--shared", type=Path, default=Path(__file__).resolve().parents[2] / "shared")
    parser.add_argument("--weights", type=Path, help="SqueezeNet 1.1 for SSIM's companion, the Gram cosine")
    parser.add_argument("--size", type=int, default=256)
    parser.add_argument("--only", help="names, separated by commas; all that are shipped unless told")
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args()
    folder = arguments.shared / "data" / "style"
    measure = yardstick(arguments.weights or arguments.shared / "weights" / "squeezenet1_1.safetensors")
    photos = torch.stack(list(squares(folder / "content", arguments.size).values()))
    paintings = {path.stem: read_picture(path).pixels for path in sorted((folder / "style").iterdir())
                 if path.suffix.lower() in (".jpg", ".png")}  # fmt: skip
    rows: dict[str, dict[str, float]] = {}
    asked = arguments.only.split(",") if arguments.only else [*packaged_styles(), "adain", "adaattn"]
    for name in packaged_styles():
        if name not in asked:
            continue
        rows[name] = fixed(name, photos, paintings[PAINTINGS[name]], measure, arguments.seed)
        print(f"{name:14}", {key: round(value, 3) for key, value in rows[name].items()}, flush=True)
    for name in ("adain", "adaattn"):
        for passes in (1, 3) if is_packaged(name) and name in asked else ():
            row = f"{name}, {passes}"
            rows[row] = any_painting(name, passes, photos, paintings, arguments.seed)
            print(f"{row:14}", {key: round(value, 3) for key, value in rows[row].items()}, flush=True)
    print(json.dumps({"bench": "style_shipped", "size_px": arguments.size, "seed": arguments.seed, "figures":
                      measure.described, "threads": torch.get_num_threads(), **rows}))  # fmt: skip


if __name__ == "__main__":
    main()
