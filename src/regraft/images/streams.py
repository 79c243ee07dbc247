"""The streams over one set of pictures for one backbone; decoded training pictures are shared between them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import numpy as np
from pydantic import BaseModel, ConfigDict, Field
from torch import Tensor

from regraft.data.modality import StreamOptions
from regraft.data.source import Sample
from regraft.images.spec import ImageSpec
from regraft.images.stream import PictureStore, PictureStream
from regraft.images.training import training_transform
from regraft.images.transform import EvalTransform


class PictureChanges(BaseModel):
    """How training pictures are altered.

    augment: "crop" takes a part, "affine" moves the whole. crop_scale: the least area of a crop; None: by the kind of
    labels. flip: mirror images count as the same. colour: how far brightness, contrast and saturation are drawn.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    augment: Literal["crop", "affine"] = "crop"
    crop_scale: float | None = Field(default=None, gt=0, le=1)
    flip: bool = True
    colour: float = Field(default=0.2, ge=0, le=1)


class PictureStreams:
    """`data.modality.Streams` over pictures. labels: (N,) of the samples, or None."""

    def __init__(
        self, spec: ImageSpec, samples: Sequence[Sample], labels: np.ndarray | None, options: StreamOptions
    ) -> None:
        self.spec, self.samples, self.labels, self.options = spec, samples, labels, options
        changes = options.changes
        self.changes = changes if isinstance(changes, PictureChanges) else PictureChanges()
        self._store: PictureStore | None = None

    def train(self, indices: np.ndarray, rank: int = 0, world_size: int = 1) -> PictureStream:
        """Shuffled, augmented batches. Small sets get smaller batches, so that an epoch has at least eight steps."""
        options, changes = self.options, self.changes
        if self._store is None:
            # A crop of the least scale still has about the input's resolution.
            side = round(max(self.spec.shape[1:]) * 1.4)
            self._store = PictureStore([sample.path for sample in self.samples], short_side_px=side)
        batch = max(1, min(options.batch_size, max(4, len(indices) // 8), len(indices)))
        least, ratio = options.view
        least = least if changes.crop_scale is None else changes.crop_scale
        transform = training_transform(
            self.spec, changes.augment, scale=least, ratio=ratio, flip=changes.flip, colour=changes.colour
        )
        return PictureStream(
            [self.samples[i].path for i in indices],
            None if self.labels is None else self.labels[indices],
            transform,
            batch_size=max(1, batch // world_size),
            shuffle=True,
            seed=options.seed,
            drop_last=True,
            threads=options.threads,
            rank=rank,
            world_size=world_size,
            store=_Subset(self._store, indices),
        )

    def plain(self, indices: np.ndarray, *, cache: bool = False) -> PictureStream:
        """Each picture once, in order, with the weights' own preprocessing."""
        return PictureStream(
            [self.samples[i].path for i in indices],
            None if self.labels is None else self.labels[indices],
            EvalTransform(self.spec),
            batch_size=32,
            threads=self.options.threads,
            cache=cache,
        )


class _Subset(PictureStore):
    """The shared store under the numbering of a part."""

    def __init__(self, store: PictureStore, indices: np.ndarray) -> None:
        self._whole, self._indices = store, indices
        self.paths = tuple(store.paths[i] for i in indices)

    def __len__(self) -> int:
        return len(self._indices)

    def get(self, i: int) -> Tensor:
        return self._whole.get(int(self._indices[i]))
