"""The embedded backbone at 20 labels per class: is what `regraft fit` keeps ever below training from scratch?

    python bench/few_labels.py --shared ../shared --sets hymenoptera,neu_cls,chest_xray --seeds 0 [--per-class 20]

Draws that many training pictures of each class with the seed, writes a table with them and the whole test part, and
runs `regraft fit --table` in a process of its own with the default backbone and a budget of 60 s. Prints a line per run
with every candidate's accuracy on the test and the gain over scratch, and one line of JSON.
"""

from __future__ import annotations

import argparse
import csv
import json
import random
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any


def write_table(folder: Path, out: Path, per_class: int, seed: int) -> Path:
    """CSV with image, label and split: `per_class` of each class from train/, all of test/ (or val/)."""
    test = "test" if (folder / "test").is_dir() else "val"
    draw = random.Random(seed)
    rows = []
    for split, name in (("train", "train"), ("test", test)):
        for label in sorted(path for path in (folder / name).iterdir() if path.is_dir()):
            paths = sorted(path for path in label.iterdir() if path.is_file())
            chosen = sorted(draw.sample(paths, per_class)) if split == "train" else paths
            rows += [(str(path.resolve()), label.name, split) for path in chosen]
    with out.open("w", newline="", encoding="utf-8") as target:
        writer = csv.writer(target)
        writer.writerow(("image", "label", "split"))
        writer.writerows(rows)
    return out


def run(folder: Path, per_class: int, seed: int, options: list[str]) -> dict[str, Any]:
    """One fit; its candidates' figures."""
    with tempfile.TemporaryDirectory() as place:
        table = write_table(folder, Path(place) / "table.csv", per_class, seed)
        command = [
            sys.executable,
            "-m",
            "regraft",
            "fit",
            "--table",
            str(table),
            "--image",
            "image",
            "--label",
            "label",
        ]
        command += ["--split", "split", "--budget", "60s", "--seed", str(seed), "--runs", place, "--json", *options]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        raise SystemExit(done.stderr[-3000:])
    report = json.loads(done.stdout)
    return {
        "set": folder.name,
        "seed": seed,
        "chosen": report["chosen"],
        "candidates": {c["name"]: c["value"] for c in report["candidates"]},
        "gain": report["transfer_gain"],
        "n_test": report["n_test"],
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--shared", type=Path, required=True)
    parser.add_argument("--sets", default="hymenoptera,neu_cls,chest_xray")
    parser.add_argument("--seeds", default="0")
    parser.add_argument("--per-class", type=int, default=20)
    parser.add_argument("--options", default="", help="further options of regraft fit, separated by spaces")
    args = parser.parse_args()
    rows = []
    for name in args.sets.split(","):
        for seed in map(int, args.seeds.split(",")):
            rows.append(run(args.shared / "data" / name, args.per_class, seed, args.options.split()))
            row = rows[-1]
            figures = ", ".join(f"{k} {100 * v:.1f}" for k, v in row["candidates"].items())
            gain = row["gain"]
            told = "no control" if gain is None else f"gain {100 * gain['value']:+.1f} points"
            print(f"{name}, seed {seed}: kept {row['chosen']}; {figures}; {told}", flush=True)
    print(json.dumps(rows))


if __name__ == "__main__":
    main()
