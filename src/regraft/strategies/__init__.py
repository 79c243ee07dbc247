"""Floor 1: who trains, when, at which rate; and heads that are solved instead of trained."""

from regraft.strategies.known_classes import KnownClasses
from regraft.strategies.plan import Plan, PlanRow, RuleStrategy
from regraft.strategies.presets import strategies
from regraft.strategies.probe import ProbeHead, fit_probe
from regraft.strategies.regression import fit_number_probe

__all__ = [
    "KnownClasses",
    "Plan",
    "PlanRow",
    "ProbeHead",
    "RuleStrategy",
    "fit_number_probe",
    "fit_probe",
    "strategies",
]
