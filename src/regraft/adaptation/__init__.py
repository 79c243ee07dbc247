"""Floor 3: domain adaptation: losses over features, shallow methods, validators and distances. One class a method."""

from regraft.adaptation import confusion, dynamic, moments, self_training
from regraft.adaptation.base import DomainLoss, losses

__all__ = [
    "DomainLoss",
    "confusion",
    "dynamic",
    "losses",
    "moments",
    "self_training",
]
