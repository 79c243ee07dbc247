"""The commands that make a style a model: `regraft style train`, `export` and `prune`."""

from __future__ import annotations

import json
from pathlib import Path

from rich.markup import escape

from regraft.cli.app import out
from regraft.cli.drawn import Argument, Face, RunFace, Verb
from regraft.cli.making import make_run
from regraft.cli.screen import Screen, show_sentence
from regraft.recipes.style.model_options import StyleExportConfig, StylePruneConfig, StyleTrainConfig


def _train(options: StyleTrainConfig, face: RunFace) -> None:
    from regraft.core.files import read_json
    from regraft.recipes.style.train import StyleTrain

    def show(run: Path, as_json: bool) -> None:
        if as_json:
            found = {"model": str(options.output), "run": str(run), **read_json(run / "style.json")}
            print(json.dumps(found, indent=2))
            return
        name = escape(options.name)
        out.print(f"{escape(str(options.output))}\nUse it: regraft style PHOTO --style {name} -o out.png")

    make_run(StyleTrain(), options, face, show)


def _export(options: StyleExportConfig, face: Face) -> None:
    from regraft.recipes.style.export import run_export_style

    with Screen(quiet=face.quiet) as screen:
        found = run_export_style(options, listener=screen.listener)
    show_sentence(found, face.as_json)


def _prune(options: StylePruneConfig, face: Face) -> None:
    from regraft.recipes.style.prune import run_prune_style

    with Screen(quiet=face.quiet) as screen:
        found = run_prune_style(options, listener=screen.listener)
    show_sentence(found, face.as_json)


TRAIN = Verb(
    StyleTrainConfig,
    _train,
    RunFace,
    first=("style", "content", "name"),
    examples=("regraft style train --style painting.jpg --content photos/ --name mine",),
)
EXPORT = Verb(
    StyleExportConfig,
    _export,
    arguments=(Argument("model"),),
    first=("onnx", "int8", "content"),
    examples=(
        "regraft style export styles/mine.safetensors --onnx mine.onnx",
        "regraft style export styles/mine.safetensors --onnx mine.onnx --int8 --content photos/",
    ),
)
PRUNE = Verb(
    StylePruneConfig,
    _prune,
    arguments=(Argument("model"),),
    first=("content", "style", "output"),
    examples=(
        "regraft style prune styles/mine.safetensors --content photos/ --style painting.jpg -o small.safetensors",
    ),
)
