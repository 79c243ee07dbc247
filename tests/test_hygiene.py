"""House rules that a reader would otherwise have to check by eye, each with examples that break it."""

from __future__ import annotations

import ast
import re
from functools import cache
from pathlib import Path

import pytest

REPOSITORY = Path(__file__).resolve().parents[1]
SOURCE = REPOSITORY / "src" / "regraft"
Function = ast.FunctionDef | ast.AsyncFunctionDef
parsed = cache(ast.parse)
FOLDERS = ("src", "tests", "bench", "docs", ".ci", ".github")
SUFFIXES = (".py", ".md", ".toml", ".txt", ".yml", ".yaml", ".html", ".json", ".sh", ".cff", ".css")
COMMITTED = sorted(
    [path for folder in FOLDERS for path in (REPOSITORY / folder).rglob("*") if path.suffix in SUFFIXES]
    + [path for path in REPOSITORY.iterdir() if path.is_file() and path.suffix in SUFFIXES]
    + [REPOSITORY / "Makefile", REPOSITORY / ".ci" / "run"]
)
PYTHON = [path for path in COMMITTED if path.suffix == ".py"]
LIBRARY = [path for path in PYTHON if path.is_relative_to(SOURCE)]
FACES = {"cli"}  # the package whose modules may print and exit

LONGEST_FILE_LINES = 400
LONGEST_JOB_FILE_LINES = 350
MOST_LINES_OF_JOBS = 5_000
LONGEST_FUNCTION_LINES = 80
MOST_PARAMETERS = 8  # outside the command line, whose functions have a parameter per option

# What is above a bound today, with how much it has. These lists may only get shorter, and the numbers smaller.
LONG_JOB_FILES: dict[str, int] = {}
LONG_FUNCTIONS: dict[str, int] = {}
MANY_PARAMETERS = {
    "adaptation/domains.py:read_labelled": 9,
    "images/stream.py:PictureStream.__init__": 13,
}

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
    for node in ast.walk(parsed(source)):
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


def test_library_code_neither_prints_nor_exits_nor_unpickles() -> None:
    found = {
        named(path): what
        for path in LIBRARY
        if (what := offences(path.read_text(encoding="utf-8"), may_print=path.parent.name in FACES))
    }
    assert found == {}


def compare(measured: dict[str, int], bound: int, known: dict[str, int]) -> list[str]:
    """Sentences about what is above the bound, and about entries of a list of known ones that are out of date."""
    above = {name: n for name, n in measured.items() if n > bound}
    found = [
        f"{name}: {n}, at most {known.get(name, bound)}" for name, n in above.items() if n > known.get(name, bound)
    ]
    return found + [f"{name} keeps the bound now: take it out of the list" for name in known if name not in above]


def test_files_are_one_idea_long() -> None:
    lines = {named(path): len(path.read_text(encoding="utf-8").splitlines()) for path in LIBRARY}
    jobs = {name: n for name, n in lines.items() if name.startswith("src/regraft/recipes/")}
    assert compare(lines, LONGEST_FILE_LINES, {}) == []
    assert compare(jobs, LONGEST_JOB_FILE_LINES, LONG_JOB_FILES) == []
    assert sum(jobs.values()) <= MOST_LINES_OF_JOBS


@cache
def functions(path: Path) -> dict[str, Function]:
    """Every function of a file by `file:Class.name`."""
    found: dict[str, Function] = {}

    def visit(node: ast.AST, prefix: str) -> None:
        for child in ast.iter_child_nodes(node):
            if isinstance(child, ast.FunctionDef | ast.AsyncFunctionDef):
                found[f"{prefix}{child.name}"] = child
            visit(child, f"{prefix}{child.name}." if isinstance(child, ast.ClassDef) else prefix)

    visit(parsed(path.read_text(encoding="utf-8")), f"{named(path).removeprefix('src/regraft/')}:")
    return found


def length(function: Function) -> int:
    return (function.end_lineno or function.lineno) - function.lineno + 1


def parameters(function: Function) -> int:
    """How many things a caller may give: `*args` and `**kwargs` count as one each, self and cls not."""
    asked = function.args
    names = [one.arg for one in (*asked.posonlyargs, *asked.args, *asked.kwonlyargs)]
    return sum(name not in {"self", "cls"} for name in names) + bool(asked.vararg) + bool(asked.kwarg)


def test_functions_are_short_and_take_few_things() -> None:
    found = {name: node for path in LIBRARY for name, node in functions(path).items()}
    lines = {name: length(node) for name, node in found.items()}
    asked = {name: parameters(node) for name, node in found.items() if not name.startswith("cli/")}
    assert compare(lines, LONGEST_FUNCTION_LINES, LONG_FUNCTIONS) == []
    assert compare(asked, MOST_PARAMETERS, MANY_PARAMETERS) == []


def test_the_checks_of_size_see_what_is_too_large() -> None:
    assert compare({"a": 9, "b": 3, "c": 7}, 5, {"c": 7}) == ["a: 9, at most 5"]
    assert compare({"c": 8}, 5, {"c": 7}) == ["c: 8, at most 7"]
    assert compare({"c": 5}, 5, {"c": 7}) == ["c keeps the bound now: take it out of the list"]
    (function,) = ast.parse("def f(self, a, /, b, *args, c=1, **kwargs):\n    pass").body
    assert isinstance(function, ast.FunctionDef)
    assert (length(function), parameters(function)) == (2, 5)


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


def test_constraints_pin_every_dependency_with_hashes_and_name_no_address() -> None:
    text = (REPOSITORY / "constraints.txt").read_text(encoding="utf-8")
    body = re.sub(r"^#.*\n", "", text, flags=re.M)
    pins = re.findall(r"([a-z0-9._-]+)==[0-9][\w.]*((?: \\\n {4}--hash=sha256:[0-9a-f]{64})+)\n", body)
    assert body == "".join(re.findall(r"[a-z0-9._-]+==[0-9][\w.]*(?: \\\n {4}--hash=sha256:[0-9a-f]{64})+\n", body))
    project = (REPOSITORY / "pyproject.toml").read_text(encoding="utf-8")
    wanted = re.findall(r'"([a-zA-Z0-9-]+)(?:\[\w+\])?>=', project.partition("[project.scripts]")[0])
    assert len(wanted) >= 30
    assert {name.lower() for name in wanted} <= {name for name, _ in pins}
    assert len({name for name, _ in pins}) == len(pins)


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
