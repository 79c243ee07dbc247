"""The embedded backbone: `scion`, whose weights are part of the package, so that everything works offline.

How it was trained and what it reaches is in `regraft/weights/scion.card.md`.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from importlib.resources import as_file, files
from typing import Any

from safetensors.torch import load_file
from torch import Tensor

from regraft.core.errors import UsageError, unknown_name
from regraft.core.files import sha256_file
from regraft.core.types import Features
from regraft.images.backbones.base import ImageBackbone, families, groups_by_prefix
from regraft.images.backbones.scion import POOLED_WIDTH, Scion
from regraft.images.spec import ImageSpec

#: A little larger than most crops of the training: objects look smaller in whole pictures than in crops (Touvron
#: et al. 2019, arXiv:1906.06423).
SPEC = ImageSpec(
    (3, 192, 192),
    mean=(0.485, 0.456, 0.406),
    std=(0.229, 0.224, 0.225),
    interpolation="bicubic",
    crop_pct=0.95,
)


class EmbeddedBackbone(ImageBackbone):
    """Scion behind the backbone contract: pooled (N, 1280), maps at strides 4, 8, 16 and 32."""

    licence = "Apache-2.0"

    def __init__(self, input_spec: ImageSpec = SPEC) -> None:
        super().__init__(input_spec, POOLED_WIDTH)
        self.net = Scion()

    def extract(self, x: Tensor) -> Features:
        maps = self.net.forward_maps(x)
        return Features(self.net.pool(maps[-1]), maps)

    def layer_groups(self) -> dict[str, list[str]]:
        names = [name for name, _ in self.named_parameters()]
        stages = ("stem", "stage1", "stage2", "stage3", "stage4", "head")
        return groups_by_prefix(names, [f"net.{stage}" for stage in stages])

    def reset_parameters(self) -> None:
        self.net = Scion()


@families.register("embedded")
def build(model: str, options: Mapping[str, Any], pretrained: bool) -> ImageBackbone:
    """`scion`; the only option is `size`, the input's side in px (a multiple of 32, 192 unless told)."""
    if model != "scion":
        raise unknown_name("embedded backbone", model, ["scion"])
    unknown = set(options) - {"size"}
    if unknown:
        raise UsageError(f"scion has no option {', '.join(sorted(unknown))}; it takes size=<px>.")
    size = int(options.get("size", SPEC.shape[-1]))
    if size % 32 or not 32 <= size <= 512:
        raise UsageError(f"scion takes a size of 32 to 512 px in steps of 32; {size} came.")
    backbone = EmbeddedBackbone(replace(SPEC, shape=(3, size, size)))
    if pretrained:
        with as_file(files("regraft.weights") / "scion.safetensors") as path:
            tensors = load_file(path)
            backbone.pretrained = True
            backbone.provenance = {"source": "regraft", "file": path.name, "sha256": sha256_file(path)}
        # Half precision on disk keeps the wheel small; the network itself is float32.
        backbone.net.load_state_dict({k: v.float() if v.is_floating_point() else v for k, v in tensors.items()})
    return backbone
