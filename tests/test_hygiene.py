"""House rules that a reader would otherwise have to check by eye, each with examples that break it."""

from __future__ import annotations

import ast
import re
from pathlib import Path

import pytest

REPOSITORY = Path(__file__).resolve().parents[1]
SOURCE = REPOSITORY / "src" / "regraft"
FOLDERS = ("src", "tests", "bench", "docs", ".ci", ".github")
SUFFIXES = (".py", ".md", ".toml", ".txt", ".yml", ".yaml", ".html", ".json", ".sh")
COMMITTED = sorted(
    [path for folder in FOLDERS for path in (REPOSITORY / folder).rglob("*") if path.suffix in SUFFIXES]
    + [path for path in REPOSITORY.iterdir() if path.is_file() and path.suffix in SUFFIXES]
    + [REPOSITORY / "Makefile", REPOSITORY / ".ci" / "run"]
)
PYTHON = [path for path in COMMITTED if path.suffix == ".py"]
LIBRARY = [path for path in PYTHON if path.is_relative_to(SOURCE)]
FACES = {"cli"}  # the package whose modules may print and exit

LONGEST_FILE_LINES = 400
VAGUE_NAMES = {"utils", "util", "helpers", "helper", "common", "misc", "stuff", "tools"}
PICKLING = {"pickle", "cPickle", "dill", "cloudpickle", "joblib", "shelve", "marshal"}
EXITS = {"sys.exit", "os._exit", "exit", "quit"}
# Written so that this file does not contain what it looks for.
UNFINISHED = re.compile(r"\b(TO" + r"DO|FIX" + r"ME|XX" + r"X)\b")
MACHINE_PATH = re.compile(r"(?<![\w.~*})/])/(wo" + r"rk|tm" + r"p|ro" + r"ot|ho" + r"me|op" + r"t|Us" + r"ers)/\w")
REGISTRY_HOST = re.compile(
    r"(py" + r"pi\.org|python" + r"hosted\.org|download\.py" + r"torch\.org|deb\.deb" + r"ian\.org|npm" + r"js\.)"
)


def dotted(node: ast.expr) -> str:
    """`a.b.c` of a name or attribute, "" of anything else."""
    if isinstance(node, ast.Attribute):
        return f"{dotted(node.value)}.{node.attr}"
    return node.id if isinstance(node, ast.Name) else ""


def is_true(call: ast.Call, keyword: str) -> bool:
    found = [k.value for k in call.keywords if k.arg == keyword]
    return bool(found) and isinstance(found[0], ast.Constant) and found[0].value is True


def offences(source: str, *, may_print: bool = False) -> list[str]:
    """What library code may not do, with the line it does it on."""
    found = []
    for node in ast.walk(ast.parse(source)):
        what = ""
        if isinstance(node, ast.Import | ast.ImportFrom):
            names = [alias.name for alias in node.names]
            names += [node.module or ""] if isinstance(node, ast.ImportFrom) else []
            what = ", ".join(sorted({name.split(".")[0] for name in names} & PICKLING))
        elif isinstance(node, ast.Call):
            name = dotted(node.func)
            if not may_print and (name == "print" or name in EXITS):
                what = f"{name}()"
            elif name == "torch.load" and not is_true(node, "weights_only"):
                what = "torch.load without weights_only=True"
            elif name.endswith(".load") and is_true(node, "allow_pickle"):
                what = "allow_pickle=True"
        elif isinstance(node, ast.Raise) and node.exc is not None:
            raised = dotted(node.exc.func if isinstance(node.exc, ast.Call) else node.exc)
            if raised == "NotImplementedError" or (raised == "SystemExit" and not may_print):
                what = f"raise {raised}"
        if what:
            found.append(f"line {getattr(node, 'lineno', 0)}: {what}")
    return found


def named(path: Path) -> str:
    return str(path.relative_to(REPOSITORY))


@pytest.mark.parametrize("path", LIBRARY, ids=named)
def test_library_code_neither_prints_nor_exits_nor_unpickles(path: Path) -> None:
    assert offences(path.read_text(encoding="utf-8"), may_print=path.parent.name in FACES) == []


def test_files_are_one_idea_long() -> None:
    lines = {named(path): len(path.read_text(encoding="utf-8").splitlines()) for path in LIBRARY}
    assert {name: n for name, n in lines.items() if n > LONGEST_FILE_LINES} == {}


def test_file_names_say_what_is_inside() -> None:
    assert [named(path) for path in PYTHON if {path.stem, path.parent.name} & VAGUE_NAMES] == []


@pytest.mark.parametrize(
    "forbidden",
    [UNFINISHED, MACHINE_PATH, REGISTRY_HOST],
    ids=["unfinished", "machine path", "registry host"],
)
def test_no_committed_text_holds(forbidden: re.Pattern[str]) -> None:
    found = [
        f"{named(path)}:{number}: {line.strip()}"
        for path in COMMITTED
        for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), start=1)
        if forbidden.search(line)
    ]
    assert found == []


def test_constraints_pin_every_dependency_and_name_no_address() -> None:
    lines = (REPOSITORY / "constraints.txt").read_text(encoding="utf-8").splitlines()
    pins = [line for line in lines if line and not line.startswith("#")]
    assert all(re.fullmatch(r"[a-z0-9._-]+==[0-9][\w.]*", pin) for pin in pins)
    wanted = re.findall(r'^ {4}"([a-zA-Z0-9-]+)>=', (REPOSITORY / "pyproject.toml").read_text(encoding="utf-8"), re.M)
    assert len(wanted) >= 15
    assert {name.lower() for name in wanted} <= {pin.split("==")[0] for pin in pins}


@pytest.mark.parametrize(
    "source",
    [
        "print('x')",
        "import sys\nsys.exit(1)",
        "raise SystemExit(2)",
        "import pickle",
        "from joblib import load",
        "import torch\ntorch.load('a.pth')",
        "import torch\ntorch.load('a.pth', weights_only=False)",
        "import numpy as np\nnp.load('a.npy', allow_pickle=True)",
        "def f():\n    raise NotImplementedError",
    ],
)
def test_the_check_sees_what_it_forbids(source: str) -> None:
    assert len(offences(source)) == 1


def test_the_check_lets_pass_what_is_right() -> None:
    source = "import torch\nconsole.print('x')\ntorch.load('a.pth', weights_only=True)\nlog.info('print')"
    assert offences(source) == []
    assert offences("import sys\nprint('x')\nsys.exit(1)", may_print=True) == []


@pytest.mark.parametrize(
    ("pattern", "caught", "passed"),
    [
        (MACHINE_PATH, "data in /" + "home/ada/pictures", "photos/home/ada and ../shared/data"),
        (MACHINE_PATH, 'Path("/' + 'tmp/x")', "tmp_path / 'x'"),
        (REGISTRY_HOST, "https://" + "pypi" + ".org/simple", "see arxiv.org"),
        (UNFINISHED, "# TO" + "DO: later", "todos"),
    ],
)
def test_the_patterns_see_what_they_forbid(pattern: re.Pattern[str], caught: str, passed: str) -> None:
    assert pattern.search(caught)
    assert not pattern.search(passed)
