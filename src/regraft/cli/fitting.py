"""The commands around a fit: fit, predict, evaluate, export, report, models, doctor, demo."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Annotated

import typer
from rich.markup import escape
from rich.table import Table

from regraft.cli.app import DeviceOption, JsonOption, RunArgument, app, err, out
from regraft.cli.screen import Screen, show_report


@app.command()
def fit(
    data: Annotated[list[Path] | None, typer.Argument(help="Folder per class, or train/ val/ test/ folders.")] = None,
    table: Annotated[Path | None, typer.Option(help="CSV or Parquet in place of class folders.")] = None,
    image: Annotated[str, typer.Option(help="The table's column of picture paths.")] = "image",
    text: Annotated[str | None, typer.Option(help="The table's column of texts, in place of pictures.")] = None,
    label: Annotated[list[str], typer.Option(help="The table's column of labels; again for several.")] = ["label"],  # noqa: B006
    group: Annotated[
        str | None, typer.Option(help="Column, or regex on the file name, that keeps e.g. a patient on one side.")
    ] = None,
    split: Annotated[str | None, typer.Option(help="The table's column that says train, val or test.")] = None,
    test: Annotated[Path | None, typer.Option(help="A folder per class that is the test set.")] = None,
    max_bad: Annotated[float, typer.Option(help="Largest share of unusable pictures.")] = 0.1,
    backbone: Annotated[str, typer.Option(help="See `regraft models`; options after a colon.")] = "scion",
    weights: Annotated[Path | None, typer.Option(help="A local .safetensors or .pth file for the backbone.")] = None,
    budget: Annotated[str | None, typer.Option(help="Time for everything: 90s, 5m, 1h.")] = None,
    epochs: Annotated[float | None, typer.Option(help="Epochs of each training, in place of a budget.")] = None,
    strategies: Annotated[
        str, typer.Option(help="Which candidates: probe, finetune, scratch.")
    ] = "probe,finetune,scratch",
    task: Annotated[
        str, typer.Option(help="classification, regression (a table's column of numbers), or auto.")
    ] = "auto",
    last: Annotated[int | None, typer.Option(help="Fine-tune only the last K layer groups.")] = None,
    metric: Annotated[
        str,
        typer.Option(
            help="auto; accuracy, balanced_accuracy, macro_f1, auc, nll, ece; of numbers mae, rmse, r2, spearman."
        ),
    ] = "auto",
    lr: Annotated[float | None, typer.Option(help="Base rate of fine-tuning; the head has 10 times as much.")] = None,
    batch_size: Annotated[int, typer.Option(help="Largest batch; small sets take smaller ones.")] = 32,
    accumulate: Annotated[int, typer.Option(help="Batches per optimiser step.")] = 1,
    optimizer: Annotated[str, typer.Option(help="adamw or sgd.")] = "adamw",
    schedule: Annotated[str, typer.Option(help="The rate after the warm-up: cosine, constant or step.")] = "cosine",
    label_smoothing: Annotated[float, typer.Option()] = 0.0,
    mixup: Annotated[float, typer.Option(help="Beta parameter; 0 = off.")] = 0.0,
    cutmix: Annotated[float, typer.Option(help="Beta parameter; 0 = off.")] = 0.0,
    ema: Annotated[float, typer.Option(help="Decay of the running average of the weights; 0 = off.")] = 0.99,
    patience: Annotated[int | None, typer.Option(help="Epochs without a better one before stopping.")] = 8,
    augment: Annotated[
        str, typer.Option(help="crop: parts of a picture; affine: turned, shifted, scaled, for digits or single cells.")
    ] = "crop",
    flip: Annotated[bool, typer.Option(help="Mirror images count as the same.")] = True,
    refit: Annotated[bool, typer.Option(help="Train the chosen one on validation too, at the end.")] = True,
    seed: Annotated[int, typer.Option()] = 0,
    deterministic: Annotated[bool, typer.Option(help="Only deterministic algorithms.")] = False,
    device: DeviceOption = "auto",
    devices: Annotated[int, typer.Option(help="How many processes: GPUs, or CPU processes.")] = 1,
    nodes: Annotated[int, typer.Option(help="How many machines, each of which starts this command.")] = 1,
    precision: Annotated[str, typer.Option(help="auto, fp32, bf16 or fp16.")] = "auto",
    threads: Annotated[int | None, typer.Option(help="Threads that decode pictures.")] = None,
    checkpoint_every: Annotated[str, typer.Option(help="Time between checkpoints.")] = "30s",
    tensorboard: Annotated[bool, typer.Option(help="Write TensorBoard logs into the run.")] = False,
    runs: Annotated[Path, typer.Option(help="Where runs are kept.")] = Path("runs"),
    fresh: Annotated[bool, typer.Option(help="Start anew, even if this command has an unfinished run.")] = False,
    print_plan: Annotated[bool, typer.Option("--print-plan", help="Show who would train, and stop.")] = False,
    as_json: JsonOption = False,
) -> None:
    """Find the best model that transfer gives for labelled pictures, and say whether transfer helped."""
    from regraft.core.options import seconds
    from regraft.engine import is_further_process
    from regraft.recipes.fit.job import run_fit, who_trains
    from regraft.recipes.fit.options import checked

    config = checked(
        roots=tuple(data or ()), table=table, image=image, text=text, label=tuple(label), group=group, split=split,
        test=test, max_bad=max_bad, backbone=backbone, weights=weights, budget_s=seconds(budget), epochs=epochs,
        strategies=tuple(name.strip() for name in strategies.split(",") if name.strip()), last=last, metric=metric,
        task=task, lr=lr, batch_size=batch_size, accumulate=accumulate, optimizer=optimizer, schedule=schedule,
        label_smoothing=label_smoothing, mixup=mixup, cutmix=cutmix, ema=ema, patience=patience, augment=augment,
        flip=flip, refit=refit, seed=seed, deterministic=deterministic, device=device, devices=devices, nodes=nodes,
        precision=precision, threads=threads, checkpoint_every_s=seconds(checkpoint_every), tensorboard=tensorboard,
    )  # fmt: skip
    if print_plan:
        out.print(escape(who_trains(config)))
        return
    with Screen() as screen:
        run = run_fit(config, runs=runs, fresh=fresh, listener=screen.listener)
    if not is_further_process():
        show_report(run, as_json)


@app.command()
def predict(
    run: RunArgument,
    pictures: Annotated[list[str], typer.Argument(help="Files, folders or globs; - reads names from stdin.")],
    top: Annotated[int, typer.Option(min=1, help="How many classes to name.")] = 1,
    threshold: Annotated[float | None, typer.Option(min=0, max=1, help="Below this confidence: no answer.")] = None,
    device: DeviceOption = "auto",
    as_json: JsonOption = False,
) -> None:
    """Name what is in pictures, or the number that they show, by a trained run alone. Exits 1 if none can be read."""
    from regraft.deploy.predictor import Predictor

    names = [line.strip() for line in sys.stdin if line.strip()] if pictures == ["-"] else pictures
    predictor = Predictor.load(run, device=device)
    answers = predictor.predict(predictor.expand(names), top=top, threshold=threshold)
    if as_json:
        print(json.dumps([answer.to_json() for answer in answers], ensure_ascii=False, indent=2))
    for answer in [] if as_json else answers:
        if answer.error:
            err.print(escape(f"{answer.path}: {answer.error}"))
            continue
        out.print(escape(answer.told(top)))
    if answers and all(answer.error for answer in answers):
        raise typer.Exit(1)


@app.command()
def evaluate(
    run: RunArgument,
    data: Annotated[list[Path] | None, typer.Argument(help="Labelled pictures: folder per class.")] = None,
    table: Annotated[Path | None, typer.Option(help="CSV or Parquet in place of class folders.")] = None,
    image: Annotated[str, typer.Option()] = "image",
    text: Annotated[str | None, typer.Option(help="The table's column of texts, if not the run's own.")] = None,
    label: Annotated[list[str], typer.Option(help="Again for several.")] = ["label"],  # noqa: B006
    group: Annotated[str | None, typer.Option(help="What was sampled together, for the intervals.")] = None,
    device: DeviceOption = "auto",
    runs: Annotated[Path, typer.Option()] = Path("runs"),
    as_json: JsonOption = False,
) -> None:
    """Measure a run on pictures that it has not seen: metrics with intervals, confusion, calibration, mistakes."""
    from regraft.recipes.evaluate.job import run_evaluate
    from regraft.recipes.evaluate.options import EvaluateConfig

    config = EvaluateConfig.checked(
        model=run,
        roots=tuple(data or ()),
        table=table,
        image=image,
        text=text,
        label=tuple(label),
        group=group,
        device=device,
    )
    with Screen() as screen:
        found = run_evaluate(config, runs=runs, listener=screen.listener)
    show_report(found, as_json)


@app.command()
def export(
    run: RunArgument,
    onnx: Annotated[Path, typer.Option(help="Where to write the ONNX model.")],
    pictures: Annotated[
        list[Path] | None, typer.Option(help="Check on these instead of the run's own validation pictures.")
    ] = None,
    force: Annotated[bool, typer.Option(help="Replace an existing file.")] = False,
    as_json: JsonOption = False,
) -> None:
    """Write the model with its preprocessing as ONNX; refused where it disagrees with the run."""
    from regraft.recipes.export.job import run_export

    with Screen() as screen:
        found = run_export(run, onnx, pictures=tuple(pictures or ()), force=force, listener=screen.listener)
    if as_json:
        print(json.dumps(found, indent=2))
    else:
        out.print(escape(found["sentence"]))


@app.command()
def report(run: RunArgument, as_json: JsonOption = False) -> None:
    """Draw a run's page again and say where it is."""
    from regraft.core.rundir import resolve_run
    from regraft.recipes.reports import draw

    path = resolve_run(run)
    draw(path)
    show_report(path, as_json)


@app.command()
def models(
    pattern: Annotated[str | None, typer.Argument(help="Part of a name, or a glob.")] = None,
    everything: Annotated[bool, typer.Option("--all", help="List all of them.")] = False,
    as_json: JsonOption = False,
) -> None:
    """List the backbones that `--backbone` takes."""
    from regraft.recipes.models.job import list_models

    found = list_models(pattern)
    if as_json:
        print(json.dumps(found, indent=2))
        return
    shown = found if everything else found[:40]
    view = Table("name", "family", "weights", box=None, header_style="bold")
    for item in shown:
        view.add_row(item["name"], item["family"], item["weights"])
    out.print(view)
    if len(shown) < len(found):
        out.print(f"… {len(found) - len(shown)} more; narrow it with a pattern, or --all.")


@app.command()
def doctor(as_json: JsonOption = False) -> None:
    """Check this installation: versions, device, extras, embedded weights, disk."""
    from regraft.recipes.doctor.job import examine

    found = examine()
    if as_json:
        print(json.dumps([item.__dict__ for item in found], indent=2))
    for item in [] if as_json else found:
        mark = {"ok": "[green]ok[/]  ", "note": "[yellow]note[/]", "bad": "[red]bad[/] "}[item.state]
        out.print(f"{mark}  {escape(item.name)}: {escape(item.text)}")
    if any(item.state == "bad" for item in found):
        raise typer.Exit(1)


@app.command()
def demo(
    budget: Annotated[str, typer.Option(help="Time for the run.")] = "3m",
    backbone: Annotated[str, typer.Option()] = "scion",
    weights: Annotated[Path | None, typer.Option()] = None,
    seed: Annotated[int, typer.Option()] = 0,
    runs: Annotated[Path, typer.Option()] = Path("runs"),
    as_json: JsonOption = False,
) -> None:
    """The main job on real pictures that come with scikit-image: which surface is this?"""
    from regraft.core.options import seconds
    from regraft.images.demo import make_demo
    from regraft.recipes.fit.job import run_fit
    from regraft.recipes.fit.options import checked

    with Screen() as screen:
        folder = make_demo(runs / "demo-pictures", seed=0)
        screen.listener.say(f"Which surface is this? Patches of photographs, in {folder} (SOURCES.md names them).")
        # No refit: in so short a time the control needs its epochs more than the probe the validation pictures.
        config = checked(
            roots=(folder,), backbone=backbone, weights=weights, seed=seed, budget_s=seconds(budget), refit=False
        )
        run = run_fit(config, runs=runs, listener=screen.listener)
    show_report(run, as_json)
