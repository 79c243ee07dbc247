"""Rules to a plan: every parameter gets a rate or is frozen, every rule matches something, or it is an error.

The idea of one ordered list of (pattern, schedule) with asserted coverage is big_vision's; the groups are the
backbone's.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass

from torch import nn
from torch.nn.modules.batchnorm import _NormBase

from regraft.core.errors import PlanError
from regraft.core.types import Rule, Task

NORMS = (_NormBase, nn.LayerNorm, nn.GroupNorm)


@dataclass(frozen=True)
class PlanRow:
    """One parameter: lr is the multiple of the base rate, None = frozen for good."""

    name: str
    group: str
    count: int
    lr: float | None
    from_progress: float
    decay: bool


@dataclass(frozen=True)
class Plan:
    """Who trains: one row per parameter, shallow → deep. `print(plan)` is the who-trains table."""

    rows: tuple[PlanRow, ...]
    base_lr: float
    #: Whether every normalisation layer keeps the statistics that it came with, even where its parameters train.
    keep_statistics: bool = False

    @property
    def trained_parameters(self) -> int:
        """How many scalars train at some time."""
        return sum(row.count for row in self.rows if row.lr is not None)

    def trains(self, name: str, progress: float) -> bool:
        """Whether that parameter moves at this progress."""
        row = self._by_name[name]
        return row.lr is not None and progress >= row.from_progress

    @property
    def _by_name(self) -> dict[str, PlanRow]:
        found: dict[str, PlanRow] | None = self.__dict__.get("_index")
        if found is None:
            found = {row.name: row for row in self.rows}
            object.__setattr__(self, "_index", found)
        return found

    def thaw_points(self) -> tuple[float, ...]:
        """The progress values at which something starts to train, ascending."""
        return tuple(sorted({row.from_progress for row in self.rows if row.lr is not None}))

    def set_modes(self, task: nn.Module, progress: float) -> None:
        """Training mode, but normalisation layers none of whose parameters train now keep their statistics.

        A normalisation layer without parameters follows the nearest module above it that has some.
        """
        task.train()
        moving = {row.name for row in self.rows if row.lr is not None and progress >= row.from_progress}
        for name, module in task.named_modules():
            if not isinstance(module, NORMS):
                continue
            prefix = name
            while True:
                dotted = f"{prefix}." if prefix else ""
                own = [row.name for row in self.rows if row.name.startswith(dotted)]
                if own or not prefix:
                    break
                prefix = prefix.rpartition(".")[0]
            if self.keep_statistics or not any(n in moving for n in own):
                module.eval()

    def __str__(self) -> str:
        lines = [f"{'group':<24} {'parameters':>12} {'trains':<8} {'rate':>10} {'from':>6}"]
        done: set[tuple[str, float | None, float]] = set()
        for row in self.rows:
            key = (row.group, row.lr, row.from_progress)
            if key in done:
                continue
            done.add(key)
            count = sum(r.count for r in self.rows if (r.group, r.lr, r.from_progress) == key)
            rate = "-" if row.lr is None else f"{row.lr * self.base_lr:.2g}"
            start = "-" if row.lr is None else f"{row.from_progress:.0%}"
            lines.append(f"{row.group:<24} {count:>12,} {'no' if row.lr is None else 'yes':<8} {rate:>10} {start:>6}")
        total = sum(row.count for row in self.rows)
        lines.append(f"{self.trained_parameters:,} of {total:,} parameters train; base rate {self.base_lr:g}")
        return "\n".join(lines)


class RuleStrategy:
    """An ordered list of rules; the first that matches a parameter decides.

    keep_statistics: normalisation layers keep their pretraining statistics. A few hundred pictures in small batches
    estimate them worse than the pretraining did.
    """

    def __init__(self, rules: Sequence[Rule], *, keep_statistics: bool = False) -> None:
        self.rules = tuple(rules)
        self.keep_statistics = keep_statistics

    def plan(self, task: Task, base_lr: float) -> Plan:
        """Apply the rules. Raises PlanError for a rule that matches nothing and for a parameter without a rule."""
        groups = {name: group for group, names in task.layer_groups().items() for name in names}
        parameters = dict(task.named_parameters())
        lost = [name for name in parameters if name not in groups]
        if lost or len(groups) != len(parameters):
            raise PlanError(f"The layer groups do not cover the parameters: {', '.join(lost[:3]) or 'names too many'}.")
        used = [False] * len(self.rules)
        rows = []
        # Decay pulls weights towards zero; biases and norm scales are not weights in that sense (He et al. 2019).
        for name in sorted(parameters, key=list(groups).index):
            for index, rule in enumerate(self.rules):
                if _matches(rule.pattern, name, groups[name]):
                    used[index] = True
                    decay = parameters[name].dim() > 1
                    rows.append(
                        PlanRow(name, groups[name], parameters[name].numel(), rule.lr, rule.from_progress, decay)
                    )
                    break
            else:
                raise PlanError(
                    f"No rule covers {name} (group {groups[name]}): "
                    "end the list with Rule('.*', None) to freeze the rest."
                )
        # A later rule may be shadowed on purpose by none: one that can match no parameter at all is a mistake.
        for index, rule in enumerate(self.rules):
            if not used[index] and not any(_matches(rule.pattern, n, g) for n, g in groups.items()):
                raise PlanError(
                    f"Rule {rule.pattern!r} matches no parameter. Groups: {', '.join(task.layer_groups())}."
                )
            if not used[index]:
                raise PlanError(
                    f"Rule {rule.pattern!r} decides nothing: every parameter that it matches has an earlier rule."
                )
        return Plan(tuple(rows), base_lr, self.keep_statistics)


def _matches(pattern: str, name: str, group: str) -> bool:
    if pattern.startswith("group:"):
        return group == pattern.removeprefix("group:")
    return re.search(pattern, name) is not None
