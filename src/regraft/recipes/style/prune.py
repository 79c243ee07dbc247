"""`regraft style prune`: a student without the channels that its style does not need, healed and measured."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from regraft.core.errors import DataError, RegraftError, UsageError
from regraft.core.listener import Listener
from regraft.engine import StepRecord, launch
from regraft.images.inputs import expand_inputs
from regraft.images.picture import read_picture
from regraft.recipes.style.model_options import StylePruneConfig
from regraft.style import perceptual
from regraft.style.base import fit_short_side, resize
from regraft.style.networks.model_file import load_style_model, save_style_model
from regraft.style.networks.transfer_net import StudentNet
from regraft.style.training.batch_losses import StyleTerms
from regraft.style.training.pruning import HealTask, Photos, PruningReport, prune
from regraft.style.training.steps import Course, TrainingSize, crops, train
from regraft.style.training.task import style_targets

#: Photos that channels are measured on, and that the outcome is; the side of their centre squares.
MEASURED = 6
HELD_OUT = 6
SIDE_PX = 256
#: Fewer cannot be split into two parts that say anything.
FEWEST_PHOTOS = 4
#: Healing: random crops of this side, that many a step, at this rate.
_HEAL = (128, 8, 3e-4)


def run_prune_style(options: StylePruneConfig, *, listener: Listener) -> dict[str, Any]:
    """Prune, heal for `steps`, write, and say what was found.

    Raises UsageError for another kind of model, a name that is not written, a painting that is not the student's, and
    DataError for fewer than 4 photos.
    """
    path, out, steps = options.model, options.output, options.steps
    if out.suffix != ".safetensors":
        raise UsageError(f"{out} is not written: give a name that ends in .safetensors.")
    if out.exists() and (not options.force or out.resolve() == path.resolve()):
        raise UsageError(f"{out} exists: choose another name, or replace it with --force (never the model itself).")
    model = load_style_model(path)
    net = model.net
    if not isinstance(net, StudentNet):
        raise UsageError(f"{path} holds a {model.kind}; channels are pruned from a student.")
    photos = expand_inputs(options.content)
    held_paths, used_paths = _parted(photos)
    held, used = _squares(held_paths, HELD_OUT, listener), _squares(used_paths, MEASURED, listener)
    terms = StyleTerms(perceptual(options.perceptual, options.perceptual_weights))
    targets = style_targets(terms, [read_picture(options.style).pixels], SIDE_PX)
    machine = launch(device="cpu", precision="fp32", seed=options.seed)

    def heal(smaller: StudentNet) -> None:
        def tell(record: StepRecord) -> None:
            listener.progress("healing", record.step, record.steps, remaining_s=record.remaining_s)

        side_px, batch, rate = _HEAL
        size = TrainingSize(steps, side_px, batch)
        # Read as the held-out ones were, an unreadable photo would stop the training: only those that can be.
        streams = {"content": crops(_readable(used_paths), size, options.seed)}
        train(HealTask(smaller, net), streams, Course(steps, rate, options.seed), machine, on_step=tell)

    found, report = prune(
        net, Photos(used, held), terms, targets, threshold=options.threshold, heal=heal if steps else None,
        on_channel=lambda done, total: listener.progress("channels", done, total),
    )  # fmt: skip
    card = {**model.card, "pruned": {**report.to_json(), "heal_steps": steps}}
    save_style_model(out, replace(model, net=found.eval(), card=card))
    return {"sentence": _sentence(out, report), "path": str(out), "heal_steps": steps, **report.to_json()}


def _sentence(out: Path, report: PruningReport) -> str:
    channels = f"{sum(report.inner_before)} → {sum(report.inner_after)}"
    return (
        f"{out}: inner channels {channels} ({', '.join(map(str, report.inner_after))}), "
        f"{report.parameters_before:,} → {report.parameters_after:,} parameters. On {report.n_held_out} photos that "
        f"had no part in it the style loss falls {report.style_photo:.3f} → {report.style_after:.3f} "
        f"(before: {report.style_before:.3f}; cut and not healed: {report.style_cut:.3f}), SSIM to the results before "
        f"{report.ssim_after:.3f}."
    )


def _parted(photos: Sequence[Path]) -> tuple[list[Path], list[Path]]:
    """Held-out photos and the others: every second one is held out until there are enough."""
    if len(photos) < FEWEST_PHOTOS:
        raise DataError(
            f"Pruning needs {FEWEST_PHOTOS} photos or more, half of them to measure the outcome on; got {len(photos)}."
        )
    held = list(photos[1::2][:HELD_OUT])
    taken = set(held)
    return held, [photo for photo in photos if photo not in taken]


def _squares(paths: Sequence[Path], most: int, listener: Listener) -> Tensor:
    """Centre squares (N, 3, SIDE_PX, SIDE_PX) of at most that many photos that can be read."""
    found: list[Tensor] = []
    for path in paths:
        if len(found) == most:
            break
        try:
            pixels = read_picture(path).pixels
        except RegraftError as error:
            listener.say(f"{error} It is left out.")
            continue
        pixels = resize(pixels, fit_short_side(pixels.shape[-2:], SIDE_PX))
        top, left = (pixels.shape[-2] - SIDE_PX) // 2, (pixels.shape[-1] - SIDE_PX) // 2
        found.append(pixels[:, top : top + SIDE_PX, left : left + SIDE_PX])
    if not found:
        raise DataError(f"None of {len(paths)} photos can be read.")
    return torch.stack(found)


def _readable(paths: Sequence[Path]) -> list[Path]:
    found = []
    for path in paths:
        try:
            read_picture(path)
        except RegraftError:
            continue  # named when the squares were read, or never looked at before
        found.append(path)
    return found
