"""The commands around translation between two sets of pictures: `regraft style translate` and `regraft style apply`."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.markup import escape
from rich.table import Table

from regraft.cli.app import DeviceOption, JsonOption, RunArgument, err, out
from regraft.cli.screen import Screen, figure
from regraft.cli.styling import style_app


@style_app.command()
def translate(
    a: Annotated[Path, typer.Argument(help="A folder of pictures, as of photos.")],
    b: Annotated[Path, typer.Argument(help="A folder of another kind, as of paintings; no pairs are needed.")],
    output: Annotated[
        Path | None, typer.Option("--output", "-o", help="The run's own folder, in place of one below --runs.")
    ] = None,
    test_a: Annotated[
        Path | None, typer.Option(help="Pictures like A for the figures; else a part is held out.")
    ] = None,
    test_b: Annotated[Path | None, typer.Option(help="Pictures like B for the figures.")] = None,
    size: Annotated[int, typer.Option(help="Side in px that is trained on.")] = 128,
    width: Annotated[int, typer.Option(help="Channels of the generators; the paper has 64.")] = 32,
    blocks: Annotated[int, typer.Option(help="Residual blocks; the paper has 6 at 128 px, 9 above.")] = 6,
    upsampling: Annotated[str, typer.Option(help="nearest or pixelshuffle.")] = "nearest",
    from_picture: Annotated[bool, typer.Option(help="Paint on the picture: for a short training.")] = False,
    discriminator_width: Annotated[int, typer.Option(help="Channels of the discriminators; the paper has 64.")] = 32,
    discriminator_layers: Annotated[int, typer.Option(help="Their convolutions of stride 2.")] = 3,
    scales: Annotated[int, typer.Option(help="At how many sizes they look.")] = 2,
    cycle_weight: Annotated[float, typer.Option(help="How much coming back to the picture counts.")] = 10.0,
    identity_weight: Annotated[float, typer.Option(help="How much leaving the other kind as it is counts.")] = 5.0,
    pool: Annotated[int, typer.Option(help="Earlier translations that the discriminators see again; 0 = off.")] = 50,
    budget: Annotated[str | None, typer.Option(help="Time for everything: 30m, 2h; 30m unless told.")] = None,
    epochs: Annotated[float | None, typer.Option(help="Epochs of the larger folder, in place of a budget.")] = None,
    lr: Annotated[float, typer.Option(help="Base rate of all four networks.")] = 2e-4,
    batch_size: Annotated[int, typer.Option(help="Pictures of each kind in a step.")] = 1,
    ema: Annotated[float, typer.Option(help="Decay of the running average of the weights; 0 = off.")] = 0.999,
    flip: Annotated[bool, typer.Option(help="Mirror images count as pictures of the kind.")] = True,
    max_bad: Annotated[float, typer.Option(help="Largest share of unusable pictures.")] = 0.1,
    seed: Annotated[int, typer.Option()] = 0,
    deterministic: Annotated[bool, typer.Option(help="Only deterministic algorithms.")] = False,
    device: DeviceOption = "auto",
    precision: Annotated[str, typer.Option(help="auto, fp32, bf16 or fp16.")] = "auto",
    threads: Annotated[int | None, typer.Option(help="Threads that decode pictures.")] = None,
    checkpoint_every: Annotated[str, typer.Option(help="Time between checkpoints.")] = "30s",
    runs: Annotated[Path, typer.Option(help="Where runs are kept.")] = Path("runs"),
    fresh: Annotated[bool, typer.Option(help="Start anew, even if this command has an unfinished run.")] = False,
    as_json: JsonOption = False,
) -> None:
    """Learn to turn one kind of picture into another from two folders without pairs, both ways (CycleGAN)."""
    from regraft.core.options import seconds
    from regraft.recipes.translate.job import run_translate
    from regraft.style.translation.options import checked_translate

    config = checked_translate(
        a=a, b=b, test_a=test_a, test_b=test_b, max_bad=max_bad, size=size, width=width, blocks=blocks,
        upsampling=upsampling, from_picture=from_picture, discriminator_width=discriminator_width,
        discriminator_layers=discriminator_layers, scales=scales, cycle_weight=cycle_weight,
        identity_weight=identity_weight, pool=pool, budget_s=seconds(budget), epochs=epochs, lr=lr,
        batch_size=batch_size, ema=ema, flip=flip, seed=seed, deterministic=deterministic, device=device,
        precision=precision, threads=threads, checkpoint_every_s=seconds(checkpoint_every),
    )  # fmt: skip
    with Screen() as screen:
        run = run_translate(config, runs=runs, folder=output, fresh=fresh, listener=screen.listener)
    text = (run / "report.json").read_text(encoding="utf-8")
    if as_json:
        print(text, end="")
        return
    _show(json.loads(text))
    out.print(f"Report: {escape(str(run / 'report.html'))}")


@style_app.command()
def apply(
    run: RunArgument,
    content: Annotated[list[str], typer.Argument(help="Pictures: files, folders or globs.")],
    output: Annotated[Path, typer.Option("--output", "-o", help="A file, or a folder for several pictures.")],
    direction: Annotated[str, typer.Option(help="AtoB, or BtoA for the way back.")] = "AtoB",
    size: Annotated[
        int | None, typer.Option(help="Longer side of the result in px; the training's scale else.")
    ] = None,
    force: Annotated[bool, typer.Option(help="Replace existing files.")] = False,
    device: DeviceOption = "auto",
    as_json: JsonOption = False,
) -> None:
    """Translate pictures by a run of `regraft style translate`."""
    from regraft.recipes.translate.apply import run_apply

    with Screen() as screen:
        outcomes = run_apply(
            run, content, output, direction=direction, size=size, force=force, device=device, listener=screen.listener
        )  # fmt: skip
    if as_json:
        print(json.dumps([_plain(outcome) for outcome in outcomes], indent=2))
    for outcome in [] if as_json else outcomes:
        if outcome.error is None:
            out.print(escape(str(outcome.output)))
    if all(outcome.error for outcome in outcomes):
        err.print("No picture could be read.")
        raise typer.Exit(1)


def _show(report: dict[str, Any]) -> None:
    out.print(f"\n[bold]{escape(report['verdict'])}[/]\n")
    names = ("direction", "MMD² untranslated", "translated", "nearer in", "cycle SSIM", "identity", "diversity")
    view = Table(*names, box=None, header_style="bold")
    for way, row in report["directions"].items():
        view.add_row(
            way, figure(row["mmd2_untranslated"]), figure(row["mmd2"]), f"{row['nearer']:.0%}",
            figure(row["cycle_ssim"]), figure(row["identity"]), figure(row["diversity"]),
        )  # fmt: skip
    out.print(view)
    for sign in report["collapse"]["signs"]:
        if sign["step"] == report["steps"]:
            out.print(f"[yellow]{escape(sign['kind'])}:[/] {escape(sign['sentence'])}")


def _plain(outcome: Any) -> dict[str, Any]:
    return {
        "content": str(outcome.content),
        "output": None if outcome.output is None else str(outcome.output),
        "size_px": outcome.size_px,
        "error": outcome.error,
    }
