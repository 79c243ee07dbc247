"""`regraft style train`: a fast model of one's own painting."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated

import typer
from rich.markup import escape

from regraft.cli.app import DeviceOption, JsonOption, out
from regraft.cli.screen import Screen
from regraft.cli.styling import style_app


@style_app.command()
def train(
    style: Annotated[Path, typer.Option(help="The painting.")],
    content: Annotated[list[Path], typer.Option(help="A folder of photos to train on; repeats.")],
    name: Annotated[str, typer.Option(help="The style's name; regraft style PHOTO --style NAME uses it.")],
    folder: Annotated[Path, typer.Option(help="Where models of your own are kept.")] = Path("styles"),
    steps: Annotated[int, typer.Option(help="Steps of the teacher.")] = 800,
    student_steps: Annotated[int, typer.Option(help="Steps of the fast student.")] = 1200,
    side: Annotated[int, typer.Option(help="Side of the training crops in px; strokes are as large in them.")] = 224,
    batch: Annotated[int, typer.Option(help="Crops a step.")] = 4,
    lr: Annotated[float, typer.Option(help="Base rate of the teacher.")] = 1e-3,
    content_weight: Annotated[float, typer.Option(help="How much content features hold.")] = 0.2,
    start: Annotated[
        str, typer.Option(help="packaged begins from the package's styles, scratch does not.")
    ] = "packaged",
    perceptual: Annotated[str, typer.Option(help="sprig, scion, squeezenet1_1, vgg16 or vgg19.")] = "sprig",
    perceptual_weights: Annotated[Path | None, typer.Option(help="A local file with that network's weights.")] = None,
    runs: Annotated[Path, typer.Option(help="Where runs are kept.")] = Path("runs"),
    fresh: Annotated[bool, typer.Option(help="Start anew, even if this command has an unfinished run.")] = False,
    force: Annotated[bool, typer.Option(help="Replace an existing model.")] = False,
    device: DeviceOption = "auto",
    seed: Annotated[int, typer.Option()] = 0,
    as_json: JsonOption = False,
) -> None:
    """Train a fast style of a painting: a teacher, and a student that runs in milliseconds."""
    from regraft.recipes.style.train import checked_training, run_style_train

    config = checked_training(
        style=style, content=tuple(content), name=name, folder=folder, steps=steps, student_steps=student_steps,
        side_px=side, batch=batch, lr=lr, content_weight=content_weight, start=start, perceptual=perceptual,
        perceptual_weights=perceptual_weights, force=force, device=device, seed=seed,
    )  # fmt: skip
    with Screen() as screen:
        trained = run_style_train(config, runs=runs, fresh=fresh, listener=screen.listener)
    if as_json:
        print(json.dumps({"model": str(trained.model), "run": str(trained.run), **trained.figures}, indent=2))
    else:
        out.print(f"{escape(str(trained.model))}\nUse it: regraft style PHOTO --style {escape(name)} -o out.png")
