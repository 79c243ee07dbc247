"""The commands around a finished run: predict, evaluate, export, report."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import typer
from rich.markup import escape

from regraft.cli.app import err, out
from regraft.cli.drawn import Argument, Face, RunFace, Verb
from regraft.cli.making import make_run
from regraft.cli.screen import Screen, show_report, show_sentence
from regraft.core.option_groups import DeviceOptions
from regraft.core.options import DATA, OUTPUT, Options, altered, option
from regraft.recipes.evaluate.options import EvaluateConfig
from regraft.recipes.export.options import ExportConfig

RUN = "A run, runs/LAST, or an artifact folder."


class PredictOptions(DeviceOptions):
    """What a prediction is told."""

    run: Path = option(..., RUN, panel=DATA)
    pictures: tuple[str, ...] = option(..., "Files, folders or globs; - reads names from stdin.", panel=DATA)
    top: int = option(1, "How many classes to name.", panel=OUTPUT, metavar="N", ge=1)
    threshold: float | None = option(
        None, "Below this confidence: no answer.", panel=OUTPUT, metavar="SHARE", ge=0, le=1
    )


class ReportOptions(Options):
    """Whose page is drawn."""

    run: Path = option(..., RUN, panel=DATA)


class EvaluateFace(RunFace):
    """What `regraft evaluate` is told beside its options: its runs are always new ones."""

    fresh: bool = altered(RunFace, "fresh", True, on_command_line=False)


def _predict(options: PredictOptions, face: Face) -> None:
    from regraft.deploy.predictor import Predictor, expand_inputs

    names = list(options.pictures)
    names = [line.strip() for line in sys.stdin if line.strip()] if names == ["-"] else names
    predictor = Predictor.load(options.run, device=options.device)
    answers = predictor.predict(expand_inputs(names), top=options.top, threshold=options.threshold)
    if face.as_json:
        print(json.dumps([answer.to_json() for answer in answers], ensure_ascii=False, indent=2))
    for answer in [] if face.as_json else answers:
        if answer.error:
            err.print(escape(f"{answer.path}: {answer.error}"))
            continue
        out.print(escape(answer.told(options.top)))
    if answers and all(answer.error for answer in answers):
        raise typer.Exit(1)


def _evaluate(options: EvaluateConfig, face: RunFace) -> None:
    from regraft.recipes.evaluate.job import Evaluate

    make_run(Evaluate(), options, face, show_report)


def _export(options: ExportConfig, face: Face) -> None:
    from regraft.recipes.export.job import run_export

    with Screen(quiet=face.quiet) as screen:
        found = run_export(options, listener=screen.listener)
    show_sentence(found, face.as_json)


def _report(options: ReportOptions, face: Face) -> None:
    from regraft.core.rundir import resolve_run
    from regraft.report.page import render

    path = resolve_run(options.run)
    render(path)
    show_report(path, face.as_json)


PREDICT = Verb(
    PredictOptions,
    _predict,
    arguments=(Argument("run"), Argument("pictures", many=True, path=False)),
    first=("top", "threshold"),
    examples=("regraft predict runs/LAST new/*.jpg", "regraft predict runs/LAST new/ --top 3 --json"),
)
EVALUATE = Verb(
    EvaluateConfig,
    _evaluate,
    EvaluateFace,
    arguments=(Argument("model", shown="RUN"), Argument("roots", many=True, required=False, shown="DATA")),
    first=("table", "group"),
    examples=("regraft evaluate runs/LAST new-photos/", "regraft evaluate runs/LAST --table labels.csv"),
)
EXPORT = Verb(
    ExportConfig,
    _export,
    arguments=(Argument("run"),),
    first=("onnx", "pictures"),
    examples=("regraft export runs/LAST --onnx model.onnx",),
)
REPORT = Verb(ReportOptions, _report, arguments=(Argument("run"),), examples=("regraft report runs/LAST",))
