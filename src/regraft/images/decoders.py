"""torchvision's decoders of JPEG and PNG without the rest of torchvision.

`import torchvision` brings its models and a compiler with it: two seconds of a command that decodes two pictures. The
decoders are operators in one library, which registers them as `torch.ops.image` when it is loaded.
"""

from __future__ import annotations

import sys
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import torch


def image_operators() -> Any:
    """`torch.ops.image`, with the operators that this torchvision has; the whole of it is imported where its library
    is not found by name."""
    if "torchvision" not in sys.modules and not hasattr(torch.ops.image, "decode_jpeg") and not _loaded():
        import torchvision  # noqa: F401  (registers torch.ops.image)
    return torch.ops.image


def _loaded() -> bool:
    spec = find_spec("torchvision")
    if spec is None or spec.origin is None:
        return False
    # image_stable from 0.29 on, image before.
    for library in sorted(Path(spec.origin).parent.glob("image*.so"), reverse=True):
        try:
            torch.ops.load_library(library)  # type: ignore[no-untyped-call]  # PyTorch has no types for it
        except OSError:  # what it stands on is missing; importing torchvision says so in its own way
            continue
        return hasattr(torch.ops.image, "decode_jpeg")
    return False
