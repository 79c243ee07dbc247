"""The source's pictures once more, altered: in the target's colours and light, or as other cameras might have it."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from dataclasses import asdict, replace
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from regraft.adaptation.altered.acquisition import Acquisition, Match, match_acquisition
from regraft.adaptation.altered.views import fourier_restyle
from regraft.adaptation.training.bench import AdaptBench
from regraft.core.files import read_json, write_json
from regraft.core.types import Batch
from regraft.images.backbones.base import picture_backbone
from regraft.images.backbones.fast import fast_features
from regraft.images.stream import PictureStream

#: The names of the candidates: in the target's style, and altered by chance (Zhang et al. 2020, arXiv:1906.03347).
RESTYLE, BIGAUG = "restyle", "BigAug"
#: The name of the candidate that learns from pictures altered as the target seems to have been taken.
ACQUISITION = "acquisition"
#: Of the source, so many pictures are altered in the search for that.
SEARCHED = 64
#: Of the target, so many pictures lend their style.
PARTNERS = 64
#: So many times each picture is altered by chance.
COPIES = 4


class AlteredStream:
    """The pictures of a stream, each batch altered by `alter`, whose draws follow from the seed and the batch's number.

    alter: uint8 (N, 3, H, W) → float in [0, 1] of the same shape. Order, labels and weights are the stream's.
    """

    many = PictureStream.many

    def __init__(self, stream: PictureStream, alter: Callable[[Tensor], Tensor], seed: int) -> None:
        self.stream, self.alter, self.seed = stream, alter, seed
        self.samples = stream.samples

    def __len__(self) -> int:
        return len(self.stream)

    def epoch(self, index: int, start: int = 0) -> Iterator[Batch]:
        for number, batch in enumerate(self.stream.epoch(index, start), start):
            with torch.random.fork_rng(devices=[]):
                torch.manual_seed((self.seed << 20) + (index << 14) + number)
                altered = self.alter(batch.x)
            yield replace(batch, x=(altered * 255).round().to(torch.uint8))


def in_the_style_of(partners: Tensor) -> Callable[[Tensor], Tensor]:
    """Each picture gets the low-frequency amplitudes of one of the partners, uint8 (M, 3, H, W) of the same size.

    Yang & Soatto, "FDA: Fourier Domain Adaptation", CVPR 2020, arXiv:2004.05498, eq. 3.
    """
    return lambda x: fourier_restyle(x, partners, 1.0)


def partners_of(target: PictureStream) -> Tensor:
    """The first pictures of a shuffled target stream, at most PARTNERS."""
    found: list[Tensor] = []
    for batch in target.epoch(0):
        found.append(batch.x)
        if sum(map(len, found)) >= PARTNERS:
            break
    return torch.cat(found)[:PARTNERS]


def how_taken(bench: AdaptBench, paths: tuple[Path, ...], target: np.ndarray) -> Match:
    """The alteration of these source pictures that gives the target's features (M, D); what is found is kept."""
    kept = bench.run.path / "work" / "match.json"
    if bench.machine.fabric.broadcast(kept.is_file()):
        plain = read_json(kept)
        return Match(Acquisition(**plain["acquisition"]), plain["before"], plain["after"])
    pictures = partners_of(bench.drawn(paths, SEARCHED))
    engine = fast_features(picture_backbone(bench.model.backbone), device=bench.machine.device)
    started = time.monotonic()

    def tell(done: int, total: int) -> None:
        spent = time.monotonic() - started
        bench.listener.progress("How the target was taken", done, total, remaining_s=spent / done * (total - done))

    match = match_acquisition(lambda x: engine(x).numpy(), pictures, target, seed=bench.config.seed, on_try=tell)
    if bench.machine.is_first:
        write_json(kept, asdict(match))
    return match
