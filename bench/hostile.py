"""What becomes of 60 hostile picture files of 12 kinds beside 40 sound ones.

    python bench/hostile.py [--seed 0]

Prints a table and one line of JSON; ends with 1 if a file was lost, misread or crashed the audit, else with
0.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
from collections import defaultdict
from pathlib import Path

import numpy as np

HERE = Path(__file__).resolve().parent
sys.path[:0] = [str(HERE.parent / "tests"), str(HERE.parent / "src")]

from hostile_pictures import Hostile, build  # noqa: E402
from regraft.core.errors import UnreadableError  # noqa: E402
from regraft.data.audit import Audit, audit  # noqa: E402
from regraft.data.reading import read_source  # noqa: E402
from regraft.data.source import Source  # noqa: E402
from regraft.images.decode import decode  # noqa: E402
from regraft.images.modality import PICTURES  # noqa: E402


def fate(one: Hostile, usable: Source, found: Audit) -> str:
    """ "named", "handled", "misread" (usable but wrong pixels, or the wrong reason) or "lost"."""
    named = [f.kind for f in found.findings if f.left_out and str(one.path) in f.paths]
    if one.path not in usable.paths:
        return ("named" if one.finding in named else "misread") if named else "lost"
    if one.expected is None:
        return "misread"
    seen = decode(one.path).permute(1, 2, 0).numpy().astype(int)
    right = seen.shape == one.expected.shape and np.abs(seen - one.expected).max() <= one.tolerance
    reported = any(f.kind == one.finding for f in found.findings)
    return "handled" if right and reported else "misread"


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args()
    table: dict[str, dict[str, int]] = defaultdict(lambda: dict.fromkeys(("named", "handled", "misread", "lost"), 0))
    crashes = 0
    with tempfile.TemporaryDirectory() as folder:
        made = build(Path(folder), seed=arguments.seed)
        usable, _, found = audit(read_source([Path(folder)], PICTURES), PICTURES, max_bad=0.5)
        for one in made:
            try:
                table[one.kind][fate(one, usable, found)] += 1
            except (UnreadableError, OSError, ValueError) as error:
                crashes += 1
                print(f"{one.path.name}: {error}", file=sys.stderr)
        sound = sum(path.name.startswith("good ") for path in usable.paths)
    print(f"{'kind':<16}{'named':>8}{'handled':>9}{'misread':>9}{'lost':>6}")
    for kind, row in table.items():
        print(f"{kind:<16}{row['named']:>8}{row['handled']:>9}{row['misread']:>9}{row['lost']:>6}")
    total = {name: sum(row[name] for row in table.values()) for name in ("named", "handled", "misread", "lost")}
    result = {"files": len(made), "kinds": len(table), **total, "crashes": crashes, "sound_kept": sound,
              "audit_s": round(found.seconds, 3), "seed": arguments.seed}  # fmt: skip
    print(json.dumps(result))
    return int(total["lost"] + total["misread"] + crashes > 0 or sound != 40)


if __name__ == "__main__":
    sys.exit(main())
