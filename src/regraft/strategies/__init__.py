"""Floor 1: who trains, when, at which rate; and heads that are solved instead of trained."""

from regraft.strategies.heads.known_classes import KnownClasses
from regraft.strategies.heads.numbers import fit_number_probe
from regraft.strategies.heads.probe import ProbeHead, fit_probe
from regraft.strategies.plan import Plan, PlanRow, RuleStrategy
from regraft.strategies.presets import strategies

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
