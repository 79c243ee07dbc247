"""Rules to a plan: every parameter covered, every rule deciding something, modes that follow what trains."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from regraft.core.errors import PlanError, UsageError
from regraft.core.types import Rule, Task
from regraft.strategies import Plan, RuleStrategy, StrategyOptions, strategies
from tiny_training import Blocks


def plan(*rules: Rule, task: Task | None = None, base_lr: float = 0.01) -> Plan:
    return RuleStrategy(rules).plan(task or Blocks(), base_lr)


def rates(found: Plan) -> dict[str, float | None]:
    """One rate per group, where a group has only one."""
    by_group: dict[str, set[float | None]] = {}
    for row in found.rows:
        by_group.setdefault(row.group, set()).add(row.lr)
    assert all(len(values) == 1 for values in by_group.values())
    return {group: values.pop() for group, values in by_group.items()}


def test_every_parameter_has_exactly_one_row_from_shallow_to_deep() -> None:
    task = Blocks()
    found = plan(Rule("group:head", 10.0), Rule("group:body", 1.0, 0.25), Rule(".*", None), task=task)
    sizes = {name: p.numel() for name, p in task.named_parameters()}
    assert {row.name: row.count for row in found.rows} == sizes and len(found.rows) == len(sizes)
    assert [row.group for row in found.rows] == ["stem"] * 4 + ["body"] * 4 + ["head"] * 2
    assert rates(found) == {"stem": None, "body": 1.0, "head": 10.0}
    assert found.trained_parameters == sum(n for name, n in sizes.items() if not name.startswith("stem"))
    assert found.thaw_points() == (0.0, 0.25)
    assert {row.name: row.decay for row in found.rows} == {n: p.dim() > 1 for n, p in task.named_parameters()}


def test_trains_follows_progress() -> None:
    found = plan(Rule("group:body", 1.0, 0.5), Rule("group:head", 1.0), Rule(".*", None))
    assert [found.trains("body.0.weight", p) for p in (0.0, 0.49, 0.5, 1.0)] == [False, False, True, True]
    assert found.trains("head.bias", 0.0) and not found.trains("stem.0.weight", 1.0)


def test_first_rule_that_matches_decides() -> None:
    found = plan(Rule(r"\.bias$", None), Rule("group:head", 5.0), Rule(".*", 1.0))
    by_name = {row.name: row.lr for row in found.rows}
    assert by_name["head.bias"] is None and by_name["head.weight"] == 5.0
    assert by_name["stem.0.weight"] == 1.0 and by_name["stem.1.bias"] is None


def test_uncovered_parameter_is_an_error() -> None:
    with pytest.raises(PlanError, match=r"No rule covers stem\.0\.weight \(group stem\): end the list with Rule"):
        plan(Rule("group:head", 1.0), Rule("group:body", 1.0))


def test_rule_that_matches_nothing_is_an_error_with_the_groups() -> None:
    with pytest.raises(PlanError, match=r"Rule 'group:haed' matches no parameter\. Groups: stem, body, head\."):
        plan(Rule("group:haed", 1.0), Rule(".*", None))
    with pytest.raises(PlanError, match="matches no parameter"):
        plan(Rule(".*", 1.0), Rule("layer99", None))


def test_rule_behind_an_earlier_one_is_an_error() -> None:
    with pytest.raises(PlanError, match="'group:head' decides nothing: every parameter that it matches has an earlier"):
        plan(Rule(".*", 1.0), Rule("group:head", 10.0))


def test_group_names_are_whole_names() -> None:
    class Many(Task):
        def __init__(self) -> None:
            super().__init__()
            self.layer1, self.layer10 = nn.Linear(2, 2), nn.Linear(2, 2)

        def layer_groups(self) -> dict[str, list[str]]:
            return {g: [f"{g}.weight", f"{g}.bias"] for g in ("layer1", "layer10")}

    assert rates(plan(Rule("group:layer1", 2.0), Rule(".*", None), task=Many())) == {"layer1": 2.0, "layer10": None}


@pytest.mark.parametrize("names", [{"stem": ["stem.0.weight"]}, {"all": ["head.weight", "head.bias", "ghost"]}])
def test_groups_that_do_not_cover_the_parameters_are_an_error(names: dict[str, list[str]]) -> None:
    task = Blocks()
    task.layer_groups = lambda: names  # type: ignore[method-assign]
    with pytest.raises(PlanError, match="layer groups do not cover the parameters"):
        plan(Rule(".*", 1.0), task=task)


def test_groups_with_a_name_too_many_are_an_error() -> None:
    task = Blocks()
    groups = {**task.layer_groups(), "ghost": ["ghost.weight"]}
    task.layer_groups = lambda: groups  # type: ignore[method-assign]
    with pytest.raises(PlanError, match="names too many"):
        plan(Rule(".*", 1.0), task=task)


def test_table_tells_who_trains() -> None:
    lines = str(plan(Rule("group:head", 10.0), Rule("group:body", 1.0, 0.5), Rule(".*", None))).splitlines()
    assert [line.split() for line in lines[:4]] == [
        ["group", "parameters", "trains", "rate", "from"],
        ["stem", "120", "no", "-", "-"],
        ["body", "195", "yes", "0.01", "50%"],
        ["head", "12", "yes", "0.1", "0%"],
    ]
    assert lines[4] == "207 of 327 parameters train; base rate 0.01"


def test_table_has_a_line_per_rate_within_a_group() -> None:
    lines = str(plan(Rule(r"^stem\.1", 2.0), Rule("group:stem", None), Rule(".*", 1.0))).splitlines()
    assert [line.split()[:4] for line in lines[1:3]] == [["stem", "112", "no", "-"], ["stem", "8", "yes", "0.02"]]


def preset(name: str, last: int | None = None) -> dict[str, float | None]:
    return rates(strategies.get(name)(StrategyOptions(last=last), 100).plan(Blocks(), 0.01))


def test_presets() -> None:
    assert preset("probe") == {"stem": None, "body": None, "head": 1.0}
    assert preset("finetune") == {"stem": 1.0, "body": 1.0, "head": 10.0}
    assert preset("finetune", 1) == {"stem": None, "body": 1.0, "head": 10.0}
    assert preset("finetune", 2) == preset("finetune")
    assert preset("scratch") == {"stem": 1.0, "body": 1.0, "head": 1.0}


def test_finetune_of_more_groups_than_there_are_is_told() -> None:
    with pytest.raises(UsageError, match="has 2 layer groups; --last takes 1 to 2, not 3"):
        preset("finetune", 3)
    with pytest.raises(UsageError, match="Did you mean 'finetune'"):
        strategies.get("fintune")


class Norms(Task):
    """A norm of each kind in "low" (frozen below) and in "high"; the plain ones have no parameters of their own."""

    def __init__(self) -> None:
        super().__init__()
        for name in ("low", "high"):
            block = nn.Module()
            block.conv = nn.Conv2d(2, 2, 1)
            block.batch = nn.BatchNorm2d(2)
            block.plain = nn.BatchNorm2d(2, affine=False)
            block.layer = nn.LayerNorm(2)
            block.inner = nn.Sequential(nn.Conv2d(2, 2, 1), nn.BatchNorm2d(2, affine=False), nn.Dropout(0.5))
            setattr(self, name, block)

    def layer_groups(self) -> dict[str, list[str]]:
        names = [name for name, _ in self.named_parameters()]
        return {group: [n for n in names if n.startswith(group)] for group in ("low", "high")}


def training(task: nn.Module) -> set[str]:
    kinds = (nn.BatchNorm2d, nn.LayerNorm, nn.Dropout)
    return {name for name, module in task.named_modules() if isinstance(module, kinds) and module.training}


def test_norms_of_frozen_layers_keep_their_statistics() -> None:
    task = Norms()
    found = plan(Rule("group:low", 1.0, 0.5), Rule("group:high", 1.0), task=task)
    found.set_modes(task, 0.0)
    high = {"high.batch", "high.plain", "high.layer", "high.inner.1", "high.inner.2"}
    assert training(task) == high | {"low.inner.2"}  # dropout is no statistic: it stays on
    found.set_modes(task, 0.5)
    assert training(task) == high | {n.replace("high", "low") for n in high}
    assert task.training
    found.set_modes(task, 0.0)
    assert training(task) == high | {"low.inner.2"}


def test_norm_without_parameters_follows_the_nearest_module_that_has_some() -> None:
    """`inner` is frozen in a block whose other layers train: so is its norm, but not the block's own plain norm."""
    task = Norms()
    found = plan(Rule(r"high\.inner", None), Rule("group:high", 1.0), Rule(".*", None), task=task)
    found.set_modes(task, 0.0)
    assert training(task) == {"high.batch", "high.plain", "high.layer", "high.inner.2", "low.inner.2"}


def test_norm_with_frozen_parameters_is_frozen_though_its_neighbours_train() -> None:
    task = Norms()
    plan(Rule(r"batch\.", None), Rule(".*", 1.0), task=task).set_modes(task, 0.0)
    assert {"high.batch", "low.batch"}.isdisjoint(training(task)) and "low.layer" in training(task)


def test_frozen_statistics_do_not_move_in_a_forward_pass() -> None:
    task = Norms()
    plan(Rule("group:low", None), Rule(".*", 1.0), task=task).set_modes(task, 0.0)
    x: Tensor = torch.randn(4, 2, 3, 3) + 7

    def mean(module: nn.Module) -> Tensor:
        module(x)
        return module.running_mean  # type: ignore[return-value]

    assert torch.equal(mean(task.low.batch), torch.zeros(2)) and torch.equal(mean(task.low.plain), torch.zeros(2))
    assert float(mean(task.high.batch).min()) > 0.1 and float(mean(task.high.plain).min()) > 0.1
