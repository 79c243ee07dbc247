"""The named strategies: each makes rules from a task's layer groups."""

from __future__ import annotations

from collections.abc import Callable

from regraft.core.errors import UsageError
from regraft.core.registry import Registry
from regraft.core.types import Rule
from regraft.strategies.plan import RuleStrategy

#: name → factory(layer groups shallow → deep with the head last, how many deepest groups train) → strategy
strategies: Registry[Callable[[list[str], int | None], RuleStrategy]] = Registry("strategy")

HEAD_RATE = 10.0


@strategies.register("probe")
def probe(groups: list[str], last: int | None = None) -> RuleStrategy:
    """Only the head trains."""
    return RuleStrategy([Rule(f"group:{groups[-1]}", 1.0), Rule(".*", None)])


@strategies.register("finetune")
def finetune(groups: list[str], last: int | None = None) -> RuleStrategy:
    """The head at ten times the rate of the backbone; all backbone groups train, or the `last` deepest ones."""
    backbone = groups[:-1]
    if last is not None and not 1 <= last <= len(backbone):
        raise UsageError(
            f"This backbone has {len(backbone)} layer groups; --last takes 1 to {len(backbone)}, not {last}."
        )
    chosen = backbone if last is None else backbone[-last:]
    rules = [Rule(f"group:{groups[-1]}", HEAD_RATE), *(Rule(f"group:{name}", 1.0) for name in chosen)]
    if len(chosen) < len(backbone):
        rules.append(Rule(".*", None))
    return RuleStrategy(rules)


@strategies.register("scratch")
def scratch(groups: list[str], last: int | None = None) -> RuleStrategy:
    """Everything trains at the same rate: the control, on random weights."""
    return RuleStrategy([Rule(".*", 1.0)])
