"""The page of a translation: verdict, figures, curves, what gives reason for doubt, and strips there and back."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import matplotlib
from markupsafe import Markup
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator
from torch import Tensor

from regraft.core.errors import ArtifactError
from regraft.core.files import read_json, replacing
from regraft.report.environment import environment
from regraft.report.figures import ACCENT, BAD, MUTED, STYLE, draw_curve, points_of, svg
from regraft.report.gathering import metrics_lines
from regraft.style.figures.inline import data_uri

#: Format of a translation's `report.json`; `docs/style.md` describes its fields.
FORMAT: Final = "regraft.translation/1"
#: Pictures inside a page are at most this long.
_SHOWN_PX: Final = 320


@dataclass(frozen=True)
class Strip:
    """A held-out picture, its translation, and what came back from there, each (3, H, W) in [0, 1]."""

    picture: Tensor
    translated: Tensor
    cycled: Tensor


def render_translation(run: Path, strips: Mapping[str, Sequence[Strip]]) -> Path:
    """Write `report.html` of a run with a translation's report.json, self-contained, whole or not at all.

    strips: by direction. Names are escaped. Raises ArtifactError where report.json is of another format.
    """
    report = read_json(run / "report.json")
    if not isinstance(report, dict) or report.get("format") != FORMAT:
        raise ArtifactError(f"{run / 'report.json'} is no report of a translation ({FORMAT}).")
    names = (report["domains"]["A"]["name"], report["domains"]["B"]["name"])
    ends = {"AtoB": names, "BtoA": names[::-1]}
    html = (
        environment([__package__])
        .get_template(f"{__package__}:page.html")
        .render(
            report=report,
            names=names,
            ends=ends,
            figures=[(name, Markup(drawing)) for name, drawing in _figures(run, report) if drawing],
            strips={
                way: [
                    tuple(data_uri(picture, _SHOWN_PX) for picture in (strip.picture, strip.translated, strip.cycled))
                    for strip in of
                ]
                for way, of in strips.items()
            },
        )
    )
    path = run / "report.html"
    with replacing(path) as temporary:
        temporary.write_bytes(html.encode("utf-8", "replace"))
    return path


def _figures(run: Path, report: Mapping[str, Any]) -> list[tuple[str, str | None]]:
    lines = metrics_lines(run)
    training = [line for line in lines if line.get("candidate") == "translation"]
    history = [
        {"step": one["step"], **{f"{name}_{way}": one[name][way] for name in _HELD for way in one[name]}}
        for one in report["history"]
    ]
    before = {way: figures["mmd2_untranslated"] for way, figures in report["directions"].items()}
    return [
        ("Losses in training", curves(training, _LOSSES, "Losses of the training")),
        ("Figures of held-out pictures", curves(history, _HELD_PANELS, "Figures of held-out pictures", before)),
    ]


#: Panels: title → key of a line, its colour and its name.
_LOSSES: Final = {
    "Adversarial": (("gan", ACCENT, "generators"), ("discriminator", MUTED, "discriminators")),
    "Cycle and identity, mean |difference|": (("cycle", ACCENT, "cycle"), ("identity", MUTED, "identity")),
    "Patches told right": (("accuracy", ACCENT, "discriminators"),),
}
_HELD: Final = ("cycle_ssim", "mmd2", "diversity")
_TITLES: Final = {"cycle_ssim": "There and back, SSIM", "mmd2": "Squared MMD to the set", "diversity": "Diversity"}
_HELD_PANELS: Final = {
    title: ((f"{name}_AtoB", ACCENT, "AtoB"), (f"{name}_BtoA", MUTED, "BtoA")) for name, title in _TITLES.items()
}


def curves(
    lines: Sequence[Mapping[str, Any]],
    panels: Mapping[str, Sequence[tuple[str, str, str]]],
    label: str,
    baselines: Mapping[str, float] | None = None,
) -> str | None:
    """One panel a title, one line a key, over steps; a panel without a value is left out, None where all are.

    baselines: by direction, dotted in the panel of the distances: what not translating would give.
    """
    drawn = {
        title: [(points, colour, name) for key, colour, name in keys if len(points := points_of(lines, "step", key))]
        for title, keys in panels.items()
    }
    drawn = {title: found for title, found in drawn.items() if found}
    if not drawn:
        return None
    with matplotlib.rc_context(STYLE):
        figure = Figure(figsize=(3.1 * len(drawn), 2.7), layout="constrained")
        for position, (title, found) in enumerate(drawn.items()):
            axes = figure.add_subplot(1, len(drawn), position + 1)
            for points, colour, name in found:
                draw_curve(axes, points, colour, name, pale=False)
            if baselines and title == _TITLES["mmd2"]:
                axes.axhline(max(baselines.values()), color=BAD, linewidth=1, linestyle=":", label="untranslated")
            axes.set_title(title)
            axes.set_xlabel("step")
            axes.xaxis.set_major_locator(MaxNLocator(4, integer=True))
            axes.margins(x=0.02)
            if len(found) > 1 or baselines:
                axes.legend(loc="best")
        return svg(figure, label)
