"""Named parts that others can add to: by a decorator here, or by an entry point in another package."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from importlib import import_module
from importlib.metadata import entry_points
from typing import Generic, TypeVar

from regraft.core.errors import unknown_name

T = TypeVar("T")


class Registry(Generic[T]):
    """Names → values of one kind.

    Another package adds to it through the entry-point group `regraft.<kind>`; those load when a name is first looked
    up, and a name that is there already is kept. Names are looked up here and nowhere else: a configuration file cannot
    name a dotted path to import.

    built_in: modules of this package that register themselves, imported at the same moment.
    """

    def __init__(self, kind: str, built_in: Sequence[str] = ()) -> None:
        self.kind = kind
        self._built_in = tuple(built_in)
        self._items: dict[str, T] = {}
        self._loaded = False

    def register(self, name: str) -> Callable[[T], T]:
        """Decorator: `@families.register("lenet")`. Raises ValueError where the name is taken."""

        def add(item: T) -> T:
            if name in self._items:
                raise ValueError(f"{self.kind} {name!r} is registered twice")
            self._items[name] = item
            return item

        return add

    def get(self, name: str) -> T:
        """The item of that name; UsageError with the nearest match where there is none."""
        self._load()
        if name not in self._items:
            raise unknown_name(self.kind, name, self._items)
        return self._items[name]

    def names(self) -> list[str]:
        self._load()
        return sorted(self._items)

    def __iter__(self) -> Iterator[str]:
        return iter(self.names())

    def __contains__(self, name: object) -> bool:
        self._load()
        return name in self._items

    def _load(self) -> None:
        if self._loaded:
            return
        self._loaded = True
        for module in self._built_in:
            import_module(module)
        for point in entry_points(group=f"regraft.{self.kind.replace(' ', '_')}"):
            self._items.setdefault(point.name, point.load())
