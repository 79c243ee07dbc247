"""Features per second from JPEGs: the fast engines against the tutorial loop, with their cosine.

The tutorial loop is what people copy: PIL, torchvision's Resize / CenterCrop / ToTensor / Normalize, a
DataLoader with num_workers=0 and batches of 4, the model in fp32 and contiguous memory. All are run
alternately in this one process, so that a busy machine slows them alike; medians over rounds. The picture set
is a random sample, the same for all.
"""

from __future__ import annotations

import argparse
import json
import random
import statistics
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path

import torch
from PIL import Image
from torch import Tensor
from torch.utils.data import DataLoader, Dataset
from torchvision import transforms

from regraft.images.backbones import ImageBackbone, create
from regraft.images.backbones.fast import FastFeatures, cosine, fast_features
from regraft.images.stream import PictureStream
from regraft.images.transform import EvalTransform

WEIGHTS = "weights/mobilenetv2_100_timm_same.safetensors"
BACKBONE = "mobilenetv2_100:pad_type=same"


class Tutorial(Dataset[Tensor]):
    """The usual dataset: one PIL picture at a time, normalised."""

    def __init__(self, paths: list[Path], backbone: ImageBackbone) -> None:
        spec = backbone.input_spec
        side = spec.shape[-1]
        modes = {
            "bilinear": transforms.InterpolationMode.BILINEAR,
            "bicubic": transforms.InterpolationMode.BICUBIC,
        }
        self.paths = paths
        self.transform = transforms.Compose(
            [
                transforms.Resize(int(side / spec.crop_pct), modes[spec.interpolation]),
                transforms.CenterCrop(side),
                transforms.ToTensor(),
                transforms.Normalize(spec.mean, spec.std),
            ]
        )

    def __len__(self) -> int:
        return len(self.paths)

    def __getitem__(self, index: int) -> Tensor:
        with Image.open(self.paths[index]) as picture:
            pixels: Tensor = self.transform(picture.convert("RGB"))
        return pixels


def tutorial(backbone: ImageBackbone, paths: list[Path]) -> Tensor:
    """Features (N, D) by the tutorial loop."""
    with torch.no_grad():
        loader = DataLoader(Tutorial(paths, backbone), batch_size=4, num_workers=0)
        return torch.cat([backbone.extract(batch).pooled for batch in loader])


def fast(backbone: ImageBackbone, paths: list[Path], features: FastFeatures, batch_size: int) -> Tensor:
    """Features (N, D) by threads that decode while the engine computes."""
    stream = PictureStream(paths, None, EvalTransform(backbone.input_spec), batch_size=batch_size)
    return torch.cat([features(batch.x) for batch in stream.epoch(0)])


def timed(run: Callable[[], Tensor]) -> tuple[Tensor, float]:
    started = time.perf_counter()
    return run(), time.perf_counter() - started


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--shared", type=Path, default=Path(__file__).resolve().parents[2] / "shared")
    parser.add_argument("--data", default="data/hymenoptera", help="folder of pictures below --shared")
    parser.add_argument("--engines", nargs="+", default=["torch", "openvino", "openvino-bf16", "onnxruntime"])
    parser.add_argument("--pictures", type=int, default=96, help="sampled pictures per round")
    parser.add_argument("--batch-size", type=int, default=32)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args()

    torch.set_num_threads(arguments.threads)
    paths = sorted((arguments.shared / arguments.data).rglob("*.jpg"))
    paths = random.Random(arguments.seed).sample(paths, min(arguments.pictures, len(paths)))
    backbone = create(BACKBONE, arguments.shared / WEIGHTS).eval()

    engines: dict[str, FastFeatures] = {}
    build_s: dict[str, float] = {}
    warm = torch.randint(0, 256, (arguments.batch_size, *backbone.input_spec.shape), dtype=torch.uint8)
    for name in arguments.engines:
        started = time.perf_counter()
        engines[name] = fast_features(backbone, batch_size=arguments.batch_size, engine=name)
        build_s[name] = time.perf_counter() - started
        engines[name](warm)

    seconds: dict[str, list[float]] = {name: [] for name in ("tutorial", *engines)}
    worst = dict.fromkeys(engines, 1.0)
    for _ in range(arguments.rounds):
        reference, spent = timed(lambda: tutorial(backbone, paths))
        seconds["tutorial"].append(spent)
        for name, features in engines.items():
            found, spent = timed(partial(fast, backbone, paths, features, arguments.batch_size))
            seconds[name].append(spent)
            worst[name] = min(worst[name], float(cosine(found, reference).min()))

    rates = {name: len(paths) / statistics.median(spent) for name, spent in seconds.items()}
    rows = []
    print(f"{'engine':12} {'build s':>8} {'pictures/s':>11} {'times':>6} {'least cosine':>13}")
    print(f"{'tutorial':12} {'-':>8} {rates['tutorial']:11.1f} {1.0:6.2f} {'-':>13}")
    for name in engines:
        # The ratio of each round first, then the median: a busy machine changes from round to round.
        pairs = zip(seconds["tutorial"], seconds[name], strict=True)
        times = statistics.median(slow / quick for slow, quick in pairs)
        rows.append(
            {
                "engine": engines[name].engine, "asked": name, "build_s": round(build_s[name], 2),
                "pictures_per_s": round(rates[name], 1), "times": round(times, 2),
                "least_cosine": round(worst[name], 5),
            }
        )  # fmt: skip
        print(f"{name:12} {build_s[name]:8.2f} {rates[name]:11.1f} {times:6.2f} {worst[name]:13.5f}")
    print(
        json.dumps(
            {
                "bench": "features_speed", "backbone": BACKBONE, "pictures": len(paths), "rounds": arguments.rounds,
                "seed": arguments.seed, "threads": arguments.threads, "batch_size": arguments.batch_size,
                "tutorial_per_s": round(rates["tutorial"], 1), "engines": rows,
            }
        )
    )  # fmt: skip


if __name__ == "__main__":
    main()
