"""Pictures, as everything above sees them. Libraries of models are imported when a network is asked for."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from pydantic import BaseModel

from regraft.core.errors import UsageError
from regraft.core.types import Backbone, InputSpec
from regraft.data.facts import Facts, Look
from regraft.data.findings import Finding
from regraft.data.modality import Modality, Quick, Reader, Shown, StreamOptions, Streams
from regraft.data.source import Source
from regraft.images.extensions import EXTENSIONS
from regraft.images.look import WORDS, look_at, near_pairs, size_findings
from regraft.images.spec import ImageSpec

if TYPE_CHECKING:
    from regraft.images.backbones.base import ImageBackbone


class Pictures:
    """See `data.modality.Modality`."""

    name = "image"
    words = WORDS
    extensions = frozenset(EXTENSIONS)
    inline = False
    unfit: tuple[str, ...] = ()
    spec: type[InputSpec] = ImageSpec

    @property
    def augment(self) -> type[BaseModel]:
        from regraft.images.streams import PictureChanges

        return PictureChanges

    def look(self, sample: Any) -> Look:
        return look_at(sample.path)

    def near(self, looks: Sequence[Look]) -> list[tuple[int, int]]:
        return near_pairs(looks)

    def findings(self, source: Source, facts: Sequence[Facts]) -> list[Finding]:
        return size_findings(source, facts)

    def check(self, name: str, weights: Path | None) -> None:
        from regraft.images.backbones.catalogue import parse

        if parse(name)[0] == "small" and weights is None:
            raise UsageError(
                f"{name} has no pretrained weights, so there is nothing to transfer: give --weights or another "
                "backbone. `regraft adapt` can train it from scratch."
            )

    def create(self, name: str, weights: Path | None = None, *, pretrained: bool = True) -> ImageBackbone:
        from regraft.images.backbones.catalogue import create

        return create(name, weights, pretrained=pretrained)

    def build(self, recipe: Mapping[str, Any], spec: InputSpec, companions: Mapping[str, bytes]) -> ImageBackbone:
        from regraft.images.backbones.catalogue import build

        assert isinstance(spec, ImageSpec)
        backbone = build(recipe["family"], recipe["model"], recipe.get("options", {}), pretrained=False)
        backbone.take_spec(spec)
        return backbone

    def label(self, name: str) -> str:
        return name.partition(":")[0]

    def known(self) -> list[str]:
        from regraft.images.backbones.catalogue import known_models

        return known_models()

    def with_layers(self, backbone: Backbone) -> Backbone | None:
        from regraft.images.backbones.layers import with_layers

        return with_layers(_picture(backbone))

    def remarks(self, backbone: Backbone, facts: Sequence[Facts]) -> list[str]:
        from regraft.images.remarks import unseen_edges

        edges = unseen_edges(facts, backbone)
        return [] if edges is None else [edges]

    def fast(
        self, backbone: Backbone, *, device: torch.device, batch_size: int, n_samples: int, half: bool
    ) -> Quick | None:
        from regraft.images.backbones.fast import fast_features

        return fast_features(
            _picture(backbone), device=device.type, batch_size=batch_size, n_pictures=n_samples, half=half
        )

    def streams(
        self, backbone: Backbone, samples: Sequence[Any], labels: np.ndarray | None, options: StreamOptions
    ) -> Streams:
        from regraft.images.streams import PictureStreams

        return PictureStreams(_picture(backbone).input_spec, samples, labels, options)

    def reader(self, backbone: Backbone) -> Reader:
        from regraft.images.inputs import PictureReader

        return PictureReader(_picture(backbone).input_spec)

    def expand(self, items: Sequence[str], column: str | None = None) -> list[Any]:
        from regraft.images.inputs import expand_inputs

        return list(expand_inputs(items))

    def as_list(self, items: Any) -> list[Any]:
        from regraft.images.inputs import as_list

        return as_list(items)

    def name_of(self, item: Any) -> str | None:
        from regraft.images.inputs import name_of

        return name_of(item)

    def excerpt(self, sample: Any) -> str | None:
        return None

    def shown(self, run: Path) -> Shown:
        from regraft.images.shown import shown_picture

        return shown_picture


def _picture(backbone: Backbone) -> ImageBackbone:
    from regraft.images.backbones.base import picture_backbone

    return picture_backbone(backbone)


PICTURES = Pictures()
MODALITY: Modality = PICTURES
