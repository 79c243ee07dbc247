"""Gradual unfreezing: the head first, then one layer group after the other from the deepest on, each slower.

Paper: Howard & Ruder, "Universal Language Model Fine-tuning for Text Classification", ACL 2018, arXiv:1801.06146,
sections 3.2 (discriminative rates) and 3.3 (gradual unfreezing).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from regraft.core.types import Rule, Task
from regraft.strategies.base import HEAD_RATE, S, Strategy, deepest, head_of, register

#: The rate of a group over that of the group below it, in the paper's network.
FACTOR = 2.6
#: How many steps of that factor the paper's network has, from its deepest layer to its embedding.
STEPS = 3
#: The share of the steps after which every group trains.
THAWED_AT = 0.5


@register
class Gradual(Strategy):
    """The head alone trains first; at equal parts of the first half of the steps the next group thaws, deep to shallow.

    Differs from the paper: groups thaw by the share of the steps, where the paper thaws one an epoch; and the factor
    between groups is smaller in a network of more groups, so that its shallowest one is as slow as the paper's and not
    as good as frozen. With `last` only the deepest groups thaw.
    """

    name = "gradual"
    cost = 30

    def rules(self, task: Task) -> Sequence[Rule]:
        backbone, chosen = deepest(task, self.options.last)
        factor = FACTOR ** min(1.0, STEPS / max(1, len(chosen) - 1))
        rules = [Rule(f"group:{head_of(task)}", HEAD_RATE)]
        for depth, name in enumerate(reversed(chosen)):
            rules.append(Rule(f"group:{name}", factor**-depth, THAWED_AT * (depth + 1) / len(chosen)))
        return rules if len(chosen) == len(backbone) else [*rules, Rule(".*", None)]

    def settings(self, usual: S) -> S:
        """What is still frozen cannot be judged: patience counts from where everything trains."""
        return replace(usual, patience_from=THAWED_AT)
