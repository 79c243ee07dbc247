"""What `regraft adapt` can be told; checked as a whole, written out in full into `config.yaml`."""

from __future__ import annotations

from pydantic import model_validator

from regraft.core.option_groups import AdaptationOptions


class AdaptConfig(AdaptationOptions):
    """Options of `regraft adapt`; `regraft.adapt` takes every field."""

    @model_validator(mode="after")
    def _two_domains(self) -> AdaptConfig:
        if not self.target:
            raise ValueError("needs the folder of the target's pictures")
        if self.task == "regression":
            self._numbers()
        elif self.source_free is None and not self.source:
            raise ValueError("needs the source's folder before the target's, or --source-free with a run")
        if self.source_free is not None and (self.source or self.weights):
            raise ValueError("takes --source-free in place of a source folder and of --weights, not beside them")
        return self

    def _numbers(self) -> None:
        if self.table is None:
            raise ValueError("takes the source's numbers from --table, with --label, for --task regression")
        if self.source_free is not None or self.tune == "network":
            raise ValueError("adapts numbers on cached features alone: leave out --source-free and --tune network")
        if self.keep is not None:
            raise ValueError("takes --keep for classes alone: leave it out with --task regression")
        if self.setting != "closed":
            raise ValueError(f"has no classes with --task regression: --setting {self.setting} is about classes")

    @property
    def data_name(self) -> str:
        """What the run is called after: its domains."""
        source = "+".join(path.resolve().name for path in self.source) or (self.table.stem if self.table else "run")
        return f"{source}_to_{self.target[0].resolve().name}"
