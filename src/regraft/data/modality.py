"""All that is special about a kind of sample: pictures, texts, sounds. Everything above asks it and knows none by name.

A modality is a folder beside `images/` with a `modality.py` whose `MODALITY` follows this protocol. What it needs to
answer `look` and `check` is light; networks and their libraries are imported when they are asked for.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import torch
from markupsafe import Markup
from pydantic import BaseModel
from torch import Tensor

from regraft.core.types import Backbone, Batch, InputSpec
from regraft.data.facts import Facts, Look
from regraft.data.findings import Finding
from regraft.data.source import Source
from regraft.data.words import Words


class SampleStream(Protocol):
    """A `Stream` that says how many samples it has, in batches of how many, and what they are called."""

    samples: int
    batch_size: int
    many: str

    def __len__(self) -> int: ...

    def epoch(self, index: int, start: int = 0) -> Iterator[Batch]: ...


class Streams(Protocol):
    """Streams over parts of one set of samples, by indices int64 into it."""

    def train(self, indices: np.ndarray, rank: int = 0, world_size: int = 1) -> SampleStream:
        """Shuffled and altered. Small sets get smaller batches, so that an epoch has at least eight steps."""
        ...

    def plain(self, indices: np.ndarray, *, cache: bool = False) -> SampleStream:
        """Each sample once, in order, as the weights expect it."""
        ...


@dataclass(frozen=True)
class StreamOptions:
    """What streams depend on besides the samples. changes: of the modality's `augment`.

    view: where training samples are cut, the least share of one that is left, and how oblong: what the labels stand.
    """

    batch_size: int = 32
    seed: int = 0
    threads: int | None = None
    view: tuple[float, float] = (0.35, 4 / 3)
    changes: BaseModel | None = None


class Quick(Protocol):
    """Pooled features by another engine than PyTorch's own: a batch's x → float32 (N, D) on the CPU."""

    engine: str

    def __call__(self, x: Any) -> Tensor: ...


class Reader(Protocol):
    """From what a person hands over, or a `Sample`, to what the network takes; exact, as for scoring."""

    def read(self, item: Any) -> Any:
        """One sample ready for `collate`. Raises UnreadableError."""
        ...

    def collate(self, read: Sequence[Any]) -> Any:
        """The x of a batch."""
        ...


class Shown(Protocol):
    """What a page shows of a sample: a thumbnail, an excerpt, a player."""

    def __call__(self, path: Path, *, alt: str = "", small: bool = False) -> Markup | None:
        """alt: what to say to those who cannot see it. small: for the tip of the map. None where it cannot be read."""
        ...


class Modality(Protocol):
    """See the module.

    inline: whether a table's column holds the content itself, and not the name of a file. unfit: options of a fit that
    mean nothing for it.
    """

    name: str
    words: Words
    extensions: frozenset[str]
    inline: bool
    unfit: tuple[str, ...]
    spec: type[InputSpec]

    @property
    def augment(self) -> type[BaseModel]:
        """The options of how training samples are altered, without a required one."""
        ...

    # ---- the audit ----
    def look(self, sample: Any) -> Look:
        """One `Sample` looked at; what is wrong with it is in the answer, never raised."""
        ...

    def near(self, looks: Sequence[Look]) -> list[tuple[int, int]]:
        """Pairs i < j of usable looks that are near copies."""
        ...

    def findings(self, source: Source, facts: Sequence[Facts]) -> list[Finding]:
        """What else is worth a sentence about usable samples, of this modality alone."""
        ...

    # ---- the network ----
    def check(self, name: str, weights: Path | None) -> None:
        """Raise UsageError early, before anything is read, for a backbone that cannot be or brings nothing."""
        ...

    def create(self, name: str, weights: Path | None = None, *, pretrained: bool = True) -> Backbone:
        """The backbone of that name. Raises UsageError, or WeightsError for weights that cannot be had."""
        ...

    def build(self, recipe: Mapping[str, Any], spec: InputSpec, companions: Mapping[str, bytes]) -> Backbone:
        """The same without weights from an artifact's recipe, spec and companion files."""
        ...

    def label(self, name: str) -> str:
        """What a run is called after: the backbone's name without its options, or the folder's own name."""
        ...

    def known(self) -> list[str]:
        """Names of backbones that can be listed."""
        ...

    def with_layers(self, backbone: Backbone) -> Backbone | None:
        """The same backbone with the features of all its layers (`core.types.Layered`); None where it has none."""
        ...

    def remarks(self, backbone: Backbone, facts: Sequence[Facts]) -> list[str]:
        """What the network will not see of these samples, in sentences."""
        ...

    def fast(
        self, backbone: Backbone, *, device: torch.device, batch_size: int, n_samples: int, half: bool
    ) -> Quick | None:
        """A quicker way to its features, where there is one. half: whether half precision will do."""
        ...

    # ---- batches ----
    def streams(
        self, backbone: Backbone, samples: Sequence[Any], labels: np.ndarray | None, options: StreamOptions
    ) -> Streams:
        """Streams over these samples as this backbone expects them."""
        ...

    def reader(self, backbone: Backbone) -> Reader:
        """What prepares single samples for this backbone, as its plain stream does."""
        ...

    # ---- what a person hands over, and is shown ----
    def expand(self, items: Sequence[str], column: str | None = None) -> list[Any]:
        """Arguments of a command → items for `Reader.read`, in order. column: of tables that hold the content."""
        ...

    def as_list(self, items: Any) -> list[Any]:
        """One item or many, as the Python API takes them → a list."""
        ...

    def name_of(self, item: Any) -> str | None:
        """What a prediction is filed under; None where the item has no name."""
        ...

    def excerpt(self, sample: Any) -> str | None:
        """What `predictions.parquet` quotes of a sample; None where a report shows the file that its path names."""
        ...

    def shown(self, run: Path) -> Shown:
        """What the page of a run shows of its samples, by the paths that its tables name."""
        ...


Progress = Callable[[int, int], None]
