"""What `regraft models` lists."""

from __future__ import annotations

import fnmatch
from typing import Any

import timm

from regraft.images.backbones.catalogue import LISTED, models_of


def list_models(pattern: str | None = None) -> list[dict[str, Any]]:
    """Backbones as {"name", "family", "weights"}; the embedded ones first. pattern: a part of the name, or a glob."""
    wanted = None if pattern is None else pattern if any(c in pattern for c in "*?[") else f"*{pattern}*"
    with_weights = set(timm.list_models(pretrained=True))
    pretrained = {name.partition(".")[0] for name in with_weights}
    found = []
    for family in LISTED:
        for model in models_of(family):
            name = f"torchvision/{model}" if family == "torchvision" else model
            if wanted is not None and not fnmatch.fnmatch(name, wanted):
                continue
            weights = {
                "embedded": "in the package",
                "small": "none",
                "timm": "download" if model in pretrained else "none",
                "torchvision": "download",
            }[family]
            found.append({"name": name, "family": family, "weights": weights})
    return found
