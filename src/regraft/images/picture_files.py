"""Pictures that a person named, read one after the other, and where what is made of them goes."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

from regraft.core.errors import RegraftError, UsageError
from regraft.core.listener import Listener
from regraft.images.picture import WRITTEN, Picture, read_picture


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


def output_paths(inputs: Sequence[Path], output: Path) -> list[Path]:
    """Where each result goes: the named file, or below a folder by the content's name.

    In a folder a suffix that is not written becomes .png. Raises UsageError where several inputs would meet in one
    file, or one file would replace its own content.
    """
    if len(inputs) == 1 and output.suffix.lower() in WRITTEN:
        found = [output]
    else:
        if output.suffix and not output.is_dir():
            raise UsageError(f"{len(inputs)} pictures need a folder to go to: -o {output} is the name of a file.")
        found = [output / (p.name if p.suffix.lower() in WRITTEN else f"{p.stem}.png") for p in inputs]
    seen: dict[Path, Path] = {}
    for source, target in zip(inputs, found, strict=True):
        if target in seen:
            raise UsageError(f"{seen[target]} and {source} would both be written to {target}: run them apart.")
        if target.exists() and target.resolve() == source.resolve():
            raise UsageError(f"{source} would be replaced by its own result: give -o another name.")
        seen[target] = source
    return found
