"""One tree of errors. Each message says what came, what is accepted, what to do; the command line prints it alone."""

from __future__ import annotations

import difflib
from collections.abc import Iterable


class RegraftError(Exception):
    """The base of everything that Regraft raises on purpose. `exit_code` is what the command line returns: 1."""

    exit_code = 1


class UsageError(RegraftError):
    """An option or argument that cannot mean anything; the command line returns 2."""

    exit_code = 2


class DataError(RegraftError):
    """Pictures, tables or folders that cannot be used as they are."""


class UnreadableError(DataError):
    """One picture that cannot be read; `kind` is the audit's name for the reason."""

    def __init__(self, message: str, kind: str = "unreadable") -> None:
        super().__init__(message)
        self.kind = kind


class WeightsError(RegraftError):
    """Pretrained weights that are missing, unsafe or do not fit the network."""


class PlanError(RegraftError):
    """A strategy whose rules leave a parameter out, match nothing, or train nothing."""


class ArtifactError(RegraftError):
    """A run directory or artifact that is missing, altered or of an unknown version."""


class ExportError(RegraftError):
    """An export that disagrees with the model it came from."""


class DivergedError(RegraftError):
    """Training gave a loss that is not a number and no earlier good state exists."""


class MissingExtraError(RegraftError):
    """A feature whose optional dependency is not installed."""

    def __init__(self, feature: str, extra: str) -> None:
        super().__init__(f"{feature} needs an optional dependency: run  pip install 'regraft[{extra}]'")


def nearest(name: str, known: Iterable[str]) -> str | None:
    """The known name that is most like this one, whatever its case; None where none is much like it."""
    lower = {known_name.lower(): known_name for known_name in sorted(known, reverse=True)}
    near = difflib.get_close_matches(name.lower(), lower, n=1, cutoff=0.5)
    return lower[near[0]] if near else None


def unknown_name(kind: str, name: str, known: Iterable[str]) -> UsageError:
    """The error for a name that no registry has: the nearest match, then the list (at most 40 names)."""
    names = sorted(known)
    near = nearest(name, names)
    meant = f" Did you mean {near!r}?" if near else ""
    shown = ", ".join(names[:40]) + (f", … ({len(names)} in all)" if len(names) > 40 else "")
    return UsageError(f"There is no {kind} {name!r}.{meant} Known: {shown}.")
