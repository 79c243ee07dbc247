"""From what a person types to a backbone.

`scion` · `mobilenetv2_100` (timm unless only torchvision has it) · `torchvision/squeezenet1_1` ·
`mobilenetv2_100:pad_type=same,size=192` (options after a colon). Two options are for every family: `crop_pct`, the part
of the picture's short side that is seen, and `readout=layers`, all layers as features (`auto`: a fit tries both).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import timm
import torch
import torchvision

from regraft.core.errors import UsageError, unknown_name
from regraft.images.backbones import embedded, lenet, timm_models, torchvision_models  # noqa: F401  (each registers its family)
from regraft.images.backbones.base import ImageBackbone, families
from regraft.images.backbones.layers import LayeredBackbone
from regraft.images.backbones.weights import load_weights

EMBEDDED = ("scion",)
#: Options that every family takes.
_EVERYWHERE = ("crop_pct", "readout")
#: Families whose models can be listed; one that another package registers is asked by `family/model` alone.
LISTED = ("embedded", "small", "timm", "torchvision")


def create(name: str, weights: Path | None = None, *, pretrained: bool = True) -> ImageBackbone:
    """The backbone of that name.

    weights: a local file in place of a download. pretrained=False builds it with random weights.
    Raises UsageError for a name or option that does not exist, WeightsError for weights that cannot be had.
    """
    family, model, options = parse(name)
    backbone = _bare(family, model, options, pretrained=pretrained and weights is None)
    backbone.recipe["name"] = name
    if weights is not None:
        load_weights(backbone, weights)
    return _read(backbone, options)


def build(family: str, model: str, options: Mapping[str, Any], *, pretrained: bool) -> ImageBackbone:
    """The same from its parts, as an artifact's manifest holds them; leaves the global random state as it was."""
    return _read(_bare(family, model, options, pretrained=pretrained), options)


def _bare(family: str, model: str, options: Mapping[str, Any], *, pretrained: bool) -> ImageBackbone:
    """The family's own network, its input as the options say."""
    own = {key: value for key, value in options.items() if key not in _EVERYWHERE}
    with torch.random.fork_rng(devices=[]):
        backbone = families.get(family)(model, own, pretrained)
    backbone.recipe = {"name": f"{family}/{model}", "family": family, "model": model, "options": dict(options)}
    # A family of another package need not say it: what came from somewhere was pretrained.
    backbone.pretrained = backbone.pretrained or (pretrained and bool(backbone.provenance))
    if "crop_pct" in options:
        backbone.input_spec = replace(backbone.input_spec, crop_pct=float(options["crop_pct"]))
    return backbone


def _read(backbone: ImageBackbone, options: Mapping[str, Any]) -> ImageBackbone:
    return LayeredBackbone(backbone) if options.get("readout") == "layers" else backbone


def parse(name: str) -> tuple[str, str, dict[str, Any]]:
    """ "family/model:key=value,…" → its parts; the family is found where it is left out."""
    full, _, tail = name.partition(":")
    options: dict[str, Any] = {}
    for item in filter(None, tail.split(",")):
        key, equals, value = item.partition("=")
        if not equals or not key.isidentifier():
            raise UsageError(f"Backbone option {item!r} is not of the form key=value, as in {full}:size=192.")
        options[key] = _value(value)
    size = options.get("size", 1)
    if isinstance(size, bool) or not isinstance(size, int) or size < 1:
        raise UsageError(
            f"A backbone's size is the input's side in px, a whole number as in {full}:size=192, not {size!r}."
        )
    crop = options.get("crop_pct", 1.0)
    if isinstance(crop, bool) or not isinstance(crop, int | float) or not 0.3 <= crop <= 1:
        raise UsageError(
            f"crop_pct is the part of the picture's short side that is seen, from 0.3 to 1, as in {full}:crop_pct=1.0, "
            f"not {crop!r}."
        )
    if options.get("readout", "pooled") not in ("pooled", "layers", "auto"):
        raise UsageError(f"readout is pooled, layers or auto, as in {full}:readout=auto, not {options['readout']!r}.")
    prefix, slash, model = full.partition("/")
    if slash and prefix in families:
        if prefix in LISTED and model not in models_of(prefix):
            raise unknown_name(f"{prefix} model", model, models_of(prefix))
        return prefix, model, options
    for family in LISTED:
        if full in models_of(family):
            return family, full, options
    raise unknown_name("backbone", full, {*known_models()})


def known_models() -> list[str]:
    """Every name that `create` takes without a family before it."""
    return sorted({model for family in LISTED for model in models_of(family)})


def models_of(family: str) -> list[str]:
    """The models that a built-in family knows; an empty list for a family of another package."""
    if family == "embedded":
        return list(EMBEDDED)
    if family == "small":
        return ["lenet"]
    if family == "timm":
        return list(timm.list_models())
    if family == "torchvision":
        return list(torchvision.models.list_models(module=torchvision.models))
    return []


def _value(text: str) -> Any:
    for kind in (int, float):
        try:
            return kind(text)
        except ValueError:
            continue
    return {"true": True, "false": False}.get(text.lower(), text)
