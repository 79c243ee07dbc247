"""Options as people write them, and what is wrong with them, in sentences."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Annotated, Any, Self

from pydantic import AfterValidator, BaseModel, ConfigDict, ValidationError

from regraft.core.errors import UsageError


def _one_alone(value: str | tuple[str, ...]) -> str | tuple[str, ...]:
    return value[0] if isinstance(value, tuple) and len(value) == 1 else value


#: A name, or several where an option is given again; one alone is the same in either form.
OneOrSeveral = Annotated[str | tuple[str, ...], AfterValidator(_one_alone)]


class Options(BaseModel):
    """The options of one command: checked as a whole, written out in full into `config.yaml`, never changed."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    @classmethod
    def checked(cls, **values: Any) -> Self:
        """The options, or a UsageError with every mistake in one sentence each."""
        try:
            return cls(**values)
        except ValidationError as error:
            raise UsageError(" ".join(sentence(item) for item in error.errors())) from error

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


def sentence(item: Any) -> str:
    """One mistake, as pydantic reports it, for people."""
    name = str(item["loc"][0]).replace("_", "-") if item["loc"] else ""
    message = str(item["msg"]).removeprefix("Value error, ")
    if item["type"] == "extra_forbidden":
        return f"There is no option {name}."
    came = f"; {item['input']!r} came" if name else ""
    return f"--{name} {message}{came}." if name else f"The command {message}."


def seconds(text: str | float | None) -> float | None:
    """ "90", "90s", "5m", "1.5h" → seconds; None stays None. Raises UsageError for anything else."""
    if text is None or isinstance(text, int | float):
        return None if text is None else float(text)
    match = re.fullmatch(r"\s*(\d+(?:\.\d+)?)\s*([smh]?)\s*", text)
    if not match:
        raise UsageError(f"A budget is a number with s, m or h, as in 90s, 5m or 1.5h; {text!r} came.")
    return float(match[1]) * {"": 1, "s": 1, "m": 60, "h": 3600}[match[2]]
