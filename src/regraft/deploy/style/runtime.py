"""A style student at work on uint8 pictures: in PyTorch, ONNX Runtime or OpenVINO, whichever is quickest here.

Which one is cannot be known beforehand: it hangs on the processor, the threads and the size. So `fastest` runs each
that is installed, alternately in one process, and says what it measured.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Final, Protocol

import numpy as np
import torch

from regraft.core.errors import ArtifactError, MissingExtraError, UsageError, unknown_name
from regraft.deploy.style.onnx import INPUT, READABLE, student_graph
from regraft.style.networks.model_file import StyleModel, load_style_model
from regraft.style.networks.transfer_net import StudentNet

#: An exported student is well below this; more is not one.
LIMIT_BYTES: Final = 64 << 20
_WARM_UP: Final = 3


class Runner(Protocol):
    """uint8 (H, W, 3) → uint8 (H, W, 3), of the size that it was made for, or any."""

    def __call__(self, picture: np.ndarray) -> np.ndarray: ...


@dataclass(frozen=True)
class Student:
    """style: its name. model: the network, None where a file holds a graph alone. graph: as ONNX, None without onnx."""

    style: str
    precision: str
    model: StyleModel | None = None
    graph: bytes | None = None


@dataclass(frozen=True)
class Latency:
    """Of one whole call, uint8 picture in memory → uint8 picture, in milliseconds over `runs`."""

    runtime: str
    precision: str
    threads: int
    height_px: int
    width_px: int
    p50_ms: float
    p95_ms: float
    runs: int


def open_student(path: Path) -> Student:
    """A student from a `.safetensors` style model or an exported `.onnx` file.

    Raises ArtifactError for another or a damaged file, UsageError for another suffix or another kind of model.
    """
    if path.suffix == ".onnx":
        return _exported(path)
    if path.suffix != ".safetensors":
        raise UsageError(f"{path} is no student: give a style model (.safetensors) or an exported one (.onnx).")
    return of_model(load_style_model(path))


def of_model(model: StyleModel) -> Student:
    """The student of a loaded style model. Raises UsageError for a teacher or a network of any style."""
    if not isinstance(model.net, StudentNet):
        raise UsageError(f"A {model.kind} came; what runs here is a student.")
    graph = student_graph(model).SerializeToString() if find_spec("onnx") else None
    return Student(model.styles[0], "fp32", model, graph)


def runner(
    student: Student, runtime: str, *, threads: int = 0, size_px: tuple[int, int] | None = None
) -> Runner:  # fmt: skip
    """The student in that runtime. threads: 0 = as many as torch uses. size_px: height and width of every picture to
    come, known beforehand, which saves the preparation for any size; None = any.

    Raises UsageError for an unknown runtime or one that cannot run this file, MissingExtraError where it is not
    installed.
    """
    if runtime not in RUNTIMES:
        raise unknown_name("runtime", runtime, RUNTIMES)
    found = RUNTIMES[runtime](student, threads or torch.get_num_threads(), size_px)

    def checked(picture: np.ndarray) -> np.ndarray:
        if picture.dtype != np.uint8 or picture.ndim != 3 or picture.shape[2] != 3 or 0 in picture.shape:
            raise UsageError(f"An array of {picture.dtype} {picture.shape} came; a student takes uint8 (H, W, 3).")
        if size_px is not None and picture.shape[:2] != size_px:
            raise UsageError(
                f"A picture of {picture.shape[1]} × {picture.shape[0]} px came to a student that was prepared for "
                f"{size_px[1]} × {size_px[0]} px: prepare it without a size."
            )
        return found(picture)

    return checked


def preparation(runtime: str) -> Callable[[StyleModel], Callable[[torch.Tensor], torch.Tensor]]:
    """For `StyleSettings.prepare`: what runs a fixed style in a compiled runtime on the processor, made once per style.

    Pictures are float (3, H, W) in [0, 1] of any size. Raises UsageError for a runtime that is not a compiled one.
    """
    if runtime not in COMPILED:
        raise unknown_name("compiled runtime", runtime, COMPILED)
    made: dict[int, tuple[StyleModel, Runner]] = {}

    def prepare(style: StyleModel) -> Callable[[torch.Tensor], torch.Tensor]:
        if id(style) not in made:
            graph = student_graph(style, pixels="float").SerializeToString()
            whole = Student(style.styles[0], "fp32", graph=graph)
            made[id(style)] = style, RUNTIMES[runtime](whole, torch.get_num_threads(), None)
        run = made[id(style)][1]
        return lambda picture: torch.from_numpy(run(picture.contiguous().numpy()))

    return prepare


def available(student: Student) -> list[str]:
    """Runtimes that are installed and can run this student."""
    found = ["eager"] if student.model is not None else []
    return found + [name for name in COMPILED if student.graph is not None and find_spec(name)]


def fastest(
    student: Student, size_px: tuple[int, int], *, threads: int = 0, repeats: int = 15
) -> tuple[str, Runner, list[Latency]]:
    """The quickest available runtime by median, prepared for that size, and what every one took."""
    names = available(student)
    if not names:
        raise MissingExtraError("Running an exported student", "onnx")
    threads = threads or torch.get_num_threads()
    prepared = {name: runner(student, name, threads=threads, size_px=size_px) for name in names}
    picture = np.random.default_rng(0).integers(0, 256, (*size_px, 3), dtype=np.uint8)
    spent = alternately({name: partial(run, picture) for name, run in prepared.items()}, repeats)
    found = [latency(name, student.precision, threads, size_px, spent[name]) for name in names]
    best = min(found, key=lambda row: row.p50_ms).runtime
    return best, prepared[best], found


def alternately(calls: Mapping[str, Callable[[], object]], repeats: int) -> dict[str, list[float]]:
    """Seconds of every call, each called `repeats` times in turn, so that a busy machine slows all alike."""
    if repeats < 1:
        raise UsageError(f"{repeats} runs came; one is the least.")
    for call in calls.values():
        for _ in range(_WARM_UP):
            call()
    spent: dict[str, list[float]] = {name: [] for name in calls}
    for _ in range(repeats):
        for name, call in calls.items():
            started = time.perf_counter()
            call()
            spent[name].append(time.perf_counter() - started)
    return spent


def latency(
    runtime: str, precision: str, threads: int, size_px: tuple[int, int], seconds: Sequence[float]
) -> Latency:  # fmt: skip
    p50, p95 = (float(value) * 1e3 for value in np.percentile(seconds, (50, 95)))
    return Latency(runtime, precision, threads, *size_px, p50, p95, len(seconds))


def _exported(path: Path) -> Student:
    try:
        import onnx
    except ImportError as error:
        raise MissingExtraError("Reading an exported student", "onnx") from error
    if not path.is_file():
        raise ArtifactError(f"There is no file {path}. `regraft style export MODEL --onnx FILE.onnx` makes one.")
    if path.stat().st_size > LIMIT_BYTES:
        raise ArtifactError(f"{path} is larger than {LIMIT_BYTES >> 20} MiB: that is no student.")
    data = path.read_bytes()
    try:
        model = onnx.load_from_string(data)
        stated = {prop.key: prop.value for prop in model.metadata_props}
        styles = json.loads(stated.get("regraft.style", "[]"))
        outside = any(constant.external_data for constant in model.graph.initializer)
    except Exception as error:  # protobuf's and json's errors share no base but this
        raise ArtifactError(f"{path} is not an ONNX file that can be read: export it again.") from error
    if stated.get("regraft.format") not in READABLE or outside or not isinstance(styles, list):
        raise ArtifactError(
            f"{path} has format {stated.get('regraft.format')!r}; this version reads {', '.join(READABLE)}, in one "
            "file: export it again with `regraft style export`."
        )
    if stated.get("regraft.pixels") != "uint8":
        raise UsageError(f"{path} takes {stated.get('regraft.pixels')} pictures; what runs here takes uint8 ones.")
    return Student(str(styles[0]) if styles else "", stated.get("regraft.precision", "fp32"), graph=data)


def _eager(student: Student, threads: int, size_px: tuple[int, int] | None) -> Runner:
    if student.model is None:
        raise UsageError("An exported file runs in ONNX Runtime or OpenVINO; PyTorch needs the style model itself.")
    net = student.model.net.eval().to(memory_format=torch.channels_last)

    def run(picture: np.ndarray) -> np.ndarray:
        if torch.get_num_threads() != threads:
            torch.set_num_threads(threads)
        with torch.inference_mode():
            # The rows of a picture in memory are already what torch calls channels last.
            planes = torch.from_numpy(picture).permute(2, 0, 1)[None].float().div_(255)
            styled = net(planes).clamp_(0, 1).mul_(255).round_().byte()
            pixels: np.ndarray = styled[0].permute(1, 2, 0).contiguous().numpy()
            return pixels

    return run


def _onnxruntime(student: Student, threads: int, size_px: tuple[int, int] | None) -> Runner:
    try:
        import onnxruntime
    except ImportError as error:
        raise MissingExtraError("Running a student in ONNX Runtime", "onnx") from error
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    # Threads that spin while they wait take the processor from who reads the next picture, or is measured next.
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    for name, value in _sizes(size_px).items():
        options.add_free_dimension_override_by_name(name, value)
    try:
        session = onnxruntime.InferenceSession(_graph(student), options, providers=["CPUExecutionProvider"])
    except Exception as error:  # onnxruntime's exceptions share no base but this
        raise ArtifactError(f"ONNX Runtime cannot load this student: {str(error).splitlines()[0]}") from error
    return lambda picture: np.asarray(session.run(None, {INPUT: picture[None]})[0])[0]


def _openvino(student: Student, threads: int, size_px: tuple[int, int] | None) -> Runner:
    try:
        import openvino
    except ImportError as error:
        raise MissingExtraError("Running a student in OpenVINO", "openvino") from error
    core = openvino.Core()
    try:
        model = core.read_model(_graph(student))
        if size_px is not None:
            model.reshape([1, *size_px, 3])
        compiled = core.compile_model(
            model,
            "CPU",
            {
                "INFERENCE_NUM_THREADS": threads,
                "PERFORMANCE_HINT": "LATENCY",
                "INFERENCE_PRECISION_HINT": "f32",  # its own choice is bf16 where the processor has it: grey levels off
                "ENABLE_CPU_PINNING": False,  # whoever reads pictures wants the same cores
            },
        )
    except RuntimeError as error:
        raise ArtifactError(f"OpenVINO cannot load this student: {str(error).splitlines()[0]}") from error
    request = compiled.create_infer_request()

    def run(picture: np.ndarray) -> np.ndarray:
        # What the request gives back is its own memory, which the next run fills again.
        return np.array(request.infer({0: np.ascontiguousarray(picture)[None]}, share_inputs=True)[0][0])

    return run


def _graph(student: Student) -> bytes:
    if student.graph is None:
        raise MissingExtraError("Running a student outside PyTorch", "onnx")
    return student.graph


def _sizes(size_px: tuple[int, int] | None) -> dict[str, int]:
    return {} if size_px is None else {"N": 1, "H": size_px[0], "W": size_px[1]}


RUNTIMES: Final[dict[str, Callable[[Student, int, Any], Runner]]] = {
    "eager": _eager,
    "onnxruntime": _onnxruntime,
    "openvino": _openvino,
}
#: Those that run a graph, compiled for the processor at hand.
COMPILED: Final = ("onnxruntime", "openvino")
