"""kill −9 at random points of a fit; the same command must end with the same weights as an uninterrupted run.

    python bench/kill_resume.py [--trials 20] [--seed 0]

Fits patches of scikit-image's photographs (four of the demo's classes) with a small input. Prints a line per trial and
one line of JSON; ends with 1 if a trial's weights differ.
"""

from __future__ import annotations

import argparse
import json
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from regraft.core.files import sha256_file
from regraft.images.demo import make_demo

CLASSES = ("brick", "coins", "fur", "wood")


def command(data: Path, runs: Path) -> list[str]:
    options = "--backbone scion:size=64 --epochs 4 --batch-size 16 --mixup 0.2 --checkpoint-every 1s --seed 3 --json"
    return [sys.executable, "-m", "regraft", "fit", str(data), "--runs", str(runs), *options.split()]


def weights_of(runs: Path) -> str:
    """Hash of the finished run's weights; a RuntimeError where there is not exactly one finished run."""
    done = [path for path in runs.glob("*-fit-*") if (path / "DONE").exists()]
    if len(done) != 1 or len(list(runs.glob("*-fit-*"))) != 1:
        raise RuntimeError(f"{runs} holds {len(done)} finished runs of {len(list(runs.glob('*-fit-*')))}")
    return sha256_file(done[0] / "artifact" / "model.safetensors")


def run(arguments: list[str], kill_after_s: float | None = None) -> float:
    """Run to the end, or kill -9 after so many seconds; returns how long it ran."""
    started = time.monotonic()
    process = subprocess.Popen(arguments, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE)
    try:
        _, errors = process.communicate(timeout=kill_after_s)
    except subprocess.TimeoutExpired:
        process.send_signal(signal.SIGKILL)
        process.communicate()
        return time.monotonic() - started
    if process.returncode:
        raise RuntimeError(errors.decode()[-2000:])
    return time.monotonic() - started


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--trials", type=int, default=20)
    parser.add_argument("--seed", type=int, default=0)
    args = parser.parse_args()
    draw = random.Random(args.seed)
    with tempfile.TemporaryDirectory() as folder:
        whole = make_demo(Path(folder) / "all")
        data = Path(folder) / "data"
        for part in ("train", "test"):
            for name in CLASSES:
                shutil.copytree(whole / part / name, data / part / name)
        reference = Path(folder) / "reference"
        length = run(command(data, reference))
        expected = weights_of(reference)
        print(f"uninterrupted: {length:.1f} s, weights {expected[:12]}", flush=True)
        same = 0
        for trial in range(args.trials):
            runs = Path(folder) / f"trial{trial}"
            while True:
                lasted = run(command(data, runs), draw.uniform(0.02, 0.98) * length)
                if not any((p / "DONE").exists() for p in runs.glob("*-fit-*")):
                    break
                length = min(length, lasted)  # it ended before it could be killed: the machine is quicker than it was
                shutil.rmtree(runs)
            run(command(data, runs))
            found = weights_of(runs)
            same += found == expected
            verdict = "same" if found == expected else "DIFFERENT"
            print(f"trial {trial}: killed after {lasted:.1f} of {length:.1f} s, weights {verdict}", flush=True)
            shutil.rmtree(runs)
    print(json.dumps({"bench": "kill-resume", "trials": args.trials, "same": same, "seed": args.seed}))
    sys.exit(same != args.trials)


if __name__ == "__main__":
    main()
