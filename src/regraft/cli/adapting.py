"""`regraft adapt`: two domains, labels in one."""

from __future__ import annotations

from typing import Any

from regraft.cli.drawn import Argument, RunFace, Verb
from regraft.cli.making import make_run
from regraft.cli.screen import show_report
from regraft.recipes.adapt.options import AdaptConfig


def _adapt(options: AdaptConfig, face: RunFace) -> None:
    from regraft.recipes.adapt.job import job_for

    make_run(job_for(options), options, face, show_report)


def _domains(given: dict[str, Any], face: RunFace) -> dict[str, Any]:
    """The last folder is the target, those before it are sources."""
    folders = given.pop("domains", [])
    return {**given, "source": folders[:-1], "target": folders[-1:]} if folders else given


ADAPT = Verb(
    AdaptConfig,
    _adapt,
    RunFace,
    arguments=(
        Argument(
            "domains",
            "SOURCE … with labels, each a domain; TARGET without, alone with --source-free or numbers.",
            many=True,
            required=False,
        ),
    ),
    first=("budget_s", "oracle", "setting"),
    examples=(
        "regraft adapt photos/ sketches/",
        "regraft adapt day/ night/ --oracle night-labelled/",
        "regraft adapt new/ --source-free runs/LAST",
    ),
    place=_domains,
)
