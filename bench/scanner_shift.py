"""Pneumonia across a simulated scanner change: `regraft adapt` from chest films to the same kind of films, altered.

    python bench/scanner_shift.py --shared ../shared --seeds 0,1,2 [--backbone NAME --weights FILE] [--show FOLDER]

The training patients of chest_xray are halved. One half, with labels, is the source. The other half, altered and
without labels, is the target. The test patients' films, altered in the same way, are the oracle: seen by nothing but
the figures. Altered: cropped to the middle 85 % and scaled back, inverted (as films are), gamma 1.6, blur of 1 px,
Gaussian noise of 8/255, in this order; settled before the first run. `--keep-tones` leaves the inversion out: with it
a network that was trained on photographs is little better than guessing. Prints F1 for pneumonia of source-only and of
what was kept, a line per seed, mean and standard deviation, and one line of JSON. `--show` leaves a few pictures.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image, ImageFilter

CROP, GAMMA, BLUR_PX, NOISE = 0.85, 1.6, 1.0, 8 / 255


def altered(picture: Image.Image, rng: np.random.Generator, inverted: bool) -> Image.Image:
    """A grey picture as the other scanner would give it."""
    grey = picture.convert("L")
    wide, high = grey.size
    dx, dy = round(wide * (1 - CROP) / 2), round(high * (1 - CROP) / 2)
    grey = grey.crop((dx, dy, wide - dx, high - dy)).resize((wide, high), Image.Resampling.BICUBIC)
    light = np.asarray(grey, dtype=np.float64) / 255
    values = (1 - light if inverted else light) ** GAMMA
    soft = Image.fromarray(np.uint8(np.round(255 * values))).filter(ImageFilter.GaussianBlur(BLUR_PX))
    noisy = np.asarray(soft, dtype=np.float64) / 255 + NOISE * rng.standard_normal((high, wide))
    return Image.fromarray(np.uint8(np.round(255 * np.clip(noisy, 0, 1))))


def make(data: Path, out: Path, seed: int, inverted: bool) -> None:
    """`source/`, `target/` (one folder, names without a class) and `oracle/` below `out`; patients stay together."""
    rng = np.random.default_rng(seed)
    films = sorted((data / "train").glob("*/*"))
    patients = sorted({film.name.partition("_")[0] for film in films})
    first = {patients[i] for i in rng.permutation(len(patients))[: len(patients) // 2]}
    (out / "target").mkdir(parents=True)
    for film in films:
        if film.name.partition("_")[0] in first:
            (out / "source" / film.parent.name).mkdir(parents=True, exist_ok=True)
            (out / "source" / film.parent.name / film.name).write_bytes(film.read_bytes())
        else:
            with Image.open(film) as picture:
                altered(picture, rng, inverted).save(out / "target" / f"{film.stem}.png")
    for film in sorted((data / "test").glob("*/*")):
        (out / "oracle" / film.parent.name).mkdir(parents=True, exist_ok=True)
        with Image.open(film) as picture:
            altered(picture, rng, inverted).save(out / "oracle" / film.parent.name / f"{film.stem}.png")


def run(folder: Path, seed: int, options: list[str]) -> dict[str, Any]:
    """One `regraft adapt` in a process of its own: F1 before and after, and what was kept."""
    command = [sys.executable, "-m", "regraft", "adapt", str(folder / "source"), str(folder / "target"), "--oracle"]
    command += [str(folder / "oracle"), "--seed", str(seed), "--runs", str(folder / "runs"), "--json", *options]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        raise SystemExit(done.stderr[-3000:])
    report = json.loads(done.stdout)
    row = next(row for row in report["oracle_per_class"] if row["name"] == "PNEUMONIA")
    return {
        "seed": seed,
        "kept": report["chosen"],
        "source_only": row["source_only_f1"],
        "f1": row["kept_f1"],
        "accuracy": report["value"],
        "source_only_accuracy": report["source_only"]["oracle"],
        "oracle": {c["method"]: c["oracle"] for c in report["candidates"]},
        "seconds": report["total_s"],
        "why": report["why"],
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--shared", type=Path, required=True)
    parser.add_argument("--seeds", default="0,1,2")
    parser.add_argument("--backbone", default="mobilenetv2_100:pad_type=same")
    parser.add_argument("--weights", type=Path, help="the shared mobilenetv2_100 unless told; none for scion")
    parser.add_argument("--show", type=Path, help="copy four altered pictures here")
    parser.add_argument("--keep-tones", action="store_true", help="leave the inversion out")
    parser.add_argument("--options", default="", help="further options of regraft adapt, separated by spaces")
    args = parser.parse_args()
    options = ["--backbone", args.backbone, *args.options.split()]
    if not args.backbone.startswith("scion"):
        weights = args.weights or args.shared / "weights" / "mobilenetv2_100_timm_same.safetensors"
        options += ["--weights", str(weights)]
    rows = []
    for seed in map(int, args.seeds.split(",")):
        with tempfile.TemporaryDirectory() as folder:
            make(args.shared / "data" / "chest_xray", Path(folder), seed, not args.keep_tones)
            if args.show is not None:
                args.show.mkdir(parents=True, exist_ok=True)
                for path in sorted((Path(folder) / "oracle" / "PNEUMONIA").iterdir())[:4]:
                    (args.show / path.name).write_bytes(path.read_bytes())
            rows.append(run(Path(folder), seed, options))
        print(
            f"seed {seed}: kept {rows[-1]['kept']}, F1 {rows[-1]['source_only']:.3f} → {rows[-1]['f1']:.3f} "
            f"({rows[-1]['seconds']:.0f} s); accuracy "
            + " ".join(f"{k} {100 * v:.1f}" for k, v in rows[-1]["oracle"].items()),
            flush=True,
        )
    gains = [row["f1"] - row["source_only"] for row in rows]
    spread = f" ± {np.std(gains, ddof=1):.3f}" if len(gains) > 1 else ""
    print(f"F1 for pneumonia: {np.mean(gains):+.3f}{spread} over {len(rows)} seeds")
    print(json.dumps(rows))


if __name__ == "__main__":
    main()
