"""`regraft style translate` as a user runs it between photos and paintings: figures of held-out pictures, both ways.

    python bench/cyclegan.py --shared ../shared --out runs/photo2painting --epochs 100 [-- --width 64 --batch-size 4]

Takes `data/photo2painting` with its own test folders; what comes after -- goes to the command. The run is in --out, and
the same command takes it up again after a kill. Prints the figures beside those of untranslated pictures, the course of
the training, and one line of JSON.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
from pathlib import Path
from typing import Any


def command(shared: Path, out: Path, options: list[str]) -> list[str]:
    folder = shared / "data" / "photo2painting"
    sets = [str(folder / "trainA"), str(folder / "trainB")]
    tests = ["--test-a", str(folder / "testA"), "--test-b", str(folder / "testB")]
    return [sys.executable, "-m", "regraft", "style", "translate", *sets, *tests, "-o", str(out), *options]


def course(report: dict[str, Any]) -> list[str]:
    """One line per evaluation: of a few held-out pictures, so that it is quick."""
    lines = []
    for one in report["history"]:
        cells = [f"{one[name][way]:8.3f}" for name in ("cycle_ssim", "mmd2", "diversity") for way in ("AtoB", "BtoA")]
        right = "       –" if one["accuracy"] is None else f"{one['accuracy']:8.3f}"
        lines.append(f"{one['step']:8d} {' '.join(cells)} {right}")
    return lines


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--shared", type=Path, default=Path(__file__).resolve().parents[2] / "shared")
    parser.add_argument("--out", type=Path, default=Path("runs/photo2painting"))
    parser.add_argument("--epochs", type=float)
    parser.add_argument("--budget")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("options", nargs="*", help="for `regraft style translate`, after --")
    arguments = parser.parse_args()

    options = ["--seed", str(arguments.seed), *arguments.options]
    for name in ("epochs", "budget"):
        if getattr(arguments, name) is not None:
            options += [f"--{name}", str(getattr(arguments, name))]
    if not (arguments.out / "DONE").exists():
        subprocess.run(command(arguments.shared, arguments.out, options), check=True, stdout=subprocess.DEVNULL)
    report = json.loads((arguments.out / "report.json").read_text(encoding="utf-8"))

    heads = ("step", "SSIM AB", "SSIM BA", "MMD AB", "MMD BA", "div AB", "div BA", "D right")
    print(" ".join(f"{head:>8}" for head in heads))
    print("\n".join(course(report)))
    columns = ("MMD² was", "MMD² is", "nearer in", "SSIM", "identity", "diversity")
    print("\n" + " ".join(["        ", *(f"{column:>10}" for column in columns)]))
    for way, row in report["directions"].items():
        print(
            f"{way:8} {row['mmd2_untranslated']:10.4f} {row['mmd2']:10.4f} {row['nearer']:10.1%} "
            f"{row['cycle_ssim']:10.4f} {row['identity']:10.4f} {row['diversity']:10.3f}"
        )
    for sign in report["collapse"]["signs"]:
        print(f"step {sign['step']}: {sign['kind']}: {sign['sentence']}")
    print(report["verdict"])
    print(
        json.dumps(
            {
                "bench": "cyclegan", "seed": report["seed"], "size_px": report["size_px"], "steps": report["steps"],
                "epochs": report["epochs"], "training_s": report["training_s"], "device": report["device"],
                "precision": report["precision"], "parameters": report["trained_parameters"],
                "collapse": report["collapse"]["suspected"], "signs": len(report["collapse"]["signs"]),
                **report["directions"],
            }
        )
    )  # fmt: skip


if __name__ == "__main__":
    main()
