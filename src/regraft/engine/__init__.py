"""Floor 1: the one training loop, and prediction. The only package that imports `lightning_fabric`."""

from regraft.engine.device import Machine, launch
from regraft.engine.loop import FitResult, fit
from regraft.engine.predict import Prediction, predict
from regraft.engine.processes import is_further_process
from regraft.engine.settings import FitSettings, StepRecord

__all__ = [
    "FitResult",
    "FitSettings",
    "Machine",
    "Prediction",
    "StepRecord",
    "fit",
    "is_further_process",
    "launch",
    "predict",
]
