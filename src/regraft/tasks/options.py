"""What an option means for a kind of labels, and when it means nothing."""

from __future__ import annotations

from collections.abc import Mapping

from regraft.core.errors import UsageError
from regraft.measure.metrics import Metric


def check_metric(asked: str, known: Mapping[str, Metric], noun: str) -> None:
    """UsageError for a metric that is not one of this kind's; noun: what the labels are."""
    if asked != "auto" and asked not in known:
        raise UsageError(f"--metric {asked} does not go with them. The labels are {noun}: auto, {', '.join(known)}.")
