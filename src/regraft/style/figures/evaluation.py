"""How much style a picture has and how much of its content is left, beside what doing nothing would have given.

SSIM and Gram cosine are a front: each is easy to have alone. A Gram cosine is high for any two pictures, since features
are not negative; so its lift over the cosine of content and style stands beside it.
"""

from __future__ import annotations

import math
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import torch
from torch import Tensor

from regraft.core.errors import MissingExtraError
from regraft.style.base import checked_shares, resize
from regraft.style.figures.similarity import SSIM_K1, SSIM_K2, SSIM_KERNEL_PX, SSIM_SIGMA_PX
from regraft.style.losses import content_loss, mix, moments
from regraft.style.methods.colour import MongeKantorovich
from regraft.style.networks.perceptual import PerceptualNetwork, perceptual

GRAM_SIDE_PX: Final = 256
NOISE_SIGMA: Final = 10 / 255


@dataclass(frozen=True)
class Yardstick:
    """The network that figures are measured with: layers whose Gram matrices are compared, and one for the content."""

    network: PerceptualNetwork
    gram_layers: tuple[str, ...]
    content_layer: str

    @property
    def described(self) -> str:
        return f"{self.network.name}, layers {', '.join(self.gram_layers)}, {GRAM_SIDE_PX} × {GRAM_SIDE_PX} px"


def yardstick(weights: Path | None = None) -> Yardstick:
    """SqueezeNet 1.1 where a file is given or torchvision's cache has it, else the embedded network.

    Figures of the two cannot be compared with each other; `described` says which it was. Nothing is downloaded.
    """
    if weights is None:
        from torchvision.models import SqueezeNet1_1_Weights

        name = str(SqueezeNet1_1_Weights.IMAGENET1K_V1.url).rsplit("/", 1)[-1]
        cached = Path(torch.hub.get_dir()) / "checkpoints" / name
        weights = cached if cached.is_file() else None
    if weights is not None:
        return Yardstick(perceptual("squeezenet1_1", weights), ("1", "4", "6", "7"), "9")
    layers = ("stem", "stage1.0.widen", "stage2.0.widen", "stage3.0.widen")
    return Yardstick(perceptual("scion"), layers, "stage3.3")


@dataclass(frozen=True)
class Figures:
    """ssim: to the content. gram_cosine: to the styles, mean over layers; unstylised: the content's own.
    content_distance: relative squared distance of deep features, 0 = the same content. perceptual_distance: squared
    distance of unit-length features, mean over layers, as LPIPS (arXiv:1801.03924, eq. 1) without its learned weights.
    """

    ssim: float
    gram_cosine: float
    gram_cosine_unstylised: float
    content_distance: float
    perceptual_distance: float

    @property
    def lift(self) -> float:
        return self.gram_cosine - self.gram_cosine_unstylised


@dataclass(frozen=True)
class Costs:
    """What running a method took: milliseconds per run, the PSNR that noise on the input costs, the process's most
    memory so far. None where it was not measured."""

    latency_ms: tuple[float, ...] = ()
    noise_psnr_drop_db: float | None = None
    peak_memory_bytes: int | None = None


class Evaluator:
    """Figures of results for one content and its styles.

    content (3, H, W) and styles in [0, 1]; several styles are compared as the mixture of their Gram matrices. Without a
    style picture, as for a fixed style, its cosines are no numbers and colour transfer is no baseline.
    """

    def __init__(self, content: Tensor, styles: Sequence[tuple[Tensor, float]], measure: Yardstick) -> None:
        shares = checked_shares(content, styles) if styles else []
        self.content, self.styles, self.yardstick = content, list(styles), measure
        each = [self._moments(picture) for picture, _ in styles]
        self._targets = [mix(layers, shares).second for layers in zip(*each, strict=True)] if styles else []
        self._unstylised = self.gram_cosine(content)

    def gram_cosine(self, picture: Tensor) -> float:
        """Mean over layers of the cosine between Gram matrices of the picture and the style, of centre squares."""
        if not self.styles:
            return math.nan
        found = [m.second for m in self._moments(picture)]
        cosines = [
            torch.cosine_similarity(a.flatten(), b.flatten(), dim=0) for a, b in zip(found, self._targets, strict=True)
        ]
        return float(torch.stack(cosines).mean())

    def figures(self, picture: Tensor) -> Figures:
        """All figures; a picture of another size is brought to the content's."""
        picture = resize(picture, self.content.shape[-2:])
        layers = (*self.yardstick.gram_layers, self.yardstick.content_layer)
        a, b = self._features(picture, layers), self._features(self.content, layers)
        deep = self.yardstick.content_layer
        distances = []
        for layer in self.yardstick.gram_layers:
            unit_a, unit_b = (torch.nn.functional.normalize(f[layer], dim=0) for f in (a, b))
            distances.append((unit_a - unit_b).square().sum(dim=0).mean())
        return Figures(
            ssim=reported_ssim(picture, self.content),
            gram_cosine=self.gram_cosine(picture),
            gram_cosine_unstylised=self._unstylised,
            content_distance=float(content_loss(a[deep], b[deep])),
            perceptual_distance=float(torch.stack(distances).mean()),
        )

    def baselines(self) -> dict[str, Figures]:
        """The figures of the content itself, and of plain colour transfer."""
        if not self.styles:
            return {"unstylised": self.figures(self.content)}
        recoloured = MongeKantorovich().stylize(self.content, self.styles)
        return {"unstylised": self.figures(self.content), "colour transfer": self.figures(recoloured)}

    @torch.no_grad()
    def _features(self, picture: Tensor, layers: Sequence[str]) -> dict[str, Tensor]:
        self.yardstick.network.to(picture.device)
        square = centre_square(picture, GRAM_SIDE_PX)
        return {name: found[0] for name, found in self.yardstick.network(square[None], layers).items()}

    def _moments(self, picture: Tensor) -> list[Any]:
        found = self._features(picture, self.yardstick.gram_layers)
        return [moments(found[layer]) for layer in self.yardstick.gram_layers]


def centre_square(picture: Tensor, side_px: int) -> Tensor:
    """The largest centred square of (3, H, W), resized to side_px."""
    side = min(picture.shape[-2:])
    top, left = (picture.shape[-2] - side) // 2, (picture.shape[-1] - side) // 2
    return resize(picture[:, top : top + side, left : left + side], (side_px, side_px))


def reported_ssim(picture: Tensor, content: Tensor) -> float:
    """SSIM by torchmetrics with SSIM_SETTINGS. Raises MissingExtraError where torchmetrics is not installed."""
    try:
        from torchmetrics.functional.image import structural_similarity_index_measure
    except ImportError as error:
        raise MissingExtraError("Evaluating a style (SSIM by torchmetrics)", "style") from error
    found = structural_similarity_index_measure(
        picture[None], content[None], gaussian_kernel=True, sigma=SSIM_SIGMA_PX, kernel_size=SSIM_KERNEL_PX,
        data_range=1.0, k1=SSIM_K1, k2=SSIM_K2,
    )  # fmt: skip
    assert isinstance(found, Tensor)
    return float(found)


def measure_costs(
    run: Callable[[Tensor], Tensor], content: Tensor, *, repeats: int, noise: bool, seed: int = 0
) -> tuple[Tensor, Costs]:
    """Run a method `repeats` times, and once more on noisy input; gives the first result and what it took.

    The noise is Gaussian with a deviation of 10/255. Its cost is the PSNR between the noisy and the clean input less
    the PSNR between what comes out of the two: above 0, the method amplifies noise.
    """
    times, first = [], None
    for _ in range(repeats):
        started = time.perf_counter()
        found = run(content)
        if content.device.type == "cuda":
            torch.cuda.synchronize()
        times.append(1000 * (time.perf_counter() - started))
        first = found if first is None else first
    assert first is not None
    peak = peak_memory_bytes(content.device)
    drop = None
    if noise:
        draw = torch.Generator().manual_seed(seed)
        noisy = (content + NOISE_SIGMA * torch.randn(content.shape, generator=draw).to(content)).clamp(0, 1)
        drop = psnr_db(noisy, content) - psnr_db(run(noisy), first)
    return first, Costs(tuple(times), drop, peak)


def psnr_db(a: Tensor, b: Tensor) -> float:
    """Peak signal-to-noise ratio of pictures in [0, 1]; at most 100 dB, which equal ones have."""
    error = float((a - b).square().mean())
    return min(100.0, -10 * math.log10(max(error, 1e-10)))


def peak_memory_bytes(device: torch.device) -> int | None:
    """Most memory so far: allocated on a GPU; else resident in this whole process, None where that is not known."""
    if device.type == "cuda":
        return int(torch.cuda.max_memory_allocated(device))
    try:
        import resource
    except ImportError:  # Windows
        return None
    most = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return int(most) if sys.platform == "darwin" else int(most) * 1024


def percentiles_ms(latency_ms: Sequence[float]) -> dict[str, float | None]:
    """{"p50", "p95"}, both None without a run. p95 is by nearest rank, so of few runs it is the slowest."""
    if not latency_ms:
        return {"p50": None, "p95": None}
    ordered: list[float] = sorted(latency_ms)
    rank = min(len(ordered) - 1, -(-95 * len(ordered) // 100) - 1)
    middle = (ordered[(len(ordered) - 1) // 2] + ordered[len(ordered) // 2]) / 2
    return {"p50": middle, "p95": ordered[rank]}


def to_json(figures: Figures, costs: Costs) -> dict[str, Any]:
    """The keys that `regraft style evaluate --json` prints; null where a value is unknown."""
    return {
        "ssim": figures.ssim,
        "gram_cosine": _known(figures.gram_cosine),
        "gram_cosine_unstylised": _known(figures.gram_cosine_unstylised),
        "lift": _known(figures.lift),
        "content_distance": figures.content_distance,
        "perceptual_distance": figures.perceptual_distance,
        "latency_ms": percentiles_ms(costs.latency_ms),
        "noise_psnr_drop_db": costs.noise_psnr_drop_db,
        "peak_memory_bytes": costs.peak_memory_bytes,
    }


def _known(value: float) -> float | None:
    return None if math.isnan(value) else value
