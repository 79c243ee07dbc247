"""Put distilled weights into the package, in half precision (5 MB instead of 10).

    python bench/embedded/package.py runs/embedded/student.safetensors

Refuses weights that do not fit or are not finite. `figures.py` measures what they are worth; the card tells it.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path

import torch
from safetensors.torch import load_file, save_file

from regraft.core.files import replacing
from regraft.images.backbones.scion import Scion

PACKAGED = Path(__file__).parents[2] / "src/regraft/weights/scion.safetensors"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("weights", type=Path)
    parser.add_argument("--log", type=Path, help="log.jsonl of the training; its last line goes into the metadata")
    args = parser.parse_args()
    tensors = {k: v for k, v in load_file(args.weights).items() if k != "n_averaged"}
    Scion().load_state_dict(tensors)
    half = {k: v.half() if v.is_floating_point() else v for k, v in tensors.items()}
    bad = [k for k, v in half.items() if v.is_floating_point() and not torch.isfinite(v).all()]
    if bad:
        raise SystemExit(f"Not finite in half precision: {', '.join(bad[:3])}.")
    log = args.log or args.weights.parent / "log.jsonl"
    last = json.loads(log.read_text().splitlines()[-1]) if log.is_file() else {}
    metadata = {
        "model": "scion",
        "licence": "Apache-2.0",
        "crops": str(last.get("crops", "")),
        "steps": str(last.get("steps", "")),
    }
    with replacing(PACKAGED) as temporary:
        save_file(half, temporary, metadata=metadata)
    print(f"{PACKAGED.name}: {PACKAGED.stat().st_size / 1e6:.2f} MB, {metadata}")


if __name__ == "__main__":
    main()
