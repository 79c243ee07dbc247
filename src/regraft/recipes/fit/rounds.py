"""The middle of a fit: the time is shared out, every round's candidates trained and judged, the final model made."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from regraft.core.files import read_json, write_json
from regraft.data.split import Round
from regraft.measure.choice import Candidate
from regraft.recipes.fit.beginning import Beginning, whole_features
from regraft.recipes.fit.outcome import Final, RoundResult
from regraft.recipes.fit.training import Training, train_candidate
from regraft.recipes.fit.workbench import Workbench
from regraft.recipes.frame.budget import REFIT_COST, Schedule, schedule
from regraft.recipes.frame.clock import Clock
from regraft.strategies import strategies
from regraft.strategies.base import control_of, first_solved, trained
from regraft.tasks.linear import LinearTask


def share_time(bench: Workbench, clock: Clock, rounds: Sequence[Round]) -> Schedule | None:
    """The time of every training, made once and kept for a resume; None where no strategy trains."""
    config, names = bench.config, trained(bench.config.strategies)
    path = bench.run.path / "work" / "schedule.json"
    # The first process decides: another could see the file that the first one has just written.
    if bench.machine.fabric.broadcast(path.is_file()):
        return Schedule(**read_json(path))
    if not names:
        return None
    train, val = rounds[0].train, rounds[0].val
    fixed = config.epochs is not None
    # The costliest strategy is the last one: what it takes is enough for all.
    epoch_s = 1.0 if fixed else bench.epoch_seconds(names[-1], train, val)
    plan: Schedule = bench.machine.fabric.broadcast(
        schedule(
            n_train=len(train),
            epoch_s=epoch_s,
            spent_s=clock.spent(),
            budget_s=config.budget_s,
            epochs=config.epochs,
            trained=len(names) * len(rounds) + (len(rounds) > 1),
            refit=config.refit and len(rounds) == 1,
        )
    )
    if bench.machine.is_first:
        write_json(path, plan.__dict__)
    if plan.epochs == 0:
        bench.listener.say("The budget leaves no time to train: the probe is the answer, without a control.")
    elif not fixed:
        bench.listener.say(
            f"Budget {plan.budget_s:.0f} s: {', '.join(names)} get {plan.epochs:g} epochs each "
            f"(about {plan.epoch_s:.1f} s an epoch)" + (", then a refit." if plan.refit else ".")
        )
    return plan


@dataclass(frozen=True)
class Rounds:
    """The candidates of every round. plan: None where nothing trains."""

    bench: Workbench
    clock: Clock
    plan: Schedule | None
    begun: Beginning

    @property
    def epochs(self) -> float:
        """Epochs of a training; 0 where nothing trains."""
        return 0.0 if self.plan is None else self.plan.epochs

    def candidates(self, index: int, part: Round) -> RoundResult:
        """All candidates of one round, judged on its validation pictures."""
        bench, features = self.bench, self.begun.features
        head = self.begun.of_training or bench.probe(features[part.train], part.train)
        asked = bench.config.strategies
        solved = [name for name in asked if strategies.get(name).solved]
        if not solved and self.epochs == 0:
            solved = [first_solved()]
        seconds = float(self.begun.answer["seconds"])
        found: dict[str, Candidate] = {
            name: bench.solved_candidate(name, head.logits(features[part.val]), part.val, seconds) for name in solved
        }
        for name in trained(asked) if self.epochs > 0 else ():
            assert self.plan is not None
            limit_s = self.plan.limit_s
            told = Training(self._folder(index, name), part.train, part.val, self.epochs, limit_s, head, index)
            found[name] = train_candidate(bench, name, told)
            self.clock.keep()
            reached = f"{bench.metric.replace('_', ' ')} {bench.kind.shown(bench.metric, found[name].value)}"
            bench.listener.say(
                f"{name}: validation {reached} after {found[name].steps} steps, {found[name].seconds:.0f} s."
            )
        return RoundResult(part, head, found)

    def _folder(self, index: int, name: str) -> Path:
        return self.bench.run.path / "work" / f"round{index}" / name

    def score(self, results: Sequence[RoundResult]) -> None:
        """Test logits of every candidate of several rounds."""
        for index, result in enumerate(results):
            test = result.part.test
            for name in result.candidates:
                if strategies.get(name).solved:
                    result.test_logits[name] = result.head.logits(self.begun.features[test])
                else:
                    task = self.bench.load(self._folder(index, name))
                    result.test_logits[name] = self.bench.logits(task, test, f"Scoring {name}")

    def final_of_all(self, best: str, results: Sequence[RoundResult]) -> Final:
        """Cross-validation measured the procedure; the model that is handed over learns from every picture."""
        bench, known = self.bench, self.bench.prepared.known()
        if strategies.get(best).solved:
            head = self.begun.head
            return Final(bench.task(bench.strategy(best), head), True, head, known)
        folder = self._folder(0, f"{best}-all")
        kept = [result.candidates[best].kept for result in results]
        told = Training(
            folder, known, None, self.epochs, None, self.begun.head, label=f"{best}, all", known=kept
        )  # fmt: skip
        train_candidate(bench, best, told)
        return Final(bench.load(folder), refit=True)

    def final(self, best: str, result: RoundResult) -> Final:
        """Refit the chosen one and the control on train + validation where there is time, and score the test once."""
        bench, part = self.bench, result.part
        refit = bool(bench.config.refit and (self.plan is None or self.plan.refit or self.plan.epochs == 0))
        folders = {name: self._folder(0, name) for name in trained(result.candidates)}
        if refit and self.epochs > 0:
            again = {best, control_of(result.candidates)}
            for name in [name for name in folders if name in again]:
                folders[name] = self._refit(name, result.candidates[name], part)
        test_features = whole_features(bench, part.test, "test", half=False)
        both = np.sort(np.concatenate([part.train, part.val]))
        own, solved_on = (self.begun.head, both) if refit else (result.head, part.train)
        tasks: dict[str, LinearTask] = {}
        for name in result.candidates:
            if name in folders:
                tasks[name] = bench.load(folders[name])
                result.test_logits[name] = bench.logits(tasks[name], part.test, f"Scoring {name}")
            else:
                result.test_logits[name] = own.logits(test_features[part.test])
                tasks[name] = bench.task(bench.strategy(name), own)
        return Final(tasks[best], refit) if best in folders else Final(tasks[best], refit, own, solved_on)

    def _refit(self, name: str, found: Candidate, part: Round) -> Path:
        """Train on training and validation pictures together, about as long as the best state took; its folder."""
        assert self.plan is not None
        share = 1.0 if found.best_step >= found.steps / 2 else min(1.0, 1.25 * found.best_step / found.steps)
        folder = self._folder(0, f"{name}-refit")
        told = Training(
            folder,
            np.sort(np.concatenate([part.train, part.val])),
            None,
            epochs=max(0.3, self.plan.epochs * share),
            limit_s=None if self.plan.limit_s is None else self.plan.limit_s * REFIT_COST,
            head=self.begun.head,
            label=f"{name}, refit",
            known=[found.kept],
        )
        train_candidate(self.bench, name, told)
        self.clock.keep()
        return folder
