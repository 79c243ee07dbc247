"""A style student → an `.onnx` file, in full precision or 8 bits, written only where it paints like the student."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Final

import numpy as np
import torch
from torch import Tensor

from regraft.compress.quantize import deflated_bytes, evened, quantized, rounded
from regraft.core.errors import DataError, ExportError, MissingExtraError, RegraftError, UsageError
from regraft.core.files import replacing
from regraft.deploy.onnx.export import GENERATED_SIZES_PX, generated_picture
from regraft.deploy.style.onnx import CELLS, FIRST, INPUT, LAST, UNQUANTISED, WHITE, metadata, student_graph
from regraft.deploy.style.runtime import Student, runner
from regraft.images.inputs import read_picture
from regraft.style.base import fit_long_side, resize
from regraft.style.figures.similarity import ssim
from regraft.style.networks.model_file import StyleModel

log = logging.getLogger(__name__)

#: Photos are compared at this longer side, so that a check takes seconds.
CHECK_LONG_PX: Final = 512
#: Enough for ranges and for a mean, few enough to take seconds.
MOST_PHOTOS: Final = 32
#: Grey levels of 255 that full precision may be off: at a rounding edge by one, and one more between runtimes.
LEVELS_LIMIT: Final = 2
MEAN_LEVELS_LIMIT: Final = 0.1
#: Mean SSIM of 8 bits to full precision.
SSIM_LEAST: Final = 0.97
#: Layers that 8 bits leave in full precision, tried in order until the pictures are alike enough.
POLICIES: Final[tuple[tuple[str, ...], ...]] = ((), (LAST,), (FIRST, LAST))


@dataclass(frozen=True)
class StyleExport:
    """What was written and how far it agrees with the student.

    bytes, deflated_bytes: of the file, raw and after zlib; full_*: of the same graph in full precision. levels_*: the
    difference in grey levels of 255, largest and mean over pictures and runtimes. ssim: least over runtimes of the mean
    over pictures, to the student in full precision; None where levels are judged instead. kept: layers in full
    precision beside the picture's own path, None where all are. ssim_tried: what each policy of 8 bits reached.
    """

    path: str
    style: str
    precision: str
    pixels: str
    bytes: int
    deflated_bytes: int
    full_bytes: int
    full_deflated_bytes: int
    n_checked: int
    n_calibrated: int
    generated: bool
    runtimes: tuple[str, ...]
    levels_max: int
    levels_mean: float
    ssim: float | None = None
    kept: tuple[str, ...] | None = None
    ssim_tried: dict[str, float] | None = None

    def to_json(self) -> dict[str, Any]:
        return asdict(self)


@dataclass(frozen=True)
class Agreement:
    """How a graph's pictures compare with the student's."""

    levels_max: int
    levels_mean: float
    ssim: float
    runtimes: tuple[str, ...]


def export_style(
    model: StyleModel, out: Path, *, photos: Sequence[Path] | None = None, int8: bool = False, pixels: str = "uint8"
) -> StyleExport:
    """Write the student at `out`, which appears only when the check passes.

    photos: pictures to check on, and for int8 every second of them to measure ranges on instead; None checks full
    precision on generated ones. Raises UsageError for int8 without photos, DataError where too few can be read,
    ExportError where the file disagrees: in full precision by more than 2 grey levels anywhere or 0.1 on average, in 8
    bits by a mean SSIM below 0.97 whichever layers are left out.
    """
    if int8 and photos is None:
        raise UsageError("8 bits need photos to measure ranges on: give some with --content.")
    full = student_graph(model, pixels=pixels)
    pictures = _pictures(photos)
    if int8 and len(pictures) < 2:
        raise DataError(f"{len(pictures)} photo could be read; 8 bits need two or more, one to check on.")
    measured, checked = (pictures[::2], pictures[1::2]) if int8 else ([], pictures)
    wanted = [_eager(model, picture) for picture in checked]
    tried: dict[str, float] = {}
    kept: tuple[str, ...] | None = None
    found, agreement = full, None
    small = student_graph(model, pixels=pixels, small=True) if int8 else full
    for policy in POLICIES if int8 else ():
        examples = [{INPUT: _input(picture, pixels)} for picture in measured]
        keep = [node.name for node in small.graph.node if _belongs(node.name, (*policy, *UNQUANTISED))]
        found = quantized(small, examples, keep=keep, ranges={CELLS: (0.0, WHITE[pixels])})
        evened(found)
        rounded(found)
        agreement = agree(found.SerializeToString(), model, pixels, checked, wanted)
        tried[" + ".join(policy) or "none"] = agreement.ssim
        log.info("8 bits with %s in full precision: SSIM %.4f", policy or "nothing", agreement.ssim)
        if agreement.ssim >= SSIM_LEAST:
            kept = policy
            break
    if int8:
        _restate(found, metadata(model, pixels, "int8"))
    data, whole = found.SerializeToString(), full.SerializeToString()
    agreement = agreement or agree(data, model, pixels, checked, wanted)
    _judge(agreement, int8, len(checked))
    with replacing(out) as temporary:
        temporary.write_bytes(data)
    return StyleExport(
        str(out), model.styles[0], "int8" if int8 else "fp32", pixels, len(data), deflated_bytes(data), len(whole),
        deflated_bytes(whole), len(checked), len(measured), photos is None, agreement.runtimes, agreement.levels_max,
        agreement.levels_mean, agreement.ssim if int8 else None, kept, tried or None,
    )  # fmt: skip


def agree(
    graph: bytes, model: StyleModel, pixels: str, pictures: Sequence[np.ndarray], wanted: Sequence[np.ndarray]
) -> Agreement:
    """How far a graph's pictures are from `wanted`, in every runtime that is installed."""
    names = tuple(name for name in ("onnxruntime", "openvino") if find_spec(name))
    if not names:
        raise MissingExtraError("Checking an exported style", "onnx")
    largest, means, likeness = 0, [], []
    for name in names:
        results = _results(graph, model, pixels, name, pictures)
        apart = [np.abs(a.astype(np.int16) - b) for a, b in zip(results, wanted, strict=True)]
        largest = max(largest, *(int(each.max()) for each in apart))
        means.append(float(np.mean([each.mean() for each in apart])))
        alike = [float(ssim(_unit(a), _unit(b))) for a, b in zip(results, wanted, strict=True)]
        likeness.append(float(np.mean(alike)))
    return Agreement(largest, max(means), min(likeness), names)


def _judge(found: Agreement, int8: bool, n: int) -> None:
    if int8 and not found.ssim >= SSIM_LEAST:
        raise ExportError(
            f"8 bits were refused and not kept: on {n} photos the SSIM to full precision is {found.ssim:.4f}, and "
            f"{SSIM_LEAST} is asked. Export without --int8, or give more photos, like those it will be used on."
        )
    if not int8 and (found.levels_max > LEVELS_LIMIT or found.levels_mean > MEAN_LEVELS_LIMIT):
        raise ExportError(
            f"The exported file was refused and not kept: on {n} pictures it differs by up to {found.levels_max} grey "
            f"levels, {found.levels_mean:.3f} on average, and {LEVELS_LIMIT} and {MEAN_LEVELS_LIMIT} are allowed. Use "
            "the style model itself, or try another version of onnxruntime or openvino."
        )


def _results(
    graph: bytes, model: StyleModel, pixels: str, runtime: str, pictures: Sequence[np.ndarray]
) -> list[np.ndarray]:
    """uint8 pictures (H, W, 3) by a graph of either form."""
    if pixels == "uint8":
        run = runner(Student(model.styles[0], "", graph=graph), runtime)
        return [run(picture) for picture in pictures]
    if runtime == "openvino":
        import openvino

        # Its own choice is bf16 where the processor has it, which would be blamed on the graph.
        precision = {"INFERENCE_PRECISION_HINT": "f32"}
        compiled = openvino.compile_model(openvino.Core().read_model(graph), "CPU", precision)
        found = [compiled(_input(picture, pixels))[0] for picture in pictures]
    else:
        import onnxruntime

        session = onnxruntime.InferenceSession(graph, providers=["CPUExecutionProvider"])
        found = [session.run(None, {INPUT: _input(picture, pixels)})[0] for picture in pictures]
    return [_bytes(torch.from_numpy(np.array(each))) for each in found]


def _eager(model: StyleModel, picture: np.ndarray) -> np.ndarray:
    with torch.inference_mode():
        return _bytes(model.net.eval()(torch.from_numpy(_input(picture, "float"))))


def _bytes(planes: Tensor) -> np.ndarray:
    """Float (1, 3, H, W) → uint8 (H, W, 3)."""
    return planes[0].clamp(0, 1).mul(255).round().byte().permute(1, 2, 0).numpy()


def _input(picture: np.ndarray, pixels: str) -> np.ndarray:
    if pixels == "uint8":
        return picture[None]
    return np.ascontiguousarray(picture.transpose(2, 0, 1)[None].astype(np.float32) / 255)


def _unit(picture: np.ndarray) -> Tensor:
    return torch.from_numpy(picture).permute(2, 0, 1).float() / 255


def _pictures(paths: Sequence[Path] | None) -> list[np.ndarray]:
    """At most MOST_PHOTOS pictures uint8 (H, W, 3), spread evenly over those given, shrunk to CHECK_LONG_PX."""
    if paths is None:
        return [generated_picture(height, width) for height, width in GENERATED_SIZES_PX]
    found = []
    for path in paths[:: max(1, len(paths) // MOST_PHOTOS)][:MOST_PHOTOS]:
        try:
            planes = read_picture(path).float() / 255
        except RegraftError as error:
            log.warning("left out of the export's check: %s", error)
            continue
        if max(planes.shape[-2:]) > CHECK_LONG_PX:
            planes = resize(planes, fit_long_side(planes.shape[-2:], CHECK_LONG_PX))
        if min(planes.shape[-2:]) >= 16:
            found.append(_bytes(planes[None]))
    if not found:
        raise DataError(f"None of the {len(paths)} photos to check the export on can be read at 16 px or more.")
    return found


def _belongs(node: str, layers: Sequence[str]) -> bool:
    """Whether a node is one of these layers or a part of one, as `enter.sum` is of `enter`."""
    return any(node == layer or node.startswith(f"{layer}.") for layer in layers)


def _restate(model: Any, values: dict[str, str]) -> None:
    from onnx import helper

    helper.set_model_props(model, values)
