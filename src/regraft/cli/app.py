"""The application: which commands there are, each loaded when it is called, so that `--help` costs nothing else."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from importlib import import_module, metadata
from typing import Annotated, Any

import typer
from rich.console import Console
from typer.core import TyperGroup

err = Console(stderr=True, highlight=False)
out = Console(highlight=False, soft_wrap=True)


@dataclass(frozen=True)
class Listed:
    """A command as `--help` lists it. verb: where its `drawn.Verb` is, as module:NAME."""

    name: str
    verb: str
    panel: str
    help: str


LEARN, USE, STYLE, LOOK = "Learn", "Use what was learned", "Style", "Look around"

COMMANDS = (
    Listed(
        "fit", "regraft.cli.fitting:FIT", LEARN,
        "Find the best model that transfer gives for labelled pictures, and say whether transfer helped.",
    ),
    Listed(
        "adapt", "regraft.cli.adapting:ADAPT", LEARN,
        "Carry labels from one domain to another that has none, and say whether that helped.",
    ),
    Listed(
        "generalise", "regraft.cli.generalising:GENERALISE", LEARN,
        "Learn from several domains for one that nobody has seen, and say whether any method beats plain training.",
    ),
    Listed(
        "predict", "regraft.cli.using:PREDICT", USE,
        "Name what is in pictures, or the number that they show, by a trained run alone. Exits 1 if none can be read.",
    ),
    Listed(
        "evaluate", "regraft.cli.using:EVALUATE", USE,
        "Measure a run on pictures that it has not seen: metrics with intervals, confusion, calibration, mistakes.",
    ),
    Listed(
        "export", "regraft.cli.using:EXPORT", USE,
        "Write the model with its preprocessing as ONNX; refused where it disagrees with the run.",
    ),
    Listed("report", "regraft.cli.using:REPORT", USE, "Draw a run's page again and say where it is."),
    Listed("models", "regraft.cli.looking:MODELS", LOOK, "List the backbones that `--backbone` takes."),
    Listed(
        "distance", "regraft.cli.looking:DISTANCE", LOOK,
        "Say how far apart two folders of pictures are, in a backbone's features."
    ),
    Listed(
        "doctor", "regraft.cli.looking:DOCTOR", LOOK,
        "Check this installation: versions, device, extras, embedded weights, disk."
    ),
    Listed(
        "demo", "regraft.cli.looking:DEMO", LOOK,
        "The main job on real pictures that come with scikit-image: which surface is this?",
    ),
)  # fmt: skip
PAINT, MAKE = "Style pictures", "Make a style of your own"
#: The command that `regraft style` means when no other is named.
DEFAULT = "picture"
STYLE_COMMANDS = (
    Listed(DEFAULT, "regraft.cli.styling:PICTURE", PAINT, "Give photos the style of paintings."),
    Listed(
        "evaluate", "regraft.cli.styling:EVALUATE", PAINT,
        "Measure a stylised picture: SSIM, Gram cosine and its lift, beside doing nothing and plain colour transfer.",
    ),
    Listed(
        "apply", "regraft.cli.translating:APPLY", PAINT, "Translate pictures by a run of `regraft style translate`."
    ),
    Listed(
        "train", "regraft.cli.style_models:TRAIN", MAKE,
        "Train a fast style of a painting: a teacher, and a student that runs in milliseconds.",
    ),
    Listed(
        "translate", "regraft.cli.translating:TRANSLATE", MAKE,
        "Learn to turn one kind of picture into another from two folders without pairs, both ways (CycleGAN).",
    ),
    Listed(
        "export", "regraft.cli.style_models:EXPORT", MAKE,
        "Write a student as ONNX for pictures of any size; refused where it disagrees with the model.",
    ),
    Listed(
        "prune", "regraft.cli.style_models:PRUNE", MAKE,
        "Cut the channels of a student that its style does not need, and say what that costs.",
    ),
)  # fmt: skip


def whole(one: Listed) -> Any:
    """The command with all of its options."""
    from regraft.cli.drawn import drawn, epilog

    module, _, variable = one.verb.partition(":")
    verb = getattr(import_module(module), variable)
    alone = typer.Typer(add_completion=False, pretty_exceptions_enable=False, rich_markup_mode="rich")
    alone.command(one.name, help=one.help, epilog=epilog(verb.examples))(drawn(verb))
    return typer.main.get_command(alone)


class Verbs(TyperGroup):
    """A group whose commands are drawn when they are called; until then it knows their names and first sentences."""

    listed: tuple[Listed, ...] = COMMANDS

    def resolve_command(self, ctx: Any, args: list[str]) -> Any:
        name, command, rest = super().resolve_command(ctx, args)
        known = {one.name: one for one in self.listed}
        return name, whole(known[name]) if name in known else command, rest


class StyleVerbs(Verbs):
    """A group whose first word may be a command; anything else goes to DEFAULT.

    So `regraft style photo.jpg --style a.jpg` stands beside `regraft style evaluate`. A file that has a command's name
    is given as ./evaluate.
    """

    listed = STYLE_COMMANDS

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        if args and args[0] not in self.commands and args[0] != "--help":
            args = [DEFAULT, *args]
        return super().parse_args(ctx, args)


def _group(kind: type[Verbs], listed: Iterable[Listed], help: str, **settings: Any) -> typer.Typer:
    group = typer.Typer(
        cls=kind, help=help, no_args_is_help=True, pretty_exceptions_enable=False, rich_markup_mode="rich", **settings
    )
    for one in listed:
        group.command(one.name, help=one.help, rich_help_panel=one.panel)(_listed_only)
    return group


def _listed_only() -> None:
    """Stands for a command until it is called."""


app = _group(
    Verbs,
    COMMANDS,
    "Carry what a model already knows to your pictures, with evidence that it helped.",
    epilog="[bold]To begin[/]\n\nregraft demo\n\nregraft fit photos/ --budget 5m\n\nregraft COMMAND --help",
)
style_app = _group(
    StyleVerbs,
    STYLE_COMMANDS,
    "Give a picture the style of others: regraft style PHOTO --style PAINTING -o OUT.",
    epilog="[bold]Examples[/]\n\nregraft style photo.jpg --style painting.jpg -o out.png\n\n"
    "regraft style picture --help  (every option of this)",
)
app.add_typer(style_app, name="style", rich_help_panel=STYLE)


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


def every_command() -> dict[str, list[Any]]:
    """Each verb with its command; `style` with all of its commands, and each of them by itself. With all options."""
    found = {one.name: [whole(one)] for one in COMMANDS}
    of_style = {f"style {one.name}": [whole(one)] for one in STYLE_COMMANDS}
    return {**found, "style": [one for (one,) in of_style.values()], **of_style}
