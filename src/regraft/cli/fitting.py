"""`regraft fit`: the main job."""

from __future__ import annotations

from rich.markup import escape

from regraft.cli.app import out
from regraft.cli.drawn import Argument, RunFace, Verb
from regraft.cli.making import make_run
from regraft.cli.screen import show_report
from regraft.core.options import OUTPUT, option
from regraft.recipes.fit.options import FitConfig


class FitFace(RunFace):
    """What `regraft fit` is told beside its options."""

    print_plan: bool = option(False, "Show who would train, and stop.", panel=OUTPUT, flag="--print-plan")


def _fit(options: FitConfig, face: FitFace) -> None:
    from regraft.recipes.fit.job import Fit, who_trains

    if face.print_plan:
        out.print(escape(who_trains(options)))
    else:
        make_run(Fit(), options, face, show_report)


FIT = Verb(
    FitConfig,
    _fit,
    FitFace,
    arguments=(Argument("roots", many=True, required=False, shown="DATA"),),
    first=("table", "budget_s", "backbone"),
    examples=(
        "regraft fit photos/ --budget 5m",
        "regraft fit --table labels.csv --image path --label class --group patient",
        "regraft fit photos/ --config runs/LAST/config.yaml --seed 1",
    ),
)
