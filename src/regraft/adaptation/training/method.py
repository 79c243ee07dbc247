"""A method as it is typed: the name of a loss, and options after colons.

`DANN:spectral_norm=true:gradient_penalty=10` takes the loss's own options; `MCC:weight=0.3:length=2` says how much the
term counts beside the source's loss, and how long it trains as a multiple of the usual.
"""

from __future__ import annotations

import inspect
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from regraft.adaptation.base import DomainLoss, losses
from regraft.core.errors import UsageError, unknown_name

#: Options that every method has.
GENERAL = ("weight", "length")
#: What can be typed; sequences cannot.
PLAIN = (bool, int, float, str)


@dataclass(frozen=True)
class Method:
    """A loss's class with its options. weight: None = the loss's own; length: a multiple of the usual steps."""

    text: str
    kind: type[DomainLoss]
    options: Mapping[str, Any] = field(default_factory=dict)
    weight: float | None = None
    length: float = 1.0

    def build(self, feature_dim: int, n_classes: int) -> DomainLoss:
        """The loss for features (N, D) and K classes; UsageError where the loss refuses an option's value."""
        return self.kind(feature_dim, n_classes, **self.options)


def is_method(text: str) -> bool:
    """Whether the name before the first colon is a loss's."""
    return text.partition(":")[0] in losses


def parse_method(text: str) -> Method:
    """`NAME[:option=value…]`; UsageError for a name, an option or a value that does not exist."""
    name, *parts = text.split(":")
    kind = losses.get(name)
    known = own_options(kind)
    own: dict[str, Any] = {}
    general: dict[str, float] = {}
    for part in parts:
        key, sign, value = part.partition("=")
        if not sign or not value:
            raise UsageError(f"{text}: options are written name=value, and {part!r} came.")
        if key in known:  # first: DDAN has a weight of its own
            own[key] = _like(known[key], text, key, value)
        elif key in GENERAL:
            general[key] = _number(text, key, value)
        else:
            raise unknown_name(f"option of {name}", key, [*known, *GENERAL])
    return Method(text, kind, own, general.get("weight"), general.get("length", 1.0))


def own_options(kind: type[DomainLoss]) -> dict[str, Any]:
    """Name → default of the numbers, switches and words that a loss's constructor takes by name."""
    parameters = inspect.signature(kind.__init__).parameters.values()
    return {p.name: p.default for p in parameters if p.kind is p.KEYWORD_ONLY and isinstance(p.default, PLAIN)}


def _number(text: str, key: str, value: str) -> float:
    try:
        found = float(value)
    except ValueError:
        found = float("nan")
    if not 0 < found < float("inf"):
        raise UsageError(f"{text}: {key} takes a number above 0, and {value!r} came.")
    return found


def _like(default: Any, text: str, key: str, value: str) -> Any:
    """`value` as the type of the option's default; a text where the default is one or the value is no number."""
    if isinstance(default, bool):
        if value.lower() not in {"true", "false"}:
            raise UsageError(f"{text}: {key} takes true or false, and {value!r} came.")
        return value.lower() == "true"
    try:
        number = float(value)
    except ValueError:
        if isinstance(default, str):
            return value
        raise UsageError(f"{text}: {key} takes a number, and {value!r} came.") from None
    if isinstance(default, int):
        if number != int(number):
            raise UsageError(f"{text}: {key} takes a whole number, and {value!r} came.")
        return int(number)
    return number


def variations(text: str, factors: tuple[float, ...] = (1 / 3, 3.0)) -> tuple[str, ...]:
    """The same method with its weight, then its length, multiplied by each factor; as they are typed.

    Where the term is all that is minimised a weight changes nothing, and only the length is varied.
    """
    method = parse_method(text)
    alone = method.kind.continues or method.kind.source_fixed
    weight = method.kind.default_weight if method.weight is None else method.weight
    name, *parts = text.split(":")
    kept = {key: [p for p in parts if not p.startswith(f"{key}=")] for key in GENERAL}
    found = []
    if not alone and "weight" not in own_options(method.kind):
        found += [":".join([name, *kept["weight"], f"weight={weight * factor:.3g}"]) for factor in factors]
    found += [":".join([name, *kept["length"], f"length={method.length * factor:.3g}"]) for factor in factors]
    return tuple(found)
