"""Style as adaptation: the source's pictures once more, in the target's colours and light."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

import torch
from torch import Tensor

from regraft.adaptation.views import fourier_restyle
from regraft.core.types import Batch
from regraft.data.stream import PictureStream

#: The name of the candidate.
RESTYLE = "restyle"
#: Of the target, so many pictures lend their style.
PARTNERS = 64


class RestyledStream:
    """The pictures of a stream, each with the low-frequency amplitudes of a target picture that the seed draws.

    Yang & Soatto, "FDA: Fourier Domain Adaptation", CVPR 2020, arXiv:2004.05498, eq. 3. partners: uint8 (M, 3, H, W) of
    the target, of the stream's size. Order, labels and weights are the stream's.
    """

    def __init__(self, stream: PictureStream, partners: Tensor, seed: int) -> None:
        self.stream, self.partners, self.seed = stream, partners, seed
        self.samples = stream.samples

    def __len__(self) -> int:
        return len(self.stream)

    def epoch(self, index: int, start: int = 0) -> Iterator[Batch]:
        for number, batch in enumerate(self.stream.epoch(index, start), start):
            with torch.random.fork_rng(devices=[]):
                torch.manual_seed((self.seed << 20) + number)
                restyled = fourier_restyle(batch.x, self.partners, 1.0)
            yield replace(batch, x=(restyled * 255).round().to(torch.uint8))


def partners_of(target: PictureStream) -> Tensor:
    """The first pictures of a shuffled target stream, at most PARTNERS."""
    found: list[Tensor] = []
    for batch in target.epoch(0):
        found.append(batch.x)
        if sum(map(len, found)) >= PARTNERS:
            break
    return torch.cat(found)[:PARTNERS]
