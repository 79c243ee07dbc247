"""The training of one candidate, which leaves its result on disk.

A finished candidate is never computed twice: a resumed run reads `work/<round>/<name>/`.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from safetensors.torch import save_file
from torch import Tensor

from regraft.core.files import read_json, replacing, write_json
from regraft.core.types import Task
from regraft.engine import FitSettings, StepRecord, fit, predict
from regraft.measure.choice import Candidate
from regraft.recipes.fit.workbench import Workbench
from regraft.strategies import ProbeHead


@dataclass(frozen=True)
class Training:
    """One training: where it is kept, on which samples, for how long.

    val: None where it runs to its end and keeps that; then `known` is what the strategy found in the rounds that had
    validation. head: the probe's, to begin with. label: what the training is called, the candidate's name unless told.
    """

    folder: Path
    train: np.ndarray
    val: np.ndarray | None
    epochs: float
    limit_s: float | None
    head: ProbeHead | None = None
    round_index: int = 0
    label: str | None = None
    known: Sequence[Mapping[str, Any]] = ()


def train_candidate(bench: Workbench, name: str, told: Training) -> Candidate:
    """Train a candidate, or read what an earlier process left."""
    machine, fabric, folder = bench.machine, bench.machine.fabric, told.folder
    if fabric.broadcast((folder / "result.json").is_file()):  # the first process decides, as it alone writes
        return _read(folder, bench.prepared.labels.dtype)
    stream = bench.streams.train(told.train, fabric.global_rank, fabric.world_size)
    strategy = bench.strategy(name)
    task: Task = bench.task(strategy, told.head, bench.labels(told.train))
    plan = bench.plan(strategy, task, stream.batch_size * fabric.world_size)
    if machine.is_first:
        folder.mkdir(parents=True, exist_ok=True)
        (folder / "plan.txt").write_text(f"{plan}\n", encoding="utf-8")
    task.penalty = strategy.penalty(task)
    held = None if told.val is None else bench.streams.plain(told.val, cache=True)
    labels = bench.labels(np.zeros(0, dtype=np.int64) if told.val is None else told.val)

    def outputs(current: Task) -> np.ndarray:
        assert held is not None
        return np.asarray(predict(current, held, machine).outputs.numpy())

    def evaluate(current: Task) -> tuple[float, Mapping[str, float]]:
        selection, value, loss = bench.kind.selection(bench.metric, outputs(current), labels)
        return selection, {"val_metric": value, "val_loss": loss}

    def judge(current: Task) -> float:
        return float(fabric.broadcast(evaluate(current)[0]))  # every process must come to the same decision

    result = fit(
        task,
        {"train": stream},
        plan,
        strategy.settings(_usual_settings(bench, told, len(stream))),
        machine,
        evaluate=None if held is None else evaluate,
        on_step=_teller(bench, name, told),
        checkpoints=folder / "checkpoints",
    )
    task.penalty = None
    finished = strategy.finish(task, None if held is None else judge, told.known)
    logits, selection, value = np.zeros((0, bench.kind.outputs)), math.nan, math.nan
    if held is not None:
        logits = outputs(finished.task).astype(np.float64)
        selection, value, _ = bench.kind.selection(bench.metric, logits, labels)
    candidate = Candidate(
        name, logits, labels, value, selection, result.seconds, plan.trained_parameters, result.steps,
        result.best_step, result.stopped, dict(finished.kept), finished.note,
    )  # fmt: skip
    if machine.is_first:
        _write(folder, candidate, finished.task)
    fabric.barrier()
    return candidate


def _usual_settings(bench: Workbench, told: Training, batches: int) -> FitSettings:
    """What the loop is told for any strategy; batches: in an epoch."""
    config = bench.config
    per_epoch = max(1, batches // config.accumulate)
    return FitSettings(
        steps=max(1, round(told.epochs * per_epoch)),
        accumulate=config.accumulate,
        weight_decay=config.weight_decay,
        clip_norm=config.clip_norm,
        ema=config.ema,
        evaluate_every=per_epoch,
        patience=config.patience,
        limit_s=told.limit_s,
        checkpoint_every_s=config.checkpoint_every_s,
        optimizer=config.optimizer,
        schedule=config.schedule,
        seed=config.seed,
    )


def _teller(bench: Workbench, name: str, told: Training) -> Callable[[StepRecord], None]:
    running: list[float] = []
    label = told.label or name

    def tell(record: StepRecord) -> None:
        if not record.values:
            running.append(record.loss)
            bench.listener.progress(
                f"{label}: epoch {record.epoch:.1f}, loss {record.loss:.3f}",
                record.step,
                record.steps,
                rate=f"{record.rate:.0f} {bench.prepared.source.many}/s",
                remaining_s=record.remaining_s,
            )
            return
        line: dict[str, Any] = {
            "candidate": label,
            "round": told.round_index,
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
        bench.run.log_metrics(**line)
        if bench.writer is not None:
            for key in ("train_loss", "val_loss", "val_metric", "lr"):
                if key in line:
                    bench.writer.add_scalar(f"{label}/{key}", line[key], record.step)

    return tell


def _write(folder: Path, candidate: Candidate, task: Task) -> None:
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
