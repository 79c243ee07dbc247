"""`regraft demo`: the main job, offline, on real pictures that come with scikit-image."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from regraft.core.listener import Listener
from regraft.images.demo import make_demo
from regraft.recipes.fit.job import run_fit
from regraft.recipes.fit.options import FitConfig


def run_demo(configure: Callable[[Path], FitConfig], *, runs: Path, listener: Listener) -> Path:
    """Cut the pictures into `runs/demo-pictures` and fit them. configure: folder → the fit's options.

    There is no refit: in so short a time the control needs its epochs more than the probe the validation pictures.
    """
    folder = make_demo(runs / "demo-pictures", seed=0)
    listener.say(f"Which surface is this? Patches of photographs, in {folder} (SOURCES.md names them).")
    return run_fit(configure(folder).model_copy(update={"refit": False}), runs=runs, listener=listener)
