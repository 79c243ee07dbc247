"""Both trained generators as an artifact and back, and pictures of any size through them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final

import torch
from torch import Tensor, nn

from regraft.core.artifact import read_artifact, write_artifact
from regraft.core.environment import installed
from regraft.core.errors import ArtifactError, UsageError, unknown_name
from regraft.images.spec import ImageSpec
from regraft.style.base import fit_long_side, fit_short_side, resize
from regraft.style.translation.cyclegan.generator import Generator, GeneratorSettings
from regraft.style.translation.cyclegan.task import DIRECTIONS, CycleGAN, as_unit

KIND: Final = "picture-translation"
FAMILY, MODEL = "cyclegan", "resnet"
#: The shortest side that is translated; smaller pictures are enlarged to it.
LEAST_PX: Final = 8


@dataclass(frozen=True)
class Translator:
    """Both generators in evaluation mode. domains: names of the sets A and B. side_px: of the pictures that they
    learned from, whose shorter side had this many px or a little more."""

    generators: nn.ModuleDict
    domains: tuple[str, str]
    side_px: int
    manifest: Mapping[str, Any]

    def size_for(self, size_px: tuple[int, int], long_px: int | None = None) -> tuple[int, int]:
        """Height and width that a picture is translated at: the scale of the training, unless its longer side is given.

        What a generator knows are strokes of so many pixels: at another scale they have another size on the picture.
        """
        height, width = fit_short_side(size_px, self.side_px) if long_px is None else fit_long_side(size_px, long_px)
        return max(LEAST_PX, height), max(LEAST_PX, width)

    @torch.inference_mode()
    def translate(self, picture: Tensor, direction: str, *, long_px: int | None = None) -> Tensor:
        """A picture (3, H, W) in [0, 1] → its translation, at the size of `size_for`. Raises UsageError."""
        if direction not in DIRECTIONS:
            raise unknown_name("direction", direction, DIRECTIONS)
        if picture.ndim != 3 or picture.shape[0] != 3 or not picture.is_floating_point() or 0 in picture.shape:
            raise UsageError(f"A picture of {picture.dtype} {tuple(picture.shape)} came; accepted is float (3, H, W).")
        size = self.size_for((int(picture.shape[1]), int(picture.shape[2])), long_px)
        found: Tensor = self.generators[direction](resize(picture, size)[None] * 2 - 1)[0]
        return as_unit(found)


def pack_translator(
    folder: Path,
    task: CycleGAN,
    domains: tuple[str, str],
    side_px: int,
    *,
    provenance: Mapping[str, Any],
    metrics: Mapping[str, Any],
) -> Path:
    """Write the artifact `regraft.artifact/1` of both generators; the discriminators and pools stay behind."""
    half = (0.5, 0.5, 0.5)
    spec = ImageSpec((3, side_px, side_px), mean=half, std=half, interpolation="bicubic", crop_pct=1.0)
    manifest = {
        "created": datetime.now(UTC).isoformat(timespec="seconds"),
        "regraft": installed("regraft"),
        "task": {"kind": KIND, "directions": list(DIRECTIONS)},
        "backbone": {
            "family": FAMILY, "model": MODEL, "name": f"{FAMILY}/{MODEL}", "options": task.a_to_b.settings.to_json(),
        },
        "input_spec": spec.to_json(),
        "labels": list(domains),
        "temperature": 1.0,
        "provenance": dict(provenance),
        "metrics": dict(metrics),
    }  # fmt: skip
    return write_artifact(folder, manifest, _both(task.a_to_b, task.b_to_a).state_dict())


def load_translator(folder: Path) -> Translator:
    """The generators of an artifact folder.

    Raises ArtifactError where it is no translation, is altered, describes a network that cannot be, or weights that do
    not fit it or are no numbers. Nothing is built before its description is checked.
    """
    manifest, tensors = read_artifact(folder)
    kind = manifest["task"].get("kind") if isinstance(manifest["task"], dict) else manifest["task"]
    if kind != KIND:
        raise ArtifactError(f"{folder} holds a model for {kind!r}; translating takes one of `regraft style translate`.")
    described, labels = manifest["backbone"], manifest["labels"]
    if not isinstance(described, dict) or (described.get("family"), described.get("model")) != (FAMILY, MODEL):
        raise ArtifactError(f"{folder} describes a network that this version does not know: {described!r:.200}.")
    try:
        settings = GeneratorSettings.from_json(described.get("options", {}))
        side_px = ImageSpec.from_json(manifest["input_spec"]).shape[-1]
        a, b = (str(label) for label in labels)
    except (UsageError, KeyError, TypeError, ValueError, IndexError, AttributeError) as error:
        raise ArtifactError(f"The manifest in {folder} cannot be used: {error}. Copy it again from its run.") from error
    if not LEAST_PX <= side_px <= 1 << 14:
        raise ArtifactError(f"The manifest in {folder} has pictures of {side_px} px: copy it again from its run.")
    # On the meta device nothing is allocated or drawn; the tensors of the file take the places.
    with torch.device("meta"):
        generators = _both(Generator(settings), Generator(settings))
    wrong = _misfits(generators.state_dict(), tensors)
    if wrong:
        raise ArtifactError(f"The weights in {folder} do not fit its description: {wrong}.")
    generators.load_state_dict(tensors, assign=True)
    return Translator(generators.eval().requires_grad_(False), (a, b), side_px, manifest)


def _both(a_to_b: Generator, b_to_a: Generator) -> nn.ModuleDict:
    return nn.ModuleDict(dict(zip(DIRECTIONS, (a_to_b, b_to_a), strict=True)))


def _misfits(own: Mapping[str, Tensor], found: Mapping[str, Tensor]) -> str:
    """What is wrong with tensors for a network with these; "" where nothing is."""
    strange = sorted(set(own) ^ set(found))
    if strange:
        return f"{len(strange)} tensors are missing or too many, the first is {strange[0]}"
    for name, value in own.items():
        other = found[name]
        if other.shape != value.shape or other.dtype != value.dtype:
            return f"{name} is {other.dtype} {tuple(other.shape)} where {value.dtype} {tuple(value.shape)} belongs"
        if not bool(torch.isfinite(other).all()):
            return f"{name} holds values that are no numbers"
    return ""
