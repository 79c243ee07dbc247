"""What the site shows from outside docs/: the repository's own documents and the cards of the weights.

On the pages of the repository a link such as `../README.md` leads out of docs/. For the site each such file becomes a
page, and links to it are turned to where it lies there; a link to anything else outside becomes plain text.
"""

from __future__ import annotations

import posixpath
import re
from pathlib import Path
from typing import Any

from mkdocs.structure.files import File, Files

REPOSITORY = Path(__file__).resolve().parents[1]
CARDS = "src/regraft/weights"
PLACES = {name: name for name in ("CONTRIBUTING.md", "CHANGELOG.md", "SECURITY.md", "README.zh-CN.md")}
PLACES |= {f"{CARDS}/{name}.card.md": f"cards/{name}.md" for name in ("scion", "sprig", "styles")}
PLACES["README.md"] = "index.md"  # what the README says is on the first page, longer
LINK = re.compile(r"(!?)\[([^\]]*)\]\(([^)\s]+)\)")


def on_files(files: Files, config: Any) -> Files:
    """Adds the files from outside as pages."""
    for source, place in PLACES.items():
        if place != "index.md":
            text = (REPOSITORY / source).read_text(encoding="utf-8")
            files.append(File.generated(config, place, content=text))
    return files


def on_page_markdown(markdown: str, page: Any, **_: Any) -> str:
    """Turns links that lead out of docs/, and those of pages that lie elsewhere in the repository."""
    place = page.file.src_uri
    outside = {there: source for source, there in PLACES.items() if there != "index.md"}
    source = outside.get(place, f"docs/{place}")

    def turned(match: re.Match[str]) -> str:
        mark, words, target = match.groups()
        path, _, anchor = target.partition("#")
        if "://" in target or not path:
            return match.group(0)
        meant = posixpath.normpath(posixpath.join(posixpath.dirname(source), path))
        there = PLACES.get(meant) or (meant.removeprefix("docs/") if meant.startswith("docs/") else None)
        if there is None:
            return words
        link = posixpath.relpath(there, posixpath.dirname(place) or ".")
        return f"{mark}[{words}]({link}{'#' + anchor if anchor else ''})"

    return LINK.sub(turned, markdown)
