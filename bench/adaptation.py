"""`regraft adapt` as a user runs it: the 12 transfers of PACS, digits both ways, and six cases where it must not adapt.

    python bench/adaptation.py --shared ../shared --what pacs,digits,alarm --seeds 0 [--backbone NAME --weights FILE]

Every run is a process of its own. The oracle's labels are given, so that figures can be printed; the choice does not
see them. Prints a line a run, a table, and one line of JSON. `alarm` counts the cases in which source-only was kept.
"""

from __future__ import annotations

import argparse
import itertools
import json
import shutil
import struct
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from regraft.images.idx import read_idx

ECE = ("oracle_ece", "oracle_ece_source")
DOMAINS = ("photo", "art_painting", "cartoon", "sketch")


def adapt(source: Path, target: Path, oracle: Path | None, seed: int, options: list[str]) -> dict[str, Any]:
    """One `regraft adapt` in a fresh process and folder; its report."""
    with tempfile.TemporaryDirectory() as runs:
        command = [sys.executable, "-m", "regraft", "adapt", str(source), str(target), "--seed", str(seed)]
        command += ["--runs", runs, "--json", *options, *(["--oracle", str(oracle)] if oracle else [])]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        raise SystemExit(done.stderr[-3000:])
    report: dict[str, Any] = json.loads(done.stdout)
    return report


def line(name: str, report: dict[str, Any]) -> dict[str, Any]:
    """What one run says, printed and returned."""
    oracle = {c["method"]: c["oracle"] for c in report["candidates"]}
    found = {
        "name": name,
        "kept": report["kept"],
        "chosen": report["chosen"],
        "source_only": report["source_only"]["oracle"],
        "value": report["value"],
        "best_by_oracle": max((v, k) for k, v in oracle.items() if v is not None) if report["value"] else None,
        "oracle": oracle,
        "seconds": report["total_s"],
        "adabn_seconds": next((c["seconds"] for c in report["candidates"] if c["method"] == "AdaBN"), None),
        "why": report["why"],
        "calibration": report["calibration"],
    }
    figures = " ".join(f"{k} {100 * v:.1f}" for k, v in oracle.items() if v is not None)
    print(f"{name}: kept {report['kept']} ({report['chosen']}), {report['total_s']:.0f} s | {figures}", flush=True)
    return found


def pacs(shared: Path, seed: int, options: list[str]) -> list[dict[str, Any]]:
    root = shared / "data" / "pacs"
    return [
        line(f"{a} → {b}", adapt(root / a, root / b, root / b, seed, options))
        for a, b in itertools.permutations(DOMAINS, 2)
    ]


def digits(shared: Path, seed: int, methods: str, ways: dict[str, str]) -> list[dict[str, Any]]:
    """LeNet from scratch, whole network, all pictures of both. ways: source → epochs."""
    options = ["--backbone", "lenet", "--no-flip", "--augment", "affine", "--batch-size", "64", "--method", methods]
    found = []
    with tempfile.TemporaryDirectory() as folder:
        roots = {name: _joined(shared / "data" / name, Path(folder) / name) for name in ("mnist", "usps")}
        for a, b in (("mnist", "usps"), ("usps", "mnist")):
            if a in ways:
                told = [*options, "--epochs", ways[a]]
                found.append(line(f"{a} → {b}", adapt(roots[a], roots[b], roots[b], seed, told)))
    return found


def _joined(folder: Path, out: Path) -> Path:
    """The training and the test pictures of an idx folder as one file each of pictures and of labels."""
    out.mkdir()
    for kind in ("images-idx3", "labels-idx1"):
        parts = np.concatenate([read_idx(folder / f"{part}-{kind}-ubyte.gz") for part in ("train", "t10k")])
        head = bytes([0, 0, 8, parts.ndim]) + struct.pack(f">{parts.ndim}I", *parts.shape)
        (out / f"train-{kind}-ubyte").write_bytes(head + parts.tobytes())
    return out


def restyle(shared: Path, seed: int, options: list[str]) -> list[dict[str, Any]]:
    """Style as adaptation on the same transfers: source pictures in the target's style beside AdaBN without."""
    root = shared / "data" / "pacs"
    return [
        line(f"{a} → {b}", adapt(root / a, root / b, root / b, seed, [*options, "--method", "AdaBN,restyle"]))
        for a, b in itertools.permutations(DOMAINS, 2)
    ]


def alarm(shared: Path, seed: int, options: list[str]) -> list[dict[str, Any]]:
    """Six targets that nothing should be adapted to, made from PACS, steel and noise."""
    rng = np.random.default_rng(seed)
    found = []
    with tempfile.TemporaryDirectory() as folder:
        for name, source, target in _cases(shared / "data", Path(folder), rng):
            found.append(line(name, adapt(source, target, None, seed, options)))
    return found


def _cases(data: Path, out: Path, rng: np.random.Generator) -> list[tuple[str, Path, Path]]:
    pacs_root = data / "pacs"
    classes = sorted(path.name for path in (pacs_root / "photo").iterdir() if path.is_dir())

    def copied(name: str, domain: str, share: dict[str, slice]) -> Path:
        for label, part in share.items():
            (out / name / label).mkdir(parents=True)
            for path in sorted((pacs_root / domain / label).iterdir())[part]:
                shutil.copy(path, out / name / label / path.name)
        return out / name

    def noise(name: str) -> Path:
        (out / name).mkdir()
        for i in range(150):
            Image.fromarray(rng.integers(0, 256, (227, 227, 3), dtype=np.uint8)).save(out / name / f"{i}.png")
        return out / name

    first, second = dict.fromkeys(classes[:3], slice(None)), dict.fromkeys(classes[3:], slice(None))
    halves = [dict.fromkeys(classes, part) for part in (slice(0, 35), slice(35, None))]
    shifted = {label: slice(0, 70 if i == 0 else 3) for i, label in enumerate(classes)}
    return [
        ("disjoint classes", copied("a", "photo", first), copied("b", "photo", second)),
        ("disjoint classes, other domain", out / "a", copied("c", "sketch", second)),
        ("identical domains", copied("d", "photo", halves[0]), copied("e", "photo", halves[1])),
        ("strong label shift", pacs_root / "photo", copied("f", "art_painting", shifted)),
        ("unrelated pictures", pacs_root / "photo", data / "neu_cls" / "test"),
        ("noise", pacs_root / "photo", noise("g")),
    ]


def _calibration(rows: list[dict[str, Any]]) -> None:
    """Label-free estimates of the accuracy, and calibration errors, beside the oracle's."""
    known = [(row["calibration"], row["value"]) for row in rows if row["calibration"]["how"] == "agreement"]
    if known:
        gaps = [found["estimated_accuracy"] - value for found, value in known]
        errors = [100 * float(np.mean([found[key] for found, _ in known])) for key in ECE]
        print(f"  estimated accuracy   {100 * np.mean(gaps):+.1f} points off on average, "
              f"{100 * np.mean(np.abs(gaps)):.1f} in size; calibration error {errors[0]:.1f} %, "
              f"with the source's temperature {errors[1]:.1f} %")  # fmt: skip


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--shared", type=Path, required=True)
    parser.add_argument("--what", default="pacs,digits,alarm")
    parser.add_argument("--seeds", default="0")
    parser.add_argument("--digits-methods", default="AdaBN,MCC,mean-teacher", help="which are chosen between")
    parser.add_argument("--digits-ways", default="mnist:20,usps:60", help="from which source, and epochs")
    parser.add_argument("--backbone", default="mobilenetv2_100:pad_type=same")
    parser.add_argument("--weights", type=Path, help="the shared mobilenetv2_100 unless told; none for scion")
    args = parser.parse_args()
    options = ["--backbone", args.backbone]
    if not args.backbone.startswith("scion"):
        weights = args.weights or args.shared / "weights" / "mobilenetv2_100_timm_same.safetensors"
        options += ["--weights", str(weights)]
    ways = dict(part.split(":") for part in args.digits_ways.split(","))
    result: dict[str, Any] = {"backbone": args.backbone}
    for what in args.what.split(","):
        means: list[tuple[float, float]] = []
        for seed in map(int, args.seeds.split(",")):
            rows = {"pacs": lambda s: pacs(args.shared, s, options),
                    "digits": lambda s: digits(args.shared, s, args.digits_methods, ways),
                    "restyle": lambda s: restyle(args.shared, s, options),
                    "alarm": lambda s: alarm(args.shared, s, options)}[what](seed)  # fmt: skip
            result.setdefault(what, {})[str(seed)] = rows
            if what == "alarm":
                kept = sum(row["kept"] == "source_only" for row in rows)
                print(f"alarm, seed {seed}: source-only kept in {kept} of {len(rows)}")
                continue
            value, source_only = (float(np.mean([row[key] for row in rows])) for key in ("value", "source_only"))
            means.append((value, source_only))
            worst = min(row["value"] - row["source_only"] for row in rows)
            names = list(rows[0]["oracle"])
            print(f"\n{what}, seed {seed}: mean oracle accuracy per method")
            for name in names:
                print(f"  {name:20s} {100 * np.mean([row['oracle'].get(name, np.nan) for row in rows]):.1f} %")
            print(f"  label-free choice    {100 * means[-1][0]:.1f} %, source-only {100 * means[-1][1]:.1f} %, "
                  f"worst transfer {100 * worst:+.1f} points")  # fmt: skip
            _calibration(rows)
        if len(means) > 1:
            spread = np.std([m[0] for m in means], ddof=1)
            print(f"{what}: {100 * np.mean([m[0] for m in means]):.1f} ± {100 * spread:.1f} % over {len(means)} seeds")
    print(json.dumps(result))


if __name__ == "__main__":
    main()
