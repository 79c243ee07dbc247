"""The command line, drawn from options: a model of them, the words of the command and what runs, made into a command.

A value is handed to the model as it was typed, so that the model alone says what is wrong with it, in one sentence.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal, get_args, get_origin

import typer
from rich.markup import escape

from regraft.core.errors import UsageError
from regraft.core.options import OUTPUT, PANELS, Options, about, flag_of, names, option

if TYPE_CHECKING:
    from pydantic.fields import FieldInfo


class Face(Options):
    """What every command is told beside its own options."""

    config: Path | None = option(
        None, "Options from a YAML or JSON file, as a run's config.yaml; those given here win.", panel=OUTPUT,
        metavar="FILE",
    )  # fmt: skip
    quiet: bool = option(False, "Show the result alone.", panel=OUTPUT, flag="--quiet")
    as_json: bool = option(False, "Print JSON alone on stdout.", panel=OUTPUT, flag="--json")


class RunFace(Face):
    """What a command that makes a run is told beside its own options."""

    runs: Path = option(Path("runs"), "Where runs are kept.", panel=OUTPUT, metavar="FOLDER")
    fresh: bool = option(False, "Start anew, even if this command has an unfinished run.", panel=OUTPUT)
    dry_run: bool = option(
        False, "Read and audit, say what would be done, and write nothing.", panel=OUTPUT, flag="--dry-run"
    )


@dataclass(frozen=True)
class Argument:
    """A word of the command.

    name: a field, or what `Verb.place` turns into fields. shown: its name in `--help`. many: any number of them.
    path: whether shells complete file names.
    """

    name: str
    help: str = ""
    many: bool = False
    required: bool = True
    path: bool = True
    shown: str = ""


@dataclass(frozen=True)
class Verb:
    """One command: options, words, what runs, and examples. first: options that stand above all panels."""

    options: type[Options]
    run: Callable[[Any, Any], None]
    face: type[Face] = Face
    arguments: tuple[Argument, ...] = ()
    first: tuple[str, ...] = ()
    examples: tuple[str, ...] = ()
    place: Callable[[dict[str, Any], Any], dict[str, Any]] = field(default=lambda given, face: given)


def drawn(verb: Verb) -> Callable[..., None]:
    """The function that typer makes a command of: a parameter per word and per option."""
    words = {word.name for word in verb.arguments}
    parameters = [_word(verb, word) for word in verb.arguments]
    shown = [
        (model, name)
        for model in (verb.options, verb.face)
        for name in model.model_fields
        if name not in words and about(model, name)["on_command_line"]
    ]
    parameters += [
        _flag(model, name, verb.first) for model, name in sorted(shown, key=lambda of: _place(of[0], of[1], verb.first))
    ]

    def command(**given: Any) -> None:
        told = {name: value for name, value in given.items() if value is not None and value != []}
        face = verb.face.checked(**{name: told.pop(name) for name in verb.face.model_fields if name in told})
        read = {} if face.config is None else read_options(face.config, verb.options)
        verb.run(verb.options.checked(**{**read, **verb.place(told, face)}), face)

    command.__signature__ = inspect.Signature(parameters)  # type: ignore[attr-defined]
    command.__annotations__ = {one.name: one.annotation for one in parameters}
    return command


def epilog(examples: Iterable[str]) -> str | None:
    """Examples as they stand below the options."""
    lines = [escape(example) for example in examples]
    return "\n\n".join(["[bold]Examples[/]", *lines]) if lines else None


def read_options(path: Path, model: type[Options]) -> dict[str, Any]:
    """The options of a YAML or JSON file, by the names of fields or of flags. Raises UsageError."""
    import yaml

    try:
        found = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        reason = " ".join(str(error).split())
        raise UsageError(f"--config {path} cannot be read: {reason}.") from error
    if not isinstance(found, Mapping):
        raise UsageError(f"--config {path} holds no options: it takes lines like  epochs: 3 , a name and a value each.")
    fields = {flag_of(model, name).lstrip("-").replace("-", "_"): name for name in model.model_fields}
    fields |= {name: name for name in model.model_fields}
    plain = {str(key).replace("-", "_"): value for key, value in found.items()}
    return {fields.get(key, key): value for key, value in plain.items()}


# ---- one parameter ---------------------------------------------------------------------------------------------------


def _word(verb: Verb, word: Argument) -> inspect.Parameter:
    known = word.name in verb.options.model_fields
    told = word.help or (about(verb.options, word.name)["help"] if known else "")
    one: Any = Path if word.path else str
    argument = typer.Argument(help=escape(told), metavar=word.shown or word.name.upper(), show_default=False)
    takes: Any = list[one] if word.many else one
    annotation: Any = Annotated[takes if word.required else takes | None, argument]
    default = inspect.Parameter.empty if word.required else None
    return inspect.Parameter(word.name, inspect.Parameter.KEYWORD_ONLY, default=default, annotation=annotation)


def _flag(model: type[Options], name: str, first: tuple[str, ...]) -> inspect.Parameter:
    told, info = about(model, name), model.model_fields[name]
    bare = _bare(info.annotation)
    flag = told["flag"] or f"--{name.replace('_', '-')}"
    if bare is bool:
        flags = [flag if told["flag"] else f"{flag}/--no-{flag[2:]}"]
    else:
        flags = [flag, "-o"] if flag == "--output" else [flag]
    takes: Any = bool if bare is bool else Path if bare is Path else str
    metavar = told["metavar"] or _choices(bare)
    shown = typer.Option(
        *flags,
        help=escape(told["help"]) + _default(info, bare, told["metavar"]),
        rich_help_panel=None if name in first else told["panel"],
        metavar=None if bare is bool else metavar,
        show_default=False,
    )
    several: Any = list[takes] if _repeats(info) else takes
    annotation: Any = Annotated[several | None, shown]
    return inspect.Parameter(name, inspect.Parameter.KEYWORD_ONLY, default=None, annotation=annotation)


def _place(model: type[Options], name: str, first: tuple[str, ...]) -> tuple[int, int]:
    """Where an option stands: the first ones in their order, then panel by panel as the fields are defined."""
    if name in first:
        return (0, first.index(name))
    panel = about(model, name)["panel"]
    return (1 + PANELS.index(panel) if panel in PANELS else 1 + len(PANELS), 0)


def _bare(annotation: Any) -> Any:
    """The type of one value: without `None`, without what is said about it, and of a tuple its elements'."""
    if get_origin(annotation) is Annotated:
        return _bare(get_args(annotation)[0])
    if get_origin(annotation) is tuple:
        return _bare(get_args(annotation)[0])
    parts = [part for part in get_args(annotation) if part is not type(None)]
    return _bare(parts[0]) if parts and get_origin(annotation) is not Literal else annotation


def _repeats(info: FieldInfo) -> bool:
    """Whether an option may be given several times: it holds several values, and none with commas between them."""
    with_commas = any(getattr(one, "func", None) is names for one in info.metadata)
    several = any(get_origin(part) is tuple for part in (info.annotation, *get_args(info.annotation)))
    return several and not with_commas


def _choices(bare: Any) -> str | None:
    if get_origin(bare) is Literal:
        return "|".join(map(str, get_args(bare)))
    return {int: "N", float: "X", Path: "PATH", str: "TEXT"}.get(bare)


def _default(info: FieldInfo, bare: Any, metavar: str | None) -> str:
    """The default as it is shown behind the help: nothing for None and for what is off."""
    if info.is_required():
        return r" [red]\[needed][/]"
    value = info.default
    if info.default_factory is not None or value is None or value is False or value == ():
        return ""
    if bare is bool:
        return r" [dim]\[default: yes][/]"
    text = ",".join(map(str, value)) if isinstance(value, tuple) else str(value)
    if isinstance(value, float):
        text = f"{value:g}" + ("s" if metavar == "TIME" else "")
    return rf" [dim]\[default: {escape(text)}][/dim]"
