"""The pictures that the embedded backbone is distilled on, and the crops cut from them.

Reads `tiny_imagenet/train.zip`, `pacs`, `camvid/train`, the training part of `bccd` and `style`. Never reads the sets
on which the backbone's figures are measured (`hymenoptera`, `neu_cls`, `chest_xray`, the demo's pictures).
"""

from __future__ import annotations

import io
import random
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image
from torch import Tensor


def _decode(source: Path | io.BytesIO, longest_px: int) -> Tensor:
    with Image.open(source) as picture:
        pixels = picture.convert("RGB")
        pixels.thumbnail((longest_px, longest_px), Image.Resampling.LANCZOS)
        return torch.from_numpy(np.asarray(pixels).copy()).permute(2, 0, 1)


class Pictures:
    """All source pictures as uint8 tensors in memory (about 0.9 GB), and `batch`, which cuts crops from them."""

    def __init__(self, data: Path) -> None:
        with zipfile.ZipFile(data / "tiny_imagenet" / "train.zip") as archive:
            names = sorted(n for n in archive.namelist() if n.lower().endswith((".webp", ".jpg", ".jpeg", ".png")))
            self.tiny = torch.stack([_decode(io.BytesIO(archive.read(name)), 64) for name in names])
        training = {line.strip() for line in (data / "bccd/ImageSets/Main/train.txt").read_text().split()}
        folders: list[tuple[float, list[Path]]] = [
            (0.75, sorted((data / "pacs").rglob("*.jpg"))),
            (0.10, sorted(p for p in (data / "style").rglob("*") if p.suffix.lower() in {".jpg", ".png"})),
            (0.10, sorted((data / "camvid/train").glob("*.*"))),
            (0.05, sorted(p for p in (data / "bccd").rglob("*.jpg") if p.stem in training)),
        ]
        self.large = [(share, [_decode(path, 512) for path in paths]) for share, paths in folders if paths]

    def _large(self, rng: random.Random) -> Tensor:
        shares = [share for share, _ in self.large]
        return rng.choice(rng.choices([group for _, group in self.large], shares)[0])

    def _canvas(self, rng: random.Random) -> Tensor:
        draw = rng.random()
        if draw < 0.40:
            return self.tiny[rng.randrange(len(self.tiny))]
        if draw < 0.62:  # four small pictures side by side: sharp at their own scale
            four = [self.tiny[rng.randrange(len(self.tiny))] for _ in range(4)]
            return torch.cat([torch.cat(four[:2], 2), torch.cat(four[2:], 2)], 1)
        return self._large(rng)

    def crop(self, size_px: int, rng: random.Random) -> Tensor:
        """One crop (3, size_px, size_px) uint8: a random place, scale, aspect and mirror image."""
        canvas = self._canvas(rng)
        height, width = canvas.shape[1:]
        area = height * width * rng.uniform(0.12 if min(height, width) >= 128 else 0.4, 1.0)
        aspect = 2 ** rng.uniform(-0.4, 0.4)
        h = min(height, max(24, round((area / aspect) ** 0.5)))
        w = min(width, max(24, round((area * aspect) ** 0.5)))
        top, left = rng.randint(0, height - h), rng.randint(0, width - w)
        patch = canvas[:, top : top + h, left : left + w]
        if rng.random() < 0.5:
            patch = patch.flip(2)
        return F.interpolate(patch[None], (size_px, size_px), mode="bilinear", antialias=True)[0]

    def batch(self, count: int, size_px: int, rng: random.Random) -> Tensor:
        """(count, 3, size_px, size_px) float32 in [0, 1], with colour, grey, blur, noise and mixing augmentation."""
        x = torch.stack([self.crop(size_px, rng) for _ in range(count)]).float().div_(255)
        generator = torch.Generator().manual_seed(rng.getrandbits(48))

        def uniform(low: float, high: float) -> Tensor:
            return torch.rand(count, 1, 1, 1, generator=generator) * (high - low) + low

        x = x * uniform(0.6, 1.4)
        mean = x.mean(dim=(1, 2, 3), keepdim=True)
        x = (x - mean) * uniform(0.5, 1.5) + mean
        grey = x.mean(dim=1, keepdim=True)
        saturation = uniform(0.5, 1.5) * (uniform(0, 1) > 0.15)
        x = (grey + (x - grey) * saturation).clamp_(0, 1)
        some = _chosen(count, 0.15, generator)
        x[some] = F.avg_pool2d(F.pad(x[some], (1, 1, 1, 1), mode="reflect"), 3, stride=1)
        some = _chosen(count, 0.10, generator)
        x[some] = (x[some] + 0.05 * torch.randn(x[some].shape, generator=generator)).clamp_(0, 1)
        some = _chosen(count, 0.25, generator)
        share = uniform(0.2, 0.8)[some]
        x[some] = share * x[some] + (1 - share) * x.roll(1, 0)[some]
        return x


def _chosen(count: int, share: float, generator: torch.Generator) -> Tensor:
    return torch.rand(count, generator=generator) < share


def prefetched(make: Callable[[], Tensor], depth: int = 4) -> Iterator[Tensor]:
    """Yield make() for ever, computed ahead in a thread."""
    import queue
    import threading

    ready: queue.Queue[Tensor] = queue.Queue(maxsize=depth)

    def work() -> None:
        while True:
            ready.put(make())

    threading.Thread(target=work, daemon=True).start()
    while True:
        yield ready.get()
