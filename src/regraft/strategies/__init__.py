"""Floor 1: who trains, when, at which rate; and heads that are solved instead of trained."""

from regraft.core.option_groups import StrategyOptions
from regraft.strategies import finetune, gradual, lora, probe, scratch, wise  # noqa: F401, each registers itself
from regraft.strategies.base import Finished, Strategy, register, strategies
from regraft.strategies.heads.known_classes import KnownClasses
from regraft.strategies.heads.numbers import fit_number_probe
from regraft.strategies.heads.probe import ProbeHead, fit_probe
from regraft.strategies.plan import Plan, PlanRow, RuleStrategy

__all__ = [
    "Finished",
    "KnownClasses",
    "Plan",
    "PlanRow",
    "ProbeHead",
    "RuleStrategy",
    "Strategy",
    "StrategyOptions",
    "fit_number_probe",
    "fit_probe",
    "register",
    "strategies",
]
