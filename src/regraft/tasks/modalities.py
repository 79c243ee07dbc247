"""Which modality a name, an artifact or a folder is of. Each is imported when it is first asked for."""

from __future__ import annotations

import os
from collections.abc import Sequence
from importlib import import_module
from pathlib import Path
from typing import Final

from regraft.core.errors import unknown_name
from regraft.core.registry import Registry
from regraft.data.modality import Modality

#: Name → the module that has it as `MODALITY`. The first is meant where nothing says otherwise.
BUILT_IN: Final = {"image": "regraft.images.modality", "text": "regraft.text.modality"}

#: Modalities of other packages, by the entry point group `regraft.modality`.
modalities: Registry[Modality] = Registry("modality")


def modality_named(name: str) -> Modality:
    """The modality of that name. Raises UsageError with the nearest match for one that is not there."""
    if name in BUILT_IN:
        found: Modality = import_module(BUILT_IN[name]).MODALITY
        return found
    if name not in modalities:
        raise unknown_name("modality", name, modality_names())
    return modalities.get(name)


def modality_names() -> list[str]:
    """Every name, the built-in ones first."""
    return [*BUILT_IN, *(name for name in modalities.names() if name not in BUILT_IN)]


def modality_in(folders: Sequence[Path]) -> Modality:
    """The first modality that a file below these folders is of, by its name; pictures where there is none."""
    names = modality_names()
    for name in names[1:] and names:
        found = modality_named(name)
        if any(_has(Path(folder), found.extensions) for folder in folders):
            return found
    return modality_named(names[0])


def _has(folder: Path, extensions: frozenset[str]) -> bool:
    return any(
        os.path.splitext(name)[1].lower() in extensions and not name.startswith(".")
        for _, _, files in os.walk(folder)
        for name in files
    )
