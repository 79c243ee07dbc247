"""The candidates of a fit: the probe, fine-tuning, and the control from scratch; each leaves its results on disk.

A finished candidate is never computed twice: a resumed run reads `work/<round>/<name>/`.
"""

from __future__ import annotations

import copy
import math
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from regraft.core.files import read_json, replacing, write_json
from regraft.core.listener import Listener
from regraft.core.rundir import RunDirectory
from regraft.core.types import Task
from regraft.engine import FitSettings, Machine, StepRecord, fit, predict
from regraft.images.backbones.base import ImageBackbone
from regraft.images.backbones.fast import FastFeatures, fast_features
from regraft.measure.choice import Candidate
from regraft.recipes.fit.options import FitConfig
from regraft.recipes.fit.pictures import Prepared, Streams
from regraft.strategies import KnownClasses, ProbeHead, strategies
from regraft.tasks.kind import Kind
from regraft.tasks.linear import LinearTask

#: Base rates for AdamW at a batch of 32; a batch of n takes sqrt(n / 32) of it.
FINETUNE_LR = 5e-5
#: Below this many training pictures fine-tuning keeps the pretraining's normalisation statistics.
KEEP_STATISTICS_BELOW = 2000
#: Before this share of its steps the control from scratch is not stopped for standing still.
PATIENCE_OF_SCRATCH = 0.5


class Workbench:
    """One run's backbone, features and streams, and the making of candidates on given pictures."""

    def __init__(
        self,
        config: FitConfig,
        kind: Kind,
        metric: str,
        prepared: Prepared,
        backbone: ImageBackbone,
        machine: Machine,
        run: RunDirectory,
        listener: Listener,
    ) -> None:
        self.config, self.kind, self.metric, self.prepared = config, kind, metric, prepared
        self.backbone, self.machine, self.run, self.listener = backbone, machine, run, listener
        self.streams = Streams(prepared, backbone.input_spec, config)
        self.writer: Any = None
        self._quick: dict[bool, FastFeatures] = {}
        if config.tensorboard and machine.is_first:
            self.writer = _tensorboard(run.path / "tensorboard")

    def quick(self, n_pictures: int, *, half: bool) -> FastFeatures:
        """The pretrained backbone's features by the fastest engine that agrees with it; each is built once."""
        if half not in self._quick:
            device = self.machine.device.type
            other = self._quick.get(not half)
            if other is not None and other.engine in ("openvino", "onnxruntime"):  # full precision it is in any case
                self._quick[half] = other
                return other
            self._quick[half] = fast_features(
                self.backbone, device=device, batch_size=32, n_pictures=n_pictures, half=half
            )
        return self._quick[half]

    def use(self, backbone: ImageBackbone) -> None:
        """From now on every candidate has this backbone."""
        self.backbone = backbone
        self._quick.clear()

    def labels(self, indices: np.ndarray) -> np.ndarray:
        return self.prepared.labels[indices]

    def probe(self, features: np.ndarray, indices: np.ndarray, like: ProbeHead | None = None) -> ProbeHead:
        """A head for these pictures' features; `like` fixes the kind and strength that were picked before."""
        settings = None if like is None else ((like.kind, like.strength),)
        folds = self.prepared.folds(indices, self.config.seed)
        theirs = self.backbone.pretrained_head
        known = None if theirs is None else KnownClasses(theirs.weight.numpy(), theirs.bias.numpy())
        return self.kind.solve(features, self.labels(indices), folds, settings, known)

    def probe_candidate(self, logits: np.ndarray, indices: np.ndarray, seconds: float) -> Candidate:
        """The probe's standing on validation pictures."""
        selection, value, _ = self.kind.selection(self.metric, logits, self.labels(indices))
        count = self.kind.outputs * (self.backbone.feature_dim + 1)
        return Candidate("probe", logits, self.labels(indices), value, selection, seconds, count)

    def task(self, name: str, head: ProbeHead | None, labels: np.ndarray | None = None) -> LinearTask:
        """A fresh task for a candidate: pretrained with the probe's head, or random for the control.

        labels: of the pictures that it is to learn from.
        """
        config = self.config
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(config.seed + 1)
            backbone = copy.deepcopy(self.backbone)
            if name == "scratch":
                backbone.reset_parameters()
            task = self.kind.task(backbone, config, labels)
        if head is not None and name != "scratch":
            task.set_head(torch.from_numpy(head.weight), torch.from_numpy(head.bias))
        return task

    def plan(self, name: str, task: LinearTask, batch: int) -> Any:
        """Who trains in this candidate; raises PlanError or UsageError for rules that do not fit."""
        config = self.config
        groups = list(task.layer_groups())
        base = config.scratch_lr if name == "scratch" else config.lr or FINETUNE_LR
        last = config.last if name == "finetune" else None
        strategy = strategies.get(name)(groups, last)
        few = len(self.prepared.splits.rounds[0].train) < KEEP_STATISTICS_BELOW
        keep = few if config.norm_statistics == "auto" else config.norm_statistics == "keep"
        strategy.keep_statistics = keep and name == "finetune"
        return strategy.plan(task, base * math.sqrt(batch / 32))

    def epoch_seconds(self, train: np.ndarray, val: np.ndarray) -> float:
        """Measured seconds of one epoch: two steps (after one to warm up) and the scoring of a batch."""
        task = self.task("scratch", None)
        stream = self.streams.train(train)
        plan = self.plan("scratch", task, stream.batch_size)
        marks: list[float] = []
        settings = FitSettings(steps=3, warmup=0.0, seed=self.config.seed)
        fit(task, {"train": stream}, plan, settings, self.machine, on_step=lambda r: marks.append(r.elapsed_s))
        per_step = max(1e-4, (marks[-1] - marks[0]) / 2)
        started = time.monotonic()
        some = val[: min(len(val), 32)]
        predict(task, self.streams.plain(some), self.machine)
        scoring = (time.monotonic() - started) * len(val) / len(some)
        return per_step * len(stream) + 0.7 * scoring

    def train(
        self,
        name: str,
        folder: Path,
        train: np.ndarray,
        val: np.ndarray | None,
        *,
        epochs: float,
        limit_s: float | None,
        head: ProbeHead | None = None,
        round_index: int = 0,
        label: str | None = None,
    ) -> Candidate:
        """Train a candidate, or read what an earlier process left. Without `val` it runs to its end and keeps that."""
        done = folder / "result.json"
        machine, config = self.machine, self.config
        fabric = machine.fabric
        if fabric.broadcast(done.is_file()):  # the first process decides, as it alone writes
            return _read(folder, self.prepared.labels.dtype)
        stream = self.streams.train(train, fabric.global_rank, fabric.world_size)
        task = self.task(name, head, self.labels(train))
        plan = self.plan(name, task, stream.batch_size * fabric.world_size)
        if machine.is_first:
            (folder / "plan.txt").parent.mkdir(parents=True, exist_ok=True)
            (folder / "plan.txt").write_text(f"{plan}\n", encoding="utf-8")
        per_epoch = max(1, len(stream) // config.accumulate)
        steps = max(1, round(epochs * per_epoch))
        settings = FitSettings(
            steps=steps,
            accumulate=config.accumulate,
            weight_decay=config.weight_decay,
            clip_norm=config.clip_norm,
            ema=config.ema,
            evaluate_every=per_epoch,
            patience=config.patience,
            # The control is judged when it has been trained: random weights that a handful of validation pictures
            # happen to like are none, and one that finds its way late is not stopped while its rate is still high.
            patience_from=PATIENCE_OF_SCRATCH if name == "scratch" else 0.0,
            keep_start=name != "scratch",
            limit_s=limit_s,
            checkpoint_every_s=config.checkpoint_every_s,
            optimizer=config.optimizer,
            schedule=config.schedule,
            seed=config.seed,
        )
        held = None if val is None else self.streams.plain(val, cache=True)

        def evaluate(current: Task) -> tuple[float, Mapping[str, float]]:
            assert held is not None and val is not None
            logits = predict(current, held, machine).outputs.numpy()
            selection, value, loss = self.kind.selection(self.metric, logits, self.labels(val))
            return selection, {"val_metric": value, "val_loss": loss}

        result = fit(
            task,
            {"train": stream},
            plan,
            settings,
            machine,
            evaluate=evaluate if held is not None else None,
            on_step=self._teller(name, label or name, round_index, len(train)),
            checkpoints=folder / "checkpoints",
        )
        logits, labels = np.zeros((0, self.kind.outputs)), self.labels(np.zeros(0, dtype=np.int64))
        selection = value = math.nan
        if held is not None and val is not None:
            logits = predict(task, held, machine).outputs.numpy().astype(np.float64)
            labels = self.labels(val)
            selection, value, _ = self.kind.selection(self.metric, logits, labels)
        candidate = Candidate(
            name,
            logits,
            labels,
            value,
            selection,
            result.seconds,
            plan.trained_parameters,
            result.steps,
            result.best_step,
            result.stopped,
        )
        if machine.is_first:
            _write(folder, candidate, task)
        fabric.barrier()
        return candidate

    def load(self, name: str, folder: Path) -> LinearTask:
        """The trained task of a finished candidate."""
        task = self.task(name, None)
        task.load_state_dict(load_file(folder / "model.safetensors"))
        return task.to(self.machine.device).eval()

    def logits(self, task: LinearTask, indices: np.ndarray, what: str) -> np.ndarray:
        """The task's outputs (N, K) on pictures with the exact preprocessing."""

        def tell(done: int, total: int) -> None:
            self.listener.progress(what, done, total)

        return (
            predict(task, self.streams.plain(indices), self.machine, on_batch=tell).outputs.numpy().astype(np.float64)
        )

    def _teller(self, name: str, label: str, round_index: int, n_train: int) -> Callable[[StepRecord], None]:
        running: list[float] = []

        def tell(record: StepRecord) -> None:
            if not record.values:
                running.append(record.loss)
                self.listener.progress(
                    f"{label}: epoch {record.epoch:.1f}, loss {record.loss:.3f}",
                    record.step,
                    record.steps,
                    rate=f"{record.rate:.0f} pictures/s",
                    remaining_s=record.remaining_s,
                )
                return
            line: dict[str, Any] = {
                "candidate": label,
                "round": round_index,
                "step": record.step,
                "epoch": round(record.epoch, 3),
                "progress": round(record.step / record.steps, 4),
                "lr": record.lr,
                "elapsed_s": round(record.elapsed_s, 2),
                **{k: round(float(v), 6) for k, v in record.values.items()},
            }
            if running:
                line["train_loss"] = round(float(np.mean(running)), 6)
            running.clear()
            self.run.log_metrics(**line)
            if self.writer is not None:
                for key in ("train_loss", "val_loss", "val_metric", "lr"):
                    if key in line:
                        self.writer.add_scalar(f"{label}/{key}", line[key], record.step)

        return tell


def _write(folder: Path, candidate: Candidate, task: LinearTask) -> None:
    """The weights first, the result last: its presence says that all is there."""
    state: dict[str, Tensor] = {k: v.detach().cpu().contiguous().clone() for k, v in task.state_dict().items()}
    with replacing(folder / "model.safetensors") as temporary:
        save_file(state, temporary)
    plain = {k: v for k, v in candidate.__dict__.items() if k not in {"logits", "labels"}}
    plain = {k: None if isinstance(v, float) and math.isnan(v) else v for k, v in plain.items()}
    plain["logits"] = candidate.logits.tolist()
    plain["labels"] = candidate.labels.tolist()
    write_json(folder / "result.json", plain)
    for path in (folder / "checkpoints").glob("*"):
        path.unlink()


def _read(folder: Path, labels: np.dtype[Any]) -> Candidate:
    plain = read_json(folder / "result.json")
    plain["logits"] = np.asarray(plain["logits"], dtype=np.float64)
    plain["labels"] = np.asarray(plain["labels"], dtype=labels)
    for key in ("value", "selection"):
        plain[key] = math.nan if plain[key] is None else plain[key]
    return Candidate(**plain)


def _tensorboard(folder: Path) -> Any:
    try:
        from torch.utils.tensorboard import SummaryWriter
    except ImportError as error:
        from regraft.core.errors import MissingExtraError

        raise MissingExtraError("--tensorboard", "tensorboard") from error
    return SummaryWriter(str(folder))
