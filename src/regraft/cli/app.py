"""The application that the commands register with, and the options that several of them share."""

from __future__ import annotations

from importlib import metadata
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

app = typer.Typer(
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode="rich",
    help="Carry what a model already knows to your pictures, with evidence that it helped.",
)
err = Console(stderr=True, highlight=False)
out = Console(highlight=False, soft_wrap=True)

RunArgument = Annotated[Path, typer.Argument(help="A run, runs/LAST, or an artifact folder.")]
JsonOption = Annotated[bool, typer.Option("--json", help="Print JSON alone on stdout.")]
DeviceOption = Annotated[str, typer.Option(help="auto, cpu, cuda or mps.")]


def _print_version(asked: bool) -> None:
    if asked:
        out.print(f"regraft {metadata.version('regraft')}")
        raise typer.Exit


@app.callback()
def _options(
    version: Annotated[
        bool, typer.Option("--version", help="Print the version.", callback=_print_version, is_eager=True)
    ] = False,
) -> None:
    pass
