"""What a picture network expects of its input."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from regraft.core.types import InputSpec


@dataclass(frozen=True)
class ImageSpec(InputSpec):
    """shape: (C, H, W) in px. mean, std: per channel, of values in [0, 1]. crop_pct: the crop's share of the resized
    short side. interpolation: "bilinear", "bicubic" or "nearest". crop_mode: "center" or "squash".
    """

    modality: str = field(default="image", init=False)
    shape: tuple[int, ...]
    mean: tuple[float, ...] = (0.0, 0.0, 0.0)
    std: tuple[float, ...] = (1.0, 1.0, 1.0)
    interpolation: str = "bilinear"
    crop_pct: float = 0.875
    crop_mode: str = "center"

    def to_json(self) -> dict[str, Any]:
        """As every artifact so far has it: modality, shape, and the rest under "options"."""
        options: dict[str, Any] = {
            "mean": list(self.mean),
            "std": list(self.std),
            "interpolation": self.interpolation,
            "crop_pct": self.crop_pct,
        }
        if self.crop_mode != "center":
            options["crop_mode"] = self.crop_mode
        return {"modality": self.modality, "shape": list(self.shape), "options": options}

    @classmethod
    def from_json(cls, value: Mapping[str, Any]) -> ImageSpec:
        options: dict[str, Any] = {k: tuple(v) if isinstance(v, list) else v for k, v in value["options"].items()}
        return cls(tuple(int(n) for n in value["shape"]), **options)
