"""The smallest things that the loop accepts: a stream of numbers, a network of two blocks, a run that can be killed.

Also a script: `tiny_training.py kill OUT STEP` trains and kills itself with SIGKILL after STEP steps (0 = not at all);
`tiny_training.py two OUT` trains a network without batch statistics in two processes, once soundly and once with an
input that is no number in the second process alone, and then adapts to a second domain with several losses.
"""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from regraft.adaptation.base import losses
from regraft.adaptation.training.rules import rules_for
from regraft.adaptation.training.task import Adaptation
from regraft.core.errors import DivergedError
from regraft.core.types import Batch, Features, Rule, StepOutput, Task
from regraft.engine import FitResult, FitSettings, Machine, StepRecord, fit, launch
from regraft.strategies import Plan, RuleStrategy
from regraft.tasks.classification.task import Classification


class Numbers:
    """x (N, …) and y (N,) in batches, in another order each epoch; the last batch is shorter."""

    def __init__(self, x: Tensor, y: Tensor, batch: int, *, shuffle: bool = True) -> None:
        self.x, self.y, self.batch, self.shuffle = x, y, batch, shuffle
        self.asked: list[tuple[int, int]] = []

    def __len__(self) -> int:
        return -(-len(self.x) // self.batch)

    def epoch(self, index: int, start: int = 0) -> Iterator[Batch]:
        self.asked.append((index, start))
        order = torch.randperm(len(self.x), generator=torch.Generator().manual_seed(index))
        if not self.shuffle:
            order = torch.arange(len(self.x))
        for chosen in order.split(self.batch)[start:]:
            yield Batch(self.x[chosen], self.y[chosen])


def numbers(count: int = 8, batch: int = 8, *, shuffle: bool = True, dtype: torch.dtype = torch.float32) -> Numbers:
    """Regression: x (N, 3), y (N, 2)."""
    draw = torch.Generator().manual_seed(0)
    x = torch.randn(count, 3, generator=draw).to(dtype)
    return Numbers(x, torch.stack([x.sum(1), x[:, 0] * x[:, 1]], dim=1), batch, shuffle=shuffle)


class Regression(Task):
    """Two linear layers, groups "a" (shallow) and "b" (deep), squared error. Rows of x and y count by their weight."""

    def __init__(self, dtype: torch.dtype = torch.float32) -> None:
        super().__init__()
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(1)
            self.a = nn.Linear(3, 4)
            self.b = nn.Linear(4, 2)
        self.to(dtype)

    def layer_groups(self) -> dict[str, list[str]]:
        return {g: [f"{g}.{n}" for n, _ in getattr(self, g).named_parameters()] for g in ("a", "b")}

    def predict(self, x: Tensor) -> Tensor:
        y: Tensor = self.b(self.a(x).tanh())
        return y

    def forward(self, batches: Mapping[str, Batch], progress: float, phase: str = "step") -> StepOutput:
        batch = next(iter(batches.values()))
        assert batch.y is not None
        losses = (self.predict(batch.x) - batch.y).square().sum(dim=1)
        weight = torch.ones_like(losses) if batch.weight is None else batch.weight
        return StepOutput((losses * weight).sum() / weight.sum().clamp(min=1))


class Blocks(Task):
    """Two convolutions with batch normalisation, dropout, a head; mixes its inputs: all that a resume must keep."""

    memory_format = torch.channels_last

    def __init__(self) -> None:
        super().__init__()
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(2)
            self.stem = nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.ReLU())
            self.body = nn.Sequential(nn.Conv2d(4, 5, 3), nn.BatchNorm2d(5), nn.ReLU())
            self.head = nn.Linear(5, 2)
        self.dropout = nn.Dropout(0.2)

    def layer_groups(self) -> dict[str, list[str]]:
        groups = ("stem", "body", "head")
        return {g: [f"{g}.{n}" for n, _ in getattr(self, g).named_parameters()] for g in groups}

    def predict(self, x: Tensor) -> Tensor:
        y: Tensor = self.head(self.dropout(self.body(self.stem(x)).mean(dim=(2, 3))))
        return y

    def forward(self, batches: Mapping[str, Batch], progress: float, phase: str = "step") -> StepOutput:
        batch = batches["train"]
        assert batch.y is not None
        share, order = torch.rand(()), torch.randperm(len(batch.x))
        logits = self.predict(share * batch.x + (1 - share) * batch.x[order])
        mixed = share * F.cross_entropy(logits, batch.y) + (1 - share) * F.cross_entropy(logits, batch.y[order])
        return StepOutput(mixed)


def pictures(count: int = 12, batch: int = 4) -> Numbers:
    """Two classes of 8 px pictures, one brighter than the other."""
    draw = torch.Generator().manual_seed(3)
    y = torch.arange(count) % 2
    return Numbers(torch.randn(count, 3, 8, 8, generator=draw) + y.view(-1, 1, 1, 1), y, batch)


def one_machine() -> Machine:
    return launch(device="cpu", precision="fp32")


def plan_of(task: Task, *rules: Rule, base_lr: float = 0.01) -> Plan:
    return RuleStrategy(rules or (Rule(".*", 1.0),)).plan(task, base_lr)


#: 12 steps of two batches, so four epochs of the six batches that 24 pictures make.
RUN = FitSettings(12, accumulate=2, ema=0.9, evaluate_every=3, checkpoint_every_s=0.0, warmup=0.25)
THAWING = (Rule("group:head", 10.0), Rule("group:body", 1.0), Rule("group:stem", 0.5, 0.5))


def run_blocks(folder: Path | None, on_step: Callable[[StepRecord], None] | None = None) -> tuple[Blocks, FitResult]:
    """Train `Blocks` with everything on, from a checkpoint in `folder` if it holds one."""
    task = Blocks()
    stream = pictures(24)

    def evaluate(current: Task) -> tuple[float, Mapping[str, float]]:
        current.eval()
        with torch.no_grad():
            loss = float(F.cross_entropy(current.predict(stream.x), stream.y))
        torch.rand(7)  # whatever an evaluation draws must not change the training
        return -loss, {"loss": loss}

    plan = plan_of(task, *THAWING)
    found = fit(
        task, {"train": stream}, plan, RUN, one_machine(), evaluate=evaluate, on_step=on_step, checkpoints=folder
    )
    return task, found


class Shard:
    """One process's half of every batch of eight; where the last is short, padding of weight 0 fills it."""

    def __init__(self, whole: Numbers, rank: int, broken: bool = False) -> None:
        self.whole, self.rank, self.broken = whole, rank, broken

    def __len__(self) -> int:
        return len(self.whole)

    def epoch(self, index: int, start: int = 0) -> Iterator[Batch]:
        for number, batch in enumerate(self.whole.epoch(index, start)):
            assert batch.y is not None
            missing = 8 - len(batch.x)
            x = torch.cat([batch.x, torch.full((missing, 3), 5.0)])
            y = torch.cat([batch.y, torch.full((missing, 2), -5.0)])
            weight = (torch.arange(8) < 8 - missing).float()
            own = slice(4 * self.rank, 4 * self.rank + 4)
            if self.broken and self.rank == 1 and number == 2:
                x = x * torch.nan
            yield Batch(x[own], y[own], weight[own])


#: 21 samples in batches of eight: the last one has five, so the second process sees one real sample and three paddings.
PAIR = FitSettings(9, accumulate=1, warmup=0.0, clip_norm=0.5, ema=0.5)
PAIR_RULES = (Rule("a.bias", None), Rule("group:a", 1.0, 0.4), Rule("group:b", 2.0))


class Rows(nn.Module):
    """Rows (N, 5) → pooled (N, 4), without batch norm: all that an adaptation asks of a backbone."""

    feature_dim = 4

    def __init__(self) -> None:
        super().__init__()
        self.linear = nn.Linear(5, 4)

    def forward(self, x: Tensor) -> Features:
        return Features(self.linear(x).tanh())

    def layer_groups(self) -> dict[str, list[str]]:
        return {"linear": ["linear.weight", "linear.bias"]}


class Part:
    """One process's half of every batch, which have no padding; the target's carry no label."""

    def __init__(self, x: Tensor, y: Tensor | None, rank: int | None) -> None:
        self.x, self.y = x, y
        self.own = slice(None) if rank is None else slice(len(x) // 2 * rank, len(x) // 2 * (rank + 1))

    def __len__(self) -> int:
        return 1

    def epoch(self, index: int, start: int = 0) -> Iterator[Batch]:
        if start == 0:
            yield Batch(self.x[self.own], None if self.y is None else self.y[self.own])


#: Losses whose value over a batch is not the mean of its halves'.
ALIGNED = ("DAN", "DeepCORAL", "CDAN+E", "MCC", "BNM", "JAN", "DDAN")


def align(name: str, machine: Machine, rank: int | None) -> dict[str, Tensor]:
    """Four steps of an adaptation without batch norm, on whole batches or on this process's half of them."""
    torch.manual_seed(0)
    model = Classification(Rows(), 3)  # type: ignore[arg-type]
    draw = torch.Generator().manual_seed(2)
    source, target = torch.randn(12, 5, generator=draw), torch.randn(8, 5, generator=draw) + 1
    task = Adaptation(model, losses.get(name)(4, 3), shared=rank is not None)
    plan = plan_of(task, *rules_for(task, pretrained=False), base_lr=0.05)
    streams = {"source": Part(source, torch.arange(12) % 3, rank), "target": Part(target, None, rank)}
    fit(task, streams, plan, FitSettings(4, warmup=0.0), machine)
    return {key: value.clone() for key, value in task.state_dict().items()}


def main(job: str, out: Path, step: int = 0) -> None:
    torch.set_num_threads(1)
    if job == "kill":

        def on_step(record: StepRecord) -> None:
            if record.step == step:
                os.kill(os.getpid(), signal.SIGKILL)

        run_blocks(out, on_step)
        return
    machine = launch(device="cpu", devices=2, precision="fp32")
    rank = machine.fabric.global_rank
    results: dict[str, Any] = {"world": machine.fabric.world_size}
    for broken in (False, True):
        task = Regression()
        try:
            found = repr(
                fit(task, {"train": Shard(numbers(21), rank, broken)}, plan_of(task, *PAIR_RULES), PAIR, machine)
            )
        except DivergedError as error:
            found = repr(error)
        results["broken" if broken else "sound"] = {"task": task.state_dict(), "found": found}
    results["aligned"] = {name: align(name, machine, rank) for name in ALIGNED}
    torch.save(results, out.with_suffix(f".{rank}"))


if __name__ == "__main__":
    main(sys.argv[1], Path(sys.argv[2]), *map(int, sys.argv[3:]))
