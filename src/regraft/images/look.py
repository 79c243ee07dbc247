"""One picture looked at: can it be read, what is odd about it, and which others show the same."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import numpy as np

from regraft.core.errors import UnreadableError
from regraft.data.facts import Facts, Look
from regraft.data.findings import EXAMPLES, Finding, counted
from regraft.data.source import Source
from regraft.data.words import Words
from regraft.images.decode import MAX_PIXELS, decode_thumbnail, read_bytes
from regraft.images.extensions import EXTENSIONS
from regraft.images.header import Header, read_header
from regraft.images.likeness import SIDE_PX, alike, dhash

_SMALL_PX: Final = 32

WORDS: Final = Words(
    one="picture",
    many="pictures",
    option="image",
    folders="photos/ants and photos/bees",
    file="file",
    same="show the same as one",
    alike="look the same as another",
    series="rescaled, recompressed, next in a series",
    bad={
        "missing": "do not exist",
        "zero-byte": "are empty (0 bytes)",
        "truncated": "are cut short",
        "unreadable": "cannot be decoded",
        "not-a-picture": "are not pictures, whatever their names say",
        "bomb": "claim more pixels or bytes than are decoded",
    },
    odd={
        "wrong-extension": "have a name that says another format than their bytes: they are read by their bytes",
        "cmyk": "are CMYK: they are converted to RGB",
        "16-bit": "have 16 bits per channel: they are scaled to 8 bits, full range to full range",
        "palette": "have a colour palette: they are expanded to RGB",
        "alpha": "have transparency: they are laid over white",
        "exif-rotated": "are turned by their EXIF orientation: they are set upright",
        "colour-profile": (
            "have a colour profile other than sRGB: it is not applied, as in the weights' own preprocessing"
        ),
    },
)


@dataclass(frozen=True)
class PictureFacts(Facts):
    """dhash: 64-bit perceptual hash, None for a blank picture. width, height: px, as stored."""

    dhash: int | None
    width: int
    height: int


def look_at(path: Path) -> Look:
    """Facts, a grey thumbnail uint8 (32, 32) as fingerprint, and oddities; or the kind of the file's error."""
    name = str(path)
    try:
        data = read_bytes(path)
        header = read_header(data, name, max_pixels=MAX_PIXELS)
        thumbnail = decode_thumbnail(data, header, name, SIDE_PX)
    except UnreadableError as error:
        return Look(bad=error.kind)
    facts = PictureFacts(hashlib.sha256(data).hexdigest(), dhash(thumbnail), header.width, header.height)
    return Look(facts, thumbnail, _oddities(header, path.suffix.lower()))


def near_pairs(looks: Sequence[Look]) -> list[tuple[int, int]]:
    """Pairs i < j of usable looks whose pictures show the same."""
    if not looks:
        return []
    return alike([fact.dhash for fact in picture_facts(looks)], np.stack([look.fingerprint for look in looks]))


def picture_facts(looks: Sequence[Look]) -> list[PictureFacts]:
    """The facts of usable looks."""
    return [look.facts for look in looks if isinstance(look.facts, PictureFacts)]


def size_findings(source: Source, facts: Sequence[Facts]) -> list[Finding]:
    """Pictures so small that they show little."""
    small = [
        i for i, fact in enumerate(facts)
        if isinstance(fact, PictureFacts) and min(fact.width, fact.height) < _SMALL_PX
    ]  # fmt: skip
    if not small:
        return []
    sentence = f"{counted(len(small), 'picture')} smaller than {_SMALL_PX} px on a side: enlarged, they show little."
    return [Finding("small", "warning", len(small), sentence, tuple(source.samples[i].name for i in small[:EXAMPLES]))]


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
