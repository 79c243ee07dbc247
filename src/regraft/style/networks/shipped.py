"""Style networks that come with the package, and fixed styles by name: `wave`, or a file of one's own."""

from __future__ import annotations

from functools import cache
from importlib.resources import as_file, files
from pathlib import Path
from typing import Any, Final

from regraft.core.errors import UsageError, unknown_name
from regraft.style.networks.model_file import StyleModel, load_style_model
from regraft.style.networks.perceptual import sprig_net

_PREFIX: Final = "style-"
_SUFFIX: Final = ".safetensors"
#: Where `regraft style train` keeps models of one's own, from where the command is given.
OWN_FOLDER: Final = Path("styles")


def packaged_styles() -> list[str]:
    """Names of the fixed styles that come with the package."""
    names = (entry.name for entry in files("regraft.weights").iterdir())
    return sorted(n[len(_PREFIX) : -len(_SUFFIX)] for n in names if n.startswith(_PREFIX) and n.endswith(_SUFFIX))


def packaged_net(kind: str) -> Any:
    """A new copy of a packaged network: "adain", "adaattn", "teacher", or "student", the first fixed style's."""
    name = f"{_PREFIX}{next(iter(packaged_styles()), 'any')}" if kind == "student" else kind
    return _packaged(name).net


def is_packaged(name: str) -> bool:
    """Whether this installation has weights of that name."""
    return (files("regraft.weights") / f"{name}{_SUFFIX}").is_file()


def fixed_style(name: str) -> StyleModel:
    """A fixed style by its name among one's own or the packaged ones, or from a file that `style train` wrote.

    Raises UsageError for what is neither, ArtifactError for a file that is no style model.
    """
    path = Path(name)
    own = OWN_FOLDER / f"{name}{_SUFFIX}"
    if path.suffix == _SUFFIX or own.is_file():
        model = load_style_model(path if path.suffix == _SUFFIX else own)
        if model.kind != "student":
            raise UsageError(f"{name} is a model of kind {model.kind!r}: a fixed style is a student.")
        return model
    if name not in packaged_styles():
        raise unknown_name("style", name, packaged_styles())
    return _packaged(f"{_PREFIX}{name}")


def is_fixed_style(name: str) -> bool:
    """Whether --style NAME means a fixed style; anything else is a picture."""
    return Path(name).suffix == _SUFFIX or name in packaged_styles() or (OWN_FOLDER / f"{name}{_SUFFIX}").is_file()


def _packaged(name: str) -> StyleModel:
    return load_style_model(_location(name), encoder=sprig_net)


@cache
def _location(name: str) -> Path:
    found = files("regraft.weights") / f"{name}{_SUFFIX}"
    with as_file(found) as path:
        if not path.is_file():
            raise UsageError(f"This version of the package holds no weights {name}{_SUFFIX}: take --start scratch.")
        return path
