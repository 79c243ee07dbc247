"""`regraft generalise`: several labelled domains, no target; a model for a domain that nobody has seen yet.

Order: audit, features once, every domain left out once with the choice made by the others, the choice for all domains
together, its model, report. The held-out domain's labels are read for figures alone.
"""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
from safetensors.torch import load_file

from regraft.adaptation.domains import Labelled, read_labelled
from regraft.adaptation.generalisation.models import DomainModels
from regraft.adaptation.generalisation.options import GeneraliseConfig
from regraft.adaptation.generalisation.table import leave_one_out
from regraft.adaptation.training.answers import save_arrays
from regraft.core.environment import command_line
from regraft.core.errors import DataError, UsageError
from regraft.core.listener import Listener
from regraft.engine import launch
from regraft.images.backbones import create
from regraft.images.backbones.catalogue import parse
from regraft.images.features import features_of
from regraft.images.stream import PictureStream
from regraft.images.transform import EvalTransform
from regraft.recipes.frame.budget import Clock
from regraft.recipes.frame.job import inside, open_run
from regraft.recipes.generalise.outcome import conclude_generalisation

#: Below this many pictures a domain's figure says nothing.
LEAST_PICTURES = 10


def run_generalise(
    config: GeneraliseConfig, *, runs: Path = Path("runs"), fresh: bool = False, listener: Listener | None = None
) -> Path:
    """Do the whole job; returns the run directory. An unfinished run's features are used again."""
    listener = listener or Listener()
    parse(config.backbone)
    machine = launch(device=config.device, seed=config.seed, deterministic=config.deterministic)

    def look(done: int, total: int) -> None:
        assert listener is not None
        listener.progress("Looking at the pictures", done, total)

    pictures = read_labelled(
        config.roots, table=None, image="image", label="label", group=config.group, max_bad=config.max_bad,
        seed=config.seed, progress=look,
    )  # fmt: skip
    _check(pictures)
    backbone = create(config.backbone, config.weights)
    if not backbone.provenance:
        raise UsageError(
            f"{config.backbone} comes without pretrained weights, and `regraft generalise` works on the features of a "
            "pretrained network: leave --backbone out for scion, or give it a file by --weights."
        )
    data = "+".join(root.resolve().name for root in config.roots)
    name = config.backbone.partition(":")[0]
    run, resumed = open_run("generalise", data, name, config.plain(), machine, runs=runs, fresh=fresh)

    def work() -> None:
        clock = Clock(run)
        _tell(pictures, listener)
        kept = run.path / "work" / "features.safetensors"
        if not kept.is_file():
            stream = PictureStream(
                list(pictures.source.paths), None, EvalTransform(backbone.input_spec), batch_size=32,
                threads=config.threads,
            )  # fmt: skip
            save_arrays(kept, {"features": features_of(backbone, stream, machine, listener, "Features")})
            clock.keep()
        features = load_file(kept)["features"].numpy()
        models = DomainModels(config, pictures, features, machine, run, listener)
        conclude_generalisation(models, leave_one_out(models), backbone, spent=clock.spent, command=command_line())
        shutil.rmtree(run.path / "work", ignore_errors=True)
        run.done()

    return inside(run, resumed, machine, config.seed, _split_record(pictures), listener, work)


def _tell(pictures: Labelled, listener: Listener) -> None:
    listener.say(
        f"{len(pictures.source)} pictures of {len(pictures.names)} domains ({', '.join(pictures.names)}) in "
        f"{len(pictures.classes)} classes."
    )
    for finding in pictures.audit.findings:
        if finding.severity != "info":
            listener.say(f"  {finding.severity}: {finding.sentence}")


def _check(pictures: Labelled) -> None:
    counts = np.bincount(pictures.domains, minlength=len(pictures.names))
    for name, count in zip(pictures.names, counts, strict=True):
        if count < LEAST_PICTURES:
            raise DataError(f"The domain {name} has {count} usable pictures; each is left out once and needs 10.")
    for index, name in enumerate(pictures.names):
        others = {int(k) for k in pictures.labels[pictures.train][pictures.domains[pictures.train] != index]}
        if len(others) < 2:
            raise DataError(
                f"Without the domain {name} fewer than two classes are left to learn from. Each domain is a folder per "
                "class, and the classes have the same names in all of them."
            )


def _split_record(pictures: Labelled) -> dict[str, object]:
    """Format `regraft.split/1`: of the model of all domains, the SHA-256 of every file by what it was used for."""
    parts = {
        name: [pictures.facts[i].sha256 for i in part]
        for name, part in (("train", pictures.train), ("val", pictures.held))
    }
    return {"format": "regraft.split/1", "source": pictures.source.name, "kind": "domains", "rounds": [parts]}
