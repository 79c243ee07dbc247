"""What a text network expects of its input."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from regraft.core.types import InputSpec


@dataclass(frozen=True)
class TextSpec(InputSpec):
    """max_tokens: longer texts are cut after so many, special ones included. pad_id: fills shorter rows of a batch.

    The tokenizer itself is a companion of the artifact, `tokenizer.json`.
    """

    modality: str = field(default="text", init=False)
    max_tokens: int = 256
    pad_id: int = 0

    def to_json(self) -> dict[str, Any]:
        return {"modality": self.modality, "max_tokens": self.max_tokens, "pad_id": self.pad_id}

    @classmethod
    def from_json(cls, value: Mapping[str, Any]) -> TextSpec:
        return cls(int(value["max_tokens"]), int(value["pad_id"]))
