"""Floor 3: domain adaptation: losses over features, shallow methods, validators and distances. One class a method."""

from regraft.adaptation import (
    adversarial,
    conditional,
    confusion,
    discrepancy,
    dynamic,
    moments,
    open_set,
    self_training,
)
from regraft.adaptation.base import DomainLoss, losses

__all__ = [
    "DomainLoss",
    "adversarial",
    "conditional",
    "confusion",
    "discrepancy",
    "dynamic",
    "losses",
    "moments",
    "open_set",
    "self_training",
]
