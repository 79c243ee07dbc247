"""The contract of a kind of labels that can be adapted: its methods, its evidence, its words.

What is the same for every kind stands in the job, what a kind knows without any second domain in `tasks/`.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import numpy as np

from regraft.adaptation.domains import Labelled, Oracle, Unlabelled
from regraft.adaptation.evidence.choice import Choice
from regraft.adaptation.training.answers import Adapted
from regraft.adaptation.training.bench import AdaptBench
from regraft.core.listener import Listener
from regraft.core.option_groups import AdaptationOptions
from regraft.core.registry import Registry
from regraft.data.labels import Cells, Labelling
from regraft.measure.bootstrap import Interval
from regraft.tasks.linear import LinearTask


@dataclass(frozen=True)
class Judged:
    """What the oracle's labels say, read after the choice. answers, figures: by candidate.

    gain: metric(kept) − metric(source-only) with its paired interval.
    """

    oracle: Oracle
    answers: Mapping[str, np.ndarray]
    figures: Mapping[str, Interval]
    gain: Interval


class Side:
    """One kind of labels under adaptation.

    metric: what the oracle's figures are in. noun: what its labels are. maps: whether both domains are drawn. varies:
    whether a budget is spent on variations of the leading methods.
    """

    name: ClassVar[str]
    metric: ClassVar[str]
    noun: ClassVar[str] = "labels"
    maps: ClassVar[bool] = False
    varies: ClassVar[bool] = False

    def read_labels(self, cells: Cells | None) -> Labelling:
        """What the source's labels are taken for."""
        raise TypeError(f"{type(self).__name__} does not define read_labels")

    def check(self, options: AdaptationOptions) -> None:
        """Refuse what can be refused before anything is read. Raises UsageError."""

    def check_model(self, options: AdaptationOptions, *, pretrained: bool) -> None:
        """Refuse a model that these options cannot be used with. Raises UsageError."""

    def methods(self, options: AdaptationOptions) -> tuple[str, ...]:
        """The methods to try, `auto` spelled out; UsageError for one that is unknown or needs what is not there."""
        raise TypeError(f"{type(self).__name__} does not define methods")

    def read_oracle(self, path: Path, names: tuple[str, ...], options: AdaptationOptions) -> Oracle:
        """Labelled target pictures, for figures alone. names: of the model's outputs."""
        raise TypeError(f"{type(self).__name__} does not define read_oracle")

    def tell(self, source: Labelled | None, target: Unlabelled, oracle: Oracle | None, listener: Listener) -> None:
        """What was read, for the screen."""

    def first(self, bench: AdaptBench, probe: Adapted) -> str:
        """The first answer on held-out source pictures, in words."""
        raise TypeError(f"{type(self).__name__} does not define first")

    def ranked(self, bench: AdaptBench, candidates: list[Adapted]) -> list[str]:
        """The candidates' names, the best first; asked where `varies`."""
        return [c.name for c in candidates]

    def decide(self, bench: AdaptBench, candidates: list[Adapted]) -> Choice:
        """Which candidate is kept; no target label is read."""
        raise TypeError(f"{type(self).__name__} does not define decide")

    def answers(self, choice: Choice, name: str, outputs: np.ndarray) -> np.ndarray:
        """What a candidate says, from its head's outputs (N, K)."""
        return outputs

    def source_figure(self, bench: AdaptBench, found: Adapted) -> dict[str, float | None]:
        """A candidate's figure on held-out source pictures, by its name in the report."""
        raise TypeError(f"{type(self).__name__} does not define source_figure")

    def row(self, bench: AdaptBench, choice: Choice, found: Adapted, judged: Judged | None) -> dict[str, Any]:
        """Fields of a candidate's row that only this kind has."""
        return {}

    def fields(self, bench: AdaptBench, choice: Choice, kept: Adapted, judged: Judged | None) -> dict[str, Any]:
        """Fields of the report that only this kind has."""
        return {}

    def verdict(self, bench: AdaptBench, choice: Choice, kept: Adapted, judged: Judged | None) -> str:
        """The one sentence."""
        raise TypeError(f"{type(self).__name__} does not define verdict")

    def columns(self, answers: np.ndarray) -> dict[str, list[Any]]:
        """Columns of predictions.parquet for the target's answers (M, …)."""
        raise TypeError(f"{type(self).__name__} does not define columns")

    def data(self, options: AdaptationOptions) -> list[str]:
        """What the model was made from, for its provenance."""
        return [path.name for path in (*options.source, *options.target)]

    def notes(self, oracle: Oracle | None) -> list[str]:
        """What a reader should know beside the choice's own notes."""
        return []

    def pack(self, bench: AdaptBench, model: LinearTask, choice: Choice, provenance: Mapping[str, Any]) -> None:
        """Write the run's artifact."""
        raise TypeError(f"{type(self).__name__} does not define pack")


#: name of the kind → side
sides: Registry[type[Side]] = Registry("kind of labels to adapt")
