"""Figures of a translation on held-out pictures: there and back, identity, diversity, distance to the other set."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

import numpy as np
import torch
from torch import Tensor

from regraft.adaptation.evidence.distances import kernel_scale, squared_distances, squared_mmd
from regraft.engine import Machine
from regraft.images.backbones import create
from regraft.images.transform import EvalTransform
from regraft.style.figures.similarity import ssim
from regraft.style.translation.cyclegan import DIRECTIONS, CycleGAN, Evaluation
from regraft.style.translation.cyclegan.pool import as_bytes, as_signed
from regraft.style.translation.cyclegan.task import as_unit
from regraft.style.translation.cyclegan.watch import diversity

#: The network whose features distances and diversity are measured in.
BACKBONE: Final = "scion"
#: Pictures of each set that are looked at while a training goes on; the final figures take all held-out ones.
GLANCE: Final = 24
#: Half-samples behind a statement about distances, and the share of them that makes it.
HALF_SAMPLES: Final = 400
CREDIBLE: Final = 0.95
_BATCH: Final = 8


@dataclass(frozen=True)
class Outcome:
    """One direction, all held-out pictures. mmd2_before: of the untranslated pictures to the set they are to join.

    nearer: share of half-samples in which the translated ones are nearer to it. translated and cycled: uint8.
    """

    mmd2_before: float
    mmd2_after: float
    nearer: float
    translated: Tensor
    cycled: Tensor

    @property
    def helped(self) -> bool | None:
        """Whether translating brought the pictures nearer: True, False, or None where it cannot be said."""
        return True if self.nearer >= CREDIBLE else False if self.nearer <= 1 - CREDIBLE else None


class Yardstick:
    """Measures a task on held-out pictures of both sets, uint8 (N, 3, s, s) and (M, 3, s, s).

    All distances of a run share one kernel width, that of the two untranslated sets, so that they can be compared.
    """

    def __init__(self, a: Tensor, b: Tensor, machine: Machine) -> None:
        self.machine = machine
        self.backbone = create(BACKBONE).to(machine.device).eval()
        self.transform = EvalTransform(self.backbone.input_spec)
        self.pictures = dict(zip(DIRECTIONS, (a, b), strict=True))
        own = {way: self.features(pictures) for way, pictures in self.pictures.items()}
        #: By direction the features of what is translated, and of the set that it is to join.
        self.before = own
        self.wanted = dict(zip(DIRECTIONS, reversed(own.values()), strict=True))
        self.scale = kernel_scale(*own.values())

    @torch.no_grad()
    def features(self, pictures: Tensor) -> np.ndarray:
        """Pooled features (N, D) float32 of pictures uint8 (N, 3, s, s), every one brought to the network's size."""
        rows = []
        for part in torch.split(pictures, 32):
            x = torch.stack([self.transform(picture) for picture in part]).to(self.machine.device)
            rows.append(self.backbone(x).pooled.float().cpu())
        return torch.cat(rows).numpy()

    @torch.no_grad()
    def there_and_back(self, task: CycleGAN, direction: str, pictures: Tensor) -> tuple[Tensor, Tensor]:
        """Translations of pictures uint8 (N, 3, s, s), and what the other generator makes of those; both uint8."""
        back = DIRECTIONS[1 - DIRECTIONS.index(direction)]
        there: list[Tensor] = []
        cycled: list[Tensor] = []
        for part in torch.split(pictures, _BATCH):
            with self.machine.fabric.autocast():
                translated = task.generator(direction)(as_signed(part.to(self.machine.device)))
                cycled.append(as_bytes(task.generator(back)(translated)).cpu())
            there.append(as_bytes(translated).cpu())
        return torch.cat(there), torch.cat(cycled)

    @torch.no_grad()
    def identity(self, task: CycleGAN, direction: str, pictures: Tensor) -> float:
        """Mean |G(x) − x| in 0…1 over pictures uint8 that already are of the set that G translates to."""
        total = 0.0
        for part in torch.split(pictures, _BATCH):
            x = as_signed(part.to(self.machine.device))
            with self.machine.fabric.autocast():
                same = task.generator(direction)(x)
            total += float((same - x).abs().mean()) / 2 * len(part)
        return total / len(pictures)

    def evaluate(
        self, task: CycleGAN, step: int, *, accuracy: float | None = None, count: int | None = GLANCE
    ) -> tuple[Evaluation, dict[str, Outcome]]:
        """All figures by direction, of at most `count` pictures of each set (None: of all), evenly out of them."""
        task.eval()
        values: dict[str, dict[str, float]] = {name: {} for name in ("cycle_ssim", "identity", "diversity", "mmd2")}
        outcomes = {}
        for way, other in zip(DIRECTIONS, reversed(DIRECTIONS), strict=True):
            rows = _evenly(len(self.pictures[way]), count)
            pictures = self.pictures[way][rows]
            there, cycled = self.there_and_back(task, way, pictures)
            after = self.features(there)
            wanted = self.wanted[way]
            values["cycle_ssim"][way] = mean_ssim(pictures, cycled)
            values["identity"][way] = self.identity(task, way, self.pictures[other][_evenly(len(wanted), count)])
            values["diversity"][way] = diversity(torch.from_numpy(after), torch.from_numpy(wanted))
            values["mmd2"][way] = squared_mmd(after, wanted, scale=self.scale)
            before = self.before[way][rows]
            outcomes[way] = Outcome(
                squared_mmd(before, wanted, scale=self.scale), values["mmd2"][way],
                nearer_share(before, after, wanted, self.scale), there, cycled,
            )  # fmt: skip
        return Evaluation(step, accuracy=accuracy, **values), outcomes


def mean_ssim(a: Tensor, b: Tensor) -> float:
    """Mean over pictures of the SSIM between uint8 (N, 3, H, W) and (N, 3, H, W)."""
    pairs = zip(as_unit(as_signed(a)), as_unit(as_signed(b)), strict=True)
    return float(torch.stack([ssim(x, y) for x, y in pairs]).mean())


def nearer_share(before: np.ndarray, after: np.ndarray, wanted: np.ndarray, scale: float, *, seed: int = 0) -> float:
    """Share of half-samples in which `after` has the smaller squared MMD to `wanted` than `before`; a tie counts half.

    before (N, D) and after (N, D): the same pictures, of which the same half is drawn; wanted (M, D), N and M ≥ 4.
    """
    own = [np.exp(-squared_distances(rows, rows) / scale) for rows in (before, after)]
    cross = [np.exp(-squared_distances(rows, wanted) / scale) for rows in (before, after)]
    draw = np.random.default_rng(seed)
    n, m = len(before) // 2, len(wanted) // 2
    won = 0.0
    for _ in range(HALF_SAMPLES):
        i, j = draw.permutation(len(before))[:n], draw.permutation(len(wanted))[:m]
        # What the wanted set has within itself is the same for both.
        gaps = [
            (k[np.ix_(i, i)].sum() - n) / (n * (n - 1)) - 2 * c[np.ix_(i, j)].mean()
            for k, c in zip(own, cross, strict=True)
        ]
        won += 0.5 if gaps[0] == gaps[1] else float(gaps[1] < gaps[0])
    return won / HALF_SAMPLES


def _evenly(total: int, count: int | None) -> Tensor:
    if count is None or count >= total:
        return torch.arange(total)
    return torch.linspace(0, total - 1, count).round().long()
