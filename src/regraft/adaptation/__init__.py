"""Floor 4: domain adaptation: losses over features, shallow methods, validators and distances. One class a method."""

from regraft.adaptation.base import DomainLoss
from regraft.adaptation.losses import (
    adversarial,
    conditional,
    confusion,
    discrepancy,
    dynamic,
    moments,
    open_set,
    self_training,
)

__all__ = [
    "DomainLoss",
    "adversarial",
    "conditional",
    "confusion",
    "discrepancy",
    "dynamic",
    "moments",
    "open_set",
    "self_training",
]
