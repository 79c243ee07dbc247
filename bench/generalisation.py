"""`regraft generalise` as a user runs it on the four domains of PACS, each left out once, over several seeds.

    python bench/generalisation.py --shared ../shared --seeds 0,1,2 [--choose leave-one-out]
        [--backbone NAME --weights FILE]

Every run is a process of its own. Prints a line per seed and held-out domain, the table of held-out domain × method
with means and standard deviations over seeds, what the choice gave and what hindsight would have, and one line of JSON.
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

DOMAINS = ("photo", "art_painting", "cartoon", "sketch")


def generalise(root: Path, seed: int, options: list[str]) -> dict[str, Any]:
    """One `regraft generalise` in a fresh process and folder; its report."""
    with tempfile.TemporaryDirectory() as runs:
        command = [sys.executable, "-m", "regraft", "generalise", *(str(root / name) for name in DOMAINS)]
        command += ["--seed", str(seed), "--runs", runs, "--json", *options]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        raise SystemExit(done.stderr[-3000:])
    report: dict[str, Any] = json.loads(done.stdout)
    for row in report["held_out"]:
        cells = " ".join(f"{cell['name']} {100 * cell['value']:.1f}" for cell in row["methods"])
        print(f"seed {seed}, without {row['name']}: {cells} | chosen {row['chosen']}, best {row['best']}", flush=True)
    print(f"seed {seed}, {report['total_s']:.0f} s: {report['verdict']}", flush=True)
    return report


def table(reports: list[dict[str, Any]]) -> dict[str, dict[str, list[float]]]:
    """Method → held-out domain, "mean" included → the accuracies of all seeds; printed on the way."""
    found: dict[str, dict[str, list[float]]] = {}
    for report in reports:
        for row in report["held_out"]:
            for cell in row["methods"]:
                found.setdefault(cell["name"], {}).setdefault(row["name"], []).append(cell["value"])
    for of_domain in found.values():
        of_domain["mean"] = [float(np.mean(values)) for values in zip(*of_domain.values(), strict=True)]
    print(f"\n{'method':12s}" + "".join(f"{name:>18s}" for name in (*DOMAINS, "mean")))
    for method, of_domain in found.items():
        print(f"{method:12s}" + "".join(f"{shown(of_domain[name]):>18s}" for name in (*DOMAINS, "mean")))
    return found


def shown(values: list[float]) -> str:
    """Mean and, of several, standard deviation over seeds, in per cent."""
    spread = f" ± {100 * np.std(values, ddof=1):.1f}" if len(values) > 1 else ""
    return f"{100 * np.mean(values):.1f}{spread}"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--shared", type=Path, required=True)
    parser.add_argument("--seeds", default="0")
    parser.add_argument("--choose", default="validation")
    parser.add_argument("--backbone", default="mobilenetv2_100:pad_type=same")
    parser.add_argument("--weights", type=Path, help="the shared mobilenetv2_100 unless told; none for scion")
    args = parser.parse_args()
    options = ["--backbone", args.backbone, "--choose", args.choose]
    if not args.backbone.startswith("scion"):
        weights = args.weights or args.shared / "weights" / "mobilenetv2_100_timm_same.safetensors"
        options += ["--weights", str(weights)]
    seeds = [int(seed) for seed in args.seeds.split(",")]
    reports = [generalise(args.shared / "data" / "pacs", seed, options) for seed in seeds]
    found = table(reports)
    sums = {name: [report[name] for report in reports] for name in ("value", "hindsight", "total_s")}
    gains = [report["erm_gain"] for report in reports]
    print(f"chosen without the domain {shown(sums['value'])} %, best in hindsight {shown(sums['hindsight'])} %")
    print(
        json.dumps(
            {"backbone": args.backbone, "choose": args.choose, "seeds": seeds, "table": found, "gains": gains, **sums}
        )
    )


if __name__ == "__main__":
    main()
