"""Write measured figures into the embedded backbone's card.

    python bench/embedded/figures.py --shared ../shared > figures.txt
    python bench/embedded/fill_card.py --log runs/embedded/log.jsonl < figures.txt

Reads the JSON line of `figures.py` from standard input and the training's log; every cell that they speak of is
replaced.
"""

from __future__ import annotations

import argparse
import json
import re
import sys
from pathlib import Path
from typing import Any

from regraft.core.files import write_text

CARD = Path(__file__).parents[2] / "src/regraft/weights/scion.card.md"


def filled(card: str, cells: dict[str, str]) -> str:
    """The card with those cells replaced; SystemExit for a cell that it does not have."""
    for key, text in cells.items():
        pattern = rf"(<!-- cell:{re.escape(key)} -->).*?(<!-- /cell -->)"

        def put(found: re.Match[str], text: str = text) -> str:
            return f"{found[1]}{text}{found[2]}"

        card, count = re.subn(pattern, put, card)
        if count != 1:
            raise SystemExit(f"The card has {count} cells {key}; one is needed.")
    return card


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--log", type=Path, required=True)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--machine", default="two CPU cores, shared with other work")
    args = parser.parse_args()
    figures: dict[str, Any] = json.loads([line for line in sys.stdin if line.startswith("{")][-1])
    last = json.loads(args.log.read_text().splitlines()[-1])
    cells = {
        "training.crops": f"{last['crops']:,}",
        "training.steps": f"{last['steps']:,}",
        "training.hours": f"{last['elapsed_s'] / 3600:.1f}, {args.machine}",
        "training.seed": str(args.seed),
    }
    for name, row in figures["rows"].items():
        cells[f"{name}.n_test"] = str(row["n_test"])
        for key in ("pretrained", "random", "random_sd"):
            if key in row:
                cells[f"{name}.{key}"] = f"{100 * row[key]:.1f} %"
    write_text(CARD, filled(CARD.read_text(encoding="utf-8"), cells))


if __name__ == "__main__":
    main()
