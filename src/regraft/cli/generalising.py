"""`regraft generalise`: several domains, none of them the target."""

from __future__ import annotations

from regraft.cli.drawn import Argument, RunFace, Verb
from regraft.cli.making import make_run
from regraft.cli.screen import show_report
from regraft.recipes.generalise.options import GeneraliseConfig


def _generalise(options: GeneraliseConfig, face: RunFace) -> None:
    from regraft.recipes.generalise.job import Generalise

    make_run(Generalise(), options, face, show_report)


GENERALISE = Verb(
    GeneraliseConfig,
    _generalise,
    RunFace,
    arguments=(Argument("roots", many=True, required=False, shown="DOMAINS"),),
    first=("methods", "choose", "backbone"),
    examples=(
        "regraft generalise photos/ sketches/ paintings/",
        "regraft generalise site-a/ site-b/ site-c/ --method ERM,SWAD --choose leave-one-out",
    ),
)
