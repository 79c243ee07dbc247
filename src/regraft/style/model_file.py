"""A style network in one file: safetensors whose header says what it is. `docs/formats.md` documents it.

No pickle. What the header asks for is bounded before anything is built, and every tensor must fit.
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
from torch import nn

from regraft.core.errors import ArtifactError
from regraft.core.files import replacing
from regraft.style.arbitrary_net import ArbitraryNet
from regraft.style.sprig import Sprig
from regraft.style.transfer_net import StudentNet, TeacherNet

FORMAT: Final = "regraft.style/1"
KINDS: Final = ("student", "teacher", "arbitrary")
LIMIT_BYTES: Final = 256 << 20
#: Bounds of what a file may ask to be built.
_MOST_CHANNELS, _MOST_BLOCKS, _MOST_STYLES = 1024, 64, 1024


@dataclass(frozen=True)
class StyleModel:
    """A style network with its styles' names, and what is known of it: plain values, as `style train` measured them."""

    kind: str
    net: nn.Module
    styles: tuple[str, ...] = ()
    card: Mapping[str, Any] = field(default_factory=dict)


def save_style_model(path: Path, model: StyleModel) -> Path:
    """Write the file whole or not at all, in half precision; returns its path. ArtifactError for values that half
    precision does not hold."""
    tensors = {}
    for key, value in model.net.state_dict().items():
        tensors[key] = value.detach().cpu().half().contiguous() if value.is_floating_point() else value.cpu()
        if value.is_floating_point() and not bool(torch.isfinite(tensors[key]).all()):
            raise ArtifactError(
                f"{key} has values that are no numbers in half precision: train again with a lower rate."
            )
    header = {
        "format": FORMAT, "kind": model.kind, "config": json.dumps(_config(model.net)),
        "styles": json.dumps(list(model.styles)), "card": json.dumps(dict(model.card), allow_nan=False),
    }  # fmt: skip
    path.parent.mkdir(parents=True, exist_ok=True)
    with replacing(path) as temporary:
        save_file(tensors, temporary, metadata=header)
    return path


def load_style_model(path: Path, *, encoder: Callable[[], Sprig] | None = None) -> StyleModel:
    """The network of a file, in float32 and evaluation mode.

    encoder: gives the slim network that an arbitrary one sees through. Raises ArtifactError for what is missing, too
    large, of another format, or does not fit.
    """
    if not path.is_file():
        raise ArtifactError(f"There is no style model at {path}. `regraft style train` makes one.")
    if path.stat().st_size > LIMIT_BYTES:
        raise ArtifactError(f"{path} is larger than {LIMIT_BYTES >> 20} MiB: that is no style model.")
    try:
        with safe_open(path, "pt") as source:
            header = dict(source.metadata() or {})
            tensors = {key: source.get_tensor(key) for key in source.keys()}  # noqa: SIM118 - not a mapping
    except (SafetensorError, OSError, ValueError) as error:
        raise ArtifactError(f"{path} is not a safetensors file: {error}.") from error
    if header.get("format") != FORMAT:
        raise ArtifactError(f"{path} has format {header.get('format')!r}; this version reads {FORMAT}.")
    try:
        config, styles, card = (json.loads(header[name]) for name in ("config", "styles", "card"))
    except (KeyError, ValueError, RecursionError) as error:
        raise ArtifactError(f"The header of {path} cannot be read ({error}): copy the file again.") from error
    if not isinstance(config, dict) or not isinstance(styles, list) or not isinstance(card, dict):
        raise ArtifactError(f"The header of {path} has values of another type: copy the file again.")
    net = _build(path, str(header.get("kind")), config, encoder)
    own = net.state_dict()
    wrong = sorted(set(own) ^ set(tensors)) + [k for k in own if k in tensors and own[k].shape != tensors[k].shape]
    if wrong:
        raise ArtifactError(f"{path} does not hold what its header says (first: {wrong[0]}): copy the file again.")
    if not all(bool(torch.isfinite(value).all()) for value in tensors.values() if value.is_floating_point()):
        raise ArtifactError(f"{path} has weights that are no numbers: copy the file again, or train it again.")
    net.load_state_dict({key: value.to(own[key].dtype) for key, value in tensors.items()})
    return StyleModel(str(header["kind"]), net.eval(), tuple(str(name) for name in styles), card)


def _config(net: nn.Module) -> dict[str, Any]:
    if isinstance(net, StudentNet):
        return {"widths": list(net.widths), "inner": list(net.inner)}
    if isinstance(net, TeacherNet):
        return {"styles": net.styles, "width": net.width, "blocks": len(net.blocks)}
    if isinstance(net, ArbitraryNet):
        return {"attention": net.attentive is not None}
    raise TypeError(f"{type(net).__name__} is no style network that has a file format")


def _build(path: Path, kind: str, config: Mapping[str, Any], encoder: Callable[[], Sprig] | None) -> nn.Module:
    if kind == "student":
        widths, inner = _numbers(path, config, "widths"), _numbers(path, config, "inner")
        if len(widths) != 2 or len(inner) > _MOST_BLOCKS:
            raise ArtifactError(f"{path} asks for a student of {len(widths)} widths and {len(inner)} blocks.")
        return StudentNet((widths[0], widths[1]), inner)
    if kind == "teacher":
        styles, width, blocks = (_numbers(path, config, name)[0] for name in ("styles", "width", "blocks"))
        if blocks > _MOST_BLOCKS or styles > _MOST_STYLES:
            raise ArtifactError(f"{path} asks for a teacher of {styles} styles and {blocks} blocks: that is too many.")
        return TeacherNet(styles, width, blocks)
    if kind == "arbitrary":
        if encoder is None:
            raise ArtifactError(f"{path} takes any style; a fixed style is needed here.")
        return ArbitraryNet(encoder(), attention=config.get("attention") is True)
    raise ArtifactError(f"{path} is of kind {kind!r}; this version knows {', '.join(KINDS)}.")


def _numbers(path: Path, config: Mapping[str, Any], name: str) -> tuple[int, ...]:
    """One whole number or a list of them, each from 1 to the most channels."""
    value = config.get(name)
    found = value if isinstance(value, list) else [value]
    if not all(type(n) is int and 1 <= n <= _MOST_CHANNELS for n in found) or not found:
        raise ArtifactError(f"{path} asks for {name} {value!r}; accepted are whole numbers up to {_MOST_CHANNELS}.")
    return tuple(found)
