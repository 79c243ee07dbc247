"""Pictures that a person named, read one after the other; one that cannot be read does not stop the others."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

from regraft.core.errors import RegraftError
from regraft.core.listener import Listener
from regraft.images.picture import Picture, read_picture


def read_each(paths: Sequence[Path], listener: Listener) -> Iterator[tuple[Path, Picture | str]]:
    """Each path with its picture, or with the sentence why it is left out, which the listener is told.

    Raises the RegraftError of the one picture where only one was named.
    """
    for path in paths:
        try:
            yield path, read_picture(path)
        except RegraftError as error:
            if len(paths) == 1:
                raise
            listener.say(f"{error} It is left out.")
            yield path, str(error)
