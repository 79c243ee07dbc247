"""The main path on real data through the command line, and the tutorial's loop beside it in the same session.

    python bench/main_path.py --shared ../shared --sets hymenoptera,neu_cls,chest_xray --seeds 0,1,2 [--tutorial]

Runs `regraft fit` as a user would, in a process of its own, and reads report.json. `--tutorial` also times the PyTorch
transfer-learning tutorial's recipe (frozen backbone, 25 epochs, batch 4, SGD 0.001 with momentum 0.9, step decay) on
hymenoptera with the same weights. Prints a table, medians and one line of JSON.
"""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import torch

BACKBONE = "mobilenetv2_100:pad_type=same"
#: X-rays and patches of steel fill their pictures, so nothing is cropped away; they are no photographs, so early layers
#: may serve better: readout=auto finds out.
SEEN = {"chest_xray": ",crop_pct=1.0,readout=auto", "neu_cls": ",crop_pct=1.0,readout=auto"}
OPTIONS: dict[str, list[str]] = {
    "hymenoptera": [],
    "neu_cls": [],
    "chest_xray": ["--group", "patient", "--metric", "auc"],
}


def fit(shared: Path, name: str, seed: int, budget: str, extra: list[str]) -> dict[str, Any]:
    """One `regraft fit` in a fresh process and folder; its report."""
    weights = shared / "weights" / "mobilenetv2_100_timm_same.safetensors"
    with tempfile.TemporaryDirectory() as runs:
        command = [sys.executable, "-m", "regraft", "fit", str(shared / "data" / name), "--backbone"]
        command += [BACKBONE + SEEN.get(name, "")]
        command += ["--weights", str(weights), "--budget", budget, "--seed", str(seed), "--runs", runs, "--json"]
        done = subprocess.run([*command, *OPTIONS[name], *extra], capture_output=True, text=True, check=False)
    if done.returncode:
        raise SystemExit(done.stderr[-3000:])
    report: dict[str, Any] = json.loads(done.stdout)
    return report


def tutorial(shared: Path, epochs: int, seed: int) -> dict[str, float]:
    """The tutorial's frozen-backbone loop: seconds and test accuracy at the last and at the best epoch."""
    import timm
    from safetensors.torch import load_file
    from timm.models import EfficientNet
    from torchvision import datasets, transforms

    torch.manual_seed(seed)
    started = time.monotonic()
    normalise = transforms.Normalize([0.485, 0.456, 0.406], [0.229, 0.224, 0.225])
    train = transforms.Compose(
        [transforms.RandomResizedCrop(224), transforms.RandomHorizontalFlip(), transforms.ToTensor(), normalise]
    )
    plain = transforms.Compose([transforms.Resize(256), transforms.CenterCrop(224), transforms.ToTensor(), normalise])
    root = shared / "data" / "hymenoptera"
    folders = {part: datasets.ImageFolder(str(root / part), how) for part, how in (("train", train), ("val", plain))}
    loaders = {
        part: torch.utils.data.DataLoader(pictures, batch_size=4, shuffle=True) for part, pictures in folders.items()
    }
    net = timm.create_model("mobilenetv2_100", pad_type="same")
    assert isinstance(net, EfficientNet)
    net.load_state_dict(load_file(shared / "weights" / "mobilenetv2_100_timm_same.safetensors"))
    net.requires_grad_(False)
    net.reset_classifier(2)
    optimizer = torch.optim.SGD(net.get_classifier().parameters(), lr=0.001, momentum=0.9)
    decay = torch.optim.lr_scheduler.StepLR(optimizer, step_size=7, gamma=0.1)
    accuracies = []
    for epoch in range(epochs):
        net.train()
        for x, y in loaders["train"]:
            optimizer.zero_grad()
            torch.nn.functional.cross_entropy(net(x), y).backward()  # type: ignore[no-untyped-call]
            optimizer.step()
        decay.step()
        net.eval()
        with torch.no_grad():
            right = sum(int((net(x).argmax(1) == y).sum()) for x, y in loaders["val"])
        accuracies.append(right / len(folders["val"]))
        print(f"tutorial epoch {epoch + 1}: {accuracies[-1]:.4f}, {time.monotonic() - started:.0f} s", flush=True)
    return {"seconds": time.monotonic() - started, "last": accuracies[-1], "best": max(accuracies)}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--shared", type=Path, required=True)
    parser.add_argument("--sets", default="hymenoptera,neu_cls,chest_xray")
    parser.add_argument("--seeds", default="0,1,2")
    parser.add_argument("--budget", default="5m")
    parser.add_argument("--tutorial", action="store_true")
    parser.add_argument("--tutorial-epochs", type=int, default=25)
    parser.add_argument("--fit-options", default="", help="further options of regraft fit")
    args = parser.parse_args()
    result: dict[str, Any] = {"bench": "main-path", "budget": args.budget, "seeds": args.seeds, "sets": {}}
    for name in [s for s in args.sets.split(",") if s]:
        rows = []
        for seed in map(int, args.seeds.split(",")):
            report = fit(args.shared, name, seed, args.budget, args.fit_options.split())
            summary = report["summary"]
            control = next((c["value"] for c in report["candidates"] if c["name"] == "scratch"), None)
            row = {
                "seed": seed,
                "chosen": report["chosen"],
                "accuracy": summary["accuracy"],
                "auc": summary["auc"],
                "metric": report["metric"],
                "value": report["value"],
                "interval": report["interval"],
                "scratch": control,
                "candidates": {c["name"]: c["value"] for c in report["candidates"]},
                "first_answer_s": report["first_answer_s"],
                "total_s": report["total_s"],
            }
            rows.append(row)
            print(name, json.dumps(row), flush=True)
        mean = {k: statistics.mean(r[k] for r in rows) for k in ("accuracy", "auc", "value")}
        spread = {k: statistics.pstdev([r[k] for r in rows]) for k in ("accuracy", "auc", "value")}
        first = statistics.median(r["first_answer_s"] for r in rows)
        result["sets"][name] = {"mean": mean, "sd": spread, "first_answer_s": first, "runs": rows}
        print(
            f"{name}: accuracy {mean['accuracy']:.4f} ± {spread['accuracy']:.4f}, AUC {mean['auc']:.4f}, "
            f"first answer {first:.1f} s"
        )
    if args.tutorial:
        result["tutorial"] = tutorial(args.shared, args.tutorial_epochs, 0)
        print(result["tutorial"])
    print(json.dumps(result))


if __name__ == "__main__":
    main()
