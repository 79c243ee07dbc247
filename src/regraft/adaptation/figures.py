"""The maps of both domains, before and after an adaptation."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import matplotlib
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle

from regraft.report.figures import ACCENT, BAD, STYLE, short, svg

#: Colours of classes that are seen on light and dark paper alike.
_CLASS_COLOURS = (
    "#2f8f83", "#c9722e", "#7a6fc0", "#c24d7e", "#6d9a2c", "#c79a1e", "#96702f", "#6b7785", "#3f86c2", "#b0504a",
)  # fmt: skip


def domain_maps(rows: Sequence[Mapping[str, Any]], classes: Sequence[str]) -> str | None:
    """Four maps: before and after, coloured by domain above and by class below; source dots, target crosses.

    rows: of domains.parquet, with stage ("before", "after"), domain, label, x, y. None where there are none.
    """
    stages = [stage for stage in ("before", "after") if any(row.get("stage") == stage for row in rows)]
    if not stages:
        return None
    with matplotlib.rc_context(STYLE):
        figure = Figure(figsize=(8.6, 7.4), layout="constrained")
        grid = figure.subplots(2, len(stages), squeeze=False)
        for column, stage in enumerate(stages):
            own = [row for row in rows if row.get("stage") == stage]
            for line, by in enumerate(("domain", "class")):
                axes = grid[line][column]
                for domain, marker in (("source", "o"), ("target", "x")):
                    part = [row for row in own if row.get("domain") == domain]
                    colours: Any = ACCENT if domain == "source" else BAD
                    if by == "class":
                        colours = [_CLASS_COLOURS[int(row["label"]) % len(_CLASS_COLOURS)] for row in part]
                    axes.scatter(
                        [row["x"] for row in part], [row["y"] for row in part], s=13, c=colours, marker=marker,
                        linewidths=0.9 if marker == "x" else 0, alpha=0.75, label=domain,
                    )  # fmt: skip
                axes.set_title(f"{stage}, by {by}")
                axes.set_xticks([])
                axes.set_yticks([])
                axes.grid(False)
        grid[0][0].legend(loc="best")
        if len(classes) <= len(_CLASS_COLOURS):
            handles = [Rectangle((0, 0), 1, 1, color=_CLASS_COLOURS[i]) for i in range(len(classes))]
            names = [short(name, 18) for name in classes]
            figure.legend(handles, names, loc="outside lower center", ncols=min(7, len(names)))
        return svg(figure, "Maps of both domains before and after adaptation")
