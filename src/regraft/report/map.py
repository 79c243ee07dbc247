"""The map of the features: where each sample lies, and what is shown of it when one points at it."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from regraft.report.gathering import table
from regraft.report.sections import Page

#: Samples that are shown when one points at them.
SHOWN = 600
#: Drawing area of the scatter, in its own units.
WIDTH, HEIGHT, MARGIN = 960, 560, 16
#: Hues of the first classes, in degrees (OKLCH), far apart in this order; later classes go by the golden
#: angle.
_HUES = (195, 45, 290, 130, 350, 85, 245, 20)


@dataclass
class Scatter:
    """The map of the features. classes: name, hue, number; points by class: x, y, index, wrong. facts: for
    the hover."""

    classes: list[dict[str, Any]] = field(default_factory=list)
    facts: list[dict[str, Any]] = field(default_factory=list)
    shown: dict[str, str] = field(default_factory=dict)
    #: Whether the colours are ranges of a number.
    ranges: bool = False


def scatter(page: Page) -> Scatter | None:
    """Points of embedding.parquet, scaled to the drawing area, with up to 600 samples shown: the mistakes
    first."""
    rows = [row for row in table(page.run / "embedding.parquet") if _finite(row.get("x")) and _finite(row.get("y"))]
    if not rows:
        return None
    xy = np.asarray([[row["x"], row["y"]] for row in rows], dtype=np.float64)
    low, high = xy.min(axis=0), xy.max(axis=0)
    unit = (xy - low) / np.maximum(high - low, 1e-9)
    size = np.asarray([WIDTH, HEIGHT]) - 2 * MARGIN
    places = MARGIN + unit * size
    # Names by the index of the label, where the kind of labels has such; the others name a sample's `band`.
    names: Sequence[str] = getattr(page.report, "classes", ())
    out = Scatter(ranges=not names)
    by_class: dict[int, list[dict[str, Any]]] = defaultdict(list)
    wrong = np.zeros(len(rows), dtype=bool)
    for i, row in enumerate(rows):
        label = -1 if row.get("label") is None else int(row["label"])
        predicted = -1 if row.get("predicted") is None else int(row["predicted"])
        wrong[i] = label >= 0 and predicted >= 0 and predicted != label
        by_class[label].append(
            {"i": i, "x": f"{places[i, 0]:.1f}", "y": f"{places[i, 1]:.1f}", "wrong": bool(wrong[i])}
        )
        out.facts.append(
            {
                "file": Path(str(row.get("path", ""))).name,
                "split": str(row.get("split") or ""),
                "true": str(row.get("band") or class_name(names, label)),
                "predicted": class_name(names, predicted) if predicted >= 0 else "",
            }
        )
    bands = {int(row["label"]): str(row["band"]) for row in rows if row.get("band")}
    for label in sorted(by_class):
        hue = _HUES[label] if 0 <= label < len(_HUES) else (195 + 137.508 * label) % 360
        points = sorted(by_class[label], key=lambda point: point["wrong"])
        out.classes.append(
            {
                "number": label,
                "name": bands.get(label) or class_name(names, label),
                "hue": f"{hue:.0f}",
                "lift": 0.0 if label < len(_HUES) else (-0.09, 0.0, 0.09)[label % 3],
                "points": points,
            }
        )
    others = np.random.default_rng(0).permutation(np.flatnonzero(~wrong))
    for index in [*np.flatnonzero(wrong), *others][:SHOWN]:
        shown = page.shown(page.locate(str(rows[index].get("path", ""))), small=True)
        if shown is not None:
            out.shown[str(index)] = str(shown)
    return out


def class_name(classes: Sequence[str], index: int) -> str:
    """The name of a class; "unlabelled" for −1, the number where there is no name."""
    if index < 0:
        return "unlabelled"
    return classes[index] if index < len(classes) else str(index)


def _finite(value: Any) -> bool:
    return isinstance(value, int | float) and bool(np.isfinite(value))
