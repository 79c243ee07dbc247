"""Put the slim perceptual network's weights into the package, in half precision.

    python bench/embedded/package_sprig.py runs/sprig/sprig.safetensors

Refuses weights that do not fit or are not finite.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path

import torch
from safetensors.torch import load_file, save_file

from regraft.core.files import replacing
from regraft.style.networks.sprig import Sprig

PACKAGED = Path(__file__).parents[2] / "src/regraft/weights/sprig.safetensors"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("weights", type=Path)
    args = parser.parse_args()
    tensors = load_file(args.weights)
    Sprig().load_state_dict(tensors)
    half = {key: value.half() for key, value in tensors.items()}
    bad = [key for key, value in half.items() if not torch.isfinite(value).all()]
    if bad:
        raise SystemExit(f"Not finite in half precision: {', '.join(bad[:3])}.")
    last = json.loads((args.weights.parent / "log.jsonl").read_text().splitlines()[-1])
    metadata = {"model": "sprig", "licence": "Apache-2.0", "crops": str(last["crops"]), "steps": str(last["steps"])}
    with replacing(PACKAGED) as temporary:
        save_file(half, temporary, metadata=metadata)
    print(f"{PACKAGED.name}: {PACKAGED.stat().st_size / 1e6:.2f} MB, {metadata}")


if __name__ == "__main__":
    main()
