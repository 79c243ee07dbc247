"""The floors of the architecture: an import goes to a lower floor or stays in its own package.

Imports inside functions, under TYPE_CHECKING and through importlib count as well.
"""

from __future__ import annotations

import ast
from functools import cache
from pathlib import Path

import pytest

PACKAGE = Path(__file__).resolve().parents[1] / "src" / "regraft"
FLOORS = {
    0: ("core", "weights"),  # weights/ holds files, no code
    1: ("data", "strategies", "engine", "measure", "compress"),
    2: ("images", "text", "audio", "video", "report"),
    3: ("tasks", "style"),
    4: ("adaptation", "fewshot", "pretrain"),
    5: ("deploy",),
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


@cache
def imported_names(source: str, module: tuple[str, ...]) -> frozenset[tuple[str, ...]]:
    """Dotted names that a file imports, as tuples. module: its own, `__init__` included."""
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
    return frozenset(dotted)


def imported_parts(source: str, module: tuple[str, ...]) -> set[str]:
    """Parts of regraft that a file imports."""
    dotted = imported_names(source, module)
    inside = {name[1] if len(name) > 1 and name[1] else "__init__" for name in dotted if name[0] == "regraft"}
    return {name if name in FLOOR or is_part(name) else "__init__" for name in inside}


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


def module_of(path: Path, package: Path = PACKAGE) -> tuple[str, ...]:
    return ("regraft", *path.relative_to(package).with_suffix("").parts)


def test_imports_go_down() -> None:
    offences = []
    for path in FILES:
        part = part_of(path)
        if part not in FLOOR:
            offences.append(f"{part} has no floor: give it one in FLOORS and in docs/architecture.md")
            continue
        imported = imported_parts(path.read_text(encoding="utf-8"), module_of(path))
        name = path.relative_to(PACKAGE)
        unknown = imported - FLOOR.keys()
        offences += [f"{name} imports {other}, which has no floor" for other in sorted(unknown)]
        wrong = wrong_imports(part, imported - unknown)
        offences += [f"{name} (floor {FLOOR[part]}) may not import {other}" for other in sorted(wrong)]
    assert offences == []


def jobs_imported(path: Path) -> set[str]:
    """The folders of recipes/ that a file of one of them imports, other than its own and the frame."""
    own = path.relative_to(PACKAGE).parts[1]
    names = imported_names(path.read_text(encoding="utf-8"), module_of(path))
    jobs = {name[2] for name in names if name[:2] == ("regraft", "recipes") and len(name) > 2}
    return {job for job in jobs if (PACKAGE / "recipes" / job).is_dir()} - {own, "frame"}


def test_no_job_imports_another() -> None:
    files = [path for path in FILES if part_of(path) == "recipes" and len(path.relative_to(PACKAGE).parts) > 2]
    assert {str(path.relative_to(PACKAGE)): jobs for path in files if (jobs := jobs_imported(path))} == {}


def graph() -> dict[str, set[str]]:
    """Module → modules of the package that it imports, inside functions and for types included."""
    modules = {".".join(module_of(path)).removesuffix(".__init__"): path for path in FILES}
    found: dict[str, set[str]] = {}
    for name, path in modules.items():
        dotted = {".".join(one) for one in imported_names(path.read_text(encoding="utf-8"), module_of(path))}
        # `from a.b import c` names the module a.b.c if there is one, else a thing of a.b.
        found[name] = {one if one in modules else one.rpartition(".")[0] for one in dotted} & modules.keys() - {name}
    return found


def circles(imports: dict[str, set[str]]) -> list[list[str]]:
    """Groups of modules that import each other in a ring (strongly connected, Tarjan 1972)."""
    order: dict[str, int] = {}
    low: dict[str, int] = {}
    stack: list[str] = []
    rings = []

    def visit(node: str) -> None:
        order[node] = low[node] = len(order)
        stack.append(node)
        for other in sorted(imports[node]):
            if other not in order:
                visit(other)
                low[node] = min(low[node], low[other])
            elif other in stack:
                low[node] = min(low[node], order[other])
        if low[node] == order[node]:
            ring = stack[stack.index(node) :]
            del stack[stack.index(node) :]
            if len(ring) > 1:
                rings.append(sorted(ring))

    for node in sorted(imports):
        if node not in order:
            visit(node)
    return rings


def test_no_modules_import_each_other_in_a_circle() -> None:
    assert circles(graph()) == []


def test_the_check_of_circles_sees_one() -> None:
    assert circles({"a": {"b"}, "b": {"c"}, "c": {"b"}, "d": {"a"}}) == [["b", "c"]]
    assert circles({"a": {"b", "c"}, "b": {"c"}, "c": set()}) == []


def test_fabric_is_imported_in_the_engine_only() -> None:
    for path in FILES:
        tops = {name[0] for name in imported_names(path.read_text(encoding="utf-8"), module_of(path))}
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
        ("tasks", "from importlib import import_module\nimport_module('regraft.deploy.predictor')", {"deploy"}),
        ("report", "from regraft.images.shown import shown_picture", {"images"}),
        ("strategies", "import importlib\nimportlib.import_module(f'regraft.data.{name}')", {"data"}),
        ("report", "if TYPE_CHECKING:\n    from regraft.recipes.fit.job import Fit", {"recipes"}),
        ("data", "from .decode import pixels\nfrom regraft.data import audit\nimport numpy", set()),
        ("recipes", "from regraft.core.errors import DataError\nfrom regraft.report import page", set()),
        ("cli", "import regraft.recipes.fit.job", set()),
    ],
)
def test_the_check_sees_what_it_forbids(part: str, source: str, wrong: set[str]) -> None:
    assert wrong_imports(part, imported_parts(source, ("regraft", part, "file"))) == wrong
