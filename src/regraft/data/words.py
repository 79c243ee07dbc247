"""How sentences name the samples of a modality."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass


@dataclass(frozen=True)
class Words:
    """How sentences name a modality's samples.

    option: the option that names the table's column of samples, and that column's usual name. folders: two class
    folders as an example. file: what content that cannot be used is called, in the singular. same, alike: of near
    copies, after "{n} pictures …". series: how near copies come about.
    bad: kind → why a file cannot be used, after "{n} files". odd: kind → what is done about it, after "{n} pictures".
    """

    one: str
    many: str
    option: str
    folders: str
    file: str
    same: str
    alike: str
    series: str
    bad: Mapping[str, str]
    odd: Mapping[str, str]
