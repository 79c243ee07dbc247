"""What `regraft generalise` can be told; checked as a whole, written out in full into `config.yaml`."""

from __future__ import annotations

from pathlib import Path

from pydantic import field_validator, model_validator

from regraft.core.errors import unknown_name
from regraft.core.option_groups import AuditOptions, GeneralisationOptions, GroupOptions
from regraft.core.options import DATA, option


class GeneraliseConfig(GeneralisationOptions, AuditOptions, GroupOptions):
    """Options of `regraft generalise`; `regraft.generalise` takes every field."""

    roots: tuple[Path, ...] = option((), "Two or more folders, each a folder per class.", panel=DATA)

    @field_validator("methods")
    @classmethod
    def _known_methods(cls, value: tuple[str, ...]) -> tuple[str, ...]:
        from regraft.adaptation.generalisation.methods import generalisers

        for name in value:
            if name != "auto" and name not in generalisers:
                raise unknown_name("generalisation method", name, [*generalisers.names(), "auto"])
        return value

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
