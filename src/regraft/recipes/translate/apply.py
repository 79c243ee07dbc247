"""`regraft style apply`: pictures through a trained translation."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path

from regraft.core.errors import unknown_name
from regraft.core.listener import Listener
from regraft.core.rundir import artifact_of
from regraft.engine import launch
from regraft.images.inputs import expand_inputs
from regraft.images.picture import check_writable, write_picture
from regraft.images.picture_files import output_paths, read_each
from regraft.recipes.translate.options import ApplyConfig
from regraft.style.base import resize
from regraft.style.translation.cyclegan import DIRECTIONS, load_translator


@dataclass(frozen=True)
class Translated:
    """One picture's outcome. size_px: height and width of what was written. error: why this file was left out."""

    content: Path
    output: Path | None = None
    size_px: tuple[int, int] | None = None
    error: str | None = None


def run_apply(options: ApplyConfig, *, listener: Listener | None = None) -> list[Translated]:
    """Every picture, translated. One that cannot be read is named in its outcome; the others go on.

    size: longer side in px; the scale of the training without it. Raises UsageError for what cannot mean anything, and
    ArtifactError for a run that holds no translation, before any picture is read.
    """
    listener = listener or Listener()
    direction, size = options.direction, options.size
    if direction not in DIRECTIONS:
        raise unknown_name("direction", direction, DIRECTIONS)
    translator = load_translator(artifact_of(options.run))
    inputs = expand_inputs(options.content)
    outputs = output_paths(inputs, options.output)
    for path in outputs:
        check_writable(path, force=options.force)
    chosen = launch(device=options.device, precision="fp32").device
    translator.generators.to(chosen)
    outcomes = []
    for index, ((source, picture), target) in enumerate(zip(read_each(inputs, listener), outputs, strict=True)):
        if isinstance(picture, str):
            outcomes.append(Translated(source, error=picture))
            continue
        found = translator.translate(picture.pixels.to(chosen), direction, long_px=size).cpu()
        written = (int(found.shape[1]), int(found.shape[2]))
        if written != picture.size_px:
            listener.say(
                f"{source.name}: {picture.size_px[1]} × {picture.size_px[0]} px, translated and written at "
                f"{written[1]} × {written[0]} px" + ("." if size else "; --size sets another longer side.")
            )
        alpha = None if picture.alpha is None else resize(picture.alpha, written)
        write_picture(replace(picture, pixels=found, alpha=alpha), target, force=options.force)
        outcomes.append(Translated(source, target, written))
        listener.progress("Translating", index + 1, len(inputs))
    return outcomes
