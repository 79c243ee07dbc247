"""Texts, as everything above sees them. transformers and tokenizers are imported when a network is asked for."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from pydantic import BaseModel

from regraft.core.errors import UnreadableError, UsageError
from regraft.core.types import Backbone, InputSpec
from regraft.data.facts import Facts, Look
from regraft.data.findings import Finding
from regraft.data.modality import Modality, Quick, Reader, Shown, StreamOptions, Streams
from regraft.data.source import Source
from regraft.text import inputs
from regraft.text.look import WORDS, TextFacts, look_at, near_pairs
from regraft.text.read import EXTENSIONS, read_text
from regraft.text.spec import TextSpec

if TYPE_CHECKING:
    from regraft.text.backbones.transformer import TextBackbone

#: Characters of a text that a report quotes.
EXCERPT = 400


class Texts:
    """See `data.modality.Modality`."""

    name = "text"
    words = WORDS
    extensions = EXTENSIONS
    inline = True
    unfit: tuple[str, ...] = ("mixup", "cutmix")
    spec: type[InputSpec] = TextSpec

    @property
    def augment(self) -> type[BaseModel]:
        from regraft.text.stream import TextChanges

        return TextChanges

    def look(self, sample: Any) -> Look:
        return look_at(sample)

    def near(self, looks: Sequence[Look]) -> list[tuple[int, int]]:
        return near_pairs(looks)

    def findings(self, source: Source, facts: Sequence[Facts]) -> list[Finding]:
        return []

    def check(self, name: str, weights: Path | None) -> None:
        from regraft.text.backbones.catalogue import check

        check(name, weights)

    def create(self, name: str, weights: Path | None = None, *, pretrained: bool = True) -> TextBackbone:
        from regraft.text.backbones.catalogue import check, create

        check(name, weights)
        return create(name, pretrained=pretrained)

    def build(self, recipe: Mapping[str, Any], spec: InputSpec, companions: Mapping[str, bytes]) -> TextBackbone:
        from regraft.text.backbones.catalogue import build

        assert isinstance(spec, TextSpec)
        return build(recipe, spec, companions)

    def label(self, name: str) -> str:
        from regraft.text.backbones.catalogue import label

        return label(name)

    def known(self) -> list[str]:
        return []

    def with_layers(self, backbone: Backbone) -> Backbone | None:
        return None

    def remarks(self, backbone: Backbone, facts: Sequence[Facts]) -> list[str]:
        from regraft.text.tokens import Tokens

        text = _text(backbone)
        tokens = Tokens(text.tokenizer, text.input_spec)
        cut = tokens.too_long([fact.text for fact in facts if isinstance(fact, TextFacts)])
        if not cut:
            return []
        many = "1 text is" if cut == 1 else f"{cut} texts are"
        return [
            f"{many} longer than {text.input_spec.max_tokens} tokens: what follows is not seen (:tokens=N sees more)."
        ]

    def fast(
        self, backbone: Backbone, *, device: torch.device, batch_size: int, n_samples: int, half: bool
    ) -> Quick | None:
        return None

    def streams(
        self, backbone: Backbone, samples: Sequence[Any], labels: np.ndarray | None, options: StreamOptions
    ) -> Streams:
        from regraft.text.stream import TextStreams
        from regraft.text.tokens import Tokens

        text = _text(backbone)
        return TextStreams(Tokens(text.tokenizer, text.input_spec), samples, labels, options)

    def reader(self, backbone: Backbone) -> Reader:
        from regraft.text.tokens import TextReader, Tokens

        text = _text(backbone)
        return TextReader(Tokens(text.tokenizer, text.input_spec))

    def expand(self, items: Sequence[str], column: str | None = None) -> list[Any]:
        return inputs.expand_inputs(items, column, self)

    def as_list(self, items: Any) -> list[Any]:
        return inputs.as_list(items)

    def name_of(self, item: Any) -> str | None:
        return inputs.name_of(item)

    def excerpt(self, sample: Any) -> str | None:
        try:
            return inputs.shortened(read_text(sample), EXCERPT)
        except UnreadableError:
            return None

    def shown(self, run: Path) -> Shown:
        from regraft.text.shown import Excerpts

        return Excerpts(run)


def _text(backbone: Backbone) -> TextBackbone:
    from regraft.text.backbones.transformer import TextBackbone

    if not isinstance(backbone, TextBackbone):
        raise UsageError(f"{type(backbone).__name__} is no network for texts.")
    return backbone


TEXTS = Texts()
MODALITY: Modality = TEXTS
