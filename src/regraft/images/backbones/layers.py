"""All layers as features: what the last layer has thrown away may be what a task far from the pretraining needs.

Beside the pooled features stand, of every channel of up to four intermediate maps, its mean in each cell of a coarse
grid, its largest value and its deviation. The grid keeps where something is, which counts wherever pictures are taken
from one position, as X-rays and parts under a camera are.

Paper: Evci et al., "Head2Toe: Utilizing Intermediate Representations for Better Transfer Learning", ICML 2022,
arXiv:2201.03529. Differs from it in two statistics per channel beside the grid, and in that the regularisation of the
head stands for its selection of features.
"""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from regraft.core.errors import UsageError
from regraft.core.types import Features
from regraft.images.backbones.base import ImageBackbone, PretrainedHead

#: Intermediate maps that are read, the deepest ones of evenly spread ones; the shallowest is nearly the picture.
MOST_MAPS = 4
#: Cells of the grid along each side of a map.
GRID = 4
_TINY = 1e-6


class LayeredBackbone(ImageBackbone):
    """pooled: (N, D + 18 · ΣC) of an inner backbone with D pooled features and maps of C channels, by a fixed scale:
    of a map first the 16 cells of each channel, row by row, then the largest values, then the deviations.

    Every coordinate is (value − centre) / spread; `scale_by` sets both from pictures, and they travel in artifacts.
    Until then they are 0 and 1. The maps stay what they are.
    """

    def __init__(self, inner: ImageBackbone) -> None:
        shapes = _map_shapes(inner)
        if not shapes:
            raise UsageError(
                f"{inner.recipe.get('name', 'This backbone')} has no maps to read: leave readout=layers out."
            )
        chosen = sorted({round(i) for i in np.linspace(min(1, len(shapes) - 1), len(shapes) - 1, MOST_MAPS)})
        widths = [inner.feature_dim, *((GRID * GRID + 2) * shapes[i][0] for i in chosen)]
        super().__init__(inner.input_spec, sum(widths))
        self.inner = inner
        self.chosen, self.widths = tuple(chosen), tuple(widths)
        self.recipe, self.provenance, self.pretrained = inner.recipe, inner.provenance, inner.pretrained
        for index in chosen:
            rows, columns = (_shares(side, GRID) for side in shapes[index][1:])
            self.register_buffer(f"cells{index}", torch.kron(rows, columns), persistent=False)
        self.register_buffer("centre", torch.zeros(self.feature_dim))
        self.register_buffer("spread", torch.ones(self.feature_dim))
        self.centre: Tensor
        self.spread: Tensor

    def extract(self, x: Tensor) -> Features:
        found = self.inner.extract(x)
        parts = [found.pooled]
        for index in self.chosen:
            values = found.maps[index]
            cells = values.flatten(2) @ self.get_buffer(f"cells{index}").to(values.dtype)
            mean = values.mean(dim=(2, 3), keepdim=True)
            deviation = ((values - mean) * (values - mean)).mean(dim=(2, 3)).clamp(min=_TINY).sqrt()
            parts += [cells.flatten(1), values.amax(dim=(2, 3)), deviation]
        return Features((torch.cat(parts, dim=1) - self.centre) / self.spread, found.maps)

    def scale_by(self, raw: np.ndarray) -> np.ndarray:
        """Take centre and spread from features (N, D) as they are before any scaling; returns them scaled.

        The pooled part keeps the relative spread of its coordinates, which is information; every statistic of a map has
        its own. Each part has the same total variance, so none drowns the others by its number of channels.
        """
        centre = raw.mean(axis=0, dtype=np.float64)
        own = raw.std(axis=0, dtype=np.float64)
        pooled = self.widths[0]
        own[:pooled] = np.sqrt(np.square(own[:pooled]).mean())
        spread = np.concatenate(
            [part * np.sqrt(len(part)) for part in np.split(own, np.cumsum(self.widths)[:-1])]
        )  # fmt: skip
        spread = np.where(spread > _TINY * spread.max(initial=1.0), spread, np.inf)  # what never changes says nothing
        self.centre.copy_(torch.from_numpy(centre))
        self.spread.copy_(torch.from_numpy(np.nan_to_num(spread, posinf=3e38)))
        return self.scaled(raw)

    def scaled(self, raw: np.ndarray) -> np.ndarray:
        """Raw features (N, D) by the scale, float32."""
        found = (raw - self.centre.cpu().numpy()) / self.spread.cpu().numpy()
        return np.asarray(found, dtype=np.float32)

    @property
    def pretrained_head(self) -> PretrainedHead | None:
        """The inner backbone's, for these features."""
        theirs = self.inner.pretrained_head
        if theirs is None:
            return None
        width = self.widths[0]
        weight = torch.zeros(len(theirs.weight), self.feature_dim)
        weight[:, :width] = theirs.weight * self.spread[:width].cpu()
        return PretrainedHead(weight, theirs.bias + theirs.weight @ self.centre[:width].cpu())

    @pretrained_head.setter
    def pretrained_head(self, value: PretrainedHead | None) -> None:
        if value is not None:
            raise TypeError("The pretrained head is the inner backbone's.")

    def layer_groups(self) -> dict[str, list[str]]:
        return {name: [f"inner.{n}" for n in names] for name, names in self.inner.layer_groups().items()}

    def reset_parameters(self) -> None:
        """Random weights have statistics of their own, so the scale is taken back as well."""
        self.inner.reset_parameters()
        self.centre.zero_()
        self.spread.fill_(1.0)


def with_layers(backbone: ImageBackbone) -> LayeredBackbone | None:
    """The same weights with all layers as features; None where the backbone has no maps of that form."""
    if isinstance(backbone, LayeredBackbone) or not _map_shapes(backbone):
        return None
    layered = LayeredBackbone(backbone)
    layered.recipe = {**backbone.recipe, "options": {**backbone.recipe.get("options", {}), "readout": "layers"}}
    return layered.to(backbone.input_mean.device)


def _shares(pixels: int, cells: int) -> Tensor:
    """(pixels, cells): the share that each pixel has in the mean of each of equally wide cells along a line."""
    edges = torch.arange(pixels + 1, dtype=torch.float64)
    borders = torch.arange(cells + 1, dtype=torch.float64) * pixels / cells
    upper = torch.minimum(edges[1:, None], borders[None, 1:])
    lower = torch.maximum(edges[:-1, None], borders[None, :-1])
    return ((upper - lower).clamp(min=0) * cells / pixels).float()


def _map_shapes(backbone: ImageBackbone) -> list[tuple[int, ...]]:
    """(C, H, W) of each map, or none where they are not maps of channels that get smaller with depth."""
    training = backbone.training
    with torch.inference_mode():
        x = torch.zeros(1, *backbone.input_spec.shape, device=backbone.input_mean.device)
        maps = backbone.eval().extract(x).maps
    backbone.train(training)
    shapes = [tuple(m.shape[1:]) for m in maps]
    sides = [shape[1:] for shape in shapes]
    fit = all(len(shape) == 3 for shape in shapes) and sides == sorted(sides, reverse=True)
    return shapes if fit else []
