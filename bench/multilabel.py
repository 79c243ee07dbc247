"""Several labels per picture: `regraft fit` as a user runs it, on cell kinds in blood smears and on street scenes.

    python bench/multilabel.py --shared ../shared [--sets bccd,camvid] [--budget 5m] [--seed 0]

BCCD (Pascal VOC XML): which of RBC, WBC and Platelets are annotated in the picture, a 0/1 column each. CamVid (masks):
which classes cover more than 1 % of it, in one column parted by ";"; the declared test part, and for training only
sequences that are not in it. Frames of a sequence resemble each other, so the intervals of CamVid are too narrow.
Prints mAP and macro-F1 with 95 % intervals and their gains over the control from scratch, and last one line of JSON.
"""

from __future__ import annotations

import argparse
import csv
import json
import subprocess
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
from PIL import Image

from counting import count_objects
from regraft.tasks.multilabel.intervals import label_bootstrap, label_gain

BACKBONE = "mobilenetv2_100:pad_type=same"
CELLS = ("RBC", "WBC", "Platelets")
#: The classes of the masks, by their number; 11 is void.
SCENE = ("sky", "building", "pole", "road", "pavement", "tree", "sign", "fence", "car", "pedestrian", "bicyclist")
#: A class counts as shown from this share of the picture on.
SHOWN = 0.01


def write_cells(shared: Path, out: Path) -> list[str]:
    """A 0/1 column for each kind of cell; the options that name them."""
    bccd = shared / "data" / "bccd"
    with out.open("w", newline="", encoding="utf-8") as stream:
        writer = csv.writer(stream)
        writer.writerow(["file", *CELLS])
        for path in sorted((bccd / "Annotations").glob("*.xml")):
            picture = bccd / "JPEGImages" / f"{path.stem}.jpg"
            if picture.is_file():
                writer.writerow([picture.resolve(), *(int(count_objects(path, name) > 0) for name in CELLS)])
    return [word for name in CELLS for word in ("--label", name)]


def write_scenes(shared: Path, out: Path) -> list[str]:
    """One column of names parted by ";", and a split without a sequence on both sides; the options that name them."""
    camvid = shared / "data" / "camvid"
    pictures = [(part, path) for part in ("train", "test") for path in sorted((camvid / part).iterdir())]
    tested = {path.name.split("_")[0] for part, path in pictures if part == "test"}
    with out.open("w", newline="", encoding="utf-8") as stream:
        writer = csv.writer(stream)
        writer.writerow(["file", "classes", "part"])
        for part, path in pictures:
            if part == "train" and path.name.split("_")[0] in tested:
                continue
            with Image.open(camvid / f"{part}annot" / f"{path.stem}.png") as mask:
                counts = np.bincount(np.asarray(mask).ravel(), minlength=12)
            names = [name for name, n in zip(SCENE, counts, strict=False) if n > SHOWN * counts.sum()]
            writer.writerow([path.resolve(), ";".join(names), part])
    return ["--label", "classes", "--split", "part"]


SETS: dict[str, Callable[[Path, Path], list[str]]] = {"bccd": write_cells, "camvid": write_scenes}


def fit(shared: Path, name: str, folder: Path, options: list[str]) -> tuple[dict[str, Any], Path]:
    """One `regraft fit` in a fresh process; its report and its run."""
    table, runs = folder / f"{name}.csv", folder / "runs"
    weights = shared / "weights" / "mobilenetv2_100_timm_same.safetensors"
    columns = SETS[name](shared, table)
    command = [sys.executable, "-m", "regraft", "fit", "--table", str(table), "--image", "file", *columns]
    command += ["--backbone", BACKBONE, "--weights", str(weights), "--runs", str(runs), "--json", *options]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    print(done.stderr, file=sys.stderr, flush=True)
    if done.returncode:
        raise SystemExit(done.returncode)
    (run,) = (path for path in runs.iterdir() if path.name != "LAST")
    report: dict[str, Any] = json.loads(done.stdout)
    return report, run


def figures(run: Path, chosen: str) -> dict[str, Any]:
    """MAP and macro-F1 of every candidate on the test, and the gains of the chosen one over scratch."""
    answers: dict[str, np.ndarray] = {}
    y = np.zeros((0, 0))
    rows = [row for row in pq.read_table(run / "predictions.parquet").to_pylist() if row["split"] == "test"]
    for name in dict.fromkeys(str(row["candidate"]) for row in rows):
        own = [row for row in rows if row["candidate"] == name]
        columns = [np.asarray([row[column] for row in own]) for column in ("label_probabilities", "given")]
        answers[name], y = np.stack(columns, axis=2).astype(np.float64), np.asarray([row["labels"] for row in own])
    found: dict[str, Any] = {"n_test": len(y), "with_label": y.sum(axis=0).tolist()}
    for metric in ("map", "macro_f1"):
        found[metric] = {name: label_bootstrap(metric, answer, y).to_json() for name, answer in answers.items()}
        found[f"{metric}_gain"] = label_gain(metric, answers[chosen], answers["scratch"], y).to_json()
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--shared", type=Path, required=True)
    parser.add_argument("--sets", default="bccd,camvid")
    parser.add_argument("--budget", default="5m")
    parser.add_argument("--seed", default="0")
    parser.add_argument("--fit-options", default="", help="further options of regraft fit")
    args = parser.parse_args()
    result: dict[str, Any] = {"bench": "multilabel", "budget": args.budget, "seed": args.seed}
    for name in args.sets.split(","):
        with tempfile.TemporaryDirectory() as folder:
            options = ["--budget", args.budget, "--seed", args.seed, *args.fit_options.split()]
            report, run = fit(args.shared, name, Path(folder), options)
            row = {"chosen": report["chosen"], "verdict": report["verdict"], **figures(run, report["chosen"])}
        result[name] = row
        for metric in ("map", "macro_f1"):
            own, control, gain = row[metric][row["chosen"]], row[metric]["scratch"], row[f"{metric}_gain"]
            print(
                f"{name} {metric}: {row['chosen']} {own['value']:.3f} [{own['low']:.3f}, {own['high']:.3f}], scratch "
                f"{control['value']:.3f}, gain {gain['value']:+.3f} [{gain['low']:+.3f}, {gain['high']:+.3f}]",
                flush=True,
            )
    print(json.dumps(result))


if __name__ == "__main__":
    main()
