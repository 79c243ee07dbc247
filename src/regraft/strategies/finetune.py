"""Fine-tuning: the probe's head and all of the network train on, or the deepest groups alone."""

from __future__ import annotations

from collections.abc import Sequence

from regraft.core.types import Rule, Task
from regraft.strategies.base import HEAD_RATE, Strategy, deepest, head_of, register


@register
class Finetune(Strategy):
    """The head at ten times the rate of the backbone; all backbone groups train, or the `last` deepest ones."""

    name = "finetune"
    usual = True
    cost = 40

    def rules(self, task: Task) -> Sequence[Rule]:
        backbone, chosen = deepest(task, self.options.last)
        rules = [Rule(f"group:{head_of(task)}", HEAD_RATE), *(Rule(f"group:{name}", 1.0) for name in chosen)]
        return rules if len(chosen) == len(backbone) else [*rules, Rule(".*", None)]
