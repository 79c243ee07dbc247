"""What a setting changes when candidates are compared: classes that the target lacks, and pictures of other classes.

closed: nothing. partial: what asks for every class of the source is told how much each seems to be in the target.
open: every candidate gets a confidence below which it answers `unknown`, and candidates are compared on the target
pictures that most of them take for known. Nothing here reads a target label.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import torch

from regraft.adaptation.evidence.calibration import estimated_accuracy, matching_temperature
from regraft.adaptation.losses.open_set import split
from regraft.adaptation.maps.shallow import shallow
from regraft.adaptation.options import PRIORS
from regraft.adaptation.training.answers import Adapted
from regraft.adaptation.training.bench import PROBE, SOURCE_ONLY
from regraft.adaptation.training.partial import class_weights, present
from regraft.core.types import DomainView
from regraft.measure.calibration import fit_temperature
from regraft.measure.probabilities import softmax

#: With fewer target pictures than this that most candidates know, they are compared on all.
LEAST_ROWS = 10


@dataclass(frozen=True)
class Calibration:
    """A candidate's temperature on the target, where it is from, and the source's beside it.

    how: "agreement" of the candidates on the target, "source", or "none" where there is neither.
    """

    how: str
    temperature: float
    source_temperature: float | None
    estimated_accuracy: float | None

    def to_json(self) -> dict[str, Any]:
        return dict(self.__dict__)


@dataclass(frozen=True)
class Setting:
    """One adaptation's setting, as its candidates show it. calibrations, thresholds: by candidate; 0 = none.

    target_weights: (K,) with partial, from the mean over the adapted candidates. known: rows (M,) bool of the target.
    """

    name: str
    labels: np.ndarray | None
    calibrations: Mapping[str, Calibration]
    known: np.ndarray
    thresholds: Mapping[str, float] = field(default_factory=dict)
    target_weights: np.ndarray | None = None

    def probabilities(self, name: str, logits: np.ndarray) -> np.ndarray:
        """Calibrated probabilities (N, K) of a candidate's logits (N, K); with open (N, K + 1), the last for unknown.

        A picture below the candidate's threshold is unknown with certainty: the threshold is a decision.
        """
        p = softmax(logits, self.calibrations[name].temperature)
        if self.name != "open":
            return p
        strange = p.max(axis=1, keepdims=True) < self.thresholds[name]
        return np.concatenate([np.where(strange, 0.0, p), strange.astype(p.dtype)], axis=1)

    def answers(self, c: Adapted) -> np.ndarray:
        """A candidate's answers (M,) for the target; K is unknown."""
        return np.asarray(self.probabilities(c.name, c.target_logits).argmax(axis=1))

    def views(self, c: Adapted) -> tuple[DomainView, DomainView]:
        """What validators see of a candidate."""
        source, target = self.narrowed(c, source=False).views(self.labels)
        if self.target_weights is not None:
            target = replace(target, class_weights=torch.from_numpy(self.target_weights))
        return source, target

    def narrowed(self, c: Adapted, *, source: bool = True) -> Adapted:
        """The candidate on the target pictures that are known and, with `source`, on source pictures of classes that
        the target seems to have: what can be compared between the domains class by class."""
        found = replace(c, target_features=c.target_features[self.known], target_logits=c.target_logits[self.known])
        if c.altered_target is not None:
            found = replace(found, altered_target=c.altered_target[:, self.known])
        if not source or c.source_features is None or c.source_logits is None or self.labels is None:
            return found
        rows = self.source_rows
        return replace(found, source_features=c.source_features[rows], source_logits=c.source_logits[rows])

    @property
    def source_rows(self) -> np.ndarray:
        """Held-out source pictures (N,) bool of classes that the target seems to have."""
        assert self.labels is not None
        if self.target_weights is None:
            return np.ones(len(self.labels), dtype=bool)
        return np.asarray(present(torch.from_numpy(self.target_weights)).numpy()[self.labels])

    @property
    def source_labels(self) -> np.ndarray | None:
        """The labels of `source_rows`."""
        return None if self.labels is None else self.labels[self.source_rows]


def peers(candidates: list[Adapted]) -> list[Adapted]:
    """Those whose opinion on the target counts, one of a family: a map of plain features, or a prior on them, is too
    near to source-only to be another, and a method with another weight too near to itself."""
    found: dict[str, Adapted] = {}
    for c in candidates:
        if c.name not in {PROBE, SOURCE_ONLY, *PRIORS} and c.name not in shallow:
            found.setdefault(family(c.name), c)
    return list(found.values())


def family(name: str) -> str:
    """The method of a candidate without its options."""
    return name.partition(":")[0]


def calibrate(c: Adapted, candidates: list[Adapted], labels: np.ndarray | None, *, agreement: bool) -> Calibration:
    """A candidate's temperature: by how often the others agree with it, or without `agreement` from the source."""
    of_source = None if labels is None or c.source_logits is None else fit_temperature(c.source_logits, labels)
    if c.simulated is not None and of_source is not None:  # its source pictures are a likeness of the target's
        return Calibration("source", of_source, of_source, None)
    others = [other.target_logits.argmax(axis=1) for other in peers(candidates) if family(other.name) != family(c.name)]
    expected = estimated_accuracy(c.target_logits.argmax(axis=1), others) if agreement else None
    if expected is not None:
        return Calibration("agreement", matching_temperature(c.target_logits, expected), of_source, expected)
    return Calibration("none" if of_source is None else "source", of_source or 1.0, of_source, None)


def look(name: str, candidates: list[Adapted], labels: np.ndarray | None) -> Setting:
    """The setting `name` on these candidates' answers; labels: of the held-out source pictures.

    With open the candidates agree on pictures of known classes alone, so their agreement says nothing of the whole.
    """
    found = {c.name: calibrate(c, candidates, labels, agreement=name != "open") for c in candidates}
    everything = np.ones(len(candidates[0].target_logits), dtype=bool)
    if name == "partial":
        # Source-only spreads its mistakes over classes that are not there: it has a say where nothing else was tried.
        asked = [c for c in candidates if c.name not in {PROBE, SOURCE_ONLY}] or candidates
        mean = np.mean([softmax(c.target_logits) for c in asked], axis=0)
        weights = class_weights(torch.from_numpy(mean)).double().numpy()
        return Setting(name, labels, found, everything, target_weights=weights)
    if name != "open":
        return Setting(name, labels, found, everything)
    confidence = {c.name: softmax(c.target_logits, found[c.name].temperature).max(axis=1) for c in candidates}
    thresholds = {c: split(scores) for c, scores in confidence.items()}
    known = np.mean([scores >= thresholds[c] for c, scores in confidence.items()], axis=0) >= 0.5
    return Setting(name, labels, found, known if known.sum() >= LEAST_ROWS else everything, thresholds)
