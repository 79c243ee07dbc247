"""What a person sees: lines and one progress bar on stderr, results on stdout."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rich.markup import escape
from rich.progress import BarColumn, Progress, TextColumn
from rich.table import Table

from regraft.cli.app import err, out

if TYPE_CHECKING:
    from regraft.report.frame import Report


def show_report(run: Path, as_json: bool) -> None:
    """The verdict, the candidates and the report's path; or report.json alone."""
    from regraft.recipes.reports import read_report

    found = read_report(run)
    if as_json:
        print((run / "report.json").read_text(encoding="utf-8"), end="")
        return
    out.print(f"\n[bold]{escape(found.verdict)}[/]\n")
    for table in _TABLES.get(found.recipe, (_of_candidates,)):
        out.print(table(found))
    out.print(f"\nEvaluated on: {escape(found.evaluated_on)}")
    for alarm in found.alarms:
        out.print(f"[yellow]Alarm:[/] {escape(alarm)}")
    out.print(f"Report: {escape(str(run / 'report.html'))}")


def _of_candidates(found: Report) -> Table:
    view = Table(
        "candidate",
        found.metric.replace("_", " "),
        "95 % interval",
        "validation",
        "seconds",
        "trained",
        box=None,
        header_style="bold",
    )
    for c in found.candidates:
        low, high = c.interval
        view.add_row(
            f"{escape(c.name)}{' *' if c.chosen else ''}",
            figure(c.value), f"{figure(low)} – {figure(high)}", figure(c.validation),
            "" if c.seconds is None else f"{c.seconds:.0f}",
            "" if c.trained_parameters is None else f"{c.trained_parameters:,}",
        )  # fmt: skip
    return view


def _of_domains(found: Any) -> Table:
    view = Table("candidate", "label-free rank", "source", "oracle", "seconds", box=None, header_style="bold")
    for c in found.candidates:
        view.add_row(
            f"{escape(c.name)}{' *' if c.chosen else ''}",
            "–" if c.label_free_score is None else f"{c.label_free_score:.1f}",
            figure(c.source_accuracy if c.source_error is None else c.source_error),
            figure(c.oracle), "" if c.seconds is None else f"{c.seconds:.0f}",
        )  # fmt: skip
    return view


def _of_held_out(found: Any) -> Table:
    names = [cell["name"] for cell in found.held_out[0]["methods"]]
    view = Table("held-out domain", "pictures", *names, "chosen", "hindsight", box=None, header_style="bold")
    for row in found.held_out:
        view.add_row(
            escape(row["name"]), str(row["n"]), *(figure(cell["value"]) for cell in row["methods"]),
            f"{row['chosen']} {figure(row['value'])}", f"{row['best']} {figure(row['best_value'])}",
        )  # fmt: skip
    return view


#: What is shown of a job's report, where it is not the candidates alone.
_TABLES: dict[str, tuple[Callable[[Any], Table], ...]] = {
    "adapt": (_of_domains,),
    "generalise": (_of_candidates, _of_held_out),
}


def show_plan(lines: Sequence[str], as_json: bool) -> None:
    """What a command would do."""
    if as_json:
        print(json.dumps({"would": list(lines)}, ensure_ascii=False, indent=2))
    for line in [] if as_json else lines:
        out.print(escape(line))


def show_sentence(found: Mapping[str, Any], as_json: bool) -> None:
    """What a command found, as its sentence or in full."""
    if as_json:
        print(json.dumps(found, indent=2))
    else:
        out.print(escape(found["sentence"]))


def figure(value: float | None) -> str:
    """Three digits, or a dash."""
    return "–" if value is None else f"{value:.3f}"


class Screen:
    """Lines and one progress bar on stderr; on a terminal only the bar moves, elsewhere it is left out."""

    def __init__(self, *, quiet: bool = False) -> None:
        self._quiet = quiet
        self._bar = Progress(
            TextColumn("{task.description}"),
            BarColumn(),
            TextColumn("{task.fields[note]}"),
            console=err,
            transient=True,
        )
        self._task: Any = None
        from regraft.core.listener import Listener

        screen = self

        class Shown(Listener):
            def say(self, text: str) -> None:
                if not quiet:
                    err.print(escape(text))

            def progress(
                self, what: str, done: float, total: float, *, rate: str = "", remaining_s: float | None = None
            ) -> None:
                screen.move(what, done, total, rate, remaining_s)

        self.listener = Shown()

    def move(self, what: str, done: float, total: float, rate: str, remaining_s: float | None) -> None:
        left = "" if remaining_s is None else f"{int(remaining_s) // 60}:{int(remaining_s) % 60:02d} left"
        note = "  ".join(part for part in (rate, left) if part)
        if self._task is None:
            self._task = self._bar.add_task("", total=1, note="")
        self._bar.update(self._task, description=escape(what), completed=done, total=max(total, 1e-9), note=note)

    def __enter__(self) -> Screen:
        if not self._quiet:
            self._bar.start()
        return self

    def __exit__(self, *_: object) -> None:
        if not self._quiet:
            self._bar.stop()
