"""The commands around style: `regraft style PHOTO --style PAINTING -o OUT` and `regraft style evaluate`."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.markup import escape
from rich.table import Table
from typer.core import TyperGroup

from regraft.cli.app import DeviceOption, JsonOption, app, err, out
from regraft.cli.screen import Screen, figure

#: The command that `regraft style` means when no other is named.
DEFAULT = "picture"


class FallThrough(TyperGroup):
    """A group whose first word may be a command; anything else goes to DEFAULT.

    So `regraft style photo.jpg --style a.jpg` stands beside `regraft style evaluate`. A file that has a command's name
    is given as ./evaluate.
    """

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        if args and args[0] not in self.commands and args[0] != "--help":
            args = [DEFAULT, *args]
        return super().parse_args(ctx, args)


style_app = typer.Typer(
    cls=FallThrough,
    no_args_is_help=True,
    rich_markup_mode="rich",
    help="Give a picture the style of others: regraft style PHOTO --style PAINTING -o OUT.",
)
app.add_typer(style_app, name="style")

StyleOption = Annotated[
    list[str],
    typer.Option("--style", help="A painting or a style's name, as painting.jpg:0.7 with its weight; repeats."),
]
EvaluationWeights = Annotated[
    Path | None,
    typer.Option(help="SqueezeNet 1.1 weights for the figures; without, the cache's, else the embedded network."),
]


@style_app.command(DEFAULT)
def picture(
    content: Annotated[list[str], typer.Argument(help="Photos: files, folders or globs.")],
    style: StyleOption,
    output: Annotated[Path, typer.Option("--output", "-o", help="A file, or a folder for several photos.")],
    method: Annotated[
        str, typer.Option(help="auto, fixed, adain, adaattn, gatys, colour, reinhard or a registered name.")
    ] = "auto",
    size: Annotated[str | None, typer.Option(help="Longer side of the result: px, or 720p, 1080p, 4k, 8k.")] = None,
    max_memory: Annotated[
        str | None, typer.Option(help="The most memory for a large picture, as 2g or 1500m; networks run in tiles.")
    ] = None,
    strength: Annotated[float, typer.Option(help="0 is the photo, 1 the method's whole result.")] = 1.0,
    ssim: Annotated[float | None, typer.Option(help="The most style that keeps this SSIM, as 0.85.")] = None,
    keep: Annotated[
        float | None, typer.Option(help="How much of the photo a one-pass method holds: 0, all style, to 1.")
    ] = None,
    passes: Annotated[
        int | None, typer.Option(help="How often such a method goes over the photo: 3 times, with --ssim once.")
    ] = None,
    refine: Annotated[
        int | None, typer.Option(help="Steps of optimisation after a one-pass method: none, with --ssim 20.")
    ] = None,
    keep_colour: Annotated[
        bool, typer.Option("--keep-colour", help="The photo's colours, the style's strokes.")
    ] = False,
    keep_colour_by: Annotated[
        str | None,
        typer.Option(help="luminance (what --keep-colour takes) or histogram: strokes in the photo's range."),
    ] = None,
    mask: Annotated[
        list[str] | None, typer.Option(help="MASK:STYLE, as sky.png:a.jpg: where white, that style goes; repeats.")
    ] = None,
    steps: Annotated[int | None, typer.Option(help="Steps of an optimisation.")] = None,
    optimizer: Annotated[str | None, typer.Option(help="adam or lbfgs.")] = None,
    style_loss: Annotated[
        str | None, typer.Option(help="gram, wasserstein, histogram; several with + between.")
    ] = None,
    content_weight: Annotated[float | None, typer.Option(help="How much content features hold.")] = None,
    tv_weight: Annotated[float | None, typer.Option(help="Total variation: smoothness.")] = None,
    edge_weight: Annotated[float | None, typer.Option(help="Laplacian term: edges stay where they are.")] = None,
    start: Annotated[str | None, typer.Option(help="Where an optimisation starts: colour, content or noise.")] = None,
    perceptual: Annotated[str | None, typer.Option(help="sprig, scion, squeezenet1_1, vgg16 or vgg19.")] = None,
    perceptual_weights: Annotated[Path | None, typer.Option(help="A local file with that network's weights.")] = None,
    evaluation_weights: EvaluationWeights = None,
    report: Annotated[bool, typer.Option("--report", help="Write a page with the figures beside the result.")] = False,
    every: Annotated[int | None, typer.Option(help="Keep the picture of every N steps.")] = None,
    force: Annotated[bool, typer.Option(help="Replace existing files.")] = False,
    device: DeviceOption = "auto",
    runtime: Annotated[
        str | None, typer.Option(help="What runs fixed styles: auto, eager, onnxruntime or openvino.")
    ] = None,
    kept: Annotated[Path | None, typer.Option(help="A mask: where white, strokes do not run over edges.")] = None,
    kept_weight: Annotated[float | None, typer.Option(help="How much the edges of --kept hold; 1 unless told.")] = None,
    seed: Annotated[int | None, typer.Option(help="For a start from noise.")] = None,
    as_json: JsonOption = False,
) -> None:
    """Give photos the style of paintings."""
    from regraft.recipes.style.job import run_stylize
    from regraft.style.options import checked_style, mask_of, weighted

    styles = tuple(weighted(text) for text in style)
    config = checked_style(
        content=tuple(content), styles=styles, output=output, method=method,
        masks=tuple(mask_of(text, styles) for text in mask or ()), size=size, strength=strength, ssim=ssim, keep=keep,
        passes=passes, refine=refine,
        keep_colour=keep_colour_by or ("luminance" if keep_colour else None), steps=steps, optimizer=optimizer,
        style_loss=style_loss, content_weight=content_weight, tv_weight=tv_weight, edge_weight=edge_weight, start=start,
        perceptual=perceptual, perceptual_weights=perceptual_weights, max_memory=max_memory,
        evaluation_weights=evaluation_weights, report=report, measure=as_json, every=every, force=force,
        device=device, runtime=runtime, seed=seed, kept=kept, kept_weight=kept_weight,
    )  # fmt: skip
    with Screen() as screen:
        outcomes = run_stylize(config, listener=screen.listener)
    if as_json:
        print(json.dumps([_plain(outcome) for outcome in outcomes], indent=2))
    for outcome in [] if as_json else outcomes:
        if outcome.error is None:
            out.print(escape(str(outcome.output)))
        if outcome.figures is not None:
            _show(outcome.figures)
            out.print(f"Report: {escape(str(outcome.report))}")
    if all(outcome.error for outcome in outcomes):
        err.print("No picture could be read.")
        raise typer.Exit(1)


@style_app.command()
def evaluate(
    result: Annotated[Path, typer.Argument(help="The stylised picture.")],
    content: Annotated[Path, typer.Option(help="The photo it was made of.")],
    style: StyleOption,
    evaluation_weights: EvaluationWeights = None,
    method: Annotated[str | None, typer.Option(help="Also run this method: latency, cost of noise and memory.")] = None,
    repeats: Annotated[int, typer.Option(min=1, max=1000, help="Runs of that method.")] = 5,
    as_json: JsonOption = False,
) -> None:
    """Measure a stylised picture: SSIM, Gram cosine and its lift, beside doing nothing and plain colour transfer."""
    from regraft.recipes.style.evaluate import run_evaluate_style
    from regraft.style.options import weighted

    styles = tuple(weighted(text) for text in style)
    found = run_evaluate_style(
        result, content, styles, weights=evaluation_weights, method=method, repeats=repeats
    )  # fmt: skip
    if as_json:
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
