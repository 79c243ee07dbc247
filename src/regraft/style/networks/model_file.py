"""A trained style network as one `.safetensors` file that says what it is: `regraft.style/1`.

No pickle. A file is hostile until its size, its description and every tensor's name, shape and values have been
checked. `docs/formats.md` documents the fields.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor, nn

from regraft.core.errors import ArtifactError, UsageError
from regraft.core.files import replacing
from regraft.style.networks.arbitrary_net import ArbitraryNet
from regraft.style.networks.sprig import Sprig
from regraft.style.networks.transfer_net import StudentNet, TeacherNet

FORMAT: Final = "regraft.style/1"
READABLE: Final = (FORMAT,)
#: The largest network that the ranges below allow takes less.
LIMIT_BYTES: Final = 256 << 20
#: Bounds of what a description may ask for, so that a small file cannot make the reader build a large network.
MOST_CHANNELS: Final = 256
MOST_BLOCKS: Final = 16
MOST_STYLES: Final = 256
#: Types of numbers on disk, in safetensors' words.
_FLOATS: Final = ("F32", "F16", "BF16")
_INTEGERS: Final = ("I64",)
_MOST_TEXT: Final = 64 << 10
_MOST_NAME: Final = 200


@dataclass(frozen=True)
class StyleModel:
    """A network with what is known of it.

    kind: student, teacher or arbitrary. net: in evaluation mode. styles: a student's one, a teacher's in order, none
    for an arbitrary one. card: for people: where the weights come from, licence, figures.
    """

    kind: str
    net: nn.Module
    styles: tuple[str, ...] = ()
    card: Mapping[str, Any] = field(default_factory=dict)


def student_model(net: StudentNet, style: str, card: Mapping[str, Any] | None = None) -> StyleModel:
    return StyleModel("student", net, (style,), card or {})


def teacher_model(net: TeacherNet, styles: tuple[str, ...], card: Mapping[str, Any] | None = None) -> StyleModel:
    return StyleModel("teacher", net, styles, card or {})


def arbitrary_model(net: ArbitraryNet, card: Mapping[str, Any] | None = None) -> StyleModel:
    return StyleModel("arbitrary", net, (), card or {})


def save_style_model(path: Path, model: StyleModel, *, half: bool = False) -> Path:
    """Write `model` to `path`, whole or not at all. half: floats in half precision, half the size.

    Raises UsageError for a kind, styles or sizes that a reader would refuse, and for values that half precision or
    any other cannot hold.
    """
    try:
        config = _checked_config(model.kind, _config_of(model))
        _check_styles(model.kind, model.styles, config)
    except ValueError as error:
        raise UsageError(f"This style network cannot be saved: {error}.") from error
    texts = {
        "config": json.dumps(config),
        "styles": json.dumps(list(model.styles), ensure_ascii=False),
        "card": json.dumps(dict(model.card), ensure_ascii=False, allow_nan=False),
    }
    if any(len(text.encode()) > _MOST_TEXT for text in texts.values()):
        raise UsageError(f"The card or the styles take more than {_MOST_TEXT >> 10} KiB as JSON: shorten them.")
    tensors = {name: _stored(value, half) for name, value in model.net.state_dict().items()}
    wrong = [name for name, value in tensors.items() if value.is_floating_point() and not value.isfinite().all()]
    if wrong:
        raise UsageError(
            f"{wrong[0]} holds values that are not numbers{' in half precision' if half else ''}: the network "
            f"cannot be saved{', save it in full precision' if half else ''}."
        )
    with replacing(path) as temporary:
        save_file(tensors, temporary, {"regraft": FORMAT, "kind": model.kind, **texts})
    return path


def load_style_model(path: Path, *, encoder: Callable[[], Sprig] | None = None) -> StyleModel:
    """The network in `path`, in evaluation mode, float32, on the CPU.

    encoder: gives the encoder of an arbitrary network, which has a file of its own; without one such a file is
    refused. Raises ArtifactError for a file that is missing, too large, no style model, or does not fit itself.
    """
    if not path.is_file():
        raise ArtifactError(f"There is no style model {path}. Give a .safetensors file that Regraft wrote.")
    if path.stat().st_size > LIMIT_BYTES:
        raise ArtifactError(f"{path} is larger than {LIMIT_BYTES >> 20} MiB: that is no style model.")
    try:
        with safe_open(path, framework="pt") as opened:
            metadata = dict(opened.metadata() or {})
            kind, config, styles, card = _described(metadata)
            with torch.random.fork_rng(devices=[]):
                net = _build(kind, config, encoder)
            # A slice knows its shape and type without being read.
            found = {name: opened.get_slice(name) for name in opened.keys()}  # noqa: SIM118 (not a mapping)
            _check_shapes(net, {name: tuple(part.get_shape()) for name, part in found.items()})
            _check_types(net, {name: part.get_dtype() for name, part in found.items()})
            tensors = {name: opened.get_tensor(name) for name in found}
    except (SafetensorError, ValueError, RecursionError) as error:
        raise ArtifactError(
            f"{path} is not a style model that can be used: {error}. Copy it again, or have it written anew."
        ) from error
    own = net.state_dict()
    wrong = [name for name, value in tensors.items() if not bool(value.isfinite().all())]
    if wrong:
        raise ArtifactError(f"{path} is damaged: {wrong[0]} holds what is not a number. Copy it again.")
    net.load_state_dict({name: value.to(own[name].dtype) for name, value in tensors.items()})
    return StyleModel(kind, net.eval(), styles, card)


def _stored(value: Tensor, half: bool) -> Tensor:
    value = value.detach().cpu()
    return (value.half() if half and value.is_floating_point() else value).contiguous().clone()


def _described(metadata: Mapping[str, str]) -> tuple[str, dict[str, Any], tuple[str, ...], dict[str, Any]]:
    """Kind, sizes, styles and card; ValueError with what is wrong."""
    if metadata.get("regraft") not in READABLE:
        stated = metadata.get("regraft")
        raise ValueError(f"it states the format {str(stated)[:40]!r}, and this version reads {', '.join(READABLE)}")
    kind = metadata.get("kind", "")
    for name in ("config", "styles", "card"):
        if len(metadata.get(name, "")) > _MOST_TEXT:
            raise ValueError(f"its {name} is longer than {_MOST_TEXT >> 10} KiB")
    config = _checked_config(kind, json.loads(metadata.get("config", "null")))
    styles = json.loads(metadata.get("styles", "null"))
    if not isinstance(styles, list):
        raise ValueError("its styles are no list")
    _check_styles(kind, tuple(styles), config)
    card = json.loads(metadata.get("card", "{}"))
    if not isinstance(card, dict):
        raise ValueError("its card is no JSON object")
    return kind, config, tuple(styles), card


def _config_of(model: StyleModel) -> dict[str, Any]:
    net = model.net
    if model.kind == "student" and isinstance(net, StudentNet):
        return {"widths": list(net.widths), "inner": list(net.inner)}
    if model.kind == "teacher" and isinstance(net, TeacherNet):
        return {"styles": net.styles, "width": net.down.convolution.out_channels, "blocks": len(net.blocks)}
    if model.kind == "arbitrary" and isinstance(net, ArbitraryNet):
        return {"attention": net.attentive is not None}
    raise ValueError(f"a {type(net).__name__} is no network of kind {model.kind!r}; kinds are {', '.join(_KINDS)}")


def _build(kind: str, config: Mapping[str, Any], encoder: Callable[[], Sprig] | None) -> nn.Module:
    if kind == "student":
        return StudentNet(tuple(config["widths"]), tuple(config["inner"]))
    if kind == "teacher":
        return TeacherNet(config["styles"], config["width"], config["blocks"])
    if encoder is None:
        raise ValueError("it holds a network for any style, which needs its encoder beside it")
    return ArbitraryNet(encoder(), attention=config["attention"])


def _checked_config(kind: str, config: Any) -> dict[str, Any]:
    """`config` with exactly the fields of its kind, each in its range; ValueError else."""
    if kind not in _KINDS:
        raise ValueError(f"it is of kind {kind[:40]!r}; this version knows {', '.join(_KINDS)}")
    expected = _KINDS[kind]
    if not isinstance(config, dict) or config.keys() != expected.keys():
        raise ValueError(f"a {kind}'s config has the fields {', '.join(expected)} and no other")
    for name, check in expected.items():
        if not check(config[name]):
            raise ValueError(f"its {name} {str(config[name])[:60]} is out of range")
    return config


def _check_styles(kind: str, styles: tuple[Any, ...], config: Mapping[str, Any]) -> None:
    wanted = {"student": 1, "teacher": config.get("styles"), "arbitrary": 0}[kind]
    if not all(isinstance(name, str) and 0 < len(name) <= _MOST_NAME and name.isprintable() for name in styles):
        raise ValueError(f"a style's name is text of 1 to {_MOST_NAME} printable characters")
    if len(styles) != wanted or len(set(styles)) != len(styles):
        raise ValueError(f"{len(styles)} style names came, and this {kind} has {wanted}, each named once")


def _check_shapes(net: nn.Module, found: Mapping[str, tuple[int, ...]]) -> None:
    own = {name: tuple(value.shape) for name, value in net.state_dict().items()}
    odd = sorted(own.keys() ^ found.keys())
    if odd:
        raise ValueError(f"{len(odd)} tensors are missing or not of this network (first: {odd[0][:80]})")
    for name, shape in own.items():
        if found[name] != shape:
            raise ValueError(f"{name} has the shape {found[name]} where its config asks for {shape}")


def _check_types(net: nn.Module, found: Mapping[str, str]) -> None:
    for name, value in net.state_dict().items():
        allowed = _FLOATS if value.is_floating_point() else _INTEGERS
        if found[name] not in allowed:
            raise ValueError(f"{name} is stored as {found[name]}, where {' or '.join(allowed)} is read")


def _whole(low: int, high: int) -> Callable[[Any], bool]:
    return lambda value: type(value) is int and low <= value <= high


def _wholes(count: range, high: int) -> Callable[[Any], bool]:
    return lambda value: isinstance(value, list) and len(value) in count and all(map(_whole(1, high), value))


_KINDS: Final[dict[str, dict[str, Callable[[Any], bool]]]] = {
    "student": {
        "widths": _wholes(range(3, 4), MOST_CHANNELS),
        "inner": _wholes(range(MOST_BLOCKS + 1), MOST_CHANNELS),
    },
    "teacher": {
        "styles": _whole(1, MOST_STYLES),
        "width": lambda value: _whole(2, MOST_CHANNELS)(value) and value % 2 == 0,
        "blocks": _whole(0, MOST_BLOCKS),
    },
    "arbitrary": {"attention": lambda value: isinstance(value, bool)},
}
