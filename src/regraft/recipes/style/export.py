"""`regraft style export`: a student as one ONNX file, in full precision or 8 bits, checked on photos."""

from __future__ import annotations

from typing import Any

from regraft.core.errors import UsageError
from regraft.core.listener import Listener
from regraft.deploy.style.export import export_style
from regraft.images.inputs import expand_inputs
from regraft.recipes.style.model_options import StyleExportConfig
from regraft.style.networks.model_file import load_style_model


def run_export_style(options: StyleExportConfig, *, listener: Listener) -> dict[str, Any]:
    """Export, check, and say what was found. Raises ExportError where both disagree, UsageError where `out` exists."""
    out, int8 = options.onnx, options.int8
    if out.suffix != ".onnx":
        raise UsageError(f"{out} is not written: give a name that ends in .onnx.")
    if out.exists() and not options.force:
        raise UsageError(f"{out} exists: choose another name, or replace it with --force.")
    model = load_style_model(options.model)
    photos = expand_inputs(options.content) if options.content else None
    listener.say(f"Exporting, and checking on {'generated pictures' if photos is None else 'the photos'}.")
    found = export_style(model, out, photos=photos, int8=int8, pixels=options.pixels)
    size = f"{out}: {found.bytes / 1e3:.0f} kB, {found.deflated_bytes / 1e3:.0f} kB deflated"
    where = " and ".join(found.runtimes)
    if int8:
        left = " and ".join(found.kept or ()) or "nothing"
        less = 1 - found.deflated_bytes / found.full_deflated_bytes
        sentence = (
            f"{size} ({less:.0%} less than {found.full_deflated_bytes / 1e3:.0f} kB in full precision; raw "
            f"{1 - found.bytes / found.full_bytes:.0%}). SSIM to full precision {found.ssim:.4f} on {found.n_checked} "
            f"photos in {where}; in full precision beside the picture's own path: {left}."
        )
    else:
        sentence = (
            f"{size}. Within {found.levels_max} of 255 grey levels of the student on {found.n_checked} pictures in "
            f"{where}, {found.levels_mean:.4f} on average."
        )
    return {"sentence": sentence, **found.to_json()}
