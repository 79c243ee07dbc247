"""The documents say what is true: their examples run, their options and links exist, both languages agree."""

from __future__ import annotations

import importlib.util
import re
import shlex
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import torch

from regraft.cli.app import every_command
from regraft.core.registry import Registry
from regraft.images.backbones import families
from regraft.report.frame import Report
from regraft.report.sections import jobs, sections
from regraft.strategies import strategies
from regraft.style.base import methods

REPOSITORY = Path(__file__).resolve().parents[1]
READMES = ("README.md", "README.zh-CN.md")
FIGURES = ("docs/figures.md", "docs/figures.zh-CN.md")
VERBS = REPOSITORY / "docs" / "verbs"
DOCUMENTS = sorted([*REPOSITORY.glob("*.md"), *(REPOSITORY / "docs").rglob("*.md"), REPOSITORY / "bench" / "README.md"])
CARD = REPOSITORY / "src" / "regraft" / "weights" / "scion.card.md"
FENCED = re.compile(r"^```([^\n]*)\n(.*?)^```$", re.M | re.S)
SCRIPT = re.compile(r"bench/[\w/]+\.py")
ONE_SIDED = {"README.md", "docs/figures.md"}  # links to the same document in the other language
# Options of the whole command, of other programs and of the scripts in bench/.
ELSEWHERE = {"--shared", "--tutorial", "--fit-options", "--require-hashes", "--version", "--nnodes", "--nproc"}


def blocks(text: str, kind: str) -> list[str]:
    """The fenced blocks whose opening line is exactly ```kind."""
    return [body for head, body in FENCED.findall(text) if head.strip() == kind]


def prose(text: str) -> str:
    return FENCED.sub("", text)


def named(path: Path) -> str:
    return str(path.relative_to(REPOSITORY))


@pytest.fixture
def registries_restored() -> Iterator[None]:
    """What an example registers is gone after it, so that no other test meets it."""
    every: tuple[Registry[Any], ...] = (families, strategies, methods)
    before = [dict(registry._items) for registry in every]
    state = torch.random.get_rng_state()
    yield
    torch.random.set_rng_state(state)
    for registry, items in zip(every, before, strict=True):
        registry._items.clear()
        registry._items.update(items)


@pytest.mark.parametrize("path", [path for path in DOCUMENTS if "```python runnable" in path.read_text()], ids=named)
def test_runnable_examples_run(
    path: Path, registries_restored: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    found = blocks(path.read_text(encoding="utf-8"), "python runnable")
    assert found
    session: dict[str, Any] = {"__name__": "example"}
    for number, source in enumerate(found, start=1):
        exec(compile(source, f"{path.name}, example {number}", "exec"), session)


def test_the_guide_has_examples() -> None:
    guide = (REPOSITORY / "docs" / "adding.md").read_text(encoding="utf-8")
    assert len(blocks(guide, "python runnable")) >= 4


@pytest.mark.parametrize("path", [path for path in DOCUMENTS if "```python" in path.read_text()], ids=named)
def test_other_examples_are_python(path: Path) -> None:
    for source in blocks(path.read_text(encoding="utf-8"), "python"):
        compile(source, path.name, "exec")


def commands() -> dict[str, set[str]]:
    """Every verb of the command line with its options; of a group, those of all its commands, and each by itself."""
    found = {}
    for name, verbs in every_command().items():
        params = [item for one in verbs for item in one.params]
        options = {option for item in params for option in (*item.opts, *item.secondary_opts) if option[0] == "-"}
        found[name] = options | {"--help", "--debug"}
    return found


def options_of(*verbs: Any) -> set[str]:
    params = [item for verb in verbs for item in verb.params]
    options = {option for item in params for option in (*item.opts, *item.secondary_opts) if option[0] == "-"}
    return options | {"--help", "--debug"}


def wrong_commands(text: str) -> list[str]:
    """Lines `regraft …` in code, fenced or not, whose verb or option does not exist."""
    known = commands()
    lines = [line for _, body in FENCED.findall(text) for line in body.splitlines()]
    lines += re.findall(r"`(regraft [^`\n]+)`", prose(text))
    wrong = []
    for line in (line for line in lines if line.startswith("regraft ")):
        words = shlex.split(line, comments=True)
        used = {word.partition("=")[0] for word in words[2:] if word.startswith("--")}
        verb = " ".join(words[1:3]) if " ".join(words[1:3]) in known else words[1]
        if verb not in known | {"--version": set()} or not used <= known.get(verb, set()):
            wrong.append(line)
    return wrong


def strange_options(text: str) -> set[str]:
    """Options named anywhere in the prose that no verb has."""
    every = set().union(*commands().values())
    return set(re.findall(r"(?<![\w-])(--[a-z][a-z0-9-]+)", " ".join(re.findall(r"`[^`\n]+`", prose(text))))) - every


@pytest.mark.parametrize("path", [path for path in DOCUMENTS if "regraft " in path.read_text("utf-8")], ids=named)
def test_commands_and_options_exist(path: Path) -> None:
    text = path.read_text(encoding="utf-8")
    assert wrong_commands(text) == []
    assert strange_options(text) - ELSEWHERE == set()


def test_the_check_of_commands_sees_what_is_wrong() -> None:
    text = (
        "```\nregraft fit a/ --budgets 5m  # x\nregraft fits a/\nregraft fit a/ --budget 5m\n```\nand `--no-such` too"
    )
    assert wrong_commands(text) == ["regraft fit a/ --budgets 5m  # x", "regraft fits a/"]
    assert strange_options(text) == {"--no-such"}


def test_every_verb_has_its_page() -> None:
    # `regraft style PHOTO` and `regraft style picture` are one.
    verbs = {verb.replace(" ", "-") for verb in commands()} - {"style-picture"}
    assert {page.stem for page in VERBS.glob("*.md")} == verbs
    navigation = (REPOSITORY / "mkdocs.yml").read_text(encoding="utf-8")
    assert [verb for verb in verbs if f": verbs/{verb}.md" not in navigation] == []
    readme = (REPOSITORY / "README.md").read_text(encoding="utf-8")
    assert [verb for verb in verbs if "-" not in verb and f"docs/verbs/{verb}.md" not in readme] == []
    for verb in verbs:
        shown = "\n".join(blocks((VERBS / f"{verb}.md").read_text(encoding="utf-8"), ""))
        assert f"regraft {verb.replace('-', ' ')}" in shown, f"{verb}.md shows no example"


def test_the_readme_is_read_in_five_minutes() -> None:
    lines = {name: len((REPOSITORY / name).read_text(encoding="utf-8").splitlines()) for name in READMES}
    assert {name: n for name, n in lines.items() if n > 130} == {}


def test_the_reference_names_modules_that_exist() -> None:
    pages = "\n".join(page.read_text(encoding="utf-8") for page in (REPOSITORY / "docs" / "reference").glob("*.md"))
    modules = re.findall(r"^::: (.+)$", pages, re.M)
    assert len(modules) >= 20
    assert [name for name in modules if importlib.util.find_spec(name) is None] == []


def outline(text: str) -> dict[str, Any]:
    """What two translations of a document share."""
    rows = [line for line in prose(text).splitlines() if line.startswith("|")]
    bare = prose(text)
    return {
        "headings": [line.split(" ")[0] for line in bare.splitlines() if line.startswith("#")],
        "code": FENCED.findall(text),
        "rows": [line.count("|") for line in rows],
        "numbers": [sorted(re.findall(r"\d+(?:\.\d+)?", line)) for line in figures(text) or rows],
        "points": sum(line.startswith("- ") for line in bare.splitlines()),
        "options": sorted(set(re.findall(r"(?<![\w-])--[a-z][a-z-]+", bare))),
        "links": sorted({link for link in re.findall(r"\]\(([^)]+)\)", bare) if "zh-CN" not in link} - ONE_SIDED),
    }


def figures(text: str) -> list[str]:
    """The rows between the markers, without header."""
    inside = text.partition("<!-- figures:start -->")[2].partition("<!-- figures:end -->")[0]
    return [line for line in inside.splitlines() if line.startswith("|")][2:]


@pytest.mark.parametrize("pair", [READMES, FIGURES], ids=lambda pair: pair[0])
def test_both_languages_say_the_same(pair: tuple[str, str]) -> None:
    english, chinese = (outline((REPOSITORY / name).read_text(encoding="utf-8")) for name in pair)
    for part in english:
        assert english[part] == chinese[part], part


def test_the_results_of_the_readme_are_in_the_figures() -> None:
    """Every number of the five rows, in one row of the figures at least."""
    readme = prose((REPOSITORY / "README.md").read_text(encoding="utf-8"))
    rows = readme.partition("## Five results")[2].partition("\n## ")[0].splitlines()
    results = [row for row in rows if row.startswith("|")][2:]
    known = set(re.findall(r"\d+(?:\.\d+)?", "\n".join(figures((REPOSITORY / FIGURES[0]).read_text("utf-8")))))
    assert len(results) == 5
    for row in results:
        assert set(re.findall(r"\d+\.\d+", row)) <= known, row


@pytest.mark.parametrize("name", FIGURES)
def test_a_measured_figure_has_its_script(name: str) -> None:
    rows = figures((REPOSITORY / name).read_text(encoding="utf-8"))
    assert len(rows) >= 10
    for row in rows:
        cells = [cell.strip() for cell in row.strip("|").split("|")]
        assert len(cells) == 5, row
        for script in SCRIPT.findall(cells[3]):
            assert cells[2] == "–" or (REPOSITORY / script).is_file(), f"{script} is not there: {row}"


@pytest.mark.parametrize("path", [*DOCUMENTS, CARD], ids=named)
def test_links_lead_somewhere(path: Path) -> None:
    targets = re.findall(r"\]\(([^)#\s]+)(?:#[^)]*)?\)", prose(path.read_text(encoding="utf-8")))
    lost = [target for target in targets if "://" not in target and not (path.parent / target).exists()]
    assert lost == []


def test_the_bench_has_one_line_per_script() -> None:
    text = (REPOSITORY / "bench" / "README.md").read_text(encoding="utf-8")
    listed = re.findall(r"^\| `([\w/]+\.py)` \|", text, re.M)
    assert sorted(listed) == sorted(str(p.relative_to(REPOSITORY / "bench")) for p in REPOSITORY.glob("bench/**/*.py"))


@pytest.fixture(scope="module")
def document_report() -> ModuleType:
    spec = importlib.util.spec_from_file_location("document_report", REPOSITORY / "bench" / "document_report.py")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_the_report_is_documented_as_it_is(document_report: ModuleType) -> None:
    written = (REPOSITORY / "docs" / "report.md").read_text(encoding="utf-8")
    assert written == document_report.document(), "run  make bench NAME=document_report"


def test_every_field_of_the_report_is_in_its_document(document_report: ModuleType) -> None:
    text = document_report.document()
    chapters = dict(re.findall(r"^## (.*?)\n(.*?)(?=^## |\Z)", text, re.M | re.S))
    wanted = [("Every report", Report)]
    wanted += [(f"recipe: {name}", section.fields) for name in jobs for section in jobs.get(name).sections]
    wanted += [(f"kind: {name}", sections.get(name).fields) for name in sections]
    assert len(wanted) >= 7
    for chapter, model in wanted:
        for name, field in model.model_fields.items():
            (row,) = re.findall(rf"^\| `{name}` \|.*$", chapters[chapter], re.M)
            assert document_report.escaped(field.description or "") in row


def test_the_card_has_a_place_for_every_figure() -> None:
    cells = re.findall(r"<!-- cell:([\w.]+) -->(.*?)<!-- /cell -->", CARD.read_text(encoding="utf-8"))
    names = [name for name, _ in cells]
    assert len(names) == len(set(names))
    sets = ("demo", "hymenoptera", "neu_cls", "chest_xray")
    wanted = {f"{name}.{figure}" for name in sets for figure in ("n_test", "pretrained", "random", "random_sd")}
    assert wanted <= set(names)
    assert all(value.strip() for _, value in cells)
