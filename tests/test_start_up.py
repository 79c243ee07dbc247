"""What a command brings with it at its start: seconds on a slow machine, for which nobody gets anything."""

from __future__ import annotations

import subprocess
import sys
from importlib import metadata
from pathlib import Path

import pytest
import torch

from regraft.core import hardware
from regraft.core.errors import UsageError
from regraft.images import decoders

HEAVY = ("torchvision", "timm", "lightning_fabric", "sklearn", "torch._dynamo")


def loaded_by(code: str) -> list[str]:
    """Which of HEAVY are there after that code, in a process of its own."""
    told = f"{code}\nimport sys\nprint(*(name for name in {HEAVY!r} if name in sys.modules))"
    done = subprocess.run([sys.executable, "-c", told], capture_output=True, text=True, check=True)
    return done.stdout.split()


def test_a_styled_picture_needs_none_of_the_heavy_libraries(tmp_path: Path) -> None:
    code = f"""
from pathlib import Path
import numpy as np
from PIL import Image
from regraft.recipes.style.job import run_stylize
from regraft.recipes.style.options import StyleConfig
folder = Path({str(tmp_path)!r})
for name in ("photo.jpg", "painting.png"):
    Image.fromarray(np.random.default_rng(0).integers(0, 256, (40, 48, 3), dtype=np.uint8)).save(folder / name)
photo, painting = str(folder / "photo.jpg"), folder / "painting.png"
done = run_stylize(StyleConfig(content=(photo,), styles=((painting, 1.0),), output=folder / "out.png"))
assert (folder / "out.png").is_file() and done[0].error is None
"""
    assert loaded_by(code) == []


def test_the_decoders_alone_read_as_all_of_torchvision_does(tmp_path: Path) -> None:
    code = f"""
import sys
from pathlib import Path
import numpy as np, torch
from PIL import Image
from regraft.images.decode import decode
path = Path({str(tmp_path)!r}) / "photo.jpg"
Image.fromarray(np.random.default_rng(0).integers(0, 256, (40, 48, 3), dtype=np.uint8)).save(path)
found = decode(path)
assert "torchvision" not in sys.modules
from torchvision.io import decode_image
assert torch.equal(found, decode_image(str(path)))
"""
    assert "torchvision" in loaded_by(code)


def test_without_the_library_by_name_all_of_torchvision_is_imported(monkeypatch: pytest.MonkeyPatch) -> None:
    class Gone:
        origin = "/nowhere/torchvision/__init__.py"

    monkeypatch.setattr(decoders, "find_spec", lambda name: Gone)
    assert not decoders._loaded()
    monkeypatch.setattr(decoders, "find_spec", lambda name: None)
    assert not decoders._loaded()
    assert hasattr(decoders.image_operators(), "decode_jpeg")


def test_a_device_is_found_or_refused_in_a_sentence() -> None:
    assert hardware.find_device("cpu") == torch.device("cpu")
    assert hardware.find_device("auto").type in {"cpu", "cuda", "mps"}
    with pytest.raises(UsageError, match="takes auto, cpu, cuda or mps, got 'tpu'"):
        hardware.find_device("tpu")


def test_the_version_is_told() -> None:
    done = subprocess.run([sys.executable, "-m", "regraft", "--version"], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == f"regraft {metadata.version('regraft')}"
