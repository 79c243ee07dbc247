"""The network that gives a picture any style in one pass: what the encoder found is moved to the style's statistics.

Content and style go through the slim perceptual network. At three depths the content's features get the style's
statistics, and the network's gradient says which way every pixel and every feature should go to get them. A decoder
that knows the style makes a picture of both, and a learned attention says at each place how much of it is used. One
number tells the decoder how much of the content has to stay. A little fixed noise gives it something to make strokes of
where the content is even (as texture networks have it: Ulyanov et al. 2016, arXiv:1603.03417).
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Final

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from regraft.style.networks.sprig import STAGES, Sprig
from regraft.style.networks.transfer_net import smoothed
from regraft.style.training.batch_losses import BatchMoments, batch_moments, gram_losses, moment_losses

#: Depths that are moved, shallow → deep, and the decoder's channels there.
LEVELS: Final[Mapping[str, int]] = {"edges": 32, "textures": 64, "parts": 96}
#: Root mean square of each depth's features over photos and paintings; they are divided by it before anything else.
_USUAL: Final = {"edges": 30.0, "textures": 60.0, "parts": 50.0}
_IMAGENET: Final = ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))
_TINY: Final = 1e-5


@dataclass(frozen=True)
class StyleCode:
    """What the network needs to know of styles, one per picture of a batch.

    moments: per stage of the encoder, of its own features. colour_mean (N, 3) and colour_covariance (N, 3, 3) of RGB in
    [0, 1]. features: the deepest level's (N, C, h, w) over its usual size, where attention looks at places; None else.
    """

    moments: Mapping[str, BatchMoments]
    colour_mean: Tensor
    colour_covariance: Tensor
    features: Tensor | None = None

    def mean(self, name: str) -> Tensor:
        """(N, C) of a level's features over their usual size."""
        return self.moments[name].mean / _USUAL[name]

    def std(self, name: str) -> Tensor:
        """As `mean`."""
        return self.moments[name].std / _USUAL[name]

    def flat(self) -> Tensor:
        """(N, D): means and deviations of all levels in one row."""
        return torch.cat([part(name) for name in LEVELS for part in (self.mean, self.std)], dim=1)


@dataclass(frozen=True)
class Look:
    """What the network sees in content (N, 3, H, W) with a style in mind, whatever is asked to be kept.

    padded, recoloured (N, 3, h, w): the content with sides that are multiples of 8, and in the style's colours, or
    after the first pass what the last one painted. moved: per level its features with the style's statistics. hint (N,
    3, h, w): which way each pixel should go; hints: the same of the features of two levels.
    """

    padded: Tensor
    recoloured: Tensor
    moved: Mapping[str, Tensor]
    hint: Tensor
    hints: Mapping[str, Tensor]
    style: StyleCode
    size_px: tuple[int, int]


def mix_codes(codes: Sequence[StyleCode], shares: Sequence[float]) -> StyleCode:
    """The statistics of a mixture in which each style has a share; shares sum to 1.

    Means and second moments mix linearly. Features of places are those of the one style, where there is but one.
    """

    def mixed(parts: Sequence[Tensor]) -> Tensor:
        return torch.stack([share * part for share, part in zip(shares, parts, strict=True)]).sum(dim=0)

    moments = {
        name: BatchMoments(
            mixed([code.moments[name].mean for code in codes]), mixed([code.moments[name].second for code in codes])
        )
        for name in codes[0].moments
    }
    colour = mixed([code.colour_mean for code in codes])
    raw = mixed([code.colour_covariance + _outer(code.colour_mean) for code in codes])
    return StyleCode(moments, colour, raw - _outer(colour), codes[0].features if len(codes) == 1 else None)


class AdaptiveInstanceNorm(nn.Module):
    """Huang & Belongie 2017, arXiv:1703.06868, eq. 8: σ(s) (x − μ(x)) / σ(x) + μ(s), per channel over positions."""

    MOST: Final = 20.0

    def forward(
        self, x: Tensor, mean: Tensor, std: Tensor, own: tuple[Tensor, Tensor] | None = None, size: float = 1.0
    ) -> Tensor:
        """own: the statistics of x, where they are known already. size: what the result is divided by."""
        own_mean, own_std = statistics(x) if own is None else own
        # A channel that is nearly silent in the content would be blown up to noise: at most MOST times.
        scale = std / torch.maximum(own_std, std / self.MOST).clamp(min=_TINY)
        shift = (mean - own_mean * scale) / size
        # One pass over the features, not five.
        return torch.addcmul(shift[..., None, None], x, (scale / size)[..., None, None])


class AttentiveNorm(nn.Module):
    """AdaAttN (Liu et al. 2021, arXiv:2108.03647, eq. 4-8): each place gets the attended mean and deviation.

    Query and key are 1 × 1 projections of normalised features. Differs from the paper in the value, which is the
    style's features themselves, so that a uniform attention is adaptive instance normalisation, and in one level.
    """

    def __init__(self, channels: int, width: int = 64) -> None:
        super().__init__()
        self.query = nn.Conv2d(channels, width, 1)
        self.key = nn.Conv2d(channels, width, 1)
        self.width = width

    def forward(self, x: Tensor, style: Tensor) -> Tensor:
        normal = F.instance_norm(x)
        query = self.query(normal).flatten(2).mT
        key = self.key(F.instance_norm(style)).flatten(2)
        attention = torch.softmax(query @ key / self.width**0.5, dim=2)
        value = style.flatten(2).mT
        mean = attention @ value
        deviation = (attention @ value.square() - mean.square()).clamp(min=0).add(_TINY**2).sqrt()
        return normal * deviation.mT.view_as(x) + mean.mT.view_as(x)


class ModulatedBlock(nn.Module):
    """1 × 1 to the width, then a residual pair of 3 × 3, each scaled and shifted by the style's code.

    FiLM (Perez et al. 2018, arXiv:1709.07871, eq. 2).
    """

    def __init__(self, inputs: int, width: int, code: int) -> None:
        super().__init__()
        self.join = nn.Conv2d(inputs, width, 1)
        self.first = nn.Conv2d(width, width, 3, padding=1, padding_mode="reflect")
        self.second = nn.Conv2d(width, width, 3, padding=1, padding_mode="reflect")
        self.even = nn.InstanceNorm2d(width)
        self.modulate = nn.Linear(code, 4 * width)
        nn.init.zeros_(self.modulate.weight)
        nn.init.zeros_(self.modulate.bias)

    def forward(self, parts: Sequence[Tensor], code: Tensor) -> Tensor:
        """Parts (N, C_i, h, w) in order of the inputs; those of half the size are enlarged."""
        x = F.relu(self.even(self._join(parts)))
        scale, shift, last_scale, last_shift = self.modulate(code)[..., None, None].chunk(4, dim=1)
        middle = F.relu(self.even(self.first(x)) * (1 + scale) + shift)
        return F.relu(x + self.even(self.second(middle)) * (1 + last_scale) + last_shift)

    def _join(self, parts: Sequence[Tensor]) -> Tensor:
        """The 1 × 1 layer over all parts, each by itself: a 1 × 1 layer and an enlargement can be done in either order,
        so what is coarse stays so, and nothing is laid side by side."""
        size = max((part.shape[-2:] for part in parts), key=math.prod)
        found = None
        for part, weight in zip(parts, torch.split(self.join.weight, [p.shape[1] for p in parts], dim=1), strict=True):
            one = F.conv2d(part, weight, self.join.bias if found is None else None)
            one = one if one.shape[-2:] == size else F.interpolate(one, size, mode="nearest")
            found = one if found is None else found + one
        assert found is not None
        return found


class ArbitraryNet(nn.Module):
    """content (N, 3, H, W) in [0, 1], style codes and keep (N,) in [0, 1] → picture (N, 3, H, W), not cut to [0, 1].

    keep: 0 = as much style as there is, 1 = nearly the content. encoder: frozen; not among the saved tensors, since it
    has a file of its own. attention: whether the deepest level attends to places of the style.
    """

    CODE: Final = 128
    MOST_HINT: Final = 4.0
    #: Levels whose features have a hint of their own, and maps of noise at every level.
    HINTED: Final = ("textures", "parts")
    NOISES: Final = 4

    def __init__(self, encoder: Sprig, *, attention: bool = False) -> None:
        super().__init__()
        # In a tuple, so that it is neither trained nor saved here.
        self._encoder = (encoder.eval().requires_grad_(False),)
        self.adain = AdaptiveInstanceNorm()
        self.attentive = AttentiveNorm(STAGES["parts"][0]) if attention else None
        statistics_width = 2 * sum(STAGES[name][0] for name in LEVELS)
        self.even = nn.LayerNorm(statistics_width)
        self.read = nn.Sequential(
            nn.Linear(statistics_width + 1, self.CODE), nn.SiLU(), nn.Linear(self.CODE, self.CODE)
        )
        shallow, middle, deep = LEVELS.values()
        self.deep = ModulatedBlock(2 * STAGES["parts"][0] + self.NOISES, deep, self.CODE)
        self.middle = ModulatedBlock(deep + 2 * STAGES["textures"][0] + self.NOISES, middle, self.CODE)
        self.shallow = ModulatedBlock(middle + STAGES["edges"][0] + 36 + self.NOISES, shallow, self.CODE)
        #: Per pixel of a 2 × 2 cell: three colours and how much of them is used.
        self.paint = nn.Conv2d(shallow, 16, 3, padding=1, padding_mode="reflect")
        nn.init.zeros_(self.paint.weight)
        assert self.paint.bias is not None
        nn.init.zeros_(self.paint.bias)
        #: How far the attention moves from keep 0 to keep 1, as half of a difference of logits.
        self.hold = nn.Parameter(torch.tensor(2.0))
        self.register_buffer("offset", torch.tensor(_IMAGENET[0]).view(1, 3, 1, 1), persistent=False)
        self.register_buffer("scale", torch.tensor(_IMAGENET[1]).view(1, 3, 1, 1), persistent=False)
        self.offset: Tensor
        self.scale: Tensor

    @property
    def encoder(self) -> Sprig:
        return self._encoder[0]

    def encode(self, pictures: Tensor) -> dict[str, Tensor]:
        """Features of every stage, for pictures in [0, 1] with sides that are multiples of 8."""
        stages: dict[str, Tensor] = self.encoder.to(pictures.device)((pictures - self.offset) / self.scale)
        return stages

    @torch.no_grad()
    def code(self, styles: Tensor) -> StyleCode:
        """What is to be known of styles (N, 3, h, w) in [0, 1]."""
        features = self.encode(styles)
        colours = batch_moments(styles)
        return StyleCode(
            {name: batch_moments(found) for name, found in features.items()},
            colours.mean,
            colours.second - _outer(colours.mean),
            features["parts"] / _USUAL["parts"] if self.attentive is not None else None,
        )

    def look(self, content: Tensor, style: StyleCode, start: Tensor | None = None) -> Look:
        """What is seen in content (N, 3, H, W) for that style; one pass to and fro through the encoder.

        start (N, 3, H, W): what an earlier pass painted, which the next goes on from; else the content in the style's
        colours.
        """
        height, width = int(content.shape[-2]), int(content.shape[-1])
        more = (0, -width % 8, 0, -height % 8)
        with torch.no_grad(), torch.autocast(content.device.type, enabled=False):
            padded = F.pad(content, more, mode="replicate")
            if start is None:
                recoloured = recolour(padded, style.colour_mean, style.colour_covariance)
            else:
                recoloured = F.pad(start.clamp(0, 1), more, mode="replicate")
        features, found, hint, hints = self._hint(recoloured, style)
        with torch.no_grad():
            moved = {}
            for name in LEVELS:
                own, to = found[name], style.moments[name]
                moved[name] = self.adain(features[name], to.mean, to.std, (own.mean, own.std), _USUAL[name])
        if self.attentive is not None and style.features is not None:
            moved["parts"] = self.attentive(features["parts"] / _USUAL["parts"], style.features)
        return Look(padded, recoloured, moved, hint, hints, style, (height, width))

    def _hint(
        self, pictures: Tensor, style: StyleCode
    ) -> tuple[dict[str, Tensor], dict[str, BatchMoments], Tensor, dict[str, Tensor]]:  # fmt: skip
        """Features of the pictures, their moments, and the gradient of their style loss (Gram and moments of every
        stage) by the pixels and by the features of the hinted levels, each of root mean square 1 per picture and cut at
        MOST_HINT."""
        with torch.enable_grad():
            pictures = pictures.detach().requires_grad_()
            features = self.encode(pictures)
            found = {name: _moments(part) for name, part in features.items()}
            losses = [
                loss(found[name], target).sum()
                for name, target in style.moments.items()
                for loss in (gram_losses, moment_losses)
            ]
            by = (pictures, *(features[name] for name in self.HINTED))
            hint, *hints = (self._even_hint(x) for x in torch.autograd.grad(torch.stack(losses).sum(), by))
        known = {name: BatchMoments(part.mean.detach(), part.second.detach()) for name, part in found.items()}
        named = dict(zip(self.HINTED, hints, strict=True))
        return {name: part.detach() for name, part in features.items()}, known, hint, named

    def _even_hint(self, gradient: Tensor) -> Tensor:
        size = gradient.float().square().mean(dim=(1, 2, 3), keepdim=True).sqrt()
        return (gradient / size.clamp(min=1e-20)).clamp(-self.MOST_HINT, self.MOST_HINT)

    def _noise(self, like: Tensor) -> Tensor:
        """(N, NOISES, h, w) for features of that size, one for the batch: drawn anew in training, else the same each
        time."""
        shape = (self.NOISES, *like.shape[-2:])
        if self.training:
            drawn = torch.randn(1, *shape, device=like.device)
        else:
            drawn = torch.randn(1, *shape, generator=torch.Generator().manual_seed(0)).to(like)
        return drawn.expand(len(like), *shape)

    def forward(
        self, content: Tensor, style: StyleCode, keep: Tensor, where: Tensor | None = None, *, passes: int = 1
    ) -> Tensor:  # fmt: skip
        """The stylised pictures. where (N, 1, H, W) in [0, 1]: multiplies the attention, for regions. passes: each goes
        on from what the one before painted, of which only the last has a gradient."""
        return self.again(self.look(content, style), keep, where, passes=passes)

    def again(self, look: Look, keep: Tensor, where: Tensor | None = None, *, passes: int = 1) -> Tensor:
        """As `forward`, from what the first pass saw."""
        content = look.padded[..., : look.size_px[0], : look.size_px[1]]
        for _ in range(passes - 1):
            with torch.no_grad():
                painted = self.show(look, keep, where)
            look = self.look(content, look.style, painted)
        return self.show(look, keep, where)

    def show(self, look: Look, keep: Tensor, where: Tensor | None = None) -> Tensor:
        """As `forward`, from what was seen before."""
        painted, attention = self.paint_with_attention(look, keep)
        attention = attention if where is None else attention * where
        content = look.padded[..., : look.size_px[0], : look.size_px[1]]
        return content + attention * (painted - content)

    def paint_with_attention(self, look: Look, keep: Tensor) -> tuple[Tensor, Tensor]:
        """What the decoder paints (N, 3, H, W), and where it is used (N, 1, H, W) in [0, 1]."""
        height, width = look.size_px
        code = self.read(torch.cat([self.even(look.style.flat()), keep[:, None]], dim=1))
        moved, hints = look.moved, look.hints
        x = self.deep([moved["parts"], hints["parts"], self._noise(moved["parts"])], code)
        x = self.middle([x, moved["textures"], hints["textures"], self._noise(moved["textures"])], code)
        pixels = F.pixel_unshuffle(torch.cat([look.padded, look.recoloured, look.hint], dim=1), 2)
        x = self.shallow([x, moved["edges"], pixels, self._noise(moved["edges"])], code)
        found = smoothed(F.pixel_shuffle(self.paint(x), 2))[..., :height, :width]
        # What is kept is begun with by the attention; the decoder learns to do better.
        attention = torch.sigmoid(4 * found[:, 3:] + self.hold * (1 - 2 * keep)[:, None, None, None])
        return look.recoloured[..., :height, :width] + found[:, :3], attention


def statistics(x: Tensor) -> tuple[Tensor, Tensor]:
    """Mean and deviation (N, C) of features (N, C, h, w) over positions."""
    flat = x.flatten(2)
    return flat.mean(dim=2), flat.var(dim=2, unbiased=False).add(_TINY**2).sqrt()


def _moments(features: Tensor) -> BatchMoments:
    """As `batch_moments`, with half of the work in the gradient: the second moment is symmetric in its two factors, so
    the gradient by one of them, twice, is the whole."""
    with torch.autocast(features.device.type, enabled=False):
        flat = features.flatten(2).float()
        second = flat @ flat.detach().mT / flat.shape[2]
        return BatchMoments(flat.mean(dim=2), second + (second - second.detach()))


def recolour(pictures: Tensor, mean: Tensor, covariance: Tensor) -> Tensor:
    """Each picture's colours moved affinely to mean (N, 3) and covariance (N, 3, 3): `colour.monge_kantorovich` for a
    batch, cut to [0, 1]."""
    flat = pictures.flatten(2)
    own = flat.mean(dim=2, keepdim=True)
    centred = flat - own
    # A little grey noise keeps the inverse bounded for pictures of few colours.
    spread = centred @ centred.mT / flat.shape[2] + 1e-4 * torch.eye(3, dtype=flat.dtype, device=flat.device)
    root, inverse = _roots(spread)
    linear = inverse @ _roots(root @ covariance @ root)[0] @ inverse
    return (linear @ centred + mean[..., None]).view_as(pictures).clamp(0, 1)


def _roots(matrices: Tensor) -> tuple[Tensor, Tensor]:
    """Symmetric square root and its inverse of positive matrices (N, 3, 3)."""
    values, vectors = torch.linalg.eigh(matrices)
    root = values.clamp(min=0).sqrt()[:, None, :]
    return vectors * root @ vectors.mT, vectors / root.clamp(min=_TINY) @ vectors.mT


def _outer(mean: Tensor) -> Tensor:
    return mean[:, :, None] * mean[:, None, :]
