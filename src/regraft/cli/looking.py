"""The commands to look around: models, distance, doctor, demo."""

from __future__ import annotations

import json

import typer
from rich.markup import escape
from rich.table import Table

from regraft.cli.app import out
from regraft.cli.drawn import Argument, Face, RunFace, Verb
from regraft.cli.making import make_run
from regraft.cli.screen import Screen, figure, show_report
from regraft.core.option_groups import BackboneOptions, SeedOptions, TimeOptions
from regraft.core.options import OUTPUT, Options, Seconds, altered, option
from regraft.recipes.distance.options import DistanceConfig

#: How many models are listed where not all are asked for.
MOST_LISTED = 40


class ModelsOptions(Options):
    """Which models are listed."""

    pattern: str | None = option(None, "Part of a name, or a glob.")
    everything: bool = option(False, "List all of them.", panel=OUTPUT, flag="--all")


class DoctorOptions(Options):
    """A look at the installation takes no options."""


class DemoOptions(BackboneOptions, SeedOptions):
    """What the demonstration is told."""

    budget_s: Seconds = altered(TimeOptions, "budget_s", 180.0, help="Time for the run.")


class DemoFace(RunFace):
    """What `regraft demo` is told beside its options: no --dry-run, for it draws its pictures first."""

    dry_run: bool = altered(RunFace, "dry_run", False, on_command_line=False)


def _models(options: ModelsOptions, face: Face) -> None:
    from regraft.recipes.models.job import list_models

    found = list_models(options.pattern)
    if face.as_json:
        print(json.dumps(found, indent=2))
        return
    shown = found if options.everything else found[:MOST_LISTED]
    view = Table("name", "family", "weights", box=None, header_style="bold")
    for item in shown:
        view.add_row(item["name"], item["family"], item["weights"])
    out.print(view)
    if len(shown) < len(found):
        out.print(f"… {len(found) - len(shown)} more; narrow it with a pattern, or --all.")


def _distance(options: DistanceConfig, face: Face) -> None:
    from regraft.recipes.distance.job import run_distance

    with Screen(quiet=face.quiet) as screen:
        found = run_distance(options, listener=screen.listener)
    if face.as_json:
        print(json.dumps(found, indent=2))
        return
    view = Table("measure", "value", "meaning", box=None, header_style="bold")
    for name, item in found["measures"].items():
        view.add_row(escape(name), figure(item["value"]), escape(item["meaning"]))
    out.print(view)
    out.print(escape(found["sentence"]))


def _doctor(options: DoctorOptions, face: Face) -> None:
    from regraft.recipes.doctor.job import examine

    found = examine()
    if face.as_json:
        print(json.dumps([item.__dict__ for item in found], indent=2))
    for item in [] if face.as_json else found:
        mark = {"ok": "[green]ok[/]  ", "note": "[yellow]note[/]", "bad": "[red]bad[/] "}[item.state]
        out.print(f"{mark}  {escape(item.name)}: {escape(item.text)}")
    if any(item.state == "bad" for item in found):
        raise typer.Exit(1)


def _demo(options: DemoOptions, face: RunFace) -> None:
    """Cut pictures that come with scikit-image into patches, and fit them."""
    from regraft.images.demo import make_demo
    from regraft.recipes.fit.job import Fit
    from regraft.recipes.fit.options import FitConfig

    with Screen(quiet=face.quiet) as screen:
        folder = make_demo(face.runs / "demo-pictures", seed=0)
        screen.listener.say(f"Which surface is this? Patches of photographs, in {folder} (SOURCES.md names them).")
    # No refit: in so short a time the control needs its epochs more than the probe the validation pictures.
    config = FitConfig.checked(roots=(folder,), refit=False, **options.model_dump())
    make_run(Fit(), config, face, show_report)


MODELS = Verb(
    ModelsOptions,
    _models,
    arguments=(Argument("pattern", required=False, path=False),),
    examples=("regraft models resnet", "regraft models 'timm/*' --all"),
)
DISTANCE = Verb(
    DistanceConfig,
    _distance,
    arguments=(Argument("a"), Argument("b")),
    examples=("regraft distance day/ night/",),
)
DOCTOR = Verb(DoctorOptions, _doctor)
DEMO = Verb(DemoOptions, _demo, DemoFace, first=("budget_s",), examples=("regraft demo", "regraft demo --budget 10m"))
