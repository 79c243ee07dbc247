"""Rows of a model's answers → what people are told of one sample, the same whichever runtime gave them."""

from __future__ import annotations

from typing import Any, Protocol

import numpy as np

from regraft.core.errors import UsageError


class Answer(Protocol):
    """What a model says of one sample. error: why there is no answer."""

    @property
    def path(self) -> str | None: ...
    @property
    def error(self) -> str | None: ...

    def told(self, top: int = 1) -> str:
        """One line for people, fields parted by tabs."""
        ...

    def to_json(self) -> dict[str, Any]:
        """A JSON-ready dictionary."""
        ...


class Reader(Protocol):
    """Rows (K,) of a model's answers → predictions."""

    def read(self, path: str | None, row: np.ndarray, *, top: int, threshold: float | None) -> Answer:
        """One row of answers as a prediction. threshold: None takes the model's own."""
        ...

    def unread(self, path: str | None, error: str) -> Answer:
        """The prediction for a sample that could not be read."""
        ...


def check_options(top: int, threshold: float | None, batch_size: int) -> None:
    """UsageError for a number that cannot mean anything."""
    if top < 1 or batch_size < 1 or not (threshold is None or 0 <= threshold <= 1):
        raise UsageError(
            f"Predicting got top={top}, threshold={threshold}, batch_size={batch_size}; "
            "accepted: top ≥ 1, 0 ≤ threshold ≤ 1, batch_size ≥ 1."
        )
