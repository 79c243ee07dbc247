"""What a strategy is: one way to get from pretrained weights to a trained task, in one file, found by its name.

A job asks a strategy the same questions in the same order and knows none by name: `prepare` the task, `plan` who
trains, `settings` of the loop, `penalty` beside the loss, and, when the training is over, `finish`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, ClassVar, TypeVar

from torch import Tensor

from regraft.core.errors import UsageError
from regraft.core.option_groups import StrategyOptions
from regraft.core.registry import Registry
from regraft.core.types import Rule, Task
from regraft.strategies.plan import Plan, RuleStrategy

if TYPE_CHECKING:
    from _typeshed import DataclassInstance

S = TypeVar("S", bound="DataclassInstance")
#: Scores a task on validation, higher is better: the metric, and the loss between states with the same one.
Judge = Callable[[Task], float]

#: Base rate of what begins with pretrained weights, for AdamW at a batch of 32; a batch of n takes sqrt(n / 32) of it.
PRETRAINED_LR = 5e-5
#: A head begins anew where the backbone is refined, so its rate is this multiple of the base rate.
HEAD_RATE = 10.0
#: Below this many training samples normalisation layers keep the pretraining's statistics: a few hundred pictures in
#: small batches estimate them worse than the pretraining did.
KEEP_STATISTICS_BELOW = 2000


@dataclass(frozen=True)
class Finished:
    """A trained task as it is saved: of the structure that it had before `prepare`, so that nothing else needs to know
    of what was inserted.

    kept: what was found on validation, JSON-ready, for a training of the same candidate without validation. note: the
    same as a sentence for people, or "".
    """

    task: Task
    kept: Mapping[str, Any] = field(default_factory=dict)
    note: str = ""


class Strategy:
    """A strategy of these options for so many training samples; a subclass says what differs from plain training.

    control: begins with random weights; what transfer is measured against. solved: needs no training, since the head
    is solved on cached features. usual: tried where nobody asked for particular ones. cost: order among candidates,
    the simplest first; of two that validation cannot tell apart the earlier is kept.
    """

    name: ClassVar[str]
    control: ClassVar[bool] = False
    solved: ClassVar[bool] = False
    usual: ClassVar[bool] = False
    cost: ClassVar[int] = 50

    def __init__(self, options: StrategyOptions, n_train: int) -> None:
        self.options, self.n_train = options, n_train

    @property
    def base_lr(self) -> float:
        """The rate that the plan's multiples are of, for AdamW at a batch of 32."""
        return self.options.lr or PRETRAINED_LR

    @property
    def keeps_statistics(self) -> bool:
        """Whether every normalisation layer keeps the statistics that it came with, even where its parameters train."""
        asked = self.options.norm_statistics
        return self.n_train < KEEP_STATISTICS_BELOW if asked == "auto" else asked == "keep"

    def prepare(self, task: Task, seed: int) -> Task:
        """The task as it is trained: what is to be inserted goes in, what is to be forgotten is reset.

        task: pretrained, with the probe's head where there is one; it may be changed in place. Random numbers come
        from the global state, which is set from the seed before.
        """
        return task

    def rules(self, task: Task) -> Sequence[Rule]:
        """Who trains, when, at which multiple of the base rate; the first rule that matches a parameter decides."""
        raise TypeError(f"{type(self).__name__} does not define rules")

    def plan(self, task: Task, base_lr: float) -> Plan:
        """The rules applied to a prepared task. Raises PlanError where they leave a parameter out or match nothing."""
        return RuleStrategy(self.rules(task), keep_statistics=self.keeps_statistics).plan(task, base_lr)

    def penalty(self, task: Task) -> Callable[[Task], Tensor] | None:
        """What is added to the loss of every step, a scalar; None: nothing. task: prepared, before its first step."""
        return None

    def settings(self, usual: S) -> S:
        """The loop's settings: the usual ones, or a changed copy."""
        return usual

    def finish(self, task: Task, judge: Judge | None, known: Sequence[Mapping[str, Any]]) -> Finished:
        """The trained task as it is saved: what was inserted merged, what is still open chosen.

        judge: None where there is no validation; then `known` holds what `Finished.kept` was in each round that had
        one, and may be empty.
        """
        return Finished(task)


strategies: Registry[type[Strategy]] = Registry("strategy")


def register(strategy: type[Strategy]) -> type[Strategy]:
    """Class decorator: add a strategy under its name. Raises ValueError where the name is taken."""
    return strategies.register(strategy.name)(strategy)


def by_cost(names: Iterable[str]) -> tuple[str, ...]:
    """Names in the order in which candidates stand: the simplest first, controls last. UsageError for unknown ones."""
    found = {name: strategies.get(name) for name in names}
    return tuple(sorted(found, key=lambda name: (found[name].control, found[name].cost, name)))


def usual_strategies() -> tuple[str, ...]:
    """The names of those that are tried where nobody asked for particular ones."""
    return by_cost(name for name in strategies if strategies.get(name).usual)


def trained(names: Iterable[str]) -> tuple[str, ...]:
    """Those of these names whose strategy trains."""
    return tuple(name for name in names if not strategies.get(name).solved)


def control_of(names: Iterable[str]) -> str | None:
    """The control among these names; None where there is none."""
    return next((name for name in names if strategies.get(name).control), None)


def first_solved() -> str:
    """The simplest strategy whose head is solved: what a first answer is given by. UsageError where there is none."""
    found = [name for name in by_cost(strategies) if strategies.get(name).solved]
    if not found:
        raise UsageError(f"No strategy is solved on features; there are {', '.join(strategies)}.")
    return found[0]


def deepest(task: Task, last: int | None) -> tuple[list[str], list[str]]:
    """The backbone's layer groups, shallow → deep, and those of them that train: the `last` deepest, or all.

    The head is the task's last group. Raises UsageError where there are not so many.
    """
    backbone = list(task.layer_groups())[:-1]
    if last is not None and last > len(backbone):
        raise UsageError(
            f"This backbone has {len(backbone)} layer groups; --last takes 1 to {len(backbone)}, not {last}."
        )
    return backbone, backbone if last is None else backbone[-last:]


def head_of(task: Task) -> str:
    """The name of the head's layer group, which is the last."""
    return list(task.layer_groups())[-1]
