"""The floors of the architecture: an import goes to a lower floor or stays in its own package.

No module imports itself in a circle, and no job's folder another job's. Imports inside functions, under TYPE_CHECKING
and through importlib count as well.
"""

from __future__ import annotations

import ast
from collections.abc import Mapping, Sequence, Set
from pathlib import Path

import pytest

PACKAGE = Path(__file__).resolve().parents[1] / "src" / "regraft"
FLOORS = {
    0: ("core", "weights"),  # weights/ holds files, no code
    1: ("data", "strategies", "engine", "measure", "compress"),
    2: ("images", "text", "audio", "video"),
    3: ("tasks", "style"),
    4: ("adaptation", "fewshot", "pretrain"),
    5: ("report", "deploy"),
    6: ("recipes",),
    7: ("api", "cli", "studio"),
    8: ("__init__", "__main__"),  # the package's public face: `import regraft`, `python -m regraft`
}
FLOOR = {part: floor for floor, parts in FLOORS.items() for part in parts}
FILES = sorted(PACKAGE.rglob("*.py"))


def part_of(path: Path, package: Path = PACKAGE) -> str:
    """The sub-package, or the top-level module, that a file belongs to."""
    first = path.relative_to(package).parts[0]
    return first.removesuffix(".py")


def imported_parts(source: str, module: tuple[str, ...]) -> set[str]:
    """Parts of regraft that a file imports. module: its dotted name as a tuple, `__init__` included."""
    dotted = imported_names(source, module)
    inside = {name[1] if len(name) > 1 and name[1] else "__init__" for name in dotted if name[0] == "regraft"}
    return {name if name in FLOOR or is_part(name) else "__init__" for name in inside}


def imported_names(source: str, module: tuple[str, ...]) -> set[tuple[str, ...]]:
    """Dotted names that a file imports, as tuples; `from a import b` gives (a, b), whether b is a module or not."""
    dotted: set[tuple[str, ...]] = set()
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            dotted |= {tuple(alias.name.split(".")) for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            base = module[: len(module) - node.level] if node.level else ()
            base += tuple(node.module.split(".")) if node.module else ()
            dotted |= {(*base, alias.name) for alias in node.names}
        elif isinstance(node, ast.Call) and node.args and called(node) in {"import_module", "__import__"}:
            dotted.add(tuple(constant_start(node.args[0]).split(".")))
    return dotted


def is_part(name: str) -> bool:
    return (PACKAGE / name).is_dir() or (PACKAGE / f"{name}.py").is_file()


def called(node: ast.Call) -> str:
    return node.func.attr if isinstance(node.func, ast.Attribute) else getattr(node.func, "id", "")


def constant_start(node: ast.expr) -> str:
    """The text of a string constant, or of an f-string up to its first hole."""
    first = node.values[0] if isinstance(node, ast.JoinedStr) and node.values else node
    return first.value if isinstance(first, ast.Constant) and isinstance(first.value, str) else ""


def wrong_imports(part: str, imported: set[str]) -> set[str]:
    return {other for other in imported if other != part and FLOOR[other] >= FLOOR[part]}


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(PACKAGE)))
def test_imports_go_down(path: Path) -> None:
    part = part_of(path)
    assert part in FLOOR, f"{part} has no floor: give it one in FLOORS and in docs/architecture.md"
    module = ("regraft", *path.relative_to(PACKAGE).with_suffix("").parts)
    imported = imported_parts(path.read_text(encoding="utf-8"), module)
    unknown = imported - FLOOR.keys()
    assert not unknown, f"{path.name} imports {unknown}, which have no floor"
    wrong = wrong_imports(part, imported)
    assert not wrong, f"{part} (floor {FLOOR[part]}) may not import {', '.join(sorted(wrong))}"


def dotted_of(path: Path) -> str:
    """A file's dotted name; a package's own for its `__init__.py`."""
    parts = ("regraft", *path.relative_to(PACKAGE).with_suffix("").parts)
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def imported_modules(path: Path, modules: Set[str]) -> set[str]:
    """Modules of `modules` that a file imports by name. A package counts where something is taken out of it: then its
    `__init__.py` is what is imported, not the module beside it."""
    module = ("regraft", *path.relative_to(PACKAGE).with_suffix("").parts)
    found = set()
    for name in imported_names(path.read_text(encoding="utf-8"), module):
        whole = ".".join(name)
        nearest = whole if whole in modules else ".".join(name[:-1])
        if nearest in modules:
            found.add(nearest)
    return found


def circles(imports: Mapping[str, set[str]]) -> list[list[str]]:
    """Groups of modules each of which imports, over others, itself (Tarjan 1972: strongly connected components)."""
    index: dict[str, int] = {}
    low: dict[str, int] = {}
    stack: list[str] = []
    found: list[list[str]] = []

    def visit(name: str) -> None:
        index[name] = low[name] = len(index)
        stack.append(name)
        for other in sorted(imports[name]):
            if other not in index:
                visit(other)
                low[name] = min(low[name], low[other])
            elif other in stack:
                low[name] = min(low[name], index[other])
        if low[name] == index[name]:
            at = stack.index(name)
            group = sorted(stack[at:])
            del stack[at:]
            if len(group) > 1 or name in imports[name]:
                found.append(group)

    for name in sorted(imports):
        if name not in index:
            visit(name)
    return found


def test_no_module_imports_itself_in_a_circle() -> None:
    modules = {dotted_of(path): path for path in FILES}
    found = circles({name: imported_modules(path, modules.keys()) - {name} for name, path in modules.items()})
    assert not found, "; ".join(" ↔ ".join(group) for group in found)


def test_the_search_for_circles_finds_one() -> None:
    imports = {"a": {"b"}, "b": {"c"}, "c": {"a", "d"}, "d": set(), "e": {"e"}, "f": {"a"}}
    assert sorted(circles(imports)) == [["a", "b", "c"], ["e"]]


def job_of(dotted: Sequence[str]) -> str | None:
    """The job whose folder a module of `recipes` lies in; None elsewhere, and for the frame, which is for all."""
    inside = len(dotted) > 2 and dotted[1] == "recipes" and dotted[2] not in ("frame", "__init__")
    return dotted[2] if inside else None


@pytest.mark.parametrize("folder", sorted(p.name for p in (PACKAGE / "recipes").iterdir() if p.is_dir()))
def test_a_job_imports_no_other_job(folder: str) -> None:
    for path in sorted((PACKAGE / "recipes" / folder).rglob("*.py")):
        module = ("regraft", *path.relative_to(PACKAGE).with_suffix("").parts)
        jobs = {job_of(name) for name in imported_names(path.read_text(encoding="utf-8"), module)} - {None, folder}
        assert not jobs, f"{path.relative_to(PACKAGE)} imports the jobs {jobs}: what both need belongs to a lower floor"


@pytest.mark.parametrize(
    ("source", "jobs"),
    [
        ("from regraft.recipes.fit.job import run_fit", {"fit"}),
        ("def f():\n    from regraft.recipes import style", {"style"}),
        ("from ..adapt import job", {"adapt"}),
        ("from regraft.recipes.frame.job import run_job\nfrom regraft.images import stream", set()),
    ],
)
def test_the_check_sees_a_job_in_a_job(source: str, jobs: set[str]) -> None:
    names = imported_names(source, ("regraft", "recipes", "mine", "job"))
    assert {job_of(name) for name in names} - {None} == jobs


def test_fabric_is_imported_in_the_engine_only() -> None:
    for path in FILES:
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            names = [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
            names += [node.module or ""] if isinstance(node, ast.ImportFrom) and not node.level else []
            tops = {name.split(".")[0] for name in names}
            assert "lightning" not in tops, f"{path} imports the umbrella package lightning"
            assert "lightning_fabric" not in tops or part_of(path) == "engine", f"{path} imports Fabric"


@pytest.mark.parametrize(
    ("part", "source", "wrong"),
    [
        ("core", "from regraft.data.source import read", {"data"}),
        ("data", "import regraft.engine.loop", {"engine"}),
        ("data", "def f():\n    from regraft import images", {"images"}),
        ("data", "from ..measure import metrics", {"measure"}),
        ("tasks", "from regraft import fit", {"__init__"}),
        ("tasks", "from importlib import import_module\nimport_module('regraft.report.page')", {"report"}),
        ("strategies", "import importlib\nimportlib.import_module(f'regraft.data.{name}')", {"data"}),
        ("report", "if TYPE_CHECKING:\n    from regraft.recipes.fit.job import Fit", {"recipes"}),
        ("data", "from .decode import pixels\nfrom regraft.data import audit\nimport numpy", set()),
        ("recipes", "from regraft.core.errors import DataError\nfrom regraft.report import page", set()),
        ("cli", "import regraft.recipes.fit.job", set()),
    ],
)
def test_the_check_sees_what_it_forbids(part: str, source: str, wrong: set[str]) -> None:
    assert wrong_imports(part, imported_parts(source, ("regraft", part, "file"))) == wrong
