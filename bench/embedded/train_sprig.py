"""Train the slim perceptual network `sprig`: distil SqueezeNet 1.1's feature layers 1, 4, 6 and 7 into it.

    python bench/embedded/train_sprig.py --data ../shared/data \
        --teacher ../shared/weights/squeezenet1_1.safetensors --out runs/sprig --steps 8000

Recipe. For the first part of the training each stage gets the *teacher's* input of that stage (teacher-forced stages:
Koratana et al., LIT, ICML 2019, arXiv:1810.01937), then the stages are joined. The loss of a stage is the squared error
over the teacher's variance per channel, and the squared distance of Gram matrices over the teacher's norm, since Gram
matrices are what the network is for. The first convolution, whose weights are the largest, trains at five times the
rate. The teacher is SqueezeNet 1.1 (Iandola et al. 2016, arXiv:1602.07360) as
torchvision distributes it. The crops are those of the embedded backbone; no labels are used. The same command resumes.
Prints the relative errors on crops that were not trained on; the weights are in OUT/sprig.safetensors.
"""

from __future__ import annotations

import argparse
import json
import random
import time
from collections import deque
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import torch
from pictures import Pictures
from safetensors.torch import save_file
from torch import Tensor
from torch.nn import functional as F

from regraft.core.types import Batch, Rule, StepOutput, Task
from regraft.engine import FitSettings, StepRecord, fit, launch
from regraft.strategies import RuleStrategy
from regraft.style import perceptual
from regraft.style.networks.sprig import STAGES, Sprig

LAYERS = dict(zip(STAGES, ("1", "4", "6", "7"), strict=True))


class Crops:
    """Augmented crops as one long epoch; those of a step depend on the seed and its number alone."""

    def __init__(self, pictures: Pictures, steps: int, batch: int, size_px: int, seed: int) -> None:
        self.samples, self.steps, self.batch, self.size_px, self.seed = pictures, steps, batch, size_px, seed

    def __len__(self) -> int:
        return self.steps

    def epoch(self, index: int, start: int = 0) -> Iterator[Batch]:
        def made(step: int) -> Batch:
            return Batch(self.samples.batch(self.batch, self.size_px, random.Random(f"{self.seed} {index} {step}")))

        with ThreadPoolExecutor(1) as ahead:
            waiting = deque(ahead.submit(made, step) for step in range(start, min(start + 3, self.steps)))
            for step in range(start, self.steps):
                if step + 3 < self.steps:
                    waiting.append(ahead.submit(made, step + 3))
                yield waiting.popleft().result()


class Distillation(Task):
    """`forced` is the share of the training in which stages get the teacher's input."""

    memory_format = torch.channels_last

    def __init__(self, weights: Path, forced: float = 0.4) -> None:
        super().__init__()
        self.student = Sprig()
        self.forced = forced
        # In a list, so that the teacher is no part of what is trained and saved.
        self._teacher = [perceptual("squeezenet1_1", weights)]

    def layer_groups(self) -> dict[str, list[str]]:
        names = [name for name, _ in self.named_parameters()]
        return {stage: [name for name in names if name.startswith(f"student.{stage}.")] for stage in STAGES}

    @torch.no_grad()
    def targets(self, x: Tensor) -> dict[str, Tensor]:
        """The teacher's layers for pictures in [0, 1]. Its first convolution has no padding: a row and a column more
        put its positions where the student's are."""
        teacher = self._teacher[0]
        found = teacher(F.pad(x, (1, 0, 1, 0), mode="reflect"), LAYERS.values())
        return {stage: found[layer] for stage, layer in LAYERS.items()}

    def outputs(self, x: Tensor, targets: Mapping[str, Tensor], forced: bool) -> dict[str, Tensor]:
        teacher = self._teacher[0]
        given = (x - teacher.mean) / teacher.std
        found = {}
        for name, stage in self.student.stages().items():
            found[name] = stage(given)
            given = targets[name] if forced else found[name]
        return found

    def errors(self, found: Mapping[str, Tensor], targets: Mapping[str, Tensor]) -> dict[str, tuple[Tensor, Tensor]]:
        return {name: (relative_error(found[name], targets[name]), gram_error(found[name], targets[name]))
                for name in STAGES}  # fmt: skip

    def forward(self, batches: Mapping[str, Batch], progress: float, phase: str = "step") -> StepOutput:
        x = batches["crops"].x
        targets = self.targets(x)
        errors = self.errors(self.outputs(x, targets, progress < self.forced), targets)
        loss = torch.stack([error + 0.3 * gram for error, gram in errors.values()]).sum()
        return StepOutput(loss, {f"{name}_{part}": value.detach() for name, pair in errors.items()
                                 for part, value in zip(("error", "gram"), pair, strict=True)})  # fmt: skip


def relative_error(student: Tensor, teacher: Tensor) -> Tensor:
    """Squared error over the teacher's variance per channel; dead channels get a twentieth of the mean variance."""
    variance = teacher.var(dim=(0, 2, 3))
    scale = torch.maximum(variance, 0.05 * variance.mean())
    return ((student - teacher).square().mean(dim=(0, 2, 3)) / scale).mean()


def gram_error(student: Tensor, teacher: Tensor) -> Tensor:
    a, b = (x.flatten(2) for x in (student, teacher))
    a, b = (x @ x.mT / x.shape[2] for x in (a, b))
    return ((a - b).square().sum((1, 2)) / b.square().sum((1, 2))).mean()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--teacher", type=Path, required=True)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--steps", type=int, default=8000)
    parser.add_argument("--batch", type=int, default=16)
    parser.add_argument("--size", type=int, default=128)
    parser.add_argument("--lr", type=float, default=2e-3)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--seed", type=int, default=0)
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    args.out.mkdir(parents=True, exist_ok=True)
    machine = launch(device="cpu", precision="fp32", seed=args.seed)
    task = Distillation(args.teacher)
    pictures = Pictures(args.data)
    log = (args.out / "log.jsonl").open("a")
    started = time.monotonic()

    def tell(record: StepRecord) -> None:
        if record.step % 50 == 0:
            row = {
                "step": record.step,
                "loss": round(record.loss, 4),
                "crops_per_s": round(record.rate, 1),
                "crops": record.step * args.batch,
                "steps": record.step,
                "elapsed_s": round(record.elapsed_s, 1),
            }
            log.write(json.dumps(row | {k: round(v, 4) for k, v in record.logs.items()}) + "\n")
            log.flush()

    fit(task, {"crops": Crops(pictures, args.steps, args.batch, args.size, args.seed)},
        RuleStrategy([Rule("group:edges", 5.0), Rule(".*", 1.0)]).plan(task, args.lr),
        FitSettings(steps=args.steps, warmup=0.02, weight_decay=0.0, ema=0.998, seed=args.seed,
                    checkpoint_every_s=60.0),
        machine, on_step=tell, checkpoints=args.out / "checkpoints")  # fmt: skip
    task.eval()
    with torch.no_grad():
        x = pictures.batch(64, 256, random.Random("held out"))
        targets = task.targets(x)
        errors = task.errors(task.outputs(x, targets, forced=False), targets)
    save_file({k: v.contiguous() for k, v in task.student.state_dict().items()}, args.out / "sprig.safetensors")
    print(json.dumps({"bench": "sprig", "steps": args.steps, "batch": args.batch, "seed": args.seed,
                      "minutes": round((time.monotonic() - started) / 60, 1),
                      "relative_error": {name: round(float(pair[0]), 4) for name, pair in errors.items()},
                      "gram_error": {name: round(float(pair[1]), 4) for name, pair in errors.items()}}))  # fmt: skip


if __name__ == "__main__":
    main()
