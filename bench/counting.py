"""Counting cells: `regraft fit --task regression` as a user runs it, on the number of red blood cells per picture.

    python bench/counting.py --shared ../shared [--budget 90s] [--seeds 0] [--fit-options "--strategies probe"]

Writes a table from the annotations of the BCCD set (Pascal VOC XML, one object per cell) and runs the fit in a process
of its own. The figure to beat is the mean absolute error of always saying the mean of the training part. Prints a line
per seed and, last, one line of JSON.
"""

from __future__ import annotations

import argparse
import csv
import json
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any
from xml.parsers import expat

import numpy as np
import pyarrow.parquet as pq

BACKBONE = "mobilenetv2_100:pad_type=same"
#: An annotation of this set takes some 10 KB; more, deeper or with entities is none.
LIMIT_BYTES, LIMIT_DEPTH = 1 << 20, 16


def count_objects(path: Path, name: str) -> int:
    """How many <object> elements of a VOC file have this <name>; ValueError for what is no such file."""
    if path.stat().st_size > LIMIT_BYTES:
        raise ValueError(f"{path} is larger than {LIMIT_BYTES >> 20} MiB.")
    open_: list[str] = []
    said: list[str] = []
    found = 0

    def refuse(*_: Any) -> None:
        raise ValueError(f"{path} declares a document type or an entity.")

    def start(tag: str, _: Any) -> None:
        open_.append(tag)
        if len(open_) > LIMIT_DEPTH:
            raise ValueError(f"{path} is nested deeper than {LIMIT_DEPTH}.")
        said.clear()

    def end(tag: str) -> None:
        nonlocal found
        found += open_ == ["annotation", "object", "name"] and "".join(said).strip() == name
        open_.pop()
        said.clear()

    parser = expat.ParserCreate()
    parser.StartDoctypeDeclHandler = refuse
    parser.EntityDeclHandler = refuse
    parser.StartElementHandler, parser.EndElementHandler = start, end
    parser.CharacterDataHandler = said.append
    try:
        parser.Parse(path.read_bytes(), True)
    except expat.ExpatError as error:
        raise ValueError(f"{path} is no XML: {error}") from error
    return int(found)


def write_table(bccd: Path, out: Path, name: str) -> int:
    """file, cells and group per picture that has an annotation; how many there are."""
    rows = []
    for path in sorted((bccd / "Annotations").glob("*.xml")):
        picture = bccd / "JPEGImages" / f"{path.stem}.jpg"
        if picture.is_file():
            rows.append((picture.resolve(), count_objects(path, name)))
    with out.open("w", newline="", encoding="utf-8") as stream:
        writer = csv.writer(stream)
        writer.writerow(["file", "cells"])
        writer.writerows(rows)
    return len(rows)


def fit(shared: Path, table: Path, seed: int, budget: str, extra: list[str], runs: Path) -> dict[str, Any]:
    """One `regraft fit` in a fresh process; its report, with the error of always saying the mean."""
    weights = shared / "weights" / "mobilenetv2_100_timm_same.safetensors"
    command = [sys.executable, "-m", "regraft", "fit", "--table", str(table), "--image", "file", "--label", "cells"]
    command += ["--task", "regression", "--backbone", BACKBONE, "--weights", str(weights), "--budget", budget]
    command += ["--seed", str(seed), "--runs", str(runs), "--json", *extra]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    print(done.stderr, file=sys.stderr, flush=True)
    if done.returncode:
        raise SystemExit(done.returncode)
    report: dict[str, Any] = json.loads(done.stdout)
    (run,) = (path for path in runs.iterdir() if path.name != "LAST")
    rows = pq.read_table(run / "predictions.parquet").to_pylist()
    with table.open(newline="", encoding="utf-8") as stream:
        cells = {row["file"]: float(row["cells"]) for row in csv.DictReader(stream)}
    tested = {row["path"] for row in rows if row["split"] == "test"}
    mean = np.mean([value for path, value in cells.items() if path not in tested])
    report["always_the_mean"] = float(np.mean([abs(cells[path] - mean) for path in tested]))
    return report


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--shared", type=Path, required=True)
    parser.add_argument("--object", default="RBC", help="which cells to count: RBC, WBC or Platelets")
    parser.add_argument("--seeds", default="0")
    parser.add_argument("--budget", default="90s")
    parser.add_argument("--fit-options", default="", help="further options of regraft fit")
    args = parser.parse_args()
    result: dict[str, Any] = {"bench": "counting", "object": args.object, "budget": args.budget, "runs": []}
    for seed in map(int, args.seeds.split(",")):
        with tempfile.TemporaryDirectory() as folder:
            table = Path(folder) / "cells.csv"
            result["pictures"] = write_table(args.shared / "data" / "bccd", table, args.object)
            runs = Path(folder) / "runs"
            report = fit(args.shared, table, seed, args.budget, args.fit_options.split(), runs)
        row = {
            "seed": seed,
            "chosen": report["chosen"],
            "candidates": {c["name"]: [c["value"], *c["interval"]] for c in report["candidates"]},
            "gain": report["transfer_gain"],
            "summary": report["summary"],
            "interval": report["prediction_interval"],
            "always_the_mean": report["always_the_mean"],
            "first_answer_s": report["first_answer_s"],
            "total_s": report["total_s"],
            "verdict": report["verdict"],
        }
        result["runs"].append(row)
        print(f"seed {seed}: {report['verdict']} Always the mean: {report['always_the_mean']:.2f}.", flush=True)
    print(json.dumps(result))


if __name__ == "__main__":
    main()
