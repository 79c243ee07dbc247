"""The commands around two domains: adapt, distance."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated

import typer
from rich.markup import escape
from rich.table import Table

from regraft.cli.app import DeviceOption, JsonOption, app, out
from regraft.cli.screen import Screen, figure, show_report


@app.command()
def adapt(
    domains: Annotated[
        list[Path] | None,
        typer.Argument(
            help="SOURCE … with labels, each a domain; TARGET without, alone with --source-free or numbers."
        ),
    ] = None,
    table: Annotated[Path | None, typer.Option(help="The source's labels: CSV or Parquet in place of folders.")] = None,
    image: Annotated[str, typer.Option(help="The tables' column of picture paths.")] = "image",
    label: Annotated[str, typer.Option(help="The tables' column of labels.")] = "label",
    task: Annotated[str, typer.Option(help="classification, or regression: a column of numbers.")] = "classification",
    source_free: Annotated[Path | None, typer.Option(help="A run whose model is adapted without its pictures.")] = None,
    oracle: Annotated[
        Path | None,
        typer.Option(help="Labelled target pictures, or a table of their numbers: shown beside, never used."),
    ] = None,
    setting: Annotated[
        str, typer.Option(help="closed: same classes; partial: the target lacks some; open: it has others, too.")
    ] = "closed",
    method: Annotated[str, typer.Option(help="auto, or names with commas between them.")] = "auto",
    validator: Annotated[str, typer.Option(help="auto, or the label-free validators that choose.")] = "auto",
    keep: Annotated[str | None, typer.Option(help="Hand over this candidate, whatever the evidence says.")] = None,
    tune: Annotated[
        str, typer.Option(help="features: an adapter on cached ones, in seconds; network: all of it; or auto.")
    ] = "auto",
    weight: Annotated[float | None, typer.Option(help="Weight of the alignment; the method's own unless told.")] = None,
    group: Annotated[str | None, typer.Option(help="Regex on source file names: what belongs together.")] = None,
    backbone: Annotated[str, typer.Option(help="See `regraft models`; options after a colon.")] = "scion",
    weights: Annotated[Path | None, typer.Option(help="A local .safetensors or .pth file for the backbone.")] = None,
    budget: Annotated[str | None, typer.Option(help="Time for everything: 90s, 5m, 1h.")] = None,
    epochs: Annotated[float | None, typer.Option(help="Epochs of each training, in place of a budget.")] = None,
    lr: Annotated[float | None, typer.Option(help="Base rate of the training.")] = None,
    last: Annotated[int | None, typer.Option(help="Train only the last K layer groups.")] = None,
    batch_size: Annotated[int, typer.Option(help="Pictures of each domain in a step.")] = 32,
    restyle: Annotated[float, typer.Option(help="Share of source pictures in the target's colours.")] = 0.0,
    augment: Annotated[
        str, typer.Option(help="crop: parts of a picture; affine: turned, shifted, scaled, for digits or single cells.")
    ] = "crop",
    flip: Annotated[bool, typer.Option(help="Mirror images count as the same class.")] = True,
    max_bad: Annotated[float, typer.Option(help="Largest share of unusable pictures.")] = 0.1,
    seed: Annotated[int, typer.Option()] = 0,
    deterministic: Annotated[bool, typer.Option(help="Only deterministic algorithms.")] = False,
    device: DeviceOption = "auto",
    devices: Annotated[int, typer.Option(help="How many processes: GPUs, or CPU processes.")] = 1,
    nodes: Annotated[int, typer.Option(help="How many machines, each of which starts this command.")] = 1,
    precision: Annotated[str, typer.Option(help="auto, fp32, bf16 or fp16.")] = "auto",
    threads: Annotated[int | None, typer.Option(help="Threads that decode pictures.")] = None,
    runs: Annotated[Path, typer.Option(help="Where runs are kept.")] = Path("runs"),
    fresh: Annotated[bool, typer.Option(help="Start anew, even if this command has an unfinished run.")] = False,
    as_json: JsonOption = False,
) -> None:
    """Carry labels from one domain to another that has none, and say whether that helped."""
    from regraft.adaptation.options import checked_adapt
    from regraft.core.options import seconds
    from regraft.engine import is_further_process
    from regraft.recipes.adapt.job import run_adapt

    given = list(domains or ())
    config = checked_adapt(
        table=table, image=image, label=label, task=task,
        source=tuple(given[:-1]), target=tuple(given[-1:]), source_free=source_free, oracle=oracle,
        setting=setting, methods=_names(method), validators=_names(validator), keep=keep, tune=tune, weight=weight,
        group=group, backbone=backbone, weights=weights, budget_s=seconds(budget), epochs=epochs, lr=lr, last=last,
        batch_size=batch_size, restyle=restyle, augment=augment, flip=flip, max_bad=max_bad, seed=seed,
        deterministic=deterministic,
        device=device, devices=devices, nodes=nodes, precision=precision, threads=threads,
    )  # fmt: skip
    with Screen() as screen:
        run = run_adapt(config, runs=runs, fresh=fresh, listener=screen.listener)
    if not is_further_process():
        show_report(run, as_json)


@app.command()
def distance(
    a: Annotated[Path, typer.Argument(help="A folder of pictures.")],
    b: Annotated[Path, typer.Argument(help="Another one.")],
    backbone: Annotated[str, typer.Option(help="See `regraft models`; options after a colon.")] = "scion",
    weights: Annotated[Path | None, typer.Option(help="A local .safetensors or .pth file for the backbone.")] = None,
    seed: Annotated[int, typer.Option()] = 0,
    as_json: JsonOption = False,
) -> None:
    """Say how far apart two folders of pictures are, in a backbone's features."""
    from regraft.recipes.distance.job import run_distance

    with Screen() as screen:
        found = run_distance(a, b, backbone=backbone, weights=weights, seed=seed, listener=screen.listener)
    if as_json:
        print(json.dumps(found, indent=2))
        return
    view = Table("measure", "value", "meaning", box=None, header_style="bold")
    for name, item in found["measures"].items():
        view.add_row(escape(name), figure(item["value"]), escape(item["meaning"]))
    out.print(view)
    out.print(escape(found["sentence"]))


def _names(text: str) -> tuple[str, ...]:
    return tuple(name.strip() for name in text.split(",") if name.strip())
