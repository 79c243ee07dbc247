"""What `regraft distance` can be told."""

from __future__ import annotations

from pathlib import Path

from regraft.core.option_groups import BackboneOptions, SeedOptions
from regraft.core.options import DATA, option


class DistanceConfig(BackboneOptions, SeedOptions):
    """Options of a comparison of two folders."""

    a: Path = option(..., "A folder of pictures.", panel=DATA)
    b: Path = option(..., "Another one.", panel=DATA)
