"""Who trains in an adaptation: the method decides, the backbone's layer groups carry it out."""

from __future__ import annotations

from regraft.adaptation.training.task import Adaptation
from regraft.core.errors import UsageError
from regraft.core.types import Rule
from regraft.strategies.plan import NORMS

#: Rate of the head and of what a loss learns itself, over that of a pretrained backbone (arXiv:1505.07818, §5.2.2).
HEAD_RATE = 10.0
#: Groups of the task that never train.
FROZEN = ("teacher", "reference")


def rules_for(task: Adaptation, *, pretrained: bool, last: int | None = None) -> list[Rule]:
    """Rules that cover the task's parameters.

    pretrained: the head and the loss's own parts learn at ten times the backbone's rate; else at the same rate. last:
    only the deepest `last` layer groups of the backbone train. Raises UsageError for a number that there is not, and
    where a method trains normalisation layers and the backbone has none.
    """
    groups = list(task.layer_groups())
    backbone = [name for name in groups if name not in {"head", "alignment", *FROZEN}]
    rate = HEAD_RATE if pretrained else 1.0
    rules = [Rule(f"group:{name}", None) for name in FROZEN if name in groups]
    if "alignment" in groups:
        rules.append(Rule("group:alignment", rate))
    if task.loss is not None and task.loss.trains_norms_alone:
        return [*rules, Rule(_norm_pattern(task), 1.0), Rule(".*", None)]
    rules.append(Rule("group:head", None if task.loss is not None and task.loss.freezes_head else rate))
    if last is not None and not 1 <= last <= len(backbone):
        raise UsageError(f"This backbone has {len(backbone)} layer groups; --last takes 1 to {len(backbone)}.")
    chosen = backbone if last is None else backbone[-last:]
    rules += [Rule(f"group:{name}", 1.0) for name in chosen]
    return rules if len(chosen) == len(backbone) else [*rules, Rule(".*", None)]


def _norm_pattern(task: Adaptation) -> str:
    """A pattern for the scales and shifts of the model's normalisation layers."""
    names = [name for name, m in task.model.named_modules() if isinstance(m, NORMS)]
    if not names:
        raise UsageError("TENT trains normalisation layers, and this backbone has none.")
    return r"^model\.(" + "|".join(name.replace(".", r"\.") for name in names) + r")\.(weight|bias)$"
