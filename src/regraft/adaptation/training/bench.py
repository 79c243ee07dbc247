"""The candidates of an adaptation: source-only first, then every method, each under the same number of steps.

What a candidate leaves is its model, and the features and logits that it gives for the held-out source pictures and for
all target pictures: all that a validator may look at. A finished candidate is never computed twice; a resumed run reads
`work/<name>/`.
"""

from __future__ import annotations

import copy
import math
import re
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from safetensors.torch import load_file
from torch import Tensor

from regraft.adaptation.domains import Labelled, Unlabelled
from regraft.adaptation.maps.adapter import FeatureAdapter
from regraft.adaptation.maps.statistics import has_statistics, recalibrate
from regraft.adaptation.training.answers import Adapted, read_answers, write_answers
from regraft.adaptation.training.method import Method, parse_method
from regraft.adaptation.training.rules import rules_for
from regraft.adaptation.training.sources import SourceDomain, described
from regraft.adaptation.training.task import Adaptation
from regraft.core.listener import Listener
from regraft.core.option_groups import AdaptationOptions
from regraft.core.rundir import RunDirectory
from regraft.core.types import Backbone, Stream, Task
from regraft.data.facts import units
from regraft.data.split import fold_of
from regraft.engine import FitSettings, Machine, StepRecord, fit, predict
from regraft.engine.telling import step_teller
from regraft.images.backbones.base import picture_backbone
from regraft.images.features import features_of
from regraft.images.stream import PictureStore, PictureStream
from regraft.images.training import training_transform
from regraft.images.transform import EvalTransform
from regraft.strategies import Plan, ProbeHead, RuleStrategy
from regraft.tasks.classification.task import Classification, class_weights
from regraft.tasks.kind import Kind
from regraft.tasks.linear import LinearTask

SOURCE_ONLY = "source-only"
#: The source-only head on the pretrained features, before any training: the first answer.
PROBE = "source-only probe"
#: Base rates for AdamW at a batch of 32, for a pretrained network and for a random one.
PRETRAINED_LR, RANDOM_LR = 1e-4, 1e-3
#: How many pictures of 224 × 224 px batch statistics are taken from: of smaller ones as many as take about the same
#: time, up to MOST_STATISTICS.
STATISTICS_FROM, MOST_STATISTICS = 256, 4096


@dataclass(frozen=True)
class Plain:
    """A task without the regularisers of `regraft fit`."""

    metric: str = "auto"
    label_smoothing: float = 0.0
    mixup: float = 0.0
    cutmix: float = 0.0
    regression_loss: Literal["huber", "squared"] = "huber"


@dataclass(frozen=True)
class Domains:
    """What was read: both domains, the kind of labels, the model to begin with. classes: empty where there are none."""

    source: Labelled | None
    target: Unlabelled
    kind: Kind
    model: LinearTask
    classes: tuple[str, ...]


class AdaptBench:
    """One run's domains, backbone and streams, and the making of candidates."""

    def __init__(
        self,
        config: AdaptationOptions,
        domains: Domains,
        machine: Machine,
        run: RunDirectory,
        listener: Listener,
    ) -> None:
        source = domains.source
        self.config, self.source, self.target = config, source, domains.target
        self.model, self.kind = domains.model, domains.kind
        #: The names of the classes; empty where the labels are none.
        self.classes, model = domains.classes, domains.model
        self.machine, self.run, self.listener = machine, run, listener
        self.spec = picture_backbone(model.backbone).input_spec
        self.pretrained = model.backbone.pretrained or source is None
        self._stores: dict[str, PictureStore] = {}
        #: The who-trains tables of trained candidates.
        self.plans: dict[str, str] = {}
        #: The sources, for the report; empty where there is one.
        self.sources: tuple[SourceDomain, ...] = () if source is None else described(source)

    # ---- streams ------------------------------------------------------------------------------------------------

    def plain(self, paths: tuple[Path, ...]) -> PictureStream:
        """Each picture once, without a label, with the weights' own preprocessing."""
        return PictureStream(list(paths), None, EvalTransform(self.spec), batch_size=32, threads=self.config.threads)

    def _training(
        self, which: str, paths: list[Path], labels: np.ndarray | None, domains: np.ndarray | None = None
    ) -> PictureStream:
        config = self.config
        if which not in self._stores:
            side = round(max(self.spec.shape[1:]) * 1.4)
            self._stores[which] = PictureStore(paths, short_side_px=side)
        transform = training_transform(
            self.spec, config.augment, scale=config.crop_scale, flip=config.flip, colour=config.colour
        )
        fabric = self.machine.fabric
        return PictureStream(
            paths,
            labels,
            transform,
            batch_size=max(2, min(config.batch_size, len(paths)) // fabric.world_size),
            shuffle=True,
            seed=config.seed + (1 if which == "target" else 0),
            drop_last=True,
            threads=config.threads,
            rank=fabric.global_rank,
            world_size=fabric.world_size,
            store=self._stores[which],
            domains=domains,
        )

    def streams(self, *, source: bool, target: bool) -> dict[str, PictureStream]:
        """The training streams; the first one sets the length of an epoch."""
        found: dict[str, PictureStream] = {}
        if source:
            assert self.source is not None
            paths = [self.source.source.samples[i].path for i in self.source.train]
            labels = self.source.labels[self.source.train]
            found["source"] = self._training("source", paths, labels, self.source_domains())
        if target:
            found["target"] = self._training("target", list(self.target.source.paths), None)
        return found

    def source_domains(self) -> np.ndarray | None:
        """From which source each of its training pictures is; None where there is one source."""
        if self.source is None or not self.source.several:
            return None
        domains: np.ndarray = self.source.domains[self.source.train]
        return domains

    # ---- features and answers -----------------------------------------------------------------------------------

    def features(self, backbone: Backbone, paths: tuple[Path, ...], what: str) -> np.ndarray:
        """Pooled features (N, D) float32 by the quickest engine that agrees with the network."""
        return features_of(backbone, self.plain(paths), self.machine, self.listener, what)

    def source_paths(self, indices: np.ndarray) -> tuple[Path, ...]:
        assert self.source is not None
        return tuple(self.source.source.samples[i].path for i in indices)

    def answers(self, name: str, model: LinearTask, seconds: float, parameters: int, steps: int) -> Adapted:
        """The model's features and logits for held-out source and whole target."""
        weight = model.head.weight.detach().cpu().numpy().astype(np.float64)
        bias = model.head.bias.detach().cpu().numpy().astype(np.float64)
        target = self.features(model.backbone, self.target.source.paths, f"{name}: target")
        held = None
        if self.source is not None:
            held = self.features(model.backbone, self.source_paths(self.source.held), f"{name}: source")
        return Adapted(
            name,
            seconds,
            parameters,
            target,
            target @ weight.T + bias,
            held,
            None if held is None else held @ weight.T + bias,
            steps,
        )

    # ---- candidates on cached features --------------------------------------------------------------------------

    def head(self, features: np.ndarray, indices: np.ndarray) -> ProbeHead:
        """A linear head on source features (N, D) of these source pictures."""
        assert self.source is not None and self.source.source.labelling is not None
        labels, labelling = self.source.labels[indices], self.source.source.labelling
        strata = labelling.strata(labels)
        # Ranges of numbers, which nobody named, may be missing from a fold.
        k = max(2, min(5, int(np.bincount(strata).min()))) if labelling.named else 5
        return self.kind.solve(features, labels, fold_of(self.units(indices), strata, k, self.config.seed))

    def units(self, indices: np.ndarray) -> list[str]:
        """What must stay together of these source pictures: the group, else the picture's own content."""
        assert self.source is not None
        return units(self.source.source, self.source.facts, indices)

    def blank(self, backbone: Backbone) -> LinearTask:
        """A model on this backbone, its head still at random."""
        return self.kind.task(backbone, Plain(), None)

    def on_features(self, features: np.ndarray) -> LinearTask:
        """A model to train on cached features like these (N, D)."""
        # A task takes pictures' backbones; for it an adapter has all that it needs of one.
        adapter: Any = FeatureAdapter.scaled_to(features)
        return self.kind.task(adapter, Plain(), self.training_labels())

    def training_labels(self) -> np.ndarray | None:
        """The labels of the source's training pictures; None without a source."""
        return None if self.source is None else self.source.labels[self.source.train]

    def with_head(self, backbone: Backbone, weight: np.ndarray, bias: np.ndarray) -> LinearTask:
        """A model of its own copy of the backbone and this head."""
        model = self.blank(copy.deepcopy(backbone))
        model.set_head(torch.from_numpy(weight.astype(np.float32)), torch.from_numpy(bias.astype(np.float32)))
        return model

    # ---- trained candidates -------------------------------------------------------------------------------------

    def task(self, name: str, start: LinearTask) -> Adaptation:
        """A fresh task for a candidate, from the weights of `start`."""
        config = self.config
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(config.seed + 1)
            method = None if name == SOURCE_ONLY else parse_method(name)
            loss = None if method is None else method.build(start.backbone.feature_dim, len(self.classes))
            model = self.kind.task(copy.deepcopy(start.backbone), Plain(), self.training_labels())
            model.load_state_dict({**model.state_dict(), **start.state_dict()})
            return Adaptation(
                model, loss, weight=self.weight(method), restyle=config.restyle, smoothing=config.smoothing,
                partial=config.setting == "partial" and loss is not None,
                shared=self.machine.fabric.world_size > 1,
            )  # fmt: skip

    def weight(self, method: Method | None) -> float | None:
        """What the term counts: the method's own word, else the command's, else None, the loss's default."""
        return self.config.weight if method is None or method.weight is None else method.weight

    def plan(self, task: Adaptation, batch: int) -> Plan:
        config = self.config
        base = config.lr or (PRETRAINED_LR if self.pretrained else RANDOM_LR)
        rules = rules_for(task, pretrained=self.pretrained, last=config.last)
        return RuleStrategy(rules).plan(task, base * math.sqrt(batch / 32))

    def train(self, name: str, steps: int, start: LinearTask, limit_s: float | None) -> Adapted:
        """Train one candidate for `steps` steps from `start`, and put the target's statistics into it.

        A method whose `length` is not 1 trains for that multiple of them.
        """
        folder = self._folder(name)
        if self.machine.fabric.broadcast((folder / "result.json").is_file()):
            return self.read(name)
        method = None if name == SOURCE_ONLY else parse_method(name)
        steps = steps if method is None else max(1, round(steps * method.length))
        with_source = self.source is not None and (method is None or not method.kind.continues)
        both = {"source": with_source, "target": name != SOURCE_ONLY or self.config.restyle > 0}
        streams = self.streams(**both)
        task = self.task(name, start)
        first = next(iter(streams.values()))
        plan = self.plan(task, first.batch_size * self.machine.fabric.world_size)
        self.plans[name] = str(plan)
        per_epoch = len(first)
        if task.surveys:
            self._survey(task)
        settings = FitSettings(
            steps=steps,
            weight_decay=self.config.weight_decay,
            clip_norm=self.config.clip_norm,
            evaluate_every=per_epoch if task.surveys else 0,
            limit_s=limit_s,
            checkpoint_every_s=self.config.checkpoint_every_s,
            seed=self.config.seed,
        )
        result = fit(
            task,
            streams,
            plan,
            settings,
            self.machine,
            evaluate=self._survey if task.surveys else None,
            on_step=self.teller(name, steps),
            checkpoints=folder / "checkpoints",
        )
        model = task.model.cpu().eval()
        if name != SOURCE_ONLY:
            self.own_statistics(model.backbone, self.target.source.paths)
        found = self.answers(name, model, result.seconds, plan.trained_parameters, result.steps)
        self.keep(found, model)
        return found

    def adabn(self, start: LinearTask) -> Adapted:
        """The trained model `start` with the target's statistics."""
        if (self._folder("AdaBN") / "result.json").is_file():
            return self.read("AdaBN")
        started = time.monotonic()
        model = copy.deepcopy(start).cpu().eval()
        self.own_statistics(model.backbone, self.target.source.paths)
        found = self.answers("AdaBN", model, 0.0, 0, 0)
        found.seconds = time.monotonic() - started
        self.keep(found, model)
        return found

    def own_statistics(self, backbone: Backbone, paths: tuple[Path, ...]) -> None:
        """Statistics of these pictures into the batch-normalisation layers of the backbone, where it has any.

        At most 256 pictures of the usual size, drawn with the seed; of digits, which take less time, some thousands.
        """
        if has_statistics(backbone):
            smaller = 224 * 224 / math.prod(self.spec.shape[1:])
            count = round(min(MOST_STATISTICS, STATISTICS_FROM * max(1.0, smaller)))
            self.statistics_of(backbone, self.drawn(paths, count))

    def drawn(self, paths: tuple[Path, ...], count: int) -> PictureStream:
        """At most `count` of these pictures, drawn and shuffled with the seed, in batches for statistics."""
        if len(paths) > count:
            chosen = np.random.default_rng(self.config.seed).permutation(len(paths))[:count]
            paths = tuple(paths[i] for i in np.sort(chosen))
        return PictureStream(
            list(paths), None, EvalTransform(self.spec), batch_size=64, shuffle=True, seed=self.config.seed,
            threads=self.config.threads,
        )  # fmt: skip

    def statistics_of(self, backbone: Backbone, stream: Stream) -> None:
        """The statistics of a stream's pictures into the batch-normalisation layers of the backbone."""
        if has_statistics(backbone):
            # Channels last takes a fifth less time here.
            backbone.to(self.machine.device, memory_format=torch.channels_last)  # type: ignore[call-overload]
            recalibrate(
                backbone,
                (
                    batch.x.to(self.machine.device).contiguous(memory_format=torch.channels_last)
                    for batch in stream.epoch(0)
                ),
            )
            backbone.to("cpu", memory_format=torch.contiguous_format)  # type: ignore[call-overload]

    def epoch_seconds(self) -> float:
        """Measured seconds of one epoch over both streams: three steps, the first to warm up."""
        task = self.task("entropy", self.model)
        streams = self.streams(source=True, target=True)
        marks: list[float] = []
        settings = FitSettings(steps=3, warmup=0.0, seed=self.config.seed)
        fit(task, streams, self.plan(task, self.config.batch_size), settings, self.machine,
            on_step=lambda r: marks.append(r.elapsed_s))  # fmt: skip
        return max(1e-4, (marks[-1] - marks[0]) / 2) * len(streams["source"])

    def _survey(self, task: Task) -> tuple[float, Mapping[str, float]]:
        """What a training needs of the whole target; the score only says that later is better."""
        assert isinstance(task, Adaptation)
        task.to(self.machine.device)
        dim = task.model.backbone.feature_dim

        def both(x: Tensor) -> Tensor:
            return torch.cat(task.views(x), dim=1)

        found = predict(task, self.plain(self.target.source.paths), self.machine, call=both).outputs
        return task.survey(found[:, :dim].to(self.machine.device), found[:, dim:].to(self.machine.device)), {}

    def class_weights(self) -> Tensor | None:
        """Weights (K,) of the source's classes, None where they are about even."""
        if self.source is None:
            return None
        return class_weights(self.source.labels[self.source.train], len(self.classes))

    # ---- on disk ------------------------------------------------------------------------------------------------

    def _folder(self, name: str) -> Path:
        return self.run.path / "work" / re.sub(r"[^\w.+&-]", "_", name)

    def keep(self, found: Adapted, model: LinearTask) -> None:
        """Leave a candidate on disk; only the first process writes."""
        if self.machine.is_first:
            write_answers(self._folder(found.name), found, model)

    def read(self, name: str) -> Adapted:
        """A finished candidate's answers."""
        return read_answers(self._folder(name))

    def load(self, name: str) -> LinearTask:
        """A finished candidate's model."""
        model = self.blank(copy.deepcopy(self.model.backbone))
        model.load_state_dict(load_file(self._folder(name) / "model.safetensors"))
        return model.eval()

    def teller(self, name: str, steps: int) -> Callable[[StepRecord], None]:
        """What shows a training's steps and writes its curves."""
        return step_teller(self.run, self.listener, name, steps)


def adapter_model(features: np.ndarray, n_classes: int, class_weights: Tensor | None) -> Classification:
    """A fresh adapter, scaled to these features (N, D), with a head of its own."""
    # A classifier takes pictures' backbones; for the task an adapter has all that it needs of one.
    adapter: Any = FeatureAdapter.scaled_to(features)
    return Classification(adapter, n_classes, class_weights=class_weights)
