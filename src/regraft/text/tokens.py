"""Texts → token numbers → batches, by the tokenizer that came with the weights."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from regraft.core.errors import MissingExtraError, WeightsError
from regraft.text.spec import TextSpec


class Tokens:
    """A tokenizer and what it is told: cut after `spec.max_tokens`, pad nothing."""

    def __init__(self, tokenizer: bytes, spec: TextSpec) -> None:
        """tokenizer: the content of a `tokenizer.json`. Raises WeightsError where it is none."""
        try:
            import tokenizers
        except ImportError as error:
            raise MissingExtraError("Texts", "text") from error
        try:
            self._tokenizer = tokenizers.Tokenizer.from_str(tokenizer.decode("utf-8"))
        except Exception as error:  # the library raises plain Exception for whatever is wrong with the file
            raise WeightsError(f"The tokenizer.json is no tokenizer: {str(error).splitlines()[0]}.") from error
        self._tokenizer.no_padding()
        self._tokenizer.no_truncation()
        self.spec = spec

    def encode(self, texts: Sequence[str]) -> list[np.ndarray]:
        """Token numbers int64 (T,) of each text, T ≤ max_tokens; a cut text keeps its last special tokens."""
        self._tokenizer.enable_truncation(max_length=self.spec.max_tokens)
        found = self._tokenizer.encode_batch(list(texts))
        return [np.asarray(one.ids or [self.spec.pad_id], dtype=np.int64) for one in found]

    def too_long(self, texts: Sequence[str]) -> int:
        """How many texts have more tokens than the network is given."""
        self._tokenizer.no_truncation()
        return sum(len(one.ids) > self.spec.max_tokens for one in self._tokenizer.encode_batch(list(texts)))

    def collate(self, rows: Sequence[np.ndarray]) -> dict[str, Tensor]:
        """input_ids and attention_mask int64 (N, T), T the longest row's."""
        longest = max(len(row) for row in rows)
        ids = np.full((len(rows), longest), self.spec.pad_id, dtype=np.int64)
        mask = np.zeros_like(ids)
        for i, row in enumerate(rows):
            ids[i, : len(row)] = row
            mask[i, : len(row)] = 1
        return {"input_ids": torch.from_numpy(ids), "attention_mask": torch.from_numpy(mask)}


class TextReader:
    """Single texts as the plain stream has them. `data.modality.Reader`."""

    def __init__(self, tokens: Tokens) -> None:
        self.tokens = tokens

    def read(self, item: Any) -> np.ndarray:
        """Token numbers int64 (T,)."""
        from regraft.text.read import read_text

        return self.tokens.encode([read_text(item)])[0]

    def collate(self, read: Sequence[np.ndarray]) -> dict[str, Tensor]:
        """The x of a batch."""
        return self.tokens.collate(read)
