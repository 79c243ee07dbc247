"""Every shape of batch through the loop, the cutting for lack of memory and `predict`; a task's own memory order."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from regraft.core import nested
from regraft.core.types import Batch, StepOutput, Task
from regraft.engine import FitSettings, fit, predict
from tiny_training import one_machine, plan_of

pytestmark = pytest.mark.usefixtures("one_thread")
DOUBLE = torch.float64
SETTINGS = FitSettings(4, optimizer="sgd", accumulate=2, warmup=0.0)


class Samples:
    """Ten samples in batches of five, of which each is one entry of a list, as `shape` puts them together."""

    def __init__(self, shape: str) -> None:
        draw = torch.Generator().manual_seed(0)
        self.shape = shape
        self.rows = [torch.randn(3, 2 + n % 3, generator=draw, dtype=DOUBLE) for n in range(10)]

    def __len__(self) -> int:
        return 2

    def epoch(self, index: int, start: int = 0) -> Iterator[Batch]:
        for batch in range(start, 2):
            rows = self.rows[5 * batch : 5 * batch + 5]
            means = torch.stack([row.mean(dim=1) for row in rows])
            shapes: dict[str, Any] = {
                "tensor": means,
                "mapping": {"means": means, "language": "en"},
                "list": rows,
                "list of mappings": [{"pixels": row, "name": "a"} for row in rows],
            }
            sums = [row.sum() for row in rows]
            y = [{"sum": value, "text": "label"} for value in sums] if "list" in self.shape else torch.stack(sums)
            yield Batch(shapes[self.shape], y, torch.tensor([1.0, 1, 1, 1, 0], dtype=DOUBLE))


class Means(Task):
    """One linear layer on each sample's means. `room`: how many samples there is memory for."""

    def __init__(self, room: int = 5) -> None:
        super().__init__()
        self.room = room
        torch.manual_seed(1)
        self.linear = nn.Linear(3, 1, dtype=DOUBLE)

    def layer_groups(self) -> dict[str, list[str]]:
        return {"linear": ["linear.weight", "linear.bias"]}

    def means(self, x: Any) -> Tensor:
        if isinstance(x, Tensor):
            return x
        if isinstance(x, Mapping):
            assert x["language"] == "en" and isinstance(x["means"], Tensor)
            return x["means"]
        rows = [sample["pixels"] if isinstance(sample, Mapping) else sample for sample in x]
        return torch.stack([row.mean(dim=1) for row in rows])

    def predict(self, x: Any) -> Any:
        found: Tensor = self.linear(self.means(x))
        return found

    def forward(self, batches: Mapping[str, Batch], progress: float, phase: str = "step") -> StepOutput:
        batch = batches["train"]
        if nested.length(batch.x) > self.room:
            raise torch.OutOfMemoryError("CUDA out of memory")
        y = torch.stack([label["sum"] for label in batch.y]) if isinstance(batch.y, list) else batch.y
        assert batch.weight is not None
        losses = (self.predict(batch.x)[:, 0] - y).square() * batch.weight
        return StepOutput(losses.sum() / batch.weight.sum().clamp(min=1))


@pytest.mark.parametrize("shape", ["mapping", "list", "list of mappings"])
def test_every_shape_trains_to_the_same_weights_whole_and_cut(shape: str) -> None:
    plain = Means()
    fit(plain, {"train": Samples("tensor")}, plan_of(plain), SETTINGS, one_machine())
    for room, split in ((5, 1), (2, 4)):
        task = Means(room)
        found = fit(task, {"train": Samples(shape)}, plan_of(task), SETTINGS, one_machine())
        assert found.split == split
        torch.testing.assert_close(task.linear.weight, plain.linear.weight, rtol=0, atol=1e-12)
        torch.testing.assert_close(task.linear.bias, plain.linear.bias, rtol=0, atol=1e-12)
    assert not torch.equal(plain.linear.weight, Means().linear.weight)


@pytest.mark.parametrize("shape", ["tensor", "mapping", "list", "list of mappings"])
def test_outputs_of_one_size_are_a_tensor_without_the_padding(shape: str) -> None:
    stream = Samples(shape)
    found = predict(Means(), stream, one_machine())
    assert isinstance(found.outputs, Tensor) and found.outputs.shape == (8, 1)
    assert found.outputs.dtype == torch.float32
    real = [row for n, row in enumerate(stream.rows) if n % 5 < 4]
    labels = found.labels if isinstance(found.labels, Tensor) else torch.stack([label["sum"] for label in found.labels])
    torch.testing.assert_close(labels, torch.stack([row.sum() for row in real]))


def test_outputs_of_several_sizes_are_one_entry_a_sample() -> None:
    class Detector(Means):
        def predict(self, x: Any) -> Any:
            return [{"boxes": sample.T, "label": sample.argmax(), "name": "a"} for sample in x]

    class Enlarging(Means):
        """A map for each batch, in that batch's own size."""

        def predict(self, x: Any) -> Any:
            side = max(row.shape[1] for row in x[:2])
            return torch.stack([row[:, :1].expand(3, side) for row in x])

    stream = Samples("list")
    real = [row for n, row in enumerate(stream.rows) if n % 5 < 4]
    boxes = predict(Detector(), stream, one_machine()).outputs
    assert len(boxes) == 8
    for sample, row in zip(boxes, real, strict=True):
        torch.testing.assert_close(sample["boxes"], row.T.float())
        assert sample["label"].dtype == torch.int64 and sample["name"] == "a"
        sample["boxes"].requires_grad_()  # no inference tensor leaves
    stream.rows = stream.rows[:5] + [row[:, :2] for row in stream.rows[5:]]
    maps = predict(Enlarging(), stream, one_machine()).outputs
    assert [tuple(each.shape) for each in maps] == [(3, 3)] * 4 + [(3, 2)] * 4


class Volumes(Task):
    """A three-dimensional convolution and, where asked, a flat one beside it."""

    def __init__(self, memory_format: torch.memory_format | None) -> None:
        super().__init__()
        self.memory_format = memory_format
        self.deep, self.flat = nn.Conv3d(2, 4, 3), nn.Conv2d(4, 4, 3)
        self.seen: list[Tensor] = []

    def layer_groups(self) -> dict[str, list[str]]:
        return {"all": [name for name, _ in self.named_parameters()]}

    def predict(self, x: Any) -> Any:
        self.seen.append(x)
        return self.flat(self.deep(x).mean(dim=2)).mean(dim=(2, 3))

    def forward(self, batches: Mapping[str, Batch], progress: float, phase: str = "step") -> StepOutput:
        return StepOutput(self.predict(batches["train"].x).square().mean())


class Clips:
    def __len__(self) -> int:
        return 1

    def epoch(self, index: int, start: int = 0) -> Iterator[Batch]:
        if start == 0:
            yield Batch(torch.randn(2, 2, 5, 6, 6))


@pytest.mark.parametrize(
    ("memory_format", "deep", "flat"),
    [(None, False, False), (torch.channels_last, False, True), (torch.channels_last_3d, True, False)],
)
def test_memory_order_is_the_task_s_own(memory_format: torch.memory_format | None, deep: bool, flat: bool) -> None:
    """The volumes of a video, which no fixed order for pictures fits, train in any of them."""
    task = Volumes(memory_format)
    fit(task, {"train": Clips()}, plan_of(task), FitSettings(2), one_machine())
    predict(task, Clips(), one_machine())
    assert task.deep.weight.is_contiguous(memory_format=torch.channels_last_3d) == deep
    assert task.flat.weight.is_contiguous(memory_format=torch.channels_last) == flat
    assert {x.is_contiguous(memory_format=torch.channels_last_3d) for x in task.seen} == {deep}
