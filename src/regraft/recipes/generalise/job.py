"""`regraft generalise`: several labelled domains, no target; a model for a domain that nobody has seen yet.

Order: audit, features once, every domain left out once with the choice made by the others, the choice for all domains
together, its model, report. The held-out domain's labels are read for figures alone.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
from safetensors.torch import load_file

from regraft.adaptation.domains import Labelled, read_labelled
from regraft.adaptation.generalisation.models import DomainModels
from regraft.adaptation.generalisation.table import leave_one_out
from regraft.adaptation.training.answers import save_arrays
from regraft.core.environment import command_line
from regraft.core.errors import DataError, UsageError
from regraft.core.listener import Listener
from regraft.core.types import Backbone
from regraft.engine import Machine
from regraft.images.backbones import create
from regraft.images.backbones.base import picture_backbone
from regraft.images.backbones.catalogue import parse
from regraft.images.features import features_of
from regraft.images.stream import PictureStream
from regraft.images.transform import EvalTransform
from regraft.recipes.frame.job import Brief, Frame, Job, look_with, run_job
from regraft.recipes.generalise.options import GeneraliseConfig
from regraft.recipes.generalise.outcome import conclude_generalisation

#: Below this many pictures a domain's figure says nothing.
LEAST_PICTURES = 10


@dataclass(frozen=True)
class Domains:
    """What was read: the pictures of all domains, and the network whose features are worked on."""

    pictures: Labelled
    backbone: Backbone


class Generalise(Job[GeneraliseConfig, Domains]):
    """`regraft generalise`."""

    recipe = "generalise"

    def check(self, options: GeneraliseConfig) -> None:
        parse(options.backbone)

    def prepare(self, options: GeneraliseConfig, machine: Machine, listener: Listener) -> Brief[Domains]:
        pictures = read_labelled(
            options.roots, table=None, image="image", label="label", group=options.group, max_bad=options.max_bad,
            seed=options.seed, progress=look_with(listener),
        )  # fmt: skip
        _check(pictures)
        backbone = create(options.backbone, options.weights)
        if not backbone.pretrained:
            raise UsageError(
                f"{options.backbone} comes without pretrained weights, and `regraft generalise` works on the features "
                "of a pretrained network: leave --backbone out for scion, or give it a file by --weights."
            )
        data = "+".join(root.resolve().name for root in options.roots)
        return Brief(
            Domains(pictures, backbone), data, options.backbone.partition(":")[0], _split_record(pictures)
        )  # fmt: skip

    def foresee(self, options: GeneraliseConfig, material: Domains, machine: Machine) -> list[str]:
        pictures = material.pictures
        return [
            f"{len(pictures.source)} pictures of {len(pictures.names)} domains in {len(pictures.classes)} classes.",
            f"Methods: {', '.join(options.names)}, chosen by {options.choose}; each domain is left out once.",
            f"Trainings of {options.steps} steps on cached features, some seconds each.",
        ]

    def work(self, options: GeneraliseConfig, material: Domains, frame: Frame) -> None:
        pictures, backbone, run, listener = material.pictures, material.backbone, frame.run, frame.listener
        _tell(pictures, listener)
        kept = run.path / "work" / "features.safetensors"
        if not kept.is_file():
            stream = PictureStream(
                list(pictures.source.paths), None, EvalTransform(picture_backbone(backbone).input_spec), batch_size=32,
                threads=options.threads,
            )  # fmt: skip
            save_arrays(kept, {"features": features_of(backbone, stream, frame.machine, listener, "Features")})
            frame.clock.keep()
        features = load_file(kept)["features"].numpy()
        models = DomainModels(options, pictures, features, frame.machine, run, listener)
        table = leave_one_out(models)
        conclude_generalisation(models, table, backbone, spent=frame.clock.spent, command=command_line())


def run_generalise(
    config: GeneraliseConfig, *, runs: Path = Path("runs"), fresh: bool = False, listener: Listener | None = None
) -> Path:
    """Do the whole job; returns the run directory. An unfinished run's features are used again."""
    return run_job(Generalise(), config, runs=runs, fresh=fresh, listener=listener)


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
