"""`regraft style PHOTO --style PAINTING -o OUT`, and `regraft style evaluate`."""

from __future__ import annotations

import json
from typing import Any

import typer
from rich.markup import escape
from rich.table import Table

from regraft.cli.app import err, out
from regraft.cli.drawn import Argument, Face, Verb
from regraft.cli.screen import Screen, figure
from regraft.core.options import MODEL, option
from regraft.recipes.style.model_options import StyleEvaluateConfig
from regraft.recipes.style.options import StyleConfig


class PictureFace(Face):
    """What `regraft style` is told beside its options."""

    own_colour: bool = option(False, "The photo's colours, the style's strokes.", panel=MODEL, flag="--keep-colour")


def _with_colour(given: dict[str, Any], face: PictureFace) -> dict[str, Any]:
    """--keep-colour is --keep-colour-by luminance, and --json asks for the figures."""
    if face.own_colour:
        given = {"keep_colour": "luminance", **given}
    return {**given, "measure": True} if face.as_json else given


def _picture(options: StyleConfig, face: PictureFace) -> None:
    from regraft.recipes.style.job import run_stylize

    with Screen(quiet=face.quiet) as screen:
        outcomes = run_stylize(options, listener=screen.listener)
    if face.as_json:
        print(json.dumps([_plain(outcome) for outcome in outcomes], indent=2))
    for outcome in [] if face.as_json else outcomes:
        if outcome.error is None:
            out.print(escape(str(outcome.output)))
        if outcome.figures is not None:
            _show(outcome.figures)
            out.print(f"Report: {escape(str(outcome.report))}")
    if all(outcome.error for outcome in outcomes):
        err.print("No picture could be read.")
        raise typer.Exit(1)


def _evaluate(options: StyleEvaluateConfig, face: Face) -> None:
    from regraft.recipes.style.evaluate import run_evaluate_style

    found = run_evaluate_style(options)
    if face.as_json:
        print(json.dumps(found, indent=2))
    else:
        _show(found)


def _show(found: dict[str, Any]) -> None:
    view = Table("picture", "SSIM", "Gram cosine", "lift", "content distance", box=None, header_style="bold")
    for name, row in {"this picture": found, **found["baselines"]}.items():
        view.add_row(
            name,
            figure(row["ssim"]),
            figure(row["gram_cosine"]),
            "-" if row["lift"] is None else f"{row['lift']:+.3f}",
            figure(row["content_distance"]),
        )
    out.print(view)
    settings = ", ".join(f"{key} {value}" for key, value in found["ssim_settings"].items())
    out.print(escape(f"Gram cosine: {found['measured_with']}. SSIM: torchmetrics, {settings}."))
    if found["latency_ms"]["p50"] is not None:
        noise = found["noise_psnr_drop_db"]
        p50, p95 = found["latency_ms"]["p50"], found["latency_ms"]["p95"]
        cost = "" if noise is None else f"; noise on the input costs {noise:.2f} dB"
        out.print(f"{found['runs']} run(s): p50 {p50:.0f} ms, p95 {p95:.0f} ms{cost}")


def _plain(outcome: Any) -> dict[str, Any]:
    return {
        "content": str(outcome.content),
        "output": None if outcome.output is None else str(outcome.output),
        "report": None if outcome.report is None else str(outcome.report),
        "error": outcome.error,
        **(outcome.figures or {}),
    }


PICTURE = Verb(
    StyleConfig,
    _picture,
    PictureFace,
    arguments=(Argument("content", many=True, path=False),),
    first=("styles", "output", "strength"),
    examples=(
        "regraft style photo.jpg --style painting.jpg -o out.png",
        "regraft style photos/ --style wave -o styled/ --report",
        "regraft style photo.jpg --style a.jpg:0.7 --style b.jpg:0.3 -o out.png --ssim 0.85",
    ),
    place=_with_colour,
)
EVALUATE = Verb(
    StyleEvaluateConfig,
    _evaluate,
    arguments=(Argument("result"),),
    first=("content", "styles"),
    examples=("regraft style evaluate out.png --content photo.jpg --style painting.jpg",),
)
