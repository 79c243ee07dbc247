"""The training of a translation: networks, streams, how many steps fit into the time, and figures in between."""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
import torch

from regraft.core.files import read_json, write_json
from regraft.core.types import Rule, Task
from regraft.engine import FitSettings, StepRecord, fit
from regraft.engine.telling import step_teller
from regraft.recipes.frame.clock import Clock
from regraft.recipes.frame.job import Frame
from regraft.recipes.translate.figures import Yardstick
from regraft.recipes.translate.options import DEFAULT_BUDGET_S, TranslateConfig
from regraft.recipes.translate.pictures import PictureSet, squares, training_stream
from regraft.report.gathering import metrics_lines
from regraft.strategies import RuleStrategy
from regraft.style.translation.cyclegan import CycleGAN, Evaluation, signs
from regraft.style.translation.cyclegan.task import DISCRIMINATORS, GENERATORS, A, B

#: Adam's decays for adversarial training (arXiv:1511.06434, section 4), as CycleGAN has them.
BETAS: Final = (0.5, 0.999)
#: Evaluations in a training: at most so many, and at most this share of its time.
EVALUATIONS: Final = 20
EVALUATION_SHARE: Final = 0.1


@dataclass(frozen=True)
class Schedule:
    """steps in all; evaluate_every: steps between figures; limit_s: seconds after which the training ends anyway."""

    steps: int
    evaluate_every: int
    limit_s: float | None


class Training:
    """One run's networks, streams and figures. history: what was measured so far, oldest first."""

    def __init__(self, config: TranslateConfig, a: PictureSet, b: PictureSet, frame: Frame) -> None:
        self.config, self.a, self.b = config, a, b
        self.machine, self.run, self.listener = frame.machine, frame.run, frame.listener
        self.yardstick = Yardstick(squares(a.held, config), squares(b.held, config), frame.machine)
        self.task = self._task()
        self.plan = RuleStrategy((Rule(f"group:{GENERATORS}", 1.0), Rule(f"group:{DISCRIMINATORS}", 1.0))).plan(
            self.task, config.lr
        )
        self.history = [_evaluation(line) for line in metrics_lines(frame.run.path) if "evaluation" in line]
        self.steps = 0
        self.epochs = self.seconds = 0.0
        self.stopped = ""

    def train(self, clock: Clock) -> None:
        """Take all steps, from a checkpoint where there is one; the task then holds the averaged weights."""
        schedule = self._schedule(clock)
        settings = FitSettings(
            steps=schedule.steps, weight_decay=0.0, warmup=0.0, clip_norm=None, ema=self.config.ema,
            evaluate_every=schedule.evaluate_every, limit_s=schedule.limit_s, betas=BETAS,
            checkpoint_every_s=self.config.checkpoint_every_s, seed=self.config.seed,
        )  # fmt: skip
        shown = step_teller(self.run, self.listener, "translation", schedule.steps)
        at = 0
        accuracies: list[float] = []

        def tell(record: StepRecord) -> None:
            nonlocal at
            at = record.step
            self.epochs = record.epoch
            if not record.values:
                accuracies.append(record.logs["accuracy"])
            shown(record)

        def judge(task: Task) -> tuple[float, Mapping[str, float]]:
            assert isinstance(task, CycleGAN)
            found, _ = self.yardstick.evaluate(task, at, accuracy=float(np.mean(accuracies)) if accuracies else None)
            accuracies.clear()
            self._remember(found)
            clock.keep()
            # Later is better: no figure of a held-out picture chooses what is handed over.
            return float(at), found.cycle_ssim

        result = fit(
            self.task, self._streams(), self.plan, settings, self.machine, evaluate=judge, on_step=tell,
            checkpoints=self.run.path / "work" / "checkpoints",
        )  # fmt: skip
        self.steps, self.stopped, self.seconds = result.steps, result.stopped, result.seconds
        self.epochs = self.epochs or result.steps / len(next(iter(self._streams().values())))
        clock.keep()

    def _task(self) -> CycleGAN:
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(self.config.seed + 1)
            return self.config.task()

    def _streams(self) -> dict[str, Any]:
        """The longer set first: it sets the length of an epoch, and the other one starts again meanwhile."""
        streams = {
            A: training_stream(self.a.train, self.config, seed=self.config.seed),
            B: training_stream(self.b.train, self.config, seed=self.config.seed + 1),
        }
        return dict(sorted(streams.items(), key=lambda item: -len(item[1])))

    def _remember(self, found: Evaluation) -> None:
        """Keep an evaluation, in place of those that a resumed training repeats, and say what it gives reason for."""
        self.history = [*(earlier for earlier in self.history if earlier.step < found.step), found]
        self.run.log_metrics(evaluation=True, **found.to_json())
        for sign in signs(self.history):
            self.listener.say(f"Step {sign.step}: {sign.kind}. {sign.sentence}")

    def _schedule(self, clock: Clock) -> Schedule:
        """How many steps, decided once and written down, so that a resumed run keeps it."""
        kept = self.run.path / "work" / "schedule.json"
        if kept.is_file():
            return Schedule(**read_json(kept))
        step_s, evaluation_s = self._costs()
        per_epoch = len(next(iter(self._streams().values())))
        if self.config.epochs is not None:
            steps, limit_s = max(1, round(self.config.epochs * per_epoch)), None
        else:
            budget_s = self.config.budget_s or DEFAULT_BUDGET_S
            # The final figures take all held-out pictures, and the artifact and the page a few seconds.
            left_s = max(0.0, budget_s - clock.spent() - 2 * evaluation_s - 5)
            steps, limit_s = max(1, int(left_s * (1 - EVALUATION_SHARE) / step_s)), max(1.0, left_s)
        fitting = int(EVALUATION_SHARE * steps * step_s / evaluation_s)
        every = max(1, -(-steps // max(1, min(EVALUATIONS, fitting))))
        self.listener.say(
            f"{steps} steps, {steps / per_epoch:.1f} epochs, about {step_s:.2f} s each"
            + ("" if self.config.epochs or self.config.budget_s else "; --epochs or --budget sets another length")
            + "."
        )
        found = Schedule(steps, every, limit_s)
        write_json(kept, found.__dict__)
        return found

    def _costs(self) -> tuple[float, float]:
        """Measured seconds of a step and of an evaluation."""
        task, marks = self._task(), list[float]()
        settings = FitSettings(steps=3, weight_decay=0.0, warmup=0.0, clip_norm=None, seed=self.config.seed)
        fit(task, self._streams(), self.plan, settings, self.machine, on_step=lambda r: marks.append(r.elapsed_s))
        started = time.monotonic()
        self.yardstick.evaluate(task, 0)
        return max(1e-4, (marks[-1] - marks[0]) / 2), max(1e-4, time.monotonic() - started)


def _evaluation(line: Mapping[str, Any]) -> Evaluation:
    return Evaluation(**{name: line[name] for name in Evaluation.__dataclass_fields__})
