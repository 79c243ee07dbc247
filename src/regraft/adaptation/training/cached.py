"""Adaptation on cached features: shallow maps, own statistics, and every loss on a small adapter, each in seconds.

The backbone's weights stay as they are. Each picture passes it once with the pretraining's statistics and, where it has
batch normalisation, once with its own domain's (AdaBN); every source is a domain of its own there. What is learned on
top is affine at the end, and folds into the head of the model that is handed over.
"""

from __future__ import annotations

import copy
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from safetensors.torch import load_file
from torch import nn

from regraft.adaptation.altered.acquisition import Simulated
from regraft.adaptation.altered.stacked import altered_by_chance
from regraft.adaptation.altered.streams import (
    ACQUISITION,
    BIGAUG,
    COPIES,
    PARTNERS,
    RESTYLE,
    AlteredStream,
    how_taken,
    in_the_style_of,
    partners_of,
)
from regraft.adaptation.maps.adapter import FeatureAdapter
from regraft.adaptation.maps.shallow import Affine, shallow
from regraft.adaptation.maps.statistics import has_statistics, recalibrate
from regraft.adaptation.training.answers import Adapted, save_arrays
from regraft.adaptation.training.bench import PROBE, SOURCE_ONLY, STATISTICS_FROM, AdaptBench
from regraft.adaptation.training.method import Method, is_method, parse_method
from regraft.adaptation.training.partial import resample
from regraft.adaptation.training.prior import class_shares, corrected_shares
from regraft.adaptation.training.rules import rules_for
from regraft.adaptation.training.sources import WEIGHTING, measured, sample_weights
from regraft.adaptation.training.task import Adaptation
from regraft.core.types import Backbone, Task
from regraft.data.vectors import VectorStream
from regraft.engine import FitSettings, fit
from regraft.images.features import features_of
from regraft.measure.calibration import fit_temperature
from regraft.strategies import RuleStrategy
from regraft.tasks.linear import LinearTask

#: Steps, batch and rate of the adapter's training; the same for every method and for source-only.
STEPS, BATCH, LR, CONTINUED_LR = 300, 64, 1e-3, 3e-4
#: The adapter that learned from the source under each domain's own statistics: where SHOT and TENT begin.
ADABN = "AdaBN"


@dataclass(frozen=True)
class Cached:
    """Features float32 of the source's training and held-out pictures and of the target, by one pair of networks."""

    train: np.ndarray
    held: np.ndarray
    target: np.ndarray


class FeatureCandidates:
    """Makes the candidates of the cached stage for one bench with a pretrained backbone and a source."""

    def __init__(self, bench: AdaptBench) -> None:
        assert bench.source is not None
        self.bench, self.source = bench, bench.source
        self.own = has_statistics(bench.model.backbone)
        #: The backbone with the target's statistics; the pretrained one where it has none.
        self.target_backbone = bench.model.backbone
        self._adapter: LinearTask | None = None
        #: Source-only's head for plain features, once it is trained.
        self._control: tuple[np.ndarray, np.ndarray] | None = None

    def plain(self) -> Cached:
        """Features under the pretraining's statistics."""
        bench = self.bench
        kept = bench.run.path / "work" / "features.safetensors"
        if not kept.is_file():
            parts = [self._paths(self.source.train), self._paths(self.source.held), bench.target.source.paths]
            found = bench.features(bench.model.backbone, tuple(path for part in parts for path in part), "Features")
            rows = np.split(found, np.cumsum([len(part) for part in parts])[:-1])
            save_arrays(kept, dict(zip(("train", "held", "target"), rows, strict=True)))
        return _read(kept)

    def normalised(self) -> Cached:
        """Features under each domain's own statistics (AdaBN, arXiv:1603.04779), or the plain ones without such."""
        if not self.own:
            return self.plain()
        bench = self.bench
        kept = bench.run.path / "work" / "normalised.safetensors"
        state = bench.run.path / "work" / "target-backbone.safetensors"
        backbone = copy.deepcopy(bench.model.backbone)
        if not kept.is_file():
            train, held = self._source_normalised(backbone)
            bench.own_statistics(backbone, bench.target.source.paths)
            target = bench.features(backbone, bench.target.source.paths, "Target features, own statistics")
            save_arrays(state, {k: v.detach().cpu().numpy() for k, v in backbone.state_dict().items()})
            save_arrays(kept, {"train": train, "held": held, "target": target})
        backbone.load_state_dict(load_file(state))
        self.target_backbone = backbone
        return _read(kept)

    def _source_normalised(self, backbone: Backbone) -> tuple[np.ndarray, np.ndarray]:
        """Features of the source's training and held-out pictures, each under the statistics of its own source."""
        bench, source = self.bench, self.source
        found = [np.empty((len(part), backbone.feature_dim), dtype=np.float32) for part in (source.train, source.held)]
        for domain in range(len(source.names)):
            bench.own_statistics(backbone, self._paths(source.train[source.domains[source.train] == domain]))
            rows = [np.flatnonzero(source.domains[part] == domain) for part in (source.train, source.held)]
            paths = self._paths(source.train[rows[0]]) + self._paths(source.held[rows[1]])
            answers = np.split(bench.features(backbone, paths, "Source features, own statistics"), [len(rows[0])])
            for features, at, answer in zip(found, rows, answers, strict=True):
                features[at] = answer
        return found[0], found[1]

    def probe(self) -> Adapted:
        """The source-only probe on plain features: the first answer."""
        started, features = time.monotonic(), self.plain()
        self.bench.sources = measured(self.source, features.train, features.target, seed=self.bench.config.seed)
        head = self.bench.head(features.train, self.source.train)
        self.bench.model = self.bench.with_head(self.bench.model.backbone, head.weight, head.bias)
        return self._finish(PROBE, started, features, (head.weight, head.bias), self.bench.model.backbone)

    def adabn(self) -> Adapted:
        """A probe on features under each domain's own statistics."""
        started, features = time.monotonic(), self.normalised()
        head = self.bench.head(features.train, self.source.train)
        return self._finish(ADABN, started, features, (head.weight, head.bias), self.target_backbone)

    def restyled(self) -> Adapted:
        """A probe on the source's pictures and on the same in the target's style, under own statistics.

        The restyled pictures are a domain of their own. A picture and its copy are in one fold.
        """
        started, features, bench = time.monotonic(), self.normalised(), self.bench
        kept = bench.run.path / "work" / "restyled.safetensors"
        if not kept.is_file():
            paths = self._paths(self.source.train)
            alter = in_the_style_of(partners_of(bench.drawn(bench.target.source.paths, PARTNERS)))
            backbone = copy.deepcopy(bench.model.backbone)
            bench.statistics_of(backbone, AlteredStream(bench.drawn(paths, STATISTICS_FROM), alter, bench.config.seed))
            stream = AlteredStream(bench.plain(paths), alter, bench.config.seed)
            rows = features_of(backbone, stream, bench.machine, bench.listener, "Source features in the target's style")
            save_arrays(kept, {"rows": rows})
        rows = load_file(kept)["rows"].numpy()
        both = np.concatenate([self.source.train, self.source.train])
        head = bench.head(np.concatenate([features.train, rows]), both)
        return self._finish(RESTYLE, started, features, (head.weight, head.bias), self.target_backbone)

    def stacked(self) -> Adapted:
        """Source-only as it is trained, on the source's pictures and COPIES of each that are altered by chance.

        It has seen nothing of the target; the validators say whether what it learned is what the target asks for. They
        compare it with source-only, so it is trained alike: a head of another kind would be more or less sure of all.
        """
        started, features, bench = time.monotonic(), self.plain(), self.bench
        kept = bench.run.path / "work" / "stacked.safetensors"
        if not kept.is_file():
            parts = {"source": self._paths(self.source.train), "target": bench.target.source.paths}
            save_arrays(kept, {n: self._altered(n, p, altered_by_chance, COPIES) for n, p in parts.items()})
        copies = load_file(kept)
        rows = np.concatenate([features.train, *copies["source"].numpy()])
        more = Cached(rows, features.held, features.target)
        with single_thread():
            task = self._fit(BIGAUG, None, more, None)
        return self._answer(BIGAUG, started, task, more, bench.model.backbone, copies["target"].numpy())

    def _altered(
        self, which: str, paths: tuple[Path, ...], alter: Callable[[torch.Tensor], torch.Tensor], copies: int
    ) -> np.ndarray:  # fmt: skip
        """Features (copies, N, D) of pictures altered by `alter`, with other draws in each copy."""
        bench, what = self.bench, f"Altered {which} features"
        seeds = range(bench.config.seed + 1, bench.config.seed + 1 + copies)
        streams = [AlteredStream(bench.plain(paths), alter, seed) for seed in seeds]
        return np.stack(
            [
                features_of(bench.model.backbone, s, bench.machine, bench.listener, f"{what}, {i} of {copies}")
                for i, s in enumerate(streams, 1)
            ]
        )

    def acquired(self) -> Adapted | None:
        """A probe on the source's pictures, altered as the target's seem to have been taken.

        None where no alteration makes them look like the target's. Its held-out source pictures are altered alike, so
        what they say of it, and of source-only, holds for the target.
        """
        started, features, bench = time.monotonic(), self.plain(), self.bench
        match = how_taken(bench, self._paths(self.source.train), features.target)
        if not match.faithful:
            bench.listener.say(
                f"{ACQUISITION}: no inversion, crop, tone, blur or noise makes the source look like the target "
                f"(distance {match.before:.2f} → {match.after:.2f}): left out."
            )
            return None
        kept = bench.run.path / "work" / "acquired.safetensors"
        if not kept.is_file():
            parts = {"train": self.source.train, "held": self.source.held}
            save_arrays(kept, {n: self._altered(n, self._paths(at), match.acquisition, 2) for n, at in parts.items()})
        copies = load_file(kept)
        more = Cached(np.concatenate(list(copies["train"].numpy())), copies["held"].numpy()[0], features.target)
        head = bench.head(more.train, np.concatenate([self.source.train] * 2))
        found = self._finish(ACQUISITION, started, more, (head.weight, head.bias), bench.model.backbone)
        assert self._control is not None and found.source_logits is not None
        labels = self.source.labels[self.source.held]
        weight, bias = self._control
        found.simulated = Simulated(
            found.source_logits.argmax(1) == labels, (more.held @ weight.T + bias).argmax(1) == labels, match
        )
        return found

    def corrected(self, name: str) -> Adapted:
        """AdaBN, or the source-only probe where there is none to be had, for the class shares that the target has.

        name: "BBSE" or "EM-prior". The correction is part of the head's bias; held-out source answers go without it.
        """
        started, features = time.monotonic(), self.normalised()
        solved = self.bench.head(features.train, self.source.train)
        held, target = solved.logits(features.held), solved.logits(features.target)
        # Training pictures answered by a head that did not see them: few are held out, of some classes perhaps none.
        unseen = np.concatenate([solved.out_of_fold, held])
        labels = self.source.labels[np.concatenate([self.source.train, self.source.held])]
        temperature = fit_temperature(held, self.source.labels[self.source.held])
        shares, offset = corrected_shares(name, unseen, labels, target, class_shares(self.bench), temperature)
        weight, bias = solved.weight, solved.bias + offset
        found = Adapted(name, time.monotonic() - started, weight.size + bias.size, features.target, target + offset,
                        features.held, held, prior=shares)  # fmt: skip
        self.bench.keep(found, self.bench.with_head(self.target_backbone, weight, bias))
        return found

    def shallow(self, name: str) -> Adapted:
        """A shallow method on plain features; its target map is folded into the head."""
        started, features = time.monotonic(), self.plain()
        mapped = shallow.get(name)().fit(features.train, self.source.labels[self.source.train], features.target)
        head = self.bench.head(mapped.source.astype(np.float32), self.source.train)
        held = mapped.map_source(features.held).astype(np.float32)
        target = mapped.map_target(features.target).astype(np.float32)
        found = Adapted(name, time.monotonic() - started, head.weight.size + head.bias.size, target,
                        head.logits(target), held, head.logits(held))  # fmt: skip
        self.bench.keep(found, self.bench.with_head(self.bench.model.backbone, *mapped.fold(head.weight, head.bias)))
        return found

    def trained(self, name: str) -> Adapted:
        """An adapter trained with the loss `name` beside the source's labels; source-only on plain features.

        "source-weighting" has no such loss: the source's own counts each source by its nearness to the target.
        """
        started = time.monotonic()
        alone = name == SOURCE_ONLY
        features = self.plain() if alone else self.normalised()
        method = parse_method(name) if is_method(name) else None
        begins = method is not None and (method.kind.continues or method.kind.source_fixed)
        with single_thread():
            if begins and self._adapter is None:
                self._adapter = self._fit(SOURCE_ONLY, None, features, None).model
            task = self._fit(name, method, features, self._adapter if begins else None)
        return self._answer(name, started, task, features, self.bench.model.backbone if alone else self.target_backbone)

    # ---- the parts ----------------------------------------------------------------------------------------------

    def _fit(self, name: str, method: Method | None, features: Cached, start: LinearTask | None) -> Adaptation:
        bench, k = self.bench, len(self.bench.classes)
        seed = bench.config.seed
        times = len(features.train) // len(self.source.train)  # each picture, and its altered copies
        labels = np.tile(self.source.labels[self.source.train], times)
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed + 1)
            model = bench.on_features(features.train) if start is None else copy.deepcopy(start)
            weights = sample_weights(self.source, bench.sources) if name == WEIGHTING else None
            loss = None if method is None else method.build(model.backbone.feature_dim, k)
            task = Adaptation(
                model, loss, weight=bench.weight(method), smoothing=bench.config.smoothing, source_weights=weights,
                partial=bench.config.setting == "partial" and loss is not None,
            )  # fmt: skip
        steps = STEPS if method is None else max(1, round(STEPS * method.length))
        streams: dict[str, VectorStream] = {}
        if start is None or task.reference is not None:
            domains = bench.source_domains()
            domains = None if domains is None else np.tile(domains, times)
            streams["source"] = VectorStream(features.train, labels, batch_size=BATCH, seed=seed, domains=domains)
        if loss is not None:
            streams["target"] = VectorStream(features.target, None, batch_size=BATCH, seed=seed + 1)
        plan = RuleStrategy(rules_for(task, pretrained=False)).plan(task, LR if start is None else CONTINUED_LR)
        per_epoch = len(next(iter(streams.values())))
        if task.target_weights is not None:
            # Of a small source an epoch is a step or two: surveys of the whole target would take most of the time.
            per_epoch = max(per_epoch, steps // 20)
        settings = FitSettings(steps=steps, weight_decay=0.01, evaluate_every=per_epoch, seed=seed)

        def survey(current: Task) -> tuple[float, Mapping[str, float]]:
            current.eval()
            with torch.no_grad():
                rows = torch.from_numpy(features.target).to(bench.machine.device)
                return task.survey(*task.views(rows)), {}

        task.to(bench.machine.device)
        if task.surveys:
            survey(task)
        fit(task, streams, plan, settings, bench.machine, evaluate=survey if task.surveys else None,
            on_step=bench.teller(name, steps))  # fmt: skip
        task.model.cpu().eval()
        return task

    def _answer(
        self, name: str, started: float, task: Adaptation, features: Cached, backbone: nn.Module,
        altered_target: np.ndarray | None = None,
    ) -> Adapted:  # fmt: skip
        """Each domain under its own statistics in the adapter's norm too; the target's go into the folded head."""
        model = task.model
        adapter: nn.Module = model.backbone
        assert isinstance(adapter, FeatureAdapter)
        weight, bias = (part.numpy() for part in model.solved_head())

        def mapped(statistics: np.ndarray) -> Affine:
            # In an order of their own: pictures come folder by folder, and a batch of one class varies too little.
            rows = torch.from_numpy(
                statistics[np.random.default_rng(self.bench.config.seed).permutation(len(statistics))]
            )
            recalibrate(adapter, torch.split(rows, max(2, min(512, len(rows)))))
            return Affine(*adapter.affine())

        of_source = mapped(features.train[self._as_trained(task, len(features.train))])
        of_target = of_source if name in (SOURCE_ONLY, BIGAUG) else mapped(features.target)
        held, target = of_source(features.held), of_target(features.target)
        count = sum(p.numel() for p in model.parameters())
        steps = round(STEPS * (parse_method(name).length if is_method(name) else 1))
        found = Adapted(name, time.monotonic() - started, count, target.astype(np.float32), target @ weight.T + bias,
                        held.astype(np.float32), held @ weight.T + bias, steps)  # fmt: skip
        if altered_target is not None:
            found.altered_target = np.stack([of_target(rows) for rows in altered_target]).astype(np.float32)
        folded = of_target.fold(weight, bias)
        if name == SOURCE_ONLY:
            self._control = folded
        self.bench.keep(found, self.bench.with_head(backbone, *folded))  # type: ignore[arg-type]
        return found

    def _as_trained(self, task: Adaptation, count: int) -> np.ndarray:
        """Rows of the source's training features in the mixture of classes that the task learned from."""
        labels = torch.from_numpy(self.source.labels[self.source.train])
        if task.target_weights is None or (task.loss is not None and task.loss.continues):
            return np.arange(count)
        return resample(task.target_weights.cpu()[labels], torch.tensor(0.5)).numpy()

    def _finish(
        self, name: str, started: float, features: Cached, head: tuple[np.ndarray, np.ndarray], backbone: nn.Module
    ) -> Adapted:
        weight, bias = head
        found = Adapted(name, time.monotonic() - started, weight.size + bias.size, features.target,
                        features.target @ weight.T + bias, features.held, features.held @ weight.T + bias)  # fmt: skip
        self.bench.keep(found, self.bench.with_head(backbone, weight, bias))  # type: ignore[arg-type]
        return found

    def _paths(self, indices: np.ndarray) -> tuple[Path, ...]:
        return self.bench.source_paths(indices)


@contextmanager
def single_thread() -> Iterator[None]:
    """One thread for PyTorch: matrices of an adapter's size gain nothing from more, and wait for each other."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(threads)


def _read(path: Path) -> Cached:
    found = load_file(path)
    return Cached(found["train"].numpy(), found["held"].numpy(), found["target"].numpy())
