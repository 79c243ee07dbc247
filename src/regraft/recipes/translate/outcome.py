"""The end of a translation: final figures, the sentence, artifact, report.json and page."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from typing import Any

from torch import Tensor

from regraft.core.files import write_json
from regraft.recipes.translate.figures import BACKBONE, HALF_SAMPLES, Outcome
from regraft.recipes.translate.options import TranslateConfig
from regraft.recipes.translate.training import Training
from regraft.report.frame import plain
from regraft.style.figures.similarity import SSIM_SETTINGS
from regraft.style.translation.cyclegan import DIRECTIONS, Evaluation, all_signs, pack_translator
from regraft.style.translation.cyclegan.watch import LEAST_DIVERSITY, MOST_ACCURACY, MOST_FALL
from regraft.style.translation.page import FORMAT, Strip, render_translation

#: Rows of pictures in the page, per direction.
STRIPS = 6


def conclude_translation(training: Training, spent: Callable[[], float], command: str) -> None:
    """Measure the final generators on all held-out pictures; write artifact, report.json and report.html."""
    config, a, b = training.config, training.a, training.b
    last = training.history[-1]
    found, outcomes = training.yardstick.evaluate(training.task, training.steps, accuracy=last.accuracy, count=None)
    names = (a.name, b.name)
    figures = {way: _figures(found, outcomes[way], way) for way in DIRECTIONS}
    signs = all_signs([*training.history[:-1], found])
    report: dict[str, Any] = {
        "format": FORMAT,
        "recipe": "translate",
        "created": datetime.now(UTC).isoformat(timespec="seconds"),
        "domains": {
            side: {"name": of.name, "n_train": len(of.train), "n_held_out": len(of.held), "audit": of.audit.to_json()}
            for side, of in (("A", a), ("B", b))
        },
        "size_px": config.size,
        "steps": training.steps,
        "epochs": round(training.epochs, 3),
        "stopped": training.stopped,
        "training_s": round(training.seconds, 2),
        "total_s": round(spent(), 2),
        "trained_parameters": training.plan.trained_parameters,
        "verdict": " ".join(
            [*(_sentence(way, names, outcomes[way], figures[way]) for way in DIRECTIONS), *_next(config, outcomes)]
        ),
        "directions": figures,
        "discriminator_accuracy": found.accuracy,
        "history": [one.to_json() for one in training.history],
        "collapse": {
            "suspected": any(sign.step == found.step for sign in signs),
            "signs": [sign.to_json() for sign in signs],
            "limits": {"diversity": LEAST_DIVERSITY, "accuracy": MOST_ACCURACY, "cycle_ssim_fall": MOST_FALL},
        },
        "measured_with": f"pooled features of {BACKBONE}; one kernel width for all distances; {HALF_SAMPLES} half-"
        "samples",
        "ssim_settings": dict(SSIM_SETTINGS),
        "reproduce": command,
        "seed": config.seed,
        "device": str(training.machine.device),
        "precision": training.machine.precision,
    }
    pack_translator(
        training.run.artifact, training.task.cpu(), names, config.size,
        provenance={
            "recipe": "translate", "run": training.run.path.name, "data": list(names), "seed": config.seed,
            "steps": training.steps,
        },
        metrics=figures,
    )  # fmt: skip
    write_json(training.run.path / "report.json", plain(report))
    strips = {way: _strips(training.yardstick.pictures[way], outcomes[way]) for way in DIRECTIONS}
    render_translation(training.run.path, strips)
    training.listener.say(report["verdict"])


def _figures(found: Evaluation, outcome: Outcome, way: str) -> dict[str, Any]:
    return {
        "cycle_ssim": found.cycle_ssim[way],
        "identity": found.identity[way],
        "diversity": found.diversity[way],
        "mmd2_untranslated": outcome.mmd2_before,
        "mmd2": outcome.mmd2_after,
        "nearer": outcome.nearer,
        "helped": outcome.helped,
    }


def _sentence(way: str, names: tuple[str, str], outcome: Outcome, figures: Mapping[str, Any]) -> str:
    start, end = names if way == DIRECTIONS[0] else names[::-1]
    said = {
        True: f"lie nearer to {end} than untranslated ones",
        False: f"lie farther from {end} than untranslated ones",
        None: f"cannot be said to lie nearer to {end} than untranslated ones",
    }[outcome.helped]
    return (
        f"{way}: translated pictures of {start} {said} (squared MMD {outcome.mmd2_before:.3f} → "
        f"{outcome.mmd2_after:.3f}, nearer in {outcome.nearer:.0%} of half-samples); there and back SSIM "
        f"{figures['cycle_ssim']:.2f}."
    )


def _next(config: TranslateConfig, outcomes: Mapping[str, Outcome]) -> list[str]:
    """What to try where no way helped: a short training does better from the picture itself."""
    if config.from_picture or any(outcome.helped for outcome in outcomes.values()):
        return []
    return [
        "Neither way helped: train longer, or paint on the picture itself (--from-picture --cycle-weight 2 "
        "--identity-weight 0)."
    ]


def _strips(pictures: Tensor, outcome: Outcome) -> list[Strip]:
    step = max(1, len(pictures) // STRIPS)
    rows = range(0, len(pictures), step)[:STRIPS]
    return [
        Strip(*(of[row].float() / 255 for of in (pictures, outcome.translated, outcome.cycled))) for row in rows
    ]  # fmt: skip
