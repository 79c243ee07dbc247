"""The command line is what the options say: their names, defaults, texts and mistakes, each once."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any, Literal

import pytest
import typer
import yaml
from typer.testing import CliRunner

from conftest import Shell
from regraft.cli.app import COMMANDS, STYLE_COMMANDS, every_command, whole
from regraft.cli.drawn import Argument, Face, RunFace, Verb, drawn, read_options
from regraft.core.errors import UsageError
from regraft.core.option_groups import StrategyOptions, TimeOptions
from regraft.core.options import Names, Options, Seconds, altered, option

LIGHT = """
import sys
from importlib import import_module
from regraft.cli.app import COMMANDS, STYLE_COMMANDS
for one in (*COMMANDS, *STYLE_COMMANDS):
    import_module(one.verb.partition(":")[0])
print(*sorted({"torch", "numpy", "timm", "sklearn", "PIL"} & sys.modules.keys()))
"""


class Asked(Options):
    """Options of every kind."""

    words: tuple[str, ...] = option((), "Words.")
    names: Names = option(("a",), "Names.", flag="--name")
    budget_s: Seconds | None = option(None, "Time.", flag="--budget", metavar="TIME", gt=0)
    kind: Literal["one", "two"] = option("one", "Kind.", panel="Model")
    count: int = option(3, "Count.", metavar="N", ge=1)
    share: float = option(0.5, "Share.", ge=0, le=1)
    where: Path | None = option(None, "Where.")
    several: tuple[Path, ...] = option((), "Several.", metavar="FILE")
    mirror: bool = option(True, "Mirror.")
    hidden: int = option(7, "For Python.", on_command_line=False)


def asked(*words: str) -> Any:
    """What the command line makes of these words: (options, face); else the exception."""
    found: list[Any] = []
    verb = Verb(Asked, lambda options, face: found.append((options, face)), RunFace,
                arguments=(Argument("words", many=True, required=False, path=False),), first=("count",))  # fmt: skip
    app = typer.Typer(add_completion=False)
    app.command("verb")(drawn(verb))
    done = CliRunner().invoke(app, list(words))
    return found[0] if found else done


def test_what_is_typed_is_what_the_model_gets() -> None:
    options, face = asked(
        "x", "y", "--name", "b, c", "--budget", "1.5m", "--kind", "two", "--count", "5", "--share", "1e-1",
        "--several", "p", "--several", "q", "--no-mirror", "--quiet", "--runs", "there",
    )  # fmt: skip
    assert options == Asked(
        words=("x", "y"), names=("b", "c"), budget_s=90.0, kind="two", count=5, share=0.1,
        several=(Path("p"), Path("q")), mirror=False,
    )  # fmt: skip
    assert face.quiet and face.runs == Path("there") and not face.fresh


def test_what_is_not_typed_is_the_default() -> None:
    options, face = asked()
    assert options == Asked() and face == RunFace()


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("--count", "many"), "--count takes a whole number, got 'many'."),
        (("--count", "0"), "--count takes 1 or more, got '0'."),
        (("--share", "2"), "--share takes 1 or less, got '2'."),
        (("--kind", "tow"), "--kind takes one or two, got 'tow'. Did you mean 'two'?"),
        (("--budget", "soon"), "A time is a number with s, m or h, as in 90s, 5m or 1.5h; got 'soon'."),
        (("--budget", "0s"), "--budget takes more than 0, got '0s'."),
        (("--count", "x", "--share", "y"), "--count takes a whole number, got 'x'. --share takes a number, got 'y'."),
    ],
)
def test_a_wrong_value_is_one_sentence(words: tuple[str, ...], said: str) -> None:
    error = asked(*words).exception
    assert isinstance(error, UsageError) and str(error) == said and error.exit_code == 2


def test_options_of_a_file_are_taken_and_those_of_the_command_win(tmp_path: Path) -> None:
    file = tmp_path / "config.yaml"
    file.write_text(yaml.safe_dump(Asked(count=9, share=0.25, hidden=8).plain()))
    options, _ = asked("--config", str(file), "--count", "4")
    assert options == Asked(count=4, share=0.25, hidden=8)
    file.write_text('{"budget": "2m", "name": "x, y"}')  # JSON, by the names of flags
    assert read_options(file, Asked) == {"budget_s": "2m", "names": "x, y"}
    options, _ = asked("--config", str(file))
    assert options.budget_s == 120 and options.names == ("x", "y")


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("shrae: 0.3", "There is no option shrae. Did you mean 'share'?"),
        ("- 3", "holds no options"),
        ("a: [", "cannot be read"),
        ("count: none", "--count takes a whole number, got 'none'."),
    ],
)
def test_a_file_with_a_mistake_is_refused(tmp_path: Path, text: str, said: str) -> None:
    file = tmp_path / "config.yaml"
    file.write_text(text)
    error = asked("--config", str(file)).exception
    assert isinstance(error, UsageError) and said in str(error)


def test_help_has_defaults_panels_and_the_first_options_above_them() -> None:
    shown = " ".join(asked("--help").output.split())
    assert "[default: 3]" in shown and "[default: one]" in shown and "one|two" in shown and "--hidden" not in shown
    assert shown.index("--count") < shown.index("Training") < shown.index("--share")


def test_every_option_of_the_command_line_explains_itself() -> None:
    bare = {
        f"{name} {one.name} {item.name}": item.help
        for name, verbs in every_command().items()
        for one in verbs
        for item in one.params
        if not (getattr(item, "help", None) or "").strip()
    }
    assert bare == {}


@pytest.mark.parametrize("one", [*COMMANDS, *STYLE_COMMANDS], ids=lambda one: one.verb)
def test_examples_name_options_that_there_are(one: Any) -> None:
    command = whole(one)
    options = {text for item in command.params for text in (*item.opts, *item.secondary_opts)}
    for example in (line for line in (command.epilog or "").splitlines() if line.startswith("regraft")):
        assert {word for word in example.split() if word.startswith("--")} <= options, example


def test_the_options_are_there_without_pytorch() -> None:
    done = subprocess.run([sys.executable, "-c", LIGHT], capture_output=True, text=True, check=True)
    assert done.stdout.split() == []


def test_a_default_is_changed_and_the_rest_of_a_shared_option_stays() -> None:
    class Mine(StrategyOptions, TimeOptions):
        lr: float | None = altered(StrategyOptions, "lr", 0.5, help="Mine.")

    assert Mine().lr == 0.5 and StrategyOptions().lr is None
    with pytest.raises(UsageError, match="--lr takes more than 0"):
        Mine.checked(lr=0)
    assert Mine.checked(budget_s="2h").budget_s == 7200


def test_a_dry_run_says_what_would_be_done_and_writes_nothing(pictures: Path, shell: Shell, tmp_path: Path) -> None:
    runs = tmp_path / "runs"
    before = sorted(tmp_path.rglob("*"))
    code, out, err = shell("fit", pictures, "--dry-run", "--quiet", "--runs", runs, "--strategies", "probe,finetune")
    assert code == 0 and err == "", err
    assert "24 usable pictures" in out and "Candidates: probe, finetune" in out and "finetune\n" in out
    assert sorted(tmp_path.rglob("*")) == before


def test_quiet_and_json_are_for_every_command() -> None:
    for verbs in every_command().values():
        for command in verbs:
            assert {"as_json", "quiet", "config"} <= {item.name for item in command.params}, command.name
    assert issubclass(RunFace, Face)
