"""The models of a domain generalisation: an adapter on cached features per method and set of training domains.

Every model is affine at its end, so it is kept as one linear layer over the backbone's features. No training reads a
picture of a domain that it was not given; a pair of domains that is left out twice is trained once.
"""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch

from regraft.adaptation.domains import Labelled
from regraft.adaptation.generalisation.dense_average import DenseAverage
from regraft.adaptation.generalisation.methods import Generalisation, generalisers
from regraft.adaptation.maps.adapter import FeatureAdapter
from regraft.adaptation.maps.shallow import Affine
from regraft.adaptation.maps.statistics import recalibrate
from regraft.adaptation.training.bench import adapter_model
from regraft.adaptation.training.cached import LR, single_thread
from regraft.core.listener import Listener
from regraft.core.option_groups import GeneralisationOptions
from regraft.core.rundir import RunDirectory
from regraft.core.types import Rule, Task
from regraft.data.vectors import VectorStream
from regraft.engine import FitSettings, Machine, StepRecord, fit
from regraft.engine.telling import step_teller
from regraft.measure.metrics import score
from regraft.measure.probabilities import softmax
from regraft.strategies import RuleStrategy

#: Rows of each training domain in a step.
BATCH = 32
#: How often SWAD looks at the validation loss, and how many steps' batches the adapter's statistics come from.
EVALUATIONS, STATISTICS_STEPS = 30, 20


@dataclass(frozen=True)
class LinearModel:
    """weight (K, D) and bias (K,) over cached features, float64; seconds: of its training; parameters: trained."""

    weight: np.ndarray
    bias: np.ndarray
    seconds: float
    parameters: int

    def logits(self, features: np.ndarray) -> np.ndarray:
        """(N, D) → (N, K)."""
        return np.asarray(features @ self.weight.T + self.bias)


class DomainModels:
    """Trains and remembers models by (method, training domains). features: (N, D) of all pictures of all domains."""

    def __init__(
        self,
        config: GeneralisationOptions,
        pictures: Labelled,
        features: np.ndarray,
        machine: Machine,
        run: RunDirectory,
        listener: Listener,
    ) -> None:
        self.config, self.pictures, self.features = config, pictures, features
        self.machine, self.run, self.listener = machine, run, listener
        self._known: dict[tuple[str, tuple[int, ...]], LinearModel] = {}

    @property
    def everything(self) -> tuple[int, ...]:
        """All domains."""
        return tuple(range(len(self.pictures.names)))

    def without(self, *left_out: int) -> tuple[int, ...]:
        """All domains but these."""
        return tuple(d for d in self.everything if d not in left_out)

    def rows(self, domains: Sequence[int], *, held: bool | None = None) -> np.ndarray:
        """Indices of the pictures of these domains: to learn from, held out to judge with (True), or all (None)."""
        p = self.pictures
        pool = np.arange(len(p.domains)) if held is None else p.held if held else p.train
        return pool[np.isin(p.domains[pool], domains)]

    def train(self, method: str, domains: tuple[int, ...]) -> LinearModel:
        """The model that the method makes of these domains' training pictures."""
        if (method, domains) not in self._known:
            started = time.monotonic()
            with single_thread():
                weight, bias, count = self._trained(method, domains)
            self._known[method, domains] = LinearModel(weight, bias, time.monotonic() - started, count)
        return self._known[method, domains]

    def seconds(self, method: str) -> float:
        """Of all trainings of this method."""
        return sum(model.seconds for (name, _), model in self._known.items() if name == method)

    def _trained(self, method: str, domains: tuple[int, ...]) -> tuple[np.ndarray, np.ndarray, int]:
        config, labels = self.config, self.pictures.labels
        streams = {}
        for domain in domains:
            rows = self.rows([domain], held=False)
            streams[self.pictures.names[domain]] = VectorStream(
                self.features[rows], labels[rows], batch_size=BATCH, seed=config.seed + domain
            )
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(config.seed + 1)
            kind = generalisers.get(method)
            model = adapter_model(self.features[self.rows(domains, held=False)], len(self.pictures.classes), None)
            task = Generalisation(model, kind(len(domains)))
        average = DenseAverage() if kind.averages else None
        whole = domains == self.everything
        tell = step_teller(self.run, self.listener, method, config.steps) if whole else _quiet

        def on_step(record: StepRecord) -> None:
            if average is not None and not record.values:
                average.add(task)
            tell(record)

        settings = FitSettings(
            steps=config.steps, weight_decay=0.01, seed=config.seed,
            warmup=0.0 if average else 0.1, final_lr=1.0 if average else 0.01,
            evaluate_every=max(1, config.steps // EVALUATIONS) if average else 0,
        )  # fmt: skip
        plan = RuleStrategy([Rule(".*", 1.0)]).plan(task, LR)
        validation = self.rows(domains, held=True)

        def judge(current: Task) -> tuple[float, Mapping[str, float]]:
            """The validation loss on the training domains, for SWAD's stretch."""
            assert average is not None
            loss = self._validation_loss(current, validation)
            average.close(loss)
            return -loss, {"val_loss": loss}

        fit(task, streams, plan, settings, self.machine, evaluate=judge if average else None, on_step=on_step)
        if average is not None:
            found = average.average()
            state = task.state_dict()
            task.load_state_dict({k: found[k].to(v.dtype) if k in found else v for k, v in state.items()})
        return (*self._folded(task, streams), plan.trained_parameters)

    def _validation_loss(self, task: Task, rows: np.ndarray) -> float:
        task.eval()
        with torch.no_grad():
            logits = task.predict(torch.from_numpy(self.features[rows]).to(self.machine.device))
        return score("nll", softmax(logits.cpu().numpy()), self.pictures.labels[rows])

    def _folded(self, task: Generalisation, streams: Mapping[str, VectorStream]) -> tuple[np.ndarray, np.ndarray]:
        """Adapter and head as one linear layer; the adapter's statistics are those of the domains' even mixture."""
        model = task.model.cpu().eval()
        adapter = model.backbone
        assert isinstance(adapter, FeatureAdapter)
        mixtures = []
        for step in range(STATISTICS_STEPS):
            parts = [next(s.epoch(*divmod(step, len(s)))).x for s in streams.values()]
            mixtures.append(torch.cat(parts))
        recalibrate(adapter, mixtures)
        weight, bias = (p.detach().double().numpy() for p in (model.head.weight, model.head.bias))
        return Affine(*adapter.affine()).fold(weight, bias)


def _quiet(record: StepRecord) -> None:
    """Of the many trainings only those on all domains are shown."""
