"""LoRA: what is adapted, that it begins as nothing, and that what is merged is what was trained."""

from __future__ import annotations

import copy

import pytest
import torch
from torch import Tensor, nn

from regraft.core.errors import PlanError
from regraft.core.types import Task
from regraft.strategies import StrategyOptions
from regraft.strategies.lora import LoRA, adapt, merge


class Attention(nn.Module):
    """As text networks have it: linear layers deep inside, whose weights others may look at."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.query, self.key, self.value = (nn.Linear(width, width) for _ in range(3))
        self.output = nn.ModuleDict({"dense": nn.Linear(width, width), "norm": nn.LayerNorm(width)})

    def forward(self, x: Tensor) -> Tensor:
        shares = (self.query(x) @ self.key(x).transpose(1, 2)).softmax(dim=2)
        found: Tensor = self.output["norm"](x + self.output["dense"](shares @ self.value(x)))
        return found


class Mixed(Task):
    """A convolution, a depthwise and a pointwise one, attention over the places, and a head."""

    def __init__(self) -> None:
        super().__init__()
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(0)
            self.stem = nn.Sequential(
                nn.Conv2d(3, 6, 3, stride=2),
                nn.BatchNorm2d(6),
                nn.Conv2d(6, 6, 3, groups=6),
                nn.Conv2d(6, 16, 1, stride=2),
            )
            self.attention = Attention(16)
            self.head = nn.Linear(16, 2)

    def layer_groups(self) -> dict[str, list[str]]:
        names = [name for name, _ in self.named_parameters()]
        return {group: [n for n in names if n.startswith(group)] for group in ("stem", "attention", "head")}

    def predict(self, x: Tensor) -> Tensor:
        found: Tensor = self.head(self.attention(self.stem(x).flatten(2).transpose(1, 2)).mean(dim=1))
        return found


class Convolutions(Task):
    """Nothing but what cannot be merged, under a head."""

    def __init__(self) -> None:
        super().__init__()
        self.body = nn.Sequential(nn.Conv2d(3, 4, 3), nn.Conv2d(4, 4, 1, groups=4))
        self.head = nn.Linear(4, 2)

    def layer_groups(self) -> dict[str, list[str]]:
        names = [name for name, _ in self.named_parameters()]
        return {group: [n for n in names if n.startswith(group)] for group in ("body", "head")}


@pytest.fixture
def x() -> Tensor:
    return torch.randn(5, 3, 12, 12, generator=torch.Generator().manual_seed(1))


def prepared(rank: int = 4) -> tuple[LoRA, Task]:
    strategy = LoRA(StrategyOptions(lora_rank=rank), 100)
    return strategy, strategy.prepare(Mixed(), 0)


def shaken(task: Task) -> Task:
    """As after a training: the thin matrices hold anything."""
    with torch.no_grad():
        for name, parameter in task.named_parameters():
            if "lora_" in name:
                parameter.normal_()
    return task


def test_linear_and_pointwise_layers_are_adapted_and_begin_as_they_were(x: Tensor) -> None:
    _, task = prepared()
    inserted = {name.rpartition(".")[0] for name, _ in task.named_parameters() if "lora_" in name}
    assert inserted == {"stem.3", *(f"attention.{name}" for name in ("query", "key", "value", "output.dense"))}
    assert torch.equal(task.eval().predict(x), Mixed().eval().predict(x))


def test_only_what_was_inserted_and_the_head_train() -> None:
    strategy, task = prepared()
    rows = strategy.plan(task, 1.0).rows
    assert {row.name for row in rows if row.lr is not None} == {
        name for name, _ in task.named_parameters() if "lora_" in name or name.startswith("head")
    }
    assert {row.name: row.group for row in rows}["stem.3.lora_a"] == "stem"
    assert {row.name for row in rows} >= {name for name, _ in Mixed().named_parameters()}, "names stay what they were"


@pytest.mark.parametrize("rank", [1, 4, 64])
def test_merged_is_unmerged(x: Tensor, rank: int) -> None:
    strategy, task = prepared(rank)
    unmerged = shaken(task).eval().predict(x)
    assert not torch.allclose(unmerged, Mixed().eval().predict(x), atol=1e-2)
    finished = strategy.finish(task, None, []).task
    assert torch.allclose(finished.predict(x), unmerged, atol=1e-5)
    plain = Mixed().eval()
    plain.load_state_dict(finished.state_dict())
    assert torch.equal(plain.predict(x), finished.predict(x))
    assert [type(one) for one in finished.modules()] == [type(one) for one in plain.modules()]


def test_the_rank_is_no_larger_than_the_layer() -> None:
    layer = nn.Linear(6, 3)
    adapt(layer, 8)
    assert layer.get_parameter("lora_a").shape == (3, 6) and layer.get_parameter("lora_b").shape == (3, 3)


def test_an_adapted_layer_can_be_copied(x: Tensor) -> None:
    _, task = prepared()
    twin = copy.deepcopy(shaken(task)).eval()
    assert torch.equal(twin.predict(x), task.eval().predict(x))
    merge(twin.get_submodule("attention.query"))  # type: ignore[arg-type]
    assert "attention.query.lora_a" in dict(task.named_parameters())


def test_a_network_without_such_layers_is_told() -> None:
    with pytest.raises(PlanError, match="found no linear layer and no 1×1 convolution below the head"):
        LoRA(StrategyOptions(), 100).prepare(Convolutions(), 0)
