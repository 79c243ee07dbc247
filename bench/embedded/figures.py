"""What the embedded backbone is worth: probes on sets that it was not trained on, against random weights.

    python bench/embedded/figures.py --shared ../shared [--weights student.safetensors] [--size 192]

Prints a table and one JSON line. Accuracy of the probe (regularisation by cross-validation inside the training part) on
each set's test part; random weights: mean and standard deviation over three draws, batch-norm statistics taken from the
training pictures, without which a random network says nothing.
"""

from __future__ import annotations

import argparse
import json
import tempfile
from pathlib import Path

import numpy as np
import torch
from safetensors.torch import load_file

from regraft.engine import launch, predict
from regraft.images.backbones import ImageBackbone, create
from regraft.images.backbones.embedded import EmbeddedBackbone
from regraft.images.demo import make_demo
from regraft.recipes.fit.options import FitConfig
from regraft.recipes.fit.prepared import Prepared, prepare
from regraft.strategies import fit_probe


def probe_accuracy(backbone: ImageBackbone, prepared: Prepared, recalibrate: bool) -> float:
    """Test accuracy of the probe on this backbone's features."""
    config = FitConfig.checked(roots=(Path("."),))
    machine = launch(device="cpu")
    streams = prepared.streams(backbone, config)
    part = prepared.splits.rounds[0]
    known = np.sort(np.concatenate([part.train, part.val]))
    if recalibrate:
        backbone.train()
        for module in backbone.modules():
            if isinstance(module, torch.nn.BatchNorm2d):
                module.momentum = None
                module.reset_running_stats()
        with torch.no_grad():
            for index, batch in enumerate(streams.plain(known[:: max(1, len(known) // 256)]).epoch(0)):
                backbone(batch.x)
                if index >= 8:
                    break
    backbone.eval()

    def features(indices: np.ndarray) -> np.ndarray:
        found = predict(backbone, streams.plain(indices), machine, call=lambda x: backbone(x).pooled).outputs
        return np.asarray(found.numpy())

    head = fit_probe(features(known), prepared.labels[known], prepared.folds(known, 0), len(prepared.source.classes))
    return float((head.logits(features(part.test)).argmax(1) == prepared.labels[part.test]).mean())


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--shared", type=Path, required=True)
    parser.add_argument("--weights", type=Path, help="measure these instead of the packaged ones")
    parser.add_argument("--size", type=int, default=192)
    parser.add_argument("--sets", default="demo,hymenoptera,neu_cls,chest_xray")
    parser.add_argument("--random", type=int, default=3, help="draws of random weights; 0 leaves them out")
    parser.add_argument("--threads", type=int, default=2)
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    rows = {}
    with tempfile.TemporaryDirectory() as folder:
        for name in args.sets.split(","):
            root = make_demo(Path(folder) / "demo") if name == "demo" else args.shared / "data" / name
            group = "prefix" if name == "chest_xray" else None
            prepared = prepare(FitConfig.checked(roots=(root,), group=group))
            backbone = create(f"scion:size={args.size}", pretrained=args.weights is None)
            if args.weights is not None:
                assert isinstance(backbone, EmbeddedBackbone)
                tensors = {k: v.float() for k, v in load_file(args.weights).items() if k != "n_averaged"}
                backbone.net.load_state_dict(tensors, strict=False)
            row = {"pretrained": round(probe_accuracy(backbone, prepared, False), 4)}
            draws = []
            for seed in range(args.random):
                torch.manual_seed(seed)
                backbone.reset_parameters()
                draws.append(probe_accuracy(backbone, prepared, True))
            if draws:
                row |= {"random": round(float(np.mean(draws)), 4), "random_sd": round(float(np.std(draws)), 4)}
            rows[name] = row | {"n_test": len(prepared.splits.rounds[0].test)}
            print(name, rows[name], flush=True)
    print(json.dumps({"bench": "embedded-figures", "size": args.size, "rows": rows}))


if __name__ == "__main__":
    main()
