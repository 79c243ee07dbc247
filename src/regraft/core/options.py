"""Options as people write them: models of them, texts that stand for values, and what is wrong, in sentences.

A command is a model of options. Each field says by `option` what it is for, where `--help` shows it and what its flag
is called, so that the command line, `config.yaml` and Python read one and the same definition.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Final, Self

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field, ValidationError

from regraft.core.errors import UsageError, nearest

#: The panels of `--help`, in their order. An option of no panel stands above them all.
DATA, MODEL, TRAINING, MACHINE, OUTPUT = PANELS = ("Data", "Model", "Training", "Machine", "Output")
_ABOUT: Final = "option"


def option(
    default: Any = ...,
    help: str = "",
    *,
    panel: str = TRAINING,
    flag: str | None = None,
    metavar: str | None = None,
    on_command_line: bool = True,
    **bounds: Any,
) -> Any:
    """A field of options.

    flag: its name on the command line, `--` and the field's name unless told; two with a slash for yes and no.
    metavar: what `--help` shows for the value. on_command_line: else it is for Python and --config alone. bounds: as
    pydantic's Field takes them, ge=0 for one.
    """
    about = {"help": help, "panel": panel, "flag": flag, "metavar": metavar, "on_command_line": on_command_line}
    bounds = {name: value for name, value in bounds.items() if value is not None}
    extra: Any = {_ABOUT: {**about, "bounds": bounds}}
    if "default_factory" in bounds:
        return Field(description=help, json_schema_extra=extra, **bounds)
    return Field(default, description=help, json_schema_extra=extra, **bounds)


def altered(model: type[BaseModel], name: str, default: Any, **changes: Any) -> Any:
    """The field of a shared group of options with another default; help, bounds and the rest stay unless told."""
    known = about(model, name)
    bounds = dict(known.pop("bounds"))
    return option(default, **{**known, **bounds, **changes})


def about(model: type[BaseModel], name: str) -> dict[str, Any]:
    """What `option` was told of a field."""
    extra = model.model_fields[name].json_schema_extra
    found: Any = extra.get(_ABOUT) if isinstance(extra, Mapping) else None
    usual: dict[str, Any] = {
        "help": "",
        "panel": TRAINING,
        "flag": None,
        "metavar": None,
        "on_command_line": True,
        "bounds": {},
    }
    return dict(found or usual)


def flag_of(model: type[BaseModel], name: str) -> str:
    """The flag of a field; of two the one that says yes."""
    given = about(model, name)["flag"] if name in model.model_fields else None
    return str(given or f"--{name.replace('_', '-')}").partition("/")[0]


class Options(BaseModel):
    """The options of one command: checked as a whole, written out in full into `config.yaml`, never changed."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    @classmethod
    def checked(cls, **values: Any) -> Self:
        """The options, or a UsageError with every mistake in one sentence each."""
        try:
            return cls(**values)
        except ValidationError as error:
            raise UsageError(" ".join(sentence(item, cls) for item in error.errors())) from error

    def plain(self) -> dict[str, Any]:
        """JSON-ready, every default written out. Paths are absolute, so the same command from elsewhere is the same."""
        values = self.model_dump(mode="json")
        for name in type(self).model_fields:
            values[name] = _absolute(getattr(self, name), values[name])
        return values


def _absolute(value: Any, dumped: Any) -> Any:
    """`dumped` with the paths of `value`, of which it is the JSON form, made absolute."""
    if isinstance(value, Path):
        return str(value.resolve())
    if isinstance(value, tuple):
        return [_absolute(inner, plain) for inner, plain in zip(value, dumped, strict=True)]
    return dumped


def with_table(values: Any) -> Any:
    """Options in which a table of texts may stand where folders do, as in `fit reviews.csv --text body`."""
    roots = [Path(root) for root in values.get("roots") or ()]
    if values.get("text") is not None and values.get("table") is None and len(roots) == 1 and roots[0].is_file():
        return {**values, "roots": (), "table": roots[0]}
    return values


# ---- what is wrong ---------------------------------------------------------------------------------------------------

_BOUNDS: Final = {
    "greater_than": ("gt", "takes more than {}"),
    "greater_than_equal": ("ge", "takes {} or more"),
    "less_than": ("lt", "takes less than {}"),
    "less_than_equal": ("le", "takes {} or less"),
    "multiple_of": ("multiple_of", "takes a multiple of {}"),
    "string_pattern_mismatch": ("pattern", "takes a name like {}"),
}
_KINDS: Final = {"int": "takes a whole number", "float": "takes a number", "bool": "takes true or false"}


def sentence(item: Any, model: type[BaseModel] | None = None) -> str:
    """One mistake, as pydantic reports it, for people. model: whose flags are named."""
    field = str(item["loc"][0]) if item["loc"] else ""
    kind, context = str(item["type"]), item.get("ctx") or {}
    if kind == "extra_forbidden":
        known = [] if model is None else list(model.model_fields)
        near = nearest(field, known)
        return f"There is no option {field.replace('_', '-')}." + (f" Did you mean {near!r}?" if near else "")
    message, meant = str(item["msg"]).removeprefix("Value error, "), ""
    if kind in _BOUNDS:
        name, form = _BOUNDS[kind]
        message = form.format(f"{context[name]:g}" if isinstance(context[name], float) else context[name])
    elif kind.partition("_")[0] in _KINDS and "_" in kind:
        message = _KINDS[kind.partition("_")[0]]
    elif kind == "literal_error":
        names = re.findall(r"'([^']*)'", str(context["expected"]))
        near = nearest(str(item["input"]), names)
        message, meant = f"takes {listed(names)}", f" Did you mean {near!r}?" if near else ""
    elif kind == "missing":
        message = "is needed"
    if not field:
        return f"The command {message}."
    flag = f"--{field.replace('_', '-')}" if model is None else flag_of(model, field)
    return f"{flag} {message}" + ("." if kind == "missing" else f", got {item['input']!r}.{meant}")


def listed(names: list[str]) -> str:
    """ "a, b or c"."""
    return " or ".join(filter(None, [", ".join(names[:-1]), *names[-1:]]))


# ---- texts that stand for values -------------------------------------------------------------------------------------


def seconds(text: str | float | None) -> float | None:
    """ "90", "90s", "5m", "1.5h" → seconds; None stays None. Raises UsageError for anything else."""
    if text is None or isinstance(text, int | float):
        return None if text is None else float(text)
    match = re.fullmatch(r"\s*(\d+(?:\.\d+)?)\s*([smh]?)\s*", text)
    if not match:
        raise UsageError(f"A time is a number with s, m or h, as in 90s, 5m or 1.5h; got {text!r}.")
    return float(match[1]) * {"": 1, "s": 1, "m": 60, "h": 3600}[match[2]]


def names(value: Any) -> Any:
    """ "a, b" → ("a", "b"); what is no text is left as it is."""
    return tuple(name.strip() for name in value.split(",") if name.strip()) if isinstance(value, str) else value


#: Several names, which may be written with commas between them.
Names = Annotated[tuple[str, ...], BeforeValidator(names)]


def _one_alone(value: str | tuple[str, ...]) -> str | tuple[str, ...]:
    return value[0] if isinstance(value, tuple) and len(value) == 1 else value


#: A name, or several where an option is given again; one alone is the same in either form.
OneOrSeveral = Annotated[str | tuple[str, ...], AfterValidator(_one_alone)]
#: A time in seconds, which may be written as 90s, 5m or 1.5h.
Seconds = Annotated[float, BeforeValidator(seconds)]
