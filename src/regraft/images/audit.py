"""What is wrong with a set of pictures, said before any training and in seconds.

Every file ends up in one of two places: usable, or named in a finding as left out. Nothing disappears in
between.
"""

from __future__ import annotations

import hashlib
import time
from collections import Counter
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from typing import Any, Final

import numpy as np

from regraft.core.errors import DataError, UnreadableError
from regraft.data.extensions import EXTENSIONS
from regraft.data.facts import Facts
from regraft.data.findings import EXAMPLES, Finding, counted
from regraft.data.source import Source
from regraft.images.decode import MAX_PIXELS, decode_thumbnail, default_threads, read_bytes
from regraft.images.duplicates import Left, exact_copies, near_copies
from regraft.images.header import Header, read_header
from regraft.images.likeness import SIDE_PX, dhash

_SMALL_PX: Final = 32

#: Why a file cannot be used → how the finding says it.
_BAD: Final = {
    "missing": "do not exist",
    "zero-byte": "are empty (0 bytes)",
    "truncated": "are cut short",
    "unreadable": "cannot be decoded",
    "not-a-picture": "are not pictures, whatever their names say",
    "bomb": "claim more pixels or bytes than are decoded",
}
#: What needs care but is handled → how the finding says it.
_HANDLED: Final = {
    "wrong-extension": "have a name that says another format than their bytes: they are read by their bytes",
    "cmyk": "are CMYK: they are converted to RGB",
    "16-bit": "have 16 bits per channel: they are scaled to 8 bits, full range to full range",
    "palette": "have a colour palette: they are expanded to RGB",
    "alpha": "have transparency: they are laid over white",
    "exif-rotated": "are turned by their EXIF orientation: they are set upright",
    "colour-profile": "have a colour profile other than sRGB: it is not applied, as in the weights' own preprocessing",
}


@dataclass(frozen=True)
class Audit:
    """n_usable + the counts of the findings with left_out = n_files."""

    n_files: int
    n_usable: int
    seconds: float
    findings: tuple[Finding, ...]

    def to_json(self) -> dict[str, Any]:
        """As plain values; `findings` most severe first."""
        rows = [{**asdict(f), "examples": list(f.examples), "paths": list(f.paths)} for f in self.findings]
        return {**asdict(self), "findings": rows}


@dataclass(frozen=True)
class _Look:
    """One file looked at: either facts, thumbnail uint8 (32, 32) and oddities, or the kind of its error."""

    facts: Facts | None = None
    thumbnail: np.ndarray | None = None
    oddities: tuple[str, ...] = ()
    bad: str | None = None


def audit(
    source: Source,
    *,
    max_bad: float = 0.1,
    threads: int | None = None,
    progress: Callable[[int, int], None] | None = None,
) -> tuple[Source, list[Facts], Audit]:
    """Read every file once; return the usable pictures, one Facts for each of them, and what was found.

    Left out and named: files that cannot be read, copies whose labels disagree, training pictures that are
    also in a declared test or validation part. Near copies without declared splits get one group, so that no
    split divides them. progress(done, total) is called from this thread. Raises DataError when more than
    `max_bad` of the files cannot be read, or none is left.
    """
    began = time.perf_counter()
    looks = _look_at_all(source, threads or default_threads(), progress)
    bad = [i for i, look in enumerate(looks) if look.bad is not None]
    findings = _bad_findings(source, looks)
    if len(bad) > max_bad * len(looks) or len(bad) == len(looks):
        raise DataError(_too_many_bad(source, looks, bad, max_bad))
    findings += _handled_findings(source, looks)
    good = [i for i, look in enumerate(looks) if look.bad is None]
    usable = source.subset(good)
    facts = [look.facts for look in looks if look.facts is not None]
    thumbnails = np.stack([look.thumbnail for look in looks if look.thumbnail is not None])

    contents = [fact.sha256 for fact in facts]
    usable, exact, left = exact_copies(usable, contents)
    gone = {i for one in left for i in one.indices}
    usable, near = near_copies(usable, contents, [fact.dhash for fact in facts], thumbnails, gone)
    findings += [_as_finding(usable, one) for one in (*exact, *left, *near)]
    gone |= {i for one in near if one.left_out for i in one.indices}
    kept = [i for i in range(len(usable)) if i not in gone]
    if not kept:
        raise DataError(
            f"No picture of {source.name} is left after the audit: {' '.join(f.sentence for f in findings)}"
        )
    usable, facts = usable.subset(kept), [facts[i] for i in kept]
    if usable.labelling is not None:
        findings += usable.labelling.findings(usable.samples)
    findings += _size_findings(usable, facts)
    findings += [Finding("not-taken", "info", 1, sentence) for sentence in source.skipped]
    order = ("error", "warning", "info")
    findings.sort(key=lambda finding: order.index(finding.severity))
    return usable, facts, Audit(len(source), len(usable), time.perf_counter() - began, tuple(findings))


def _look_at_all(source: Source, threads: int, progress: Callable[[int, int], None] | None) -> list[_Look]:
    looks: list[_Look] = []
    with ThreadPoolExecutor(threads, thread_name_prefix="audit") as pool:
        for look in pool.map(_look, source.paths):
            looks.append(look)
            if progress is not None:
                progress(len(looks), len(source))
    return looks


def _look(path: Any) -> _Look:
    name = str(path)
    try:
        data = read_bytes(path)
        header = read_header(data, name, max_pixels=MAX_PIXELS)
        thumbnail = decode_thumbnail(data, header, name, SIDE_PX)
    except UnreadableError as error:
        return _Look(bad=error.kind)
    facts = Facts(hashlib.sha256(data).hexdigest(), dhash(thumbnail), header.width, header.height)
    return _Look(facts, thumbnail, _oddities(header, path.suffix.lower()))


def _oddities(header: Header, suffix: str) -> tuple[str, ...]:
    found = {
        "wrong-extension": EXTENSIONS.get(suffix, header.format) != header.format,
        "cmyk": header.mode == "CMYK",
        "16-bit": header.bits > 8,
        "palette": header.mode in ("P", "PA") and header.format != "GIF",  # every GIF has one
        "alpha": header.alpha,
        "exif-rotated": header.orientation != 1,
        "colour-profile": header.other_colours,
    }
    return tuple(kind for kind, true in found.items() if true)


def _bad_findings(source: Source, looks: Sequence[_Look]) -> list[Finding]:
    findings = []
    for kind, phrase in _BAD.items():
        indices = [i for i, look in enumerate(looks) if look.bad == kind]
        if indices:
            sentence = f"{counted(len(indices), 'file')} {phrase}: left out."
            every = _paths(source, indices)
            findings.append(Finding(kind, "warning", len(indices), sentence, every[:EXAMPLES], True, every))
    return findings


def _handled_findings(source: Source, looks: Sequence[_Look]) -> list[Finding]:
    findings = []
    for kind, phrase in _HANDLED.items():
        indices = [i for i, look in enumerate(looks) if kind in look.oddities]
        if indices:
            sentence = f"{counted(len(indices))} {phrase}."
            findings.append(Finding(kind, "info", len(indices), sentence, _names(source, indices)))
    return findings


def _too_many_bad(source: Source, looks: Sequence[_Look], bad: Sequence[int], max_bad: float) -> str:
    kinds = Counter(str(looks[i].bad) for i in bad)
    counts = ", ".join(f"{n} {kind}" for kind, n in kinds.most_common())
    first = ", ".join(f"{source.samples[i].path} ({looks[i].bad})" for i in bad[:3])
    return (
        f"{len(bad)} of {len(looks)} files of {source.name} cannot be used ({counts}), more than the "
        f"accepted {max_bad:.0%}. "
        f"The first: {first}. Repair or remove them, or accept more with --max-bad "
        f"{min(1.0, len(bad) / len(looks) + 0.005):.2f}."
    )


def _as_finding(source: Source, one: Left) -> Finding:
    every = _paths(source, one.indices)
    named = every if one.left_out else ()
    return Finding(one.kind, one.severity, len(every), one.sentence, every[:EXAMPLES], one.left_out, named)


def _size_findings(source: Source, facts: Sequence[Facts]) -> list[Finding]:
    small = [i for i, fact in enumerate(facts) if min(fact.width, fact.height) < _SMALL_PX]
    if not small:
        return []
    sentence = f"{counted(len(small))} smaller than {_SMALL_PX} px on a side: enlarged, they show little."
    return [Finding("small", "warning", len(small), sentence, _names(source, small))]


def _names(source: Source, indices: Sequence[int]) -> tuple[str, ...]:
    return _paths(source, indices[:EXAMPLES])


def _paths(source: Source, indices: Sequence[int]) -> tuple[str, ...]:
    return tuple(str(source.samples[i].path) for i in indices)
