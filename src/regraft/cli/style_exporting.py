"""The commands that make a style student small: `regraft style export` and `regraft style prune`."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.markup import escape

from regraft.cli.app import JsonOption, out
from regraft.cli.screen import Screen
from regraft.cli.styling import style_app

ModelArgument = Annotated[Path, typer.Argument(help="A style model of a student, model.safetensors.")]
ForceOption = Annotated[bool, typer.Option(help="Replace an existing file.")]


@style_app.command()
def export(
    model: ModelArgument,
    onnx: Annotated[Path, typer.Option(help="Where to write the ONNX file.")],
    content: Annotated[
        list[str] | None, typer.Option(help="Photos to check on, and for --int8 to measure ranges on; repeats.")
    ] = None,
    int8: Annotated[bool, typer.Option("--int8", help="Weights and activations in 8 bits; needs --content.")] = False,
    pixels: Annotated[
        str, typer.Option(help="What the file takes: uint8 (N, H, W, 3) or float (N, 3, H, W).")
    ] = "uint8",
    force: ForceOption = False,
    as_json: JsonOption = False,
) -> None:
    """Write a student as ONNX for pictures of any size; refused where it disagrees with the model."""
    from regraft.recipes.style.export import run_export_style

    with Screen() as screen:
        found = run_export_style(
            model, onnx, content=tuple(content or ()), int8=int8, pixels=pixels, force=force, listener=screen.listener
        )
    _tell(found, as_json)


@style_app.command()
def prune(
    model: ModelArgument,
    content: Annotated[list[str], typer.Option(help="Photos: files, folders or globs; 4 or more; repeats.")],
    style: Annotated[Path, typer.Option(help="The painting that the student was trained on.")],
    output: Annotated[Path, typer.Option("--output", "-o", help="Where to write the smaller model, .safetensors.")],
    threshold: Annotated[
        float, typer.Option(help="Cut channels whose shares of the style add up to at most this.")
    ] = 0.05,
    steps: Annotated[int, typer.Option(min=0, max=100_000, help="Training steps after the cut; 0 for none.")] = 200,
    perceptual: Annotated[
        str, typer.Option(help="scion, squeezenet1_1, vgg16 or vgg19: measures the style.")
    ] = "scion",
    perceptual_weights: Annotated[Path | None, typer.Option(help="A local file with that network's weights.")] = None,
    seed: Annotated[int, typer.Option(min=0, help="For the training after the cut.")] = 0,
    force: ForceOption = False,
    as_json: JsonOption = False,
) -> None:
    """Cut the channels of a student that its style does not need, and say what that costs."""
    from regraft.recipes.style.prune import run_prune_style

    with Screen() as screen:
        found = run_prune_style(
            model, output, content=tuple(content), style=style, threshold=threshold, steps=steps,
            perceptual_name=perceptual, perceptual_weights=perceptual_weights, seed=seed, force=force,
            listener=screen.listener,
        )  # fmt: skip
    _tell(found, as_json)


def _tell(found: dict[str, Any], as_json: bool) -> None:
    if as_json:
        print(json.dumps(found, indent=2))
    else:
        out.print(escape(found["sentence"]))
