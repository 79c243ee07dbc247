"""What strategies can be told: rates, how deep they train, whose statistics normalisation keeps."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from regraft.core.options import Options


class StrategyOptions(Options):
    """Options that strategies read; every job that trains candidates has them among its own."""

    last: int | None = Field(default=None, ge=1)
    norm_statistics: Literal["auto", "keep", "update"] = "auto"
    lr: float | None = Field(default=None, gt=0)
    scratch_lr: float = Field(default=1e-3, gt=0)
    lora_rank: int = Field(default=8, ge=1)
