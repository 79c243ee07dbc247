"""A run or artifact → answers about pictures, by PyTorch alone."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from regraft.core.errors import RegraftError, UsageError
from regraft.core.rundir import artifact_of
from regraft.core.types import Batch, InputSpec, Stream
from regraft.deploy.inputs import read_ahead
from regraft.images.inputs import expand_inputs
from regraft.tasks.classification.reading import Prediction
from regraft.tasks.modalities import modality_named
from regraft.tasks.packing import Packed, unpack
from regraft.tasks.reading import check_options
from regraft.tasks.regression.reading import NumberPrediction

__all__ = ["NumberPrediction", "Prediction", "Predictor", "expand_inputs"]


class Predictor:
    """A model in evaluation mode on one device. `load` is the way to get one.

    labels: in the order of the probabilities; of a regression the name of its number. threshold: the artifact's own,
    below which a classifier abstains.
    """

    def __init__(self, packed: Packed, device: torch.device) -> None:
        self.packed = packed
        self.device = device
        self.labels = packed.labels
        self.threshold = packed.threshold
        self.reader = packed.reader()
        backbone = packed.task.backbone
        self.task = packed.task.to(device=device)
        if backbone.memory_format is not None:
            self.task = self.task.to(memory_format=backbone.memory_format)
        self.modality = modality_named(packed.input_spec.modality)
        self.inputs = self.modality.reader(backbone)

    @classmethod
    def load(cls, path: Path | str, *, device: str = "auto") -> Predictor:
        """From a run directory, `runs/LAST` or an artifact folder; device: "auto", "cpu", "cuda" or "mps".

        Raises ArtifactError for what is missing, altered or cut off, UsageError for a device that is not
        there.
        """
        chosen = _device(device)
        return cls(unpack(artifact_of(Path(path))), chosen)

    @property
    def manifest(self) -> Mapping[str, Any]:
        """The artifact's manifest, as `docs/formats.md` describes it."""
        return self.packed.manifest

    @property
    def input_spec(self) -> InputSpec:
        return self.packed.input_spec

    def predict(
        self, paths_or_arrays: Any, *, top: int = 1, threshold: float | None = None, batch_size: int = 32
    ) -> list[Any]:
        """One prediction per picture, in order: a class, or of a regression a number with its interval.

        paths_or_arrays: paths, uint8 arrays (H, W, 3) or Pillow images, mixed as you like, or a single one of
        them. top: how many alternatives to tell. threshold: confidence below which the label is None, or
        "unknown" where the model was adapted to a target with other classes; None takes the artifact's own, 0
        always gives a class. A picture that cannot be read gives a prediction with its
        error.
        """
        check_options(top, threshold, batch_size)
        items = self.modality.as_list(paths_or_arrays)
        return list(self._answers(items, top, threshold, batch_size))

    def probabilities(self, pictures: Stream | Any, *, batch_size: int = 32) -> np.ndarray:
        """A classifier's `answers`: probabilities float32 (N, K), temperature applied."""
        if "probabilities" not in self.packed.outputs:
            raise UsageError(f"This model gives {self.packed.outputs[0]}, and no probabilities: call answers().")
        return self.answers(pictures, batch_size=batch_size)

    def answers(self, pictures: Stream | Any, *, batch_size: int = 32) -> np.ndarray:
        """Probabilities, or numbers, float32 (N, K) of a stream's epoch 0 or of a list as `predict` takes.

        Padding of a stream is left out. Raises UnreadableError for a picture that cannot be read: a row has
        no room for an error.
        """
        rows = [np.empty((0, len(self.labels)), np.float32)]
        if hasattr(pictures, "epoch"):
            for batch in pictures.epoch(0):
                found = self._compute(batch.x)
                rows.append(found if batch.weight is None else found[batch.weight.numpy() > 0])
            return np.concatenate(rows)
        for read in read_ahead(self.modality.as_list(pictures), self.inputs.read, batch_size):
            for picture in read:
                if isinstance(picture, RegraftError):
                    raise picture
            rows.append(self._compute(self.inputs.collate(read)))
        return np.concatenate(rows)

    def _answers(self, items: list[Any], top: int, threshold: float | None, batch_size: int) -> Iterator[Any]:
        remaining = iter(items)
        for read in read_ahead(items, self.inputs.read, batch_size):
            whole = [picture for picture in read if not isinstance(picture, RegraftError)]
            found = iter(self._compute(self.inputs.collate(whole)) if whole else ())
            for picture in read:
                path = self.modality.name_of(next(remaining))
                if isinstance(picture, RegraftError):
                    yield self.reader.unread(path, str(picture))
                else:
                    yield self.reader.read(path, next(found), top=top, threshold=threshold)

    def expand(self, items: Sequence[str]) -> list[Any]:
        """Arguments of a command → what `predict` takes: files, folders searched through, patterns matched."""
        return self.modality.expand(items, self.column)

    @property
    def column(self) -> str | None:
        """The column of the table that the model learned its texts from; None where it learned from files."""
        found = self.manifest.get("provenance", {}).get("column")
        return None if found is None else str(found)

    def _compute(self, x: Any) -> np.ndarray:
        with torch.inference_mode():
            x = Batch(x).to(self.device).x
            if isinstance(x, Tensor) and x.dim() == 4:
                x = x.contiguous(memory_format=torch.channels_last)
            found: np.ndarray = self.packed.finish(self.task.predict(x).float())[0].cpu().numpy()
        return found


def _device(name: str) -> torch.device:
    there = {"cpu": True, "cuda": torch.cuda.is_available(), "mps": torch.backends.mps.is_available()}
    if name == "auto":
        return torch.device(next(kind for kind in ("cuda", "mps", "cpu") if there[kind]))
    if name not in there:
        raise UsageError(f"device takes auto, {', '.join(there)}; {name!r} came.")
    if not there[name]:
        raise UsageError(f"Device {name} was asked for, but PyTorch sees none here: use auto or cpu.")
    return torch.device(name)
