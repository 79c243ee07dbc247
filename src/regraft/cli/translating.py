"""Translation between two sets of pictures: `regraft style translate` and `regraft style apply`."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import typer
from rich.markup import escape
from rich.table import Table

from regraft.cli.app import err, out
from regraft.cli.drawn import Argument, Face, RunFace, Verb
from regraft.cli.making import make_run
from regraft.cli.screen import Screen, figure
from regraft.core.options import OUTPUT, option
from regraft.recipes.translate.options import ApplyConfig, TranslateConfig


class TranslateFace(RunFace):
    """What `regraft style translate` is told beside its options."""

    output: Path | None = option(
        None, "The run's own folder, in place of one below --runs.", panel=OUTPUT, metavar="FOLDER"
    )


def _translate(options: TranslateConfig, face: TranslateFace) -> None:
    from regraft.recipes.translate.job import Translate

    make_run(Translate(), options, face, _show_run, folder=face.output)


def _show_run(run: Path, as_json: bool) -> None:
    text = (run / "report.json").read_text(encoding="utf-8")
    if as_json:
        print(text, end="")
        return
    _show(json.loads(text))
    out.print(f"Report: {escape(str(run / 'report.html'))}")


def _apply(options: ApplyConfig, face: Face) -> None:
    from regraft.recipes.translate.apply import run_apply

    with Screen(quiet=face.quiet) as screen:
        outcomes = run_apply(options, listener=screen.listener)
    if face.as_json:
        print(json.dumps([_plain(outcome) for outcome in outcomes], indent=2))
    for outcome in [] if face.as_json else outcomes:
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


TRANSLATE = Verb(
    TranslateConfig,
    _translate,
    TranslateFace,
    arguments=(Argument("a"), Argument("b")),
    first=("budget_s", "size", "output"),
    examples=(
        "regraft style translate photos/ paintings/ --budget 2h",
        "regraft style translate photos/ paintings/ --from-picture --cycle-weight 2 --identity-weight 0",
    ),
)
APPLY = Verb(
    ApplyConfig,
    _apply,
    arguments=(Argument("run"), Argument("content", many=True, path=False)),
    first=("output", "direction", "size"),
    examples=("regraft style apply runs/LAST photo.jpg -o painting.png",),
)
