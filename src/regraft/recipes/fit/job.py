"""`regraft fit`: from a folder of pictures to the best model that transfer gives, with the evidence.

Order: audit, split, cached features, the probe (the first answer), then fine-tuning and the control from scratch for
equal time. Every choice is made on validation pictures; the test pictures are scored once, after the choice.
"""

from __future__ import annotations

import logging
import shutil
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from regraft.core.environment import command_line, describe
from regraft.core.errors import RegraftError, UsageError
from regraft.core.files import read_json, write_json
from regraft.core.listener import Listener
from regraft.core.rundir import RunDirectory
from regraft.data.split import Round
from regraft.engine import Machine, launch
from regraft.images.backbones import create
from regraft.images.backbones.catalogue import parse
from regraft.images.backbones.layers import LayeredBackbone, with_layers
from regraft.measure.choice import Candidate, choose, lower_by_an_error
from regraft.recipes.fit.features import extract_features
from regraft.recipes.fit.options import FitConfig
from regraft.recipes.fit.outcome import Final, RoundResult, conclude, write_artifact_of
from regraft.recipes.fit.pictures import Prepared, prepare
from regraft.recipes.fit.remarks import tell_audit, unseen_edges
from regraft.recipes.fit.workbench import Workbench
from regraft.recipes.frame.budget import REFIT_COST, Clock, Schedule, schedule
from regraft.strategies import ProbeHead
from regraft.tasks.kinds import kind_of

log = logging.getLogger(__name__)

#: With more pictures than this readout=auto takes the last layer's: a head over all layers takes minutes then.
MOST_FOR_LAYERS = 3000


def run_fit(
    config: FitConfig, *, runs: Path = Path("runs"), fresh: bool = False, listener: Listener | None = None
) -> Path:
    """Do the whole job; returns the run directory. An unfinished run of the same configuration is taken up again."""
    listener = listener or Listener()
    # A name that does not exist is told before anything else is done.
    if parse(config.backbone)[0] == "small" and config.weights is None:
        raise UsageError(
            f"{config.backbone} has no pretrained weights, so there is nothing to transfer: give --weights or another "
            "backbone. `regraft adapt` can train it from scratch."
        )
    machine = launch(
        device=config.device,
        devices=config.devices,
        precision=config.precision,
        seed=config.seed,
        deterministic=config.deterministic,
    )
    listener = listener if machine.is_first else Listener()
    # Pictures that cannot be used leave no run behind.
    prepared = prepare(config, lambda done, total: listener.progress("Looking at the pictures", done, total))
    opened: tuple[Path, bool] = machine.fabric.broadcast(
        _open(config, runs, fresh) if machine.is_first else (Path(), False)
    )
    path, resumed = opened
    run = RunDirectory(path)
    if not machine.is_first:
        _work(config, prepared, run, machine, listener)
        return path
    with run.locked():
        if resumed:
            listener.say(f"Taking up {run.path} where it stopped.")
        run.point_last()
        write_json(run.path / "env.json", describe(config.seed, str(machine.device)))
        try:
            _work(config, prepared, run, machine, listener)
        except RegraftError as error:
            run.failed(str(error))
            raise
    return path


def _open(config: FitConfig, runs: Path, fresh: bool) -> tuple[Path, bool]:
    data = config.roots[0].resolve().name if config.roots else (config.table or Path("table")).stem
    run, resumed = RunDirectory.open(runs, "fit", data, config.backbone.partition(":")[0], config.plain(), fresh=fresh)
    return run.path, resumed


def who_trains(config: FitConfig) -> str:
    """The who-trains table of every candidate, without training: what `--print-plan` shows."""
    prepared = prepare(config)
    machine = launch(device=config.device, precision=config.precision, seed=config.seed)
    backbone = create(config.backbone, config.weights)
    kind = kind_of(prepared.source, prepared.labels[prepared.known()])
    metric = kind.metric(config.metric, prepared.labels)
    bench = Workbench(config, kind, metric, prepared, backbone, machine, RunDirectory(Path(".")), Listener())
    texts = []
    for name in config.strategies:
        task = bench.task(name, None)
        batch = bench.streams.train(prepared.splits.rounds[0].train).batch_size
        texts.append(f"{name}\n{bench.plan(name, task, batch)}")
    return "\n\n".join(texts)


def _work(config: FitConfig, prepared: Prepared, run: RunDirectory, machine: Machine, listener: Listener) -> None:
    clock = Clock(run)
    kind = kind_of(prepared.source, prepared.labels[prepared.known()])
    tell_audit(prepared, kind, listener)
    if machine.is_first:
        write_json(run.path / "split.json", prepared.splits.to_json(prepared.source, prepared.facts))
    backbone = create(config.backbone, config.weights).to(machine.device)
    if edges := unseen_edges(prepared.facts, backbone):
        listener.say(f"  {edges}")
    metric = kind.metric(config.metric, prepared.labels)
    bench = Workbench(config, kind, metric, prepared, backbone, machine, run, listener)
    fitting = _Fitting(bench, clock)
    fitting.everything()


@dataclass
class _Fitting:
    """The state of one fit on its way through the candidates."""

    bench: Workbench
    clock: Clock
    plan: Schedule | None = None
    first: dict[str, Any] = field(default_factory=dict)
    #: The probe of the one round's training part, where choosing the features has solved it already.
    of_training: ProbeHead | None = None

    def everything(self) -> None:
        bench = self.bench
        rounds = bench.prepared.splits.rounds
        several = len(rounds) > 1
        known = np.unique(np.concatenate([np.concatenate([r.train, r.val]) for r in rounds]))
        features, head = self._readout(rounds, known)
        self._schedule(rounds)
        results = [self._round(r, part, features) for r, part in enumerate(rounds)]
        best = choose([r.candidates for r in results], bench.metric, bench.kind.losses)
        listener = bench.listener
        listener.say(f"Chosen on validation: {best}.")
        # From here on nothing is chosen any more: the test pictures may be looked at.
        if several:
            self._score_rounds(rounds, results, features)
            final = self._final_of_all(best, known, head)
        else:
            final = self._final(best, rounds[0], results[0], features, head)
        conclude(
            bench,
            results=results,
            final=final,
            chosen=best,
            plan=self.plan,
            first=self.first,
            spent=self.clock.spent,
            command=command_line(),
        )
        if bench.machine.is_first:
            shutil.rmtree(bench.run.path / "work", ignore_errors=True)
            bench.run.done()

    # ---- the parts ----------------------------------------------------------------------------------------------

    def _readout(self, rounds: tuple[Round, ...], known: np.ndarray) -> tuple[np.ndarray, ProbeHead]:
        """Features of the known pictures and the probe on them: the last layer's, or with readout=auto all, where
        these serve better.

        Both are there after one pass over the pictures; the training part alone decides, so validation still judges
        what was chosen. With folds every picture is a test picture in turn, and the last layer's are taken. It has to
        be asked for: where training pictures overlap, as the demo's do, early layers know them again, and the loss out
        of fold misleads.
        """
        bench = self.bench
        narrow = bench.backbone
        if isinstance(narrow, LayeredBackbone):
            raw = self._features(known, "choose")
            features = np.zeros_like(raw)
            features[known] = narrow.scale_by(raw[known])
            bench.use(narrow)
            return features, self._first_answer(features, known)
        few = len(rounds) == 1 and len(known) <= MOST_FOR_LAYERS
        asked = bench.backbone.recipe.get("options", {}).get("readout") == "auto"
        wide = with_layers(narrow) if few and asked else None
        if wide is None:
            features = self._features(known, "choose")
            return features, self._first_answer(features, known)
        bench.use(wide)
        raw = self._features(known, "choose")
        bench.use(narrow)
        pooled = np.ascontiguousarray(raw[:, : narrow.feature_dim])
        head = self._first_answer(pooled, known)
        train = rounds[0].train
        layered = np.zeros_like(raw)
        layered[known] = wide.scale_by(raw[known])
        labels = bench.labels(train)
        narrow_head = bench.probe(pooled[train], train)
        bench.use(wide)
        wide_head = bench.probe(layered[train], train)
        of_last, of_all = (bench.kind.losses(h.out_of_fold, labels) for h in (narrow_head, wide_head))
        self.of_training = wide_head
        if lower_by_an_error(of_all, of_last):
            bench.listener.say(
                f"All layers serve better than the last one (loss out of fold {of_last.mean():.3f} → "
                f"{of_all.mean():.3f}): they are the features from here."
            )
            return layered, bench.probe(layered[known], known)
        self.of_training = narrow_head
        bench.use(narrow)
        return pooled, head

    def _features(self, indices: np.ndarray, name: str, *, half: bool = True) -> np.ndarray:
        """Pooled features of all usable pictures in their numbering; rows outside `indices` stay zero."""
        bench = self.bench
        kept = bench.run.path / "work" / f"features-{name}.safetensors"
        rows = extract_features(bench, indices, kept, half=half)
        whole = np.zeros((len(bench.prepared.labels), rows.shape[1]), dtype=np.float32)
        whole[indices] = rows
        return whole

    def _first_answer(self, features: np.ndarray, known: np.ndarray) -> ProbeHead:
        """Solve the probe on everything but the test pictures; its out-of-fold figure is the first answer."""
        bench = self.bench
        head = bench.probe(features[known], known)
        kept = bench.run.path / "work" / "first.json"
        labels = bench.labels(known)
        if kept.is_file():
            self.first = read_json(kept)
            return head
        estimate = bench.kind.bootstrap(
            bench.metric,
            bench.kind.uncalibrated.answers(head.out_of_fold),
            labels,
            groups=bench.prepared.groups(known),
            resamples=500,
            seed=bench.config.seed,
        )
        self.first = {
            "seconds": round(self.clock.spent(), 2),
            "value": estimate.value,
            "interval": [estimate.low, estimate.high],
            "how": f"probe ({head.kind}), cross-validated on {len(known)} pictures",
        }
        if head.source_classes:
            of = ", ".join(
                f"{name} as {source}"
                for name, source in zip(bench.prepared.source.classes, head.source_classes, strict=True)
            )
            bench.listener.say(
                f"The weights' own classifier knows classes like these, by their numbers there: {of}. If they are the "
                "very same, the pretraining may have seen such pictures with their labels."
            )
        value, low, high = (
            bench.kind.shown(bench.metric, number) for number in (estimate.value, estimate.low, estimate.high)
        )
        bench.listener.say(
            f"First answer after {self.first['seconds']:.1f} s: {bench.metric.replace('_', ' ')} "
            f"{value} [{low}, {high}], {self.first['how']}."
        )
        if bench.machine.is_first:
            self._artifact_of_probe(head)
            write_json(kept, self.first)
        self.clock.keep()
        return head

    def _artifact_of_probe(self, head: ProbeHead) -> None:
        """The probe can be used at once; a better candidate replaces it at the end."""
        unknown, metrics = self.bench.kind.uncalibrated, {"candidate": "probe", "preliminary": True}
        write_artifact_of(self.bench, self.bench.task("finetune", head), unknown, metrics)

    def _schedule(self, rounds: tuple[Round, ...]) -> None:
        bench, config = self.bench, self.bench.config
        trained = [name for name in config.strategies if name != "probe"]
        path = bench.run.path / "work" / "schedule.json"
        # The first process decides: another could see the file that the first one has just written.
        if bench.machine.fabric.broadcast(path.is_file()):
            self.plan = Schedule(**read_json(path))
        elif trained:
            train, val = rounds[0].train, rounds[0].val
            fixed = config.epochs is not None
            epoch_s = 1.0 if fixed else bench.epoch_seconds(train, val)
            refit = config.refit and len(rounds) == 1
            self.plan = schedule(
                n_train=len(train),
                epoch_s=epoch_s,
                spent_s=self.clock.spent(),
                budget_s=config.budget_s,
                epochs=config.epochs,
                trained=len(trained) * len(rounds) + (len(rounds) > 1),
                refit=refit,
            )
            self.plan = bench.machine.fabric.broadcast(self.plan)
            assert self.plan is not None
            if bench.machine.is_first:
                write_json(path, self.plan.__dict__)
            if self.plan.epochs == 0:
                bench.listener.say("The budget leaves no time to train: the probe is the answer, without a control.")
            elif not fixed:
                bench.listener.say(
                    f"Budget {self.plan.budget_s:.0f} s: {', '.join(trained)} get {self.plan.epochs:g} epochs each "
                    f"(about {self.plan.epoch_s:.1f} s an epoch)" + (", then a refit." if self.plan.refit else ".")
                )

    def _round(self, index: int, part: Round, features: np.ndarray) -> RoundResult:
        """All candidates of one round, judged on its validation pictures."""
        bench = self.bench
        head = self.of_training or bench.probe(features[part.train], part.train)
        candidates: dict[str, Candidate] = {}
        if "probe" in bench.config.strategies or self.plan is None or self.plan.epochs == 0:
            logits = head.logits(features[part.val])
            candidates["probe"] = bench.probe_candidate(logits, part.val, self.first["seconds"])
        for name in ("finetune", "scratch"):
            if name in bench.config.strategies and self.plan is not None and self.plan.epochs > 0:
                candidates[name] = bench.train(
                    name,
                    self._folder(index, name),
                    part.train,
                    part.val,
                    epochs=self.plan.epochs,
                    limit_s=self.plan.limit_s,
                    head=head,
                    round_index=index,
                )
                self.clock.keep()
                found = candidates[name]
                reached = f"{bench.metric.replace('_', ' ')} {bench.kind.shown(bench.metric, found.value)}"
                bench.listener.say(f"{name}: validation {reached} after {found.steps} steps, {found.seconds:.0f} s.")
        return RoundResult(part, head, candidates)

    def _folder(self, index: int, name: str) -> Path:
        return self.bench.run.path / "work" / f"round{index}" / name

    def _score_rounds(self, rounds: tuple[Round, ...], results: list[RoundResult], features: np.ndarray) -> None:
        for index, (part, result) in enumerate(zip(rounds, results, strict=True)):
            for name in result.candidates:
                if name == "probe":
                    result.test_logits[name] = result.head.logits(features[part.test])
                else:
                    task = self.bench.load(name, self._folder(index, name))
                    result.test_logits[name] = self.bench.logits(task, part.test, f"Scoring {name}")

    def _final_of_all(self, best: str, known: np.ndarray, head: ProbeHead) -> Final:
        """Cross-validation measured the procedure; the model that is handed over learns from every picture."""
        if best == "probe":
            return Final(self.bench.task("finetune", head), True, head, known)
        assert self.plan is not None
        folder = self._folder(0, f"{best}-all")
        self.bench.train(
            best, folder, known, None, epochs=self.plan.epochs, limit_s=None, head=head, label=f"{best}, all"
        )
        return Final(self.bench.load(best, folder), refit=True)

    def _final(self, best: str, part: Round, result: RoundResult, features: np.ndarray, head: ProbeHead) -> Final:
        """Refit the chosen one and the control on train + validation where there is time, and score the test once."""
        bench = self.bench
        both = np.sort(np.concatenate([part.train, part.val]))
        refit = bool(bench.config.refit and (self.plan is None or self.plan.refit or self.plan.epochs == 0))
        folders = {name: self._folder(0, name) for name in result.candidates if name != "probe"}
        if refit and self.plan is not None and self.plan.epochs > 0:
            for name in {best, "scratch"} & set(folders):
                found = result.candidates[name]
                share = 1.0 if found.best_step >= found.steps / 2 else min(1.0, 1.25 * found.best_step / found.steps)
                folders[name] = self._folder(0, f"{name}-refit")
                bench.train(
                    name,
                    folders[name],
                    both,
                    None,
                    epochs=max(0.3, self.plan.epochs * share),
                    limit_s=None if self.plan.limit_s is None else self.plan.limit_s * REFIT_COST,
                    head=head,
                    label=f"{name}, refit",
                )
                self.clock.keep()
        test_features = self._features(part.test, "test", half=False)
        own, solved_on = (head, both) if refit else (result.head, part.train)
        tasks: dict[str, Any] = {}
        for name in result.candidates:
            if name == "probe":
                result.test_logits[name] = own.logits(test_features[part.test])
                tasks[name] = bench.task("finetune", own)
            else:
                tasks[name] = bench.load(name, folders[name])
                result.test_logits[name] = bench.logits(tasks[name], part.test, f"Scoring {name}")
        return Final(tasks[best], refit, own, solved_on) if best == "probe" else Final(tasks[best], refit)
