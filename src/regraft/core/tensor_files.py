"""Tensors by name from a file of weights: safetensors, or PyTorch's own format read as plain tensors only."""

from __future__ import annotations

from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor

from regraft.core.errors import WeightsError

#: Names under which checkpoints keep the weights.
WRAPPERS = ("state_dict", "model_state_dict", "model", "net", "state_dict_ema")
LIMIT_BYTES = 16 << 30


def read_tensors(path: Path) -> dict[str, Tensor]:
    """Name → tensor from a file. Raises WeightsError for a missing, too large, unsafe or unknown file."""
    if not path.is_file():
        raise WeightsError(f"There is no weight file {path}. Give a .safetensors (or .pth) file with --weights.")
    if path.stat().st_size > LIMIT_BYTES:
        raise WeightsError(f"{path} is larger than {LIMIT_BYTES >> 30} GiB: that is no backbone.")
    if path.suffix == ".safetensors":
        try:
            return load_file(path)
        except (SafetensorError, ValueError, OSError) as error:
            raise WeightsError(f"{path} is not a readable safetensors file: {error}.") from error
    if path.suffix not in {".pth", ".pt", ".bin"}:
        raise WeightsError(
            f"{path.name}: weights are read from .safetensors, .pth, .pt or .bin, not {path.suffix or 'this'}."
        )
    try:
        loaded = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # the unpickler raises many kinds for a hostile or broken file
        raise WeightsError(
            f"{path.name} cannot be read as plain tensors (it is damaged, or holds objects that would run code): "
            "convert it to safetensors on the machine where it was made."
        ) from error
    for key in WRAPPERS:
        if isinstance(loaded, dict) and isinstance(loaded.get(key), dict):
            loaded = loaded[key]
    if not isinstance(loaded, dict) or not all(isinstance(v, Tensor) for v in loaded.values()):
        raise WeightsError(f"{path.name} holds no dictionary of tensors: save the model's state_dict().")
    return loaded
