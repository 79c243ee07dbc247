"""The command around several domains without a target: generalise."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from regraft.cli.app import DeviceOption, JsonOption, app
from regraft.cli.screen import Screen, show_report


@app.command()
def generalise(
    domains: Annotated[list[Path] | None, typer.Argument(help="Two or more folders, each a folder per class.")] = None,
    method: Annotated[str, typer.Option(help="auto, or ERM, Mixup, GroupDRO, IRM, SWAD with commas between.")] = "auto",
    choose: Annotated[
        str, typer.Option(help="What the choice is made by: validation of the training domains, or leave-one-out.")
    ] = "validation",
    tune: Annotated[str, typer.Option(help="features: an adapter on cached ones; the only one so far.")] = "features",
    steps: Annotated[int, typer.Option(help="Steps of each training.")] = 300,
    group: Annotated[str | None, typer.Option(help="Regex on file names: what belongs together.")] = None,
    backbone: Annotated[str, typer.Option(help="See `regraft models`; options after a colon.")] = "scion",
    weights: Annotated[Path | None, typer.Option(help="A local .safetensors or .pth file for the backbone.")] = None,
    max_bad: Annotated[float, typer.Option(help="Largest share of unusable pictures.")] = 0.1,
    seed: Annotated[int, typer.Option()] = 0,
    deterministic: Annotated[bool, typer.Option(help="Only deterministic algorithms.")] = False,
    device: DeviceOption = "auto",
    threads: Annotated[int | None, typer.Option(help="Threads that decode pictures.")] = None,
    runs: Annotated[Path, typer.Option(help="Where runs are kept.")] = Path("runs"),
    fresh: Annotated[bool, typer.Option(help="Start anew, even if this command has an unfinished run.")] = False,
    as_json: JsonOption = False,
) -> None:
    """Learn from several domains for one that nobody has seen, and say whether any method beats plain training."""
    from regraft.adaptation.generalisation.options import checked_generalise
    from regraft.recipes.generalise.job import run_generalise

    config = checked_generalise(
        roots=tuple(domains or ()), methods=tuple(n.strip() for n in method.split(",") if n.strip()), choose=choose,
        tune=tune, steps=steps, group=group, backbone=backbone, weights=weights, max_bad=max_bad, seed=seed,
        deterministic=deterministic, device=device, threads=threads,
    )  # fmt: skip
    with Screen() as screen:
        run = run_generalise(config, runs=runs, fresh=fresh, listener=screen.listener)
    show_report(run, as_json)
