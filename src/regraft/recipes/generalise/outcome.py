"""The end of a domain generalisation: the figures of the table, the verdict, the artifact and the report."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import torch

from regraft.adaptation.generalisation.models import DomainModels, LinearModel
from regraft.adaptation.generalisation.table import ERM, HeldOut, Table
from regraft.core.files import write_table
from regraft.core.types import Backbone
from regraft.measure.bootstrap import bootstrap
from regraft.measure.calibration import reliability
from regraft.measure.metrics import summary
from regraft.measure.probabilities import softmax
from regraft.measure.verdict import WORTHWHILE, format_gain, format_value
from regraft.recipes.frame.reporting import publish
from regraft.recipes.generalise.report import GENERALISE
from regraft.tasks.classification.calibration import ClassCalibration
from regraft.tasks.classification.kind import ClassKind
from regraft.tasks.classification.task import Classification
from regraft.tasks.packing import pack


def conclude_generalisation(
    models: DomainModels, table: Table, backbone: Backbone, *, spent: Callable[[], float], command: str
) -> None:
    """Write the model of all domains, predictions, report.json and report.html."""
    config, pictures = models.config, models.pictures
    final, temperature = models.train(table.final, models.everything), table.temperature()
    answers = np.concatenate([softmax(h.logits[h.chosen], h.temperature) for h in table.held_out])
    labels = np.concatenate([h.labels for h in table.held_out])
    value, gain = table.accuracy(None), table.gain(None)
    sentence, helped = verdict(table)
    model = Classification(backbone, len(pictures.classes))
    model.set_head(*(torch.from_numpy(part.astype(np.float32)) for part in (final.weight, final.bias)))
    pack(
        models.run.artifact, ClassKind(pictures.classes), model.eval(), ClassCalibration(temperature),
        provenance={
            "recipe": "generalise", "run": models.run.path.name, "method": table.final,
            "backbone": backbone.provenance, "data": list(pictures.names), "seed": config.seed,
        },
        metrics={"method": table.final, "metric": "accuracy", "accuracy": value.value},
    )  # fmt: skip
    _write_predictions(models, answers, final, temperature)
    report: dict[str, Any] = {
        "recipe": GENERALISE.recipe,
        "kind": ClassKind.name,
        "data": ", ".join(pictures.names),
        "backbone": config.backbone,
        "created": datetime.now(UTC).isoformat(timespec="seconds"),
        "metric": "accuracy",
        "value": value.value,
        "interval": value.bounds(),
        "candidates": [_row(models, table, method) for method in table.methods],
        "chosen": table.final,
        "held_out": [_held_out(models, table, h) for h in table.held_out],
        "erm_gain": {"value": gain.value, "interval": gain.bounds()},
        "hindsight": table.hindsight,
        "verdict": sentence,
        "helped": helped,
        "alarms": _alarms(models, table),
        "total_s": round(spent(), 2),
        "n_train": len(pictures.train),
        "n_val": len(pictures.held),
        "n_test": len(labels),
        "evaluated_on": "each domain in turn, by models and choices that did not see it",
        "classes": list(pictures.classes),
        "summary": summary(answers, labels, pictures.classes),
        "reliability_after": reliability(answers, labels),
        "temperature": temperature,
        "audit": pictures.audit.to_json(),
        "notes": _notes(models),
        "reproduce": command,
        "seed": config.seed,
    }
    publish(models.run.path, report)
    models.listener.say(sentence)


def verdict(table: Table) -> tuple[str, bool | None]:
    """Whether anything beats ERM credibly: the sentence, and True, False, or None where the interval leaves it open."""
    gain, value, control = table.gain(None), table.accuracy(None).value, table.accuracy(ERM).value
    if len(table.methods) < 2:
        return f"ERM alone: {format_value('accuracy', control)} on domains that it has not seen.", None
    compared = (
        f"the choice without the held-out domain gives {format_value('accuracy', value)} on domains not seen, ERM "
        f"{format_value('accuracy', control)}, {format_gain('accuracy', gain)}"
    )
    if gain.low > 1e-12:
        # The same rule on all domains may still take ERM: then the gain is not that of the model handed over.
        taken = "; of all domains together it takes ERM all the same" if table.final == ERM else ""
        return f"Better than ERM: {compared}{taken}.", True
    if gain.high < -1e-12:
        return f"Worse than ERM: {compared}; use --method ERM.", False
    if not table.credible:
        ruled = "; a gain of 2 points or more is ruled out" if gain.high < WORTHWHILE else ""
        return f"Nothing beats ERM credibly: {compared}{ruled}.", False if ruled else None
    found = "; ".join(f"{m} {format_gain('accuracy', table.gain(m))}" for m in table.credible)
    return f"Beating ERM takes hindsight: {compared}; known only afterwards: {found}.", None


def _row(models: DomainModels, table: Table, method: str) -> dict[str, Any]:
    value, gain = table.accuracy(method), table.gain(method)
    return {
        "name": method,
        "method": method,
        "value": value.value,
        "interval": value.bounds(),
        "validation": float(np.mean([h.validation[method] for h in table.held_out])),
        "seconds": round(models.seconds(method), 2),
        "trained_parameters": models.train(table.final, models.everything).parameters,
        "chosen": method == table.final,
        "control": method == ERM,
        "erm_gain": gain.value,
        "erm_gain_interval": gain.bounds(),
    }


def _held_out(models: DomainModels, table: Table, held: HeldOut) -> dict[str, Any]:
    options: dict[str, Any] = {"resamples": table.resamples, "seed": table.seed}
    cells = {m: bootstrap("accuracy", softmax(held.logits[m]), held.labels, **options) for m in table.methods}
    return {
        "name": models.pictures.names[held.domain],
        "n": len(held.labels),
        "methods": [{"name": m, "value": cell.value, "interval": cell.bounds()} for m, cell in cells.items()],
        "chosen": held.chosen,
        "value": cells[held.chosen].value,
        "best": held.best,
        "best_value": cells[held.best].value,
    }


def _alarms(models: DomainModels, table: Table) -> list[str]:
    pictures, found = models.pictures, []
    for index, name in enumerate(pictures.names):
        own = {int(k) for k in pictures.labels[pictures.domains == index]}
        lost = sorted(own - {int(k) for k in pictures.labels[pictures.domains != index]})
        if lost:
            classes = ", ".join(pictures.classes[k] for k in lost[:5])
            found.append(f"Only {name} has {classes}: no model without that domain can name it, and its figure is low.")
    of_group: dict[str, set[int]] = {}
    for picture, domain in zip(pictures.source.samples, pictures.domains, strict=True):
        if picture.group is not None:
            of_group.setdefault(picture.group, set()).add(int(domain))
    shared = sum(len(domains) > 1 for domains in of_group.values())
    if shared:
        found.append(
            f"{shared} groups (of near copies, or by --group) have pictures in more than one domain: what was left out "
            "was not all unseen."
        )
    answered = table.accuracy(None).value
    promised = float(np.mean([h.validation[h.chosen] for h in table.held_out]))
    if promised - answered > 0.1:
        found.append(
            f"On the domains that it learned from the model has {promised:.1%}, on one that it has not seen "
            f"{answered:.1%}: expect the latter in use."
        )
    return found


def _notes(models: DomainModels) -> list[str]:
    notes = [
        "Intervals are over pictures of these domains, for one seed of training; how a further domain differs from "
        "these they do not say.",
        "The temperature was fitted on answers for domains that the answering model had not seen.",
    ]
    if len(models.pictures.names) == 2:
        notes.append("With one domain left to train on Mixup and GroupDRO are ERM, and IRM has nothing to compare.")
    return notes


def _write_predictions(models: DomainModels, answers: np.ndarray, final: LinearModel, temperature: float) -> None:
    """Test: each picture by models that did not see its domain; val: the model that is handed over, on its own."""
    pictures = models.pictures
    rows = np.concatenate([models.rows([domain]) for domain in models.everything])
    own = softmax(final.logits(models.features[pictures.held]), temperature)
    both = np.concatenate([rows, pictures.held])
    table = {
        "path": [str(pictures.source.paths[i]) for i in both],
        "split": ["test"] * len(rows) + ["val"] * len(own),
        "domain": [pictures.names[pictures.domains[i]] for i in both],
        "label": pictures.labels[both].tolist(),
        "probabilities": np.concatenate([answers, own]).astype(np.float32).tolist(),
    }
    path: Path = models.run.path / "predictions.parquet"
    write_table(path, table)
