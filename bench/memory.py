"""A training step on the CPU with and without `regraft.core.memory.keep_freed_memory`, in fresh processes.

    python bench/memory.py [--model mobilenetv2_100] [--batch 32] [--steps 6] [--rounds 3]

Random weights, random pictures of 224 px. Prints processor seconds and page faults per step, medians over the rounds,
their ratio, and one line of JSON. Processor seconds, not wall: the machine may be shared.
"""

from __future__ import annotations

import argparse
import json
import resource
import statistics
import subprocess
import sys


def measure(model: str, batch: int, steps: int, keep: bool) -> dict[str, float]:
    """Processor seconds and page faults of a step, after two to warm up."""
    import timm
    import torch

    from regraft.core.memory import keep_freed_memory

    if keep and not keep_freed_memory():
        raise SystemExit("This is not glibc: there is nothing to measure.")
    torch.manual_seed(0)
    net = timm.create_model(model).to(memory_format=torch.channels_last).train()
    x = torch.rand(batch, 3, 224, 224).contiguous(memory_format=torch.channels_last)

    def step() -> None:
        net.zero_grad(set_to_none=True)
        net(x).square().mean().backward()

    for _ in range(2):
        step()
    before = resource.getrusage(resource.RUSAGE_SELF)
    for _ in range(steps):
        step()
    after = resource.getrusage(resource.RUSAGE_SELF)
    spent = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    return {"seconds": spent / steps, "faults": (after.ru_minflt - before.ru_minflt) / steps}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default="mobilenetv2_100")
    parser.add_argument("--batch", type=int, default=32)
    parser.add_argument("--steps", type=int, default=6)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--child", choices=["keep", "return"], help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.child:
        print(json.dumps(measure(args.model, args.batch, args.steps, args.child == "keep")))
        return
    found: dict[str, list[dict[str, float]]] = {"return": [], "keep": []}
    for _ in range(args.rounds):
        for how in found:
            command = [sys.executable, __file__, "--child", how, "--model", args.model, "--batch", str(args.batch)]
            done = subprocess.run([*command, "--steps", str(args.steps)], capture_output=True, text=True, check=True)
            found[how].append(json.loads(done.stdout))
    medians = {h: {k: statistics.median(row[k] for row in rows) for k in rows[0]} for h, rows in found.items()}
    for how, row in medians.items():
        print(f"{how:7s} {row['seconds']:.2f} processor seconds a step, {row['faults']:,.0f} page faults")
    ratio = medians["return"]["seconds"] / medians["keep"]["seconds"]
    print(f"ratio {ratio:.2f}")
    print(json.dumps({"model": args.model, "batch": args.batch, "ratio": ratio, "rounds": found}))


if __name__ == "__main__":
    main()
