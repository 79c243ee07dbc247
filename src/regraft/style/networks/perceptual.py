"""Networks whose features say what a picture shows and how it is painted, behind one class.

`PerceptualNetwork` runs a chain of named layers up to the deepest that is asked for. The layer `input`, which every
network has, is the normalised picture itself: its statistics are those of colour. A network is a function with
`@networks.register("name")` that returns one.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from contextlib import ExitStack
from importlib.resources import as_file, files
from pathlib import Path
from typing import Any, Final, Protocol, cast

import torch
from torch import Tensor, nn

from regraft.core.errors import UsageError, WeightsError, unknown_name
from regraft.core.files import sha256_file
from regraft.core.registry import Registry
from regraft.core.tensor_files import read_tensors
from regraft.style.networks.sprig import STAGES, Sprig

INPUT: Final = "input"
_IMAGENET: Final = ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))


class PerceptualNetwork(nn.Module):
    """Pictures (N, 3, H, W) in [0, 1] → features of named layers, each (N, C, h, w).

    stages: ordered name → module, each fed with the last one's output. style_layers: name → weight in the sum of
    style losses; content_layers likewise. Frozen, in evaluation mode.
    """

    def __init__(
        self,
        name: str,
        stages: Mapping[str, nn.Module],
        style_layers: Mapping[str, float],
        content_layers: Mapping[str, float],
        *,
        mean: tuple[float, ...] = _IMAGENET[0],
        std: tuple[float, ...] = _IMAGENET[1],
        min_side_px: int = 32,
        source: str = "random",
    ) -> None:
        super().__init__()
        self.name, self.source, self.min_side_px = name, source, min_side_px
        self.order = (INPUT, *stages)
        self.stages = nn.ModuleList(stages.values())
        for layer in (*style_layers, *content_layers):
            if layer not in self.order:
                raise unknown_name(f"layer of {name}", layer, self.order)
        self.style_layers, self.content_layers = dict(style_layers), dict(content_layers)
        self.register_buffer("mean", torch.tensor(mean).view(1, 3, 1, 1), persistent=False)
        self.register_buffer("std", torch.tensor(std).view(1, 3, 1, 1), persistent=False)
        self.mean: Tensor
        self.std: Tensor
        self.eval().requires_grad_(False)

    def forward(self, pictures: Tensor, layers: Iterable[str]) -> dict[str, Tensor]:
        """Features of `layers`. Raises UsageError for a picture that is too small for the network."""
        wanted = set(layers)
        unknown = wanted - set(self.order)
        if unknown:
            raise unknown_name(f"layer of {self.name}", sorted(unknown)[0], self.order)
        if min(pictures.shape[-2:]) < self.min_side_px:
            raise UsageError(
                f"A picture of {pictures.shape[-1]} × {pictures.shape[-2]} px is too small for {self.name}: "
                f"both sides must have {self.min_side_px} px or more."
            )
        x = (pictures - self.mean) / self.std
        found = {INPUT: x} if INPUT in wanted else {}
        deepest = max(map(self.order.index, wanted), default=0)
        for name, stage in zip(self.order[1 : deepest + 1], self.stages, strict=False):
            x = stage(x)
            if name in wanted:
                found[name] = x
        return found


class Builder(Protocol):
    """What is registered: weights is a local file, None asks for the network's own."""

    def __call__(self, weights: Path | None) -> PerceptualNetwork: ...


#: name → builder
networks: Registry[Builder] = Registry("perceptual network")


def perceptual(name: str, weights: Path | None = None) -> PerceptualNetwork:
    """The network of that name. Raises UsageError for an unknown name, WeightsError for weights that cannot be had."""
    return networks.get(name)(weights)


@networks.register("scion")
def scion(weights: Path | None) -> PerceptualNetwork:
    """The embedded backbone: offline, about 30 times less work per pixel than VGG-19.

    A convolution of stride 2 is computed at every position and its output then averaged over 2 × 2. The weights are the
    same, but every pixel counts alike, so that an optimised picture gets no grid of dots (Gatys et al. 2016, section 2,
    replace maximum by average pooling for a like reason).
    """
    from regraft.images.backbones import create  # here, since it brings every library of models with it
    from regraft.images.backbones.scion import FusedBlock, Scion

    backbone = create("scion", weights)
    net = backbone.net
    assert isinstance(net, Scion)
    stages: dict[str, nn.Module] = {"stem": _every_position(net.stem), "pool": nn.AvgPool2d(2, ceil_mode=True)}
    for number, stage in enumerate((net.stage1, net.stage2, net.stage3, net.stage4), start=1):
        for index, block in enumerate(stage):
            assert isinstance(block, FusedBlock)
            if index:
                stages[f"stage{number}.{index}"] = block
            else:
                stages[f"stage{number}.0.widen"] = _every_position(block.widen)
                stages[f"stage{number}.0"] = nn.Sequential(nn.AvgPool2d(2, ceil_mode=True), block.narrow)
    return PerceptualNetwork(
        "scion",
        stages,
        style_layers={
            INPUT: 1.0, "stem": 1.0, "stage1.0.widen": 1.0, "stage2.0.widen": 1.0, "stage3.0.widen": 1.0,
        },
        content_layers={"stage2.2": 1.0},
        source=str(backbone.provenance.get("sha256", "random")),
    )  # fmt: skip


def sprig_net(weights: Path | None = None) -> Sprig:
    """The slim network of the package, or of a file, alone. Raises WeightsError."""
    with torch.random.fork_rng(devices=[]):
        net = Sprig()
    with ExitStack() as stack:
        _load(
            net, "sprig", weights or stack.enter_context(as_file(files("regraft.weights") / "sprig.safetensors")), None
        )
    return net.eval()


@networks.register("sprig")
def sprig(weights: Path | None) -> PerceptualNetwork:
    """The slim network that comes with the package: offline, distilled from SqueezeNet 1.1's layers 1, 4, 6 and 7."""
    style_layers = {INPUT: 1.0, **dict.fromkeys(STAGES, 1.0)}
    source = "regraft" if weights is None else sha256_file(weights)
    return PerceptualNetwork("sprig", sprig_net(weights).stages(), style_layers, {"patterns": 1.0}, source=source)


@networks.register("squeezenet1_1")
def squeezenet(weights: Path | None) -> PerceptualNetwork:
    """SqueezeNet 1.1 (Iandola et al. 2016, arXiv:1602.07360), its layers numbered as in torchvision's `features`."""
    from torchvision.models import SqueezeNet1_1_Weights, squeezenet1_1

    with torch.random.fork_rng(devices=[]):
        net = squeezenet1_1()
    source = _load(net.features, "squeezenet1_1", weights, SqueezeNet1_1_Weights.IMAGENET1K_V1)
    return PerceptualNetwork(
        "squeezenet1_1",
        _chain(net.features),
        style_layers={INPUT: 1.0, "1": 1.0, "4": 1.0, "6": 1.0, "7": 1.0},
        content_layers={"6": 1.0},
        source=source,
    )


@networks.register("vgg19")
def vgg19(weights: Path | None) -> PerceptualNetwork:
    """VGG-19 (Simonyan & Zisserman 2015, arXiv:1409.1556) with the layers of Gatys et al. 2016."""
    return _vgg("vgg19", "E", weights)


@networks.register("vgg16")
def vgg16(weights: Path | None) -> PerceptualNetwork:
    """VGG-16 with the same layers."""
    return _vgg("vgg16", "D", weights)


def _vgg(name: str, layout: str, weights: Path | None) -> PerceptualNetwork:
    """Convolution and ReLU are one layer, named `relu<block>_<number>`; pooling is by average (Gatys et al. 2016)."""
    from torchvision.models import get_model_weights, vgg

    with torch.random.fork_rng(devices=[]):
        features = vgg.make_layers(vgg.cfgs[layout], batch_norm=False)
    enum = get_model_weights(name)
    source = _load(features, name, weights, enum["IMAGENET1K_V1"])
    stages: dict[str, nn.Module] = {}
    block, number = 1, 1
    for layer, following in zip(features, [*[*features][1:], None], strict=True):
        if isinstance(layer, nn.Conv2d):
            assert isinstance(following, nn.ReLU)
            stages[f"relu{block}_{number}"] = nn.Sequential(layer, following)
            number += 1
        elif isinstance(layer, nn.MaxPool2d):
            stages[f"pool{block}"] = nn.AvgPool2d(2)
            block, number = block + 1, 1
    style = {f"relu{block}_1": 1.0 for block in range(1, 6)}
    return PerceptualNetwork(name, stages, style, {"relu4_2": 1.0}, source=source)


def _chain(features: nn.Module) -> dict[str, nn.Module]:
    """Index → layer; an in-place ReLU belongs to the layer before it, whose output it would change."""
    stages: dict[str, nn.Module] = {}
    layers = list(features.named_children())
    for index, (name, layer) in enumerate(layers):
        if isinstance(layer, nn.ReLU):
            del stages[layers[index - 1][0]]
            stages[name] = nn.Sequential(layers[index - 1][1], layer)
        else:
            stages[name] = layer
    return stages


def _every_position(layers: nn.Module) -> nn.Sequential:
    """The same convolution, norm and activation, the convolution at stride 1; edges repeat the last pixel."""
    padded, *rest = cast(nn.Sequential, layers)
    strided = cast(nn.Sequential, padded)[1]
    assert isinstance(strided, nn.Conv2d)
    # On the meta device no random weights are drawn, so the random state stays as it was.
    dense = nn.Conv2d(strided.in_channels, strided.out_channels, 3, bias=False, device="meta")
    dense.weight = strided.weight
    return nn.Sequential(nn.ReplicationPad2d((0, 2, 0, 2)), dense, *rest)


def _load(features: nn.Module, name: str, weights: Path | None, published: Any) -> str:
    """Load a local file or the published weights into `features`; returns what they are."""
    if weights is not None:
        tensors, source = read_tensors(weights), sha256_file(weights)
    else:
        try:
            tensors, source = published.get_state_dict(progress=False, check_hash=True), f"torchvision/{published}"
        except (OSError, RuntimeError) as error:
            cause = str(error).strip().splitlines()[0][:160] if str(error).strip() else type(error).__name__
            raise WeightsError(
                f"The weights of {name} are neither in the cache ({torch.hub.get_dir()}) nor could they be downloaded "
                f"({cause}). Pass a file with --perceptual-weights FILE, or take --perceptual scion, which needs none."
            ) from error
    found = {key.removeprefix("module.").removeprefix("features."): value for key, value in tensors.items()}
    own = features.state_dict()
    wrong = [key for key, value in own.items() if key not in found or found[key].shape != value.shape]
    if wrong:
        raise WeightsError(
            f"{weights.name if weights else 'The download'} does not fit {name}: {len(wrong)} of {len(own)} tensors "
            f"are missing or of another shape (first: features.{wrong[0]}). Name the network that the file is for."
        )
    features.load_state_dict({key: found[key].to(value.dtype) for key, value in own.items()})
    return source
