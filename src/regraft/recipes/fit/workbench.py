"""One run's backbone, features and streams, and the tasks and plans of its candidates."""

from __future__ import annotations

import copy
import math
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors.torch import load_file

from regraft.core.errors import MissingExtraError
from regraft.core.listener import Listener
from regraft.core.rundir import RunDirectory
from regraft.core.types import Backbone, Rule, Task
from regraft.data.modality import Quick
from regraft.engine import FitSettings, Machine, fit, predict
from regraft.measure.choice import Candidate
from regraft.recipes.fit.options import FitConfig
from regraft.recipes.fit.prepared import Prepared
from regraft.strategies import KnownClasses, Plan, ProbeHead, RuleStrategy, Strategy, strategies
from regraft.tasks.kind import Kind
from regraft.tasks.linear import LinearTask


@dataclass(frozen=True)
class Setup:
    """What a fit is about: what was asked, the samples, and what their labels are."""

    config: FitConfig
    kind: Kind
    metric: str
    prepared: Prepared


class Workbench:
    """What every candidate of a run is made with."""

    def __init__(
        self, setup: Setup, backbone: Backbone, machine: Machine, run: RunDirectory, listener: Listener
    ) -> None:
        self.config, self.kind, self.metric, self.prepared = setup.config, setup.kind, setup.metric, setup.prepared
        self.backbone, self.machine, self.run, self.listener = backbone, machine, run, listener
        self.streams = self.prepared.streams(backbone, self.config)
        self.writer: Any = None
        self._quick: dict[bool, Quick | None] = {}
        if self.config.tensorboard and machine.is_first:
            self.writer = _tensorboard(run.path / "tensorboard")

    def quick(self, n_samples: int, *, half: bool) -> Quick | None:
        """The pretrained backbone's features by the fastest engine that agrees with it; each is built once."""
        if half not in self._quick:
            other = self._quick.get(not half)
            if other is not None and other.engine in ("openvino", "onnxruntime"):  # full precision it is in any case
                self._quick[half] = other
                return other
            self._quick[half] = self.prepared.modality.fast(
                self.backbone, device=self.machine.device, batch_size=32, n_samples=n_samples, half=half
            )
        return self._quick[half]

    def use(self, backbone: Backbone) -> None:
        """From now on every candidate has this backbone."""
        self.backbone = backbone
        self._quick.clear()

    def labels(self, indices: np.ndarray) -> np.ndarray:
        return np.asarray(self.prepared.labels[indices])

    def probe(self, features: np.ndarray, indices: np.ndarray, like: ProbeHead | None = None) -> ProbeHead:
        """A head for these pictures' features; `like` fixes the kind and strength that were picked before."""
        settings = None if like is None else ((like.kind, like.strength),)
        folds = self.prepared.folds(indices, self.config.seed)
        theirs = self.backbone.pretrained_head
        known = None if theirs is None else KnownClasses(theirs.weight.numpy(), theirs.bias.numpy())
        return self.kind.solve(features, self.labels(indices), folds, settings, known)

    def solved_candidate(self, name: str, logits: np.ndarray, indices: np.ndarray, seconds: float) -> Candidate:
        """The standing of a candidate whose head was solved on features, on validation pictures."""
        selection, value, _ = self.kind.selection(self.metric, logits, self.labels(indices))
        count = self.kind.outputs * (self.backbone.feature_dim + 1)
        return Candidate(name, logits, self.labels(indices), value, selection, seconds, count)

    def strategy(self, name: str) -> Strategy:
        """The strategy of that name, with this run's options."""
        return strategies.get(name)(self.config, len(self.prepared.splits.rounds[0].train))

    def task(self, strategy: Strategy, head: ProbeHead | None, labels: np.ndarray | None = None) -> LinearTask:
        """A fresh task as this strategy trains it. head: the probe's, for a strategy that begins with it.

        labels: of the pictures that it is to learn from.
        """
        seed = self.config.seed + 1
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            task = self.plain_task(labels)
            if head is not None:
                task.set_head(torch.from_numpy(head.weight), torch.from_numpy(head.bias))
            found = strategy.prepare(task, seed)
        assert isinstance(found, LinearTask)
        return found

    def plain_task(self, labels: np.ndarray | None = None) -> LinearTask:
        """A copy of the pretrained backbone under a head of random weights; what artifacts hold is of this form."""
        return self.kind.task(copy.deepcopy(self.backbone), self.config, labels)

    def plan(self, strategy: Strategy, task: Task, batch: int) -> Plan:
        """Who trains in this candidate; raises PlanError or UsageError for rules that do not fit."""
        return strategy.plan(task, strategy.base_lr * math.sqrt(batch / 32))

    def epoch_seconds(self, name: str, train: np.ndarray, val: np.ndarray) -> float:
        """Measured seconds of one epoch in which everything trains: two steps (after one to warm up) and the scoring of
        a batch. name: of a strategy, for what it inserts."""
        strategy = self.strategy(name)
        task = self.task(strategy, None)
        stream = self.streams.train(train)
        plan = RuleStrategy([Rule(".*", 1.0)]).plan(task, strategy.base_lr * math.sqrt(stream.batch_size / 32))
        marks: list[float] = []
        settings = FitSettings(steps=3, warmup=0.0, seed=self.config.seed)
        fit(task, {"train": stream}, plan, settings, self.machine, on_step=lambda r: marks.append(r.elapsed_s))
        per_step = max(1e-4, (marks[-1] - marks[0]) / 2)
        started = time.monotonic()
        some = val[: min(len(val), 32)]
        predict(task, self.streams.plain(some), self.machine)
        scoring = (time.monotonic() - started) * len(val) / len(some)
        return per_step * len(stream) + 0.7 * scoring

    def load(self, folder: Path) -> LinearTask:
        """The trained task of a finished candidate."""
        task = self.plain_task()
        task.load_state_dict(load_file(folder / "model.safetensors"))
        return task.to(self.machine.device).eval()

    def logits(self, task: LinearTask, indices: np.ndarray, what: str) -> np.ndarray:
        """The task's outputs (N, K) on pictures with the exact preprocessing."""

        def tell(done: int, total: int) -> None:
            self.listener.progress(what, done, total)

        outputs = predict(task, self.streams.plain(indices), self.machine, on_batch=tell).outputs
        return np.asarray(outputs.numpy().astype(np.float64))


def _tensorboard(folder: Path) -> Any:
    try:
        from torch.utils.tensorboard import SummaryWriter
    except ImportError as error:
        raise MissingExtraError("--tensorboard", "tensorboard") from error
    return SummaryWriter(str(folder))
