"""Layers that normalise by statistics of the whole picture, held at given statistics while it is run in parts.

`nn.InstanceNorm2d` is one by itself; any other layer becomes one by the two methods of `GlobalStatistics`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Final, Protocol, runtime_checkable

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from regraft.core.errors import UsageError

#: A side of the small pictures that a network is probed with, in px; a multiple of every grid that is known here.
PROBE_SIDE_PX: Final = 64


@dataclass(frozen=True)
class Statistics:
    """Of a feature map (1, C, h, w) over its positions: mean (C,) and biased variance (C,); count = h · w."""

    mean: Tensor
    variance: Tensor
    count: int


@runtime_checkable
class GlobalStatistics(Protocol):
    """A layer whose first argument is a feature map (N, C, h, w) that it normalises by the map's own statistics.

    Between `freeze_statistics` and `thaw_statistics` it takes the given ones instead. It runs once per forward pass.
    """

    def freeze_statistics(self, found: Statistics) -> None: ...

    def thaw_statistics(self) -> None: ...


class Accumulator:
    """Mean and variance of a map that comes in parts: Chan, Golub & LeVeque 1983, "Algorithms for Computing the Sample
    Variance", eq. 2.1. Kept in float64, each part reduced in its own type."""

    def __init__(self) -> None:
        self.count = 0
        self._mean = self._squares = torch.zeros((), dtype=torch.float64)

    def add(self, part: Tensor) -> None:
        """part: (1, C, h, w), with h · w of 1 or more."""
        new = statistics_of(part)
        count = self.count + new.count
        step = new.mean - self._mean
        self._mean = self._mean + step * (new.count / count)
        self._squares = self._squares + new.variance * new.count + step.square() * (self.count * new.count / count)
        self.count = count

    def result(self) -> Statistics:
        return Statistics(self._mean, self._squares / max(1, self.count), self.count)


def statistics_of(features: Tensor) -> Statistics:
    """Of one map (1, C, h, w); float64 on the CPU."""
    variance, mean = torch.var_mean(features.float(), dim=(0, 2, 3), correction=0)
    return Statistics(mean.double().cpu(), variance.double().cpu(), features.shape[-2] * features.shape[-1])


class Freezer:
    """The global layers of a module, in the order in which they run. A context: at its end every layer is as before.

    layers: name → layer. Raises UsageError for a layer that runs twice in a pass, since it would need two statistics,
    and for a subclass of InstanceNorm2d that computes something of its own.
    """

    def __init__(self, module: nn.Module) -> None:
        self.module = module
        self.layers: dict[str, nn.Module] = {}
        self.channels: dict[str, int] = {}
        found = {name: layer for name, layer in module.named_modules() if is_global(layer)}
        if not found:
            return

        def seen(name: str, features: Tensor) -> None:
            if name in self.layers:
                raise UsageError(
                    f"The layer {name} normalises twice in one pass, so it cannot be held at one statistic: "
                    "give each place a layer of its own."
                )
            self.layers[name], self.channels[name] = found[name], int(features.shape[1])

        device, dtype = placement(module)
        with evaluating(module), torch.no_grad(), watching(found, seen):
            module(torch.full((1, 3, PROBE_SIDE_PX, PROBE_SIDE_PX), 0.5, device=device, dtype=dtype))

    def __enter__(self) -> Freezer:
        return self

    def __exit__(self, *_: object) -> None:
        self.thaw()

    def freeze(self, name: str, found: Statistics) -> None:
        """From now on this layer takes these statistics."""
        layer = self.layers[name]
        if isinstance(layer, GlobalStatistics):
            layer.freeze_statistics(found)
            return
        assert isinstance(layer, nn.InstanceNorm2d)
        # The instance's own attribute stands before the class's method, so taking it away restores the layer.
        layer.forward = _Held(layer, found).__call__  # type: ignore[assignment, method-assign]

    def blank(self) -> None:
        """Mean 0 and variance 1 everywhere: for measuring what does not depend on the statistics."""
        for name, count in self.channels.items():
            zeros = torch.zeros(count, dtype=torch.float64)
            self.freeze(name, Statistics(zeros, zeros + 1, 1))

    def thaw(self) -> None:
        for layer in self.layers.values():
            if isinstance(layer, GlobalStatistics):
                layer.thaw_statistics()
            else:
                layer.__dict__.pop("forward", None)


class _Held:
    """InstanceNorm2d at given statistics, with the layer's own scale, shift and epsilon."""

    def __init__(self, layer: nn.InstanceNorm2d, found: Statistics) -> None:
        self.layer, self.found = layer, found

    def __call__(self, features: Tensor) -> Tensor:
        mean, variance = (x.to(features) for x in (self.found.mean, self.found.variance))
        return F.batch_norm(features, mean, variance, self.layer.weight, self.layer.bias, False, 0.0, self.layer.eps)


def is_global(layer: nn.Module) -> bool:
    """Whether its output at one place depends on the whole map. Raises UsageError where that cannot be told."""
    if isinstance(layer, GlobalStatistics):
        return True
    if not isinstance(layer, nn.InstanceNorm2d) or (layer.track_running_stats and layer.running_mean is not None):
        return False
    if type(layer).forward is not nn.InstanceNorm2d.forward:
        raise UsageError(
            f"{type(layer).__name__} is an InstanceNorm2d with a forward of its own: give it freeze_statistics and "
            "thaw_statistics, or make it a module that holds an InstanceNorm2d."
        )
    return True


@contextmanager
def watching(layers: Mapping[str, nn.Module], seen: Callable[[str, Tensor], None]) -> Iterator[None]:
    """`seen(name, features)` gets what each of these layers is about to normalise."""

    def hook(name: str) -> Callable[[nn.Module, tuple[Any, ...]], None]:
        return lambda _, arguments: seen(name, arguments[0])

    handles = [layer.register_forward_pre_hook(hook(name)) for name, layer in layers.items()]
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()


class _ReachedError(Exception):
    """Ends a pass at the layer whose input was asked for."""

    def __init__(self, features: Tensor) -> None:
        super().__init__()
        self.features = features


def features_before(module: nn.Module, layer: nn.Module, pictures: Tensor) -> Tensor:
    """What `layer` would be given in module(pictures); nothing behind it is computed."""

    def stop(_: str, features: Tensor) -> None:
        raise _ReachedError(features)

    with watching({"": layer}, stop):
        try:
            module(pictures)
        except _ReachedError as reached:
            return reached.features
    raise UsageError(f"{type(layer).__name__} has run for one picture and not for another: it cannot be held.")


@contextmanager
def evaluating(module: nn.Module) -> Iterator[None]:
    """Evaluation mode, and each part's own mode back at the end."""
    before = [(part, part.training) for part in module.modules()]
    module.eval()
    try:
        yield
    finally:
        for part, training in before:
            part.training = training


def placement(module: nn.Module) -> tuple[torch.device, torch.dtype]:
    """Where its first floating parameter or buffer lies, and its type; the CPU in float32 for a module without any."""
    for tensor in (*module.parameters(), *module.buffers()):
        if tensor.is_floating_point():
            return tensor.device, tensor.dtype
    return torch.device("cpu"), torch.float32
