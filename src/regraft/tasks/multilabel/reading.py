"""The answer with several labels to one sample."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np


@dataclass(frozen=True)
class LabelsPrediction:
    """What a model says of one sample.

    labels: (label, probability) of all that are over their thresholds, likeliest first; there may be none. top: the
    likeliest (label, probability), whether they are over it or not. error: why there is no answer.
    """

    path: str | None
    labels: tuple[tuple[str, float], ...] = ()
    top: tuple[tuple[str, float], ...] = ()
    error: str | None = None

    def told(self, top: int = 1) -> str:
        """One line for people, fields parted by tabs: path, labels, and with `top` above 1 the likeliest ones."""
        line = f"{self.path}\t{_told(self.labels) or 'none of the labels'}"
        return f"{line}\t{_told(self.top)}" if top > 1 else line

    def to_json(self) -> dict[str, Any]:
        """A JSON-ready dictionary."""
        return {"path": self.path, "labels": _rows(self.labels), "top": _rows(self.top), "error": self.error}


@dataclass(frozen=True)
class LabelReader:
    """Rows are a probability for each of these labels; thresholds (S,) the model's own."""

    labels: tuple[str, ...]
    thresholds: tuple[float, ...]

    def read(self, path: str | None, row: np.ndarray, *, top: int, threshold: float | None) -> LabelsPrediction:
        """threshold: one for all labels, in place of their own."""
        least = self.thresholds if threshold is None else (threshold,) * len(self.labels)
        order = np.argsort(-row, kind="stable")
        named = tuple((self.labels[k], float(row[k])) for k in order)
        return LabelsPrediction(
            path, tuple((self.labels[k], float(row[k])) for k in order if row[k] >= least[k]), named[:top]
        )

    def unread(self, path: str | None, error: str) -> LabelsPrediction:
        return LabelsPrediction(path, error=error)


def _told(labels: tuple[tuple[str, float], ...]) -> str:
    return "  ".join(f"{label} {share:.1%}" for label, share in labels)


def _rows(labels: tuple[tuple[str, float], ...]) -> list[dict[str, Any]]:
    return [{"label": label, "probability": probability} for label, probability in labels]
