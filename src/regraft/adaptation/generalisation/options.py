"""What a domain generalisation can be told; checked as a whole, written out in full into `config.yaml`."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Literal

from pydantic import Field, model_validator

from regraft.adaptation.generalisation.methods import generalisers
from regraft.core.errors import unknown_name
from regraft.core.options import Options

#: What `--method auto` tries, simplest first: a later one has to be credibly better to be chosen.
AUTO = ("ERM", "Mixup", "GroupDRO", "IRM", "SWAD")


class GeneraliseConfig(Options):
    """Options of `regraft generalise`; `regraft.generalise` takes every field."""

    roots: tuple[Path, ...] = ()
    group: str | None = None
    max_bad: float = Field(0.1, ge=0, le=1)

    backbone: str = "scion"
    weights: Path | None = None

    methods: tuple[str, ...] = ("auto",)
    choose: Literal["validation", "leave-one-out"] = "validation"
    tune: str = "features"
    steps: int = Field(300, ge=1)

    seed: int = Field(0, ge=0, lt=2**31)
    deterministic: bool = False
    device: str = "auto"
    threads: int | None = Field(None, ge=1)
    resamples: int = Field(2000, ge=100)

    @model_validator(mode="after")
    def _domains(self) -> GeneraliseConfig:
        if len(self.roots) < 2:
            raise ValueError("needs two or more folders, each a domain with the same classes")
        if self.choose == "leave-one-out" and len(self.roots) < 3:
            raise ValueError("chooses by leave-one-out over the remaining domains, which takes three folders or more")
        if self.tune != "features":
            raise ValueError(
                f"trains an adapter on cached features alone, --tune features; --tune {self.tune} is not there yet: "
                "`regraft fit` on all folders together trains the whole network, as ERM"
            )
        return self

    @property
    def names(self) -> tuple[str, ...]:
        """The methods by name, `auto` spelled out, ERM first: it is what the others are compared with."""
        asked = (n for name in self.methods for n in (AUTO if name == "auto" else (name,)))
        return tuple(dict.fromkeys(("ERM", *asked)))


def checked_generalise(**values: Any) -> GeneraliseConfig:
    """A GeneraliseConfig, or a UsageError with every mistake in one sentence each."""
    config = GeneraliseConfig.checked(**values)
    for name in config.names:
        if name not in generalisers:
            raise unknown_name("generalisation method", name, [*generalisers.names(), "auto"])
    return config
