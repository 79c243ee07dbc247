"""What `regraft doctor` looks at."""

from __future__ import annotations

import os
import shutil
from dataclasses import dataclass
from importlib.resources import files
from importlib.util import find_spec
from pathlib import Path

import torch

from regraft.core.environment import PACKAGES, cpu_name, installed
from regraft.core.hardware import best_precision, cpu_has_bf16

EXTRAS = {
    "onnx": ("onnx", "onnxscript", "onnxruntime"),
    "openvino": ("openvino",),
    "tensorboard": ("tensorboard",),
    "demo": ("skimage",),
    "style": ("torchmetrics", "tifffile"),
}
ENOUGH_DISK_BYTES = 2 << 30


@dataclass(frozen=True)
class Item:
    """state: "ok", "note" (works, worth knowing) or "bad"."""

    name: str
    state: str
    text: str


def examine() -> list[Item]:
    """Everything that a fit depends on, in a second or two."""
    items = []
    for package in PACKAGES:
        found = installed(package)
        items.append(Item(package, "ok" if found else "bad", found or "missing: install Regraft again"))
    cuda = torch.cuda.is_available()
    kind = "cuda" if cuda else "mps" if torch.backends.mps.is_available() else "cpu"
    name = torch.cuda.get_device_name() if cuda else cpu_name()
    items.append(Item("device", "ok", f"{kind}: {name}, {os.cpu_count()} cores, precision {best_precision(kind)}"))
    if kind == "cpu" and not cpu_has_bf16():
        items.append(Item("bf16", "note", "this processor computes bf16 slower than fp32, so fp32 is used"))
    for extra, modules in EXTRAS.items():
        missing = [m for m in modules if find_spec(m) is None]
        text = "installed" if not missing else f"not installed; pip install 'regraft[{extra}]' adds it"
        items.append(Item(f"extra {extra}", "note" if missing else "ok", text))
    weights = files("regraft.weights") / "scion.safetensors"
    items.append(
        Item("embedded weights", "ok", "scion is here")
        if weights.is_file()
        else Item("embedded weights", "bad", "scion.safetensors is missing from the package: install Regraft again")
    )
    free = shutil.disk_usage(Path.cwd()).free
    state = "ok" if free > ENOUGH_DISK_BYTES else "note"
    items.append(Item("disk", state, f"{free / 2**30:.1f} GiB free here; a run takes up to a few hundred MiB"))
    writable = os.access(Path.cwd(), os.W_OK)
    items.append(Item("runs", "ok" if writable else "bad", f"{Path.cwd()} is {'' if writable else 'not '}writable"))
    return items
