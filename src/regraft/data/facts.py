"""What is known of one sample before it is used, and what must stay together."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from regraft.data.source import Source


@dataclass(frozen=True)
class Facts:
    """sha256: of the sample's content, hexadecimal. A modality adds what it alone knows."""

    sha256: str


@dataclass(frozen=True)
class Look:
    """One sample looked at: its facts, its oddities, and a fingerprint to find near copies by; or why it is unusable.

    oddities and bad: kinds that the modality has a sentence for. fingerprint: anything that its `near` compares.
    """

    facts: Facts | None = None
    fingerprint: Any = None
    oddities: tuple[str, ...] = ()
    bad: str | None = None


def units(source: Source, facts: Sequence[Facts], indices: np.ndarray | None = None) -> list[str]:
    """What must stay together, one key per sample, or per one of `indices`: its group, else its own content."""
    chosen = range(len(source)) if indices is None else indices
    return [source.samples[i].group or facts[i].sha256 for i in chosen]
