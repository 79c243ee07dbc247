"""What is wrong with a set of samples, said before any training and in seconds.

Every sample ends up in one of two places: usable, or named in a finding as left out. Nothing disappears in
between. What is looked at is the modality's; who leaks into the test and which labels disagree is the same for all.
"""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from typing import Any

from regraft.core.errors import DataError
from regraft.core.hardware import default_threads
from regraft.data.copies import Left, exact_copies, near_copies
from regraft.data.facts import Facts, Look
from regraft.data.findings import EXAMPLES, Finding, counted
from regraft.data.modality import Modality, Progress
from regraft.data.source import Source
from regraft.data.words import Words

__all__ = ["Audit", "Finding", "audit"]


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


def audit(
    source: Source,
    modality: Modality,
    *,
    max_bad: float = 0.1,
    threads: int | None = None,
    progress: Progress | None = None,
) -> tuple[Source, list[Facts], Audit]:
    """Read every sample once; return the usable ones, one Facts for each of them, and what was found.

    Left out and named: what cannot be read, copies whose labels disagree, training samples that are
    also in a declared test or validation part. Near copies without declared splits get one group, so that no
    split divides them. progress(done, total) is called from this thread. Raises DataError when more than
    `max_bad` of the samples cannot be read, or none is left.
    """
    began, words = time.perf_counter(), modality.words
    looks = _look_at_all(source, modality, threads or default_threads(), progress)
    bad = [i for i, look in enumerate(looks) if look.bad is not None]
    findings = _bad_findings(source, looks, words)
    if len(bad) > max_bad * len(looks) or len(bad) == len(looks):
        raise DataError(_too_many_bad(source, looks, bad, max_bad, words))
    findings += _odd_findings(source, looks, words)
    good = [i for i, look in enumerate(looks) if look.bad is None]
    usable, looks = source.subset(good), [looks[i] for i in good]
    facts = [look.facts for look in looks if look.facts is not None]

    contents = [fact.sha256 for fact in facts]
    usable, exact, left = exact_copies(usable, contents, words)
    gone = {i for one in left for i in one.indices}
    usable, near = near_copies(usable, contents, modality.near(looks), gone, words)
    findings += [_as_finding(usable, one) for one in (*exact, *left, *near)]
    gone |= {i for one in near if one.left_out for i in one.indices}
    kept = [i for i in range(len(usable)) if i not in gone]
    if not kept:
        raise DataError(
            f"No {words.one} of {source.name} is left after the audit: {' '.join(f.sentence for f in findings)}"
        )
    usable, facts = usable.subset(kept), [facts[i] for i in kept]
    if usable.labelling is not None:
        findings += usable.labelling.findings(usable.samples, words.many)
    findings += modality.findings(usable, facts)
    findings += [Finding("not-taken", "info", 1, sentence) for sentence in source.skipped]
    order = ("error", "warning", "info")
    findings.sort(key=lambda finding: order.index(finding.severity))
    return usable, facts, Audit(len(source), len(usable), time.perf_counter() - began, tuple(findings))


def _look_at_all(source: Source, modality: Modality, threads: int, progress: Progress | None) -> list[Look]:
    looks: list[Look] = []
    with ThreadPoolExecutor(threads, thread_name_prefix="audit") as pool:
        for look in pool.map(modality.look, source.samples):
            looks.append(look)
            if progress is not None:
                progress(len(looks), len(source))
    return looks


def _bad_findings(source: Source, looks: Sequence[Look], words: Words) -> list[Finding]:
    findings = []
    for kind, phrase in words.bad.items():
        indices = [i for i, look in enumerate(looks) if look.bad == kind]
        if indices:
            sentence = f"{counted(len(indices), words.file)} {phrase}: left out."
            every = names(source, indices)
            findings.append(Finding(kind, "warning", len(indices), sentence, every[:EXAMPLES], True, every))
    return findings


def _odd_findings(source: Source, looks: Sequence[Look], words: Words) -> list[Finding]:
    findings = []
    for kind, phrase in words.odd.items():
        indices = [i for i, look in enumerate(looks) if kind in look.oddities]
        if indices:
            sentence = f"{counted(len(indices), words.one, words.many)} {phrase}."
            findings.append(Finding(kind, "info", len(indices), sentence, names(source, indices[:EXAMPLES])))
    return findings


def _too_many_bad(source: Source, looks: Sequence[Look], bad: Sequence[int], max_bad: float, words: Words) -> str:
    kinds = Counter(str(looks[i].bad) for i in bad)
    counts = ", ".join(f"{n} {kind}" for kind, n in kinds.most_common())
    first = ", ".join(f"{source.samples[i].name} ({looks[i].bad})" for i in bad[:3])
    return (
        f"{len(bad)} of {len(looks)} {words.file}s of {source.name} cannot be used ({counts}), more than the "
        f"accepted {max_bad:.0%}. "
        f"The first: {first}. Repair or remove them, or accept more with --max-bad "
        f"{min(1.0, len(bad) / len(looks) + 0.005):.2f}."
    )


def _as_finding(source: Source, one: Left) -> Finding:
    every = names(source, one.indices)
    named = every if one.left_out else ()
    return Finding(one.kind, one.severity, len(every), one.sentence, every[:EXAMPLES], one.left_out, named)


def names(source: Source, indices: Sequence[int]) -> tuple[str, ...]:
    """The names of these samples."""
    return tuple(source.samples[i].name for i in indices)
