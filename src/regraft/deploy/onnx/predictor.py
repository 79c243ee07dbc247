"""An exported `.onnx` file → answers about pictures, by ONNX Runtime; the file alone says what it needs."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from torch import Tensor

from regraft.core.errors import ArtifactError, MissingExtraError
from regraft.deploy.inputs import read_ahead
from regraft.images.inputs import as_list, name_of, read_picture
from regraft.tasks.kinds import kinds
from regraft.tasks.reading import Reader, check_options

FORMAT = "regraft.onnx/1"
READABLE = (FORMAT,)


class OnnxPredictor:
    """An ONNX session with the labels and threshold of its metadata; each picture runs at its own size.

    Raises ArtifactError where the metadata are not those of an export.
    """

    def __init__(self, session: Any, metadata: dict[str, str]) -> None:
        self.session = session
        self.metadata = metadata
        self.labels: tuple[str, ...] = tuple(json.loads(metadata["regraft.labels"]))
        self.threshold = float(metadata["regraft.threshold"])
        # Files that name no kind are older than kinds: of a regression, which has an interval, or of classes.
        plain = "regression" if "regraft.interval" in metadata else "classification"
        described = _described(metadata)
        calibration = kinds.get(str(described.get("kind", plain))).calibration_of(described)
        self.reader: Reader = calibration.reader(self.labels)
        #: The output that is the answer.
        self.output: str = calibration.outputs[0]

    @classmethod
    def load(cls, path: Path | str, *, threads: int = 0) -> OnnxPredictor:
        """threads: of the session, 0 = as many as ONNX Runtime sees fit.

        Raises ArtifactError for a file that is no export of Regraft, MissingExtraError without onnxruntime.
        """
        try:
            import onnxruntime
        except ImportError as error:
            raise MissingExtraError("Running an ONNX file", "onnx") from error
        if not Path(path).is_file():
            raise ArtifactError(f"There is no file {path}. `regraft export RUN --onnx FILE.onnx` makes one.")
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = threads
        try:
            session = onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
        except Exception as error:  # onnxruntime's exceptions share no base but this
            raise ArtifactError(f"{path} cannot be loaded by ONNX Runtime: {str(error).splitlines()[0]}") from error
        metadata = dict(session.get_modelmeta().custom_metadata_map)
        if metadata.get("regraft.format") not in READABLE:
            raise ArtifactError(
                f"{path} has format {metadata.get('regraft.format')!r}; this version reads {', '.join(READABLE)}: "
                "export it again with `regraft export`."
            )
        return cls(session, metadata)

    def predict(
        self, paths_or_arrays: Any, *, top: int = 1, threshold: float | None = None, batch_size: int = 32
    ) -> list[Any]:
        """As `Predictor.predict`; batch_size is how many pictures are read ahead together."""
        check_options(top, threshold, batch_size)
        items = as_list(paths_or_arrays)
        found: list[Any] = []
        for read in read_ahead(items, read_picture, batch_size):
            for picture in read:
                path = name_of(items[len(found)])
                if isinstance(picture, Tensor):
                    images = picture.permute(1, 2, 0).contiguous().numpy()[None]
                    found.append(self.reader.read(path, self.run(images)[0], top=top, threshold=threshold))
                else:
                    found.append(self.reader.unread(path, str(picture)))
        return found

    def run(self, images: np.ndarray) -> np.ndarray:
        """uint8 (N, H, W, 3) → probabilities, or numbers, float32 (N, K)."""
        (answers,) = self.session.run([self.output], {"images": images})
        return np.asarray(answers)


def _described(metadata: Mapping[str, str]) -> dict[str, Any]:
    """The metadata as a manifest would say them: what is JSON as its value, the rest as text."""
    found: dict[str, Any] = {}
    for key, text in metadata.items():
        try:
            found[key.removeprefix("regraft.")] = json.loads(text)
        except ValueError:
            found[key.removeprefix("regraft.")] = text
    return {"temperature": 1.0, **found}
