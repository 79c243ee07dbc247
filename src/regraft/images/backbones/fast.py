"""Features of frozen backbones at speed: the quickest engine there is, PyTorch where it does not agree.

Every engine is compared with the plain network on the first batch it sees; what differs is not used. Half precision
differs a little from full precision by its nature and is asked for less.
"""

from __future__ import annotations

import copy
import logging
from collections.abc import Callable
from functools import partial
from importlib.util import find_spec
from typing import Final, Protocol

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from regraft.core.errors import MissingExtraError, unknown_name
from regraft.images.backbones.base import ImageBackbone
from regraft.images.backbones.folding import fold_batch_norm
from regraft.images.backbones.onnx_trace import UntranslatableError, trace_onnx

log = logging.getLogger(__name__)

#: Below this many pictures an engine's translation and compilation take longer than it saves
#: (bench/features_speed.py).
PAYS_FROM: Final = 64
#: Cosine between fast and plain features, of each of the compared pictures; the second in half precision.
LEAST_COSINE: Final = 0.999
LEAST_COSINE_HALF: Final = 0.99
COMPARED: Final = 4


class Engine(Protocol):
    """uint8 (N, 3, h, w), N up to the batch size → features float32 (N, D) on the CPU."""

    def __call__(self, x: Tensor) -> Tensor: ...


class FastFeatures:
    """What `fast_features` returns. `engine` names what is in use; after a fallback "eager", or the same engine in full
    precision after half precision."""

    def __init__(self, engine: str, run: Engine, plain: ImageBackbone, batch_size: int) -> None:
        self.engine = engine
        self.batch_size = batch_size
        self.feature_dim = plain.feature_dim
        self._run = run
        self._plain: ImageBackbone | None = plain  # until the first batch has been compared

    def __call__(self, x: Tensor) -> Tensor:
        """uint8 (N, 3, h, w) of the backbone's input size, any N → features float32 (N, D) on the CPU."""
        parts = [self._checked(x[i : i + self.batch_size]) for i in range(0, len(x), self.batch_size)]
        return torch.cat(parts) if parts else torch.empty(0, self.feature_dim)

    def _checked(self, x: Tensor) -> Tensor:
        found = self._run(x)
        if self._plain is None:
            return found
        reference = _torch_engine(self._plain, autocast=False)
        asked = LEAST_COSINE_HALF if self.engine == HALF else LEAST_COSINE
        least = float(cosine(found[:COMPARED], reference(x[:COMPARED])).min())
        if least > asked:
            self._plain = None
            return found
        said = (self.engine, least, asked)
        if self.engine == HALF:
            log.info("The features of engine %s have cosine %.4f to PyTorch's, %.2f is asked: full precision.", *said)
            self.engine, self._run = "openvino", _openvino_engine(self._plain, self.batch_size)
            return self._checked(x)
        log.warning(
            "The features of engine %s differ from PyTorch's (cosine %.4f, at least %.3f is asked): "
            "going on with plain PyTorch, which is slower.", *said,
        )  # fmt: skip
        self.engine, self._run, self._plain = "eager", reference, None
        return reference(x)


def fast_features(
    backbone: ImageBackbone,
    *,
    device: str | torch.device = "cpu",
    batch_size: int = 32,
    engine: str = "auto",
    n_pictures: int | None = None,
    half: bool = False,
) -> FastFeatures:
    """A function from uint8 pictures (N, 3, h, w) to features float32 (N, D); `backbone` stays as it is.

    engine: "torch" (channels-last, batch norm folded; bf16 on GPUs that have it), "openvino", "openvino-bf16",
    "onnxruntime" (these on the CPU only), or "auto": on a CPU OpenVINO, in bf16 where the processor has it and `half`
    is allowed, else ONNX Runtime, where one is installed and n_pictures (None = many) pay for its compilation; else
    torch. A network that cannot be translated stays with torch, and the log says so. Raises UsageError for an unknown
    engine, MissingExtraError for one that is not installed.
    """
    device = torch.device(device)
    if engine not in ENGINES:
        raise unknown_name("feature engine", engine, ENGINES)
    chosen = _choose(device, n_pictures, half) if engine == "auto" else engine
    plain = copy.deepcopy(backbone).eval().requires_grad_(False)
    if chosen != "torch":
        if device.type != "cpu":
            log.warning("Engine %s computes on the CPU; %s stays idle.", chosen, device)
        plain = plain.cpu()
        try:
            return FastFeatures(chosen, _COMPILERS[chosen](plain, batch_size), plain, batch_size)
        except UntranslatableError as error:
            level = logging.INFO if engine == "auto" else logging.WARNING
            log.log(level, "%s Engine torch is used in place of %s.", error, chosen)
    plain = plain.to(device)
    folded = copy.deepcopy(plain)
    fold_batch_norm(folded)
    return FastFeatures("torch", _torch_engine(folded, autocast=half and device.type == "cuda"), plain, batch_size)


def cosine(a: Tensor, b: Tensor) -> Tensor:
    """Cosine (N,) between rows of (N, D); 1 where both are zero."""
    both_zero = (a.norm(dim=1) < 1e-12) & (b.norm(dim=1) < 1e-12)
    return torch.where(both_zero, 1.0, F.cosine_similarity(a, b, dim=1))


def _choose(device: torch.device, n_pictures: int | None, half: bool) -> str:
    if device.type != "cpu" or (n_pictures is not None and n_pictures < PAYS_FROM) or not find_spec("onnx"):
        return "torch"
    found = next((engine for engine in ("openvino", "onnxruntime") if find_spec(engine)), "torch")
    return HALF if found == "openvino" and half and _openvino_has_bf16() else found


def _openvino_has_bf16() -> bool:
    """Whether OpenVINO finds bf16 instructions in this processor."""
    import openvino

    return "BF16" in openvino.Core().get_property("CPU", "OPTIMIZATION_CAPABILITIES")


def _torch_engine(net: ImageBackbone, *, autocast: bool) -> Engine:
    net = net.to(memory_format=torch.channels_last)
    device = net.input_mean.device
    half = torch.bfloat16 if autocast and torch.cuda.is_bf16_supported(including_emulation=False) else None

    def run(x: Tensor) -> Tensor:
        with torch.inference_mode(), torch.autocast(device.type, dtype=half, enabled=half is not None):
            x = x.to(device, non_blocking=True).contiguous(memory_format=torch.channels_last)
            features = net(x).pooled.float().cpu()
        outside: Tensor = features.clone()  # outside inference mode, so that callers may use them in a graph
        return outside

    return run


def _traced(net: ImageBackbone, batch_size: int) -> bytes:
    """ONNX with batch norm folded before: a third of the operators less, each of which takes milliseconds to trace."""
    folded = copy.deepcopy(net)
    fold_batch_norm(folded)
    return trace_onnx(folded, batch_size)


def _openvino_engine(net: ImageBackbone, batch_size: int, precision: str = "f32") -> Engine:
    try:
        import onnx  # noqa: F401  (the translation needs it)
        import openvino
    except ImportError as error:
        raise MissingExtraError("Feature engine openvino", "openvino") from error
    model = openvino.Core().read_model(_traced(net, batch_size))
    compiled = openvino.compile_model(
        model,
        "CPU",
        {
            "INFERENCE_NUM_THREADS": torch.get_num_threads(),
            "PERFORMANCE_HINT": "LATENCY",
            "INFERENCE_PRECISION_HINT": precision,  # its own choice is bf16 where the processor has it
            "ENABLE_CPU_PINNING": False,  # the decoding threads want the same cores
        },
    )
    request = compiled.create_infer_request()

    def run(x: np.ndarray) -> np.ndarray:
        return np.array(request.infer({0: x}, share_inputs=True)[0])

    return _padded(run, batch_size)


def _onnxruntime_engine(net: ImageBackbone, batch_size: int) -> Engine:
    try:
        import onnx  # noqa: F401  (the translation needs it)
        import onnxruntime
    except ImportError as error:
        raise MissingExtraError("Feature engine onnxruntime", "onnx") from error
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = torch.get_num_threads()
    session = onnxruntime.InferenceSession(_traced(net, batch_size), options, providers=["CPUExecutionProvider"])

    def run(x: np.ndarray) -> np.ndarray:
        return np.asarray(session.run(None, {"images": x})[0])

    return _padded(run, batch_size)


def _padded(run: Callable[[np.ndarray], np.ndarray], batch_size: int) -> Engine:
    """An engine of one fixed batch size for shorter batches: repeated to the full size, then cut."""

    def padded(x: Tensor) -> Tensor:
        n = len(x)
        whole = x if n == batch_size else x[torch.arange(batch_size) % n]
        return torch.from_numpy(run(np.ascontiguousarray(whole.cpu().numpy())))[:n]

    return padded


#: The engine in half precision.
HALF: Final = "openvino-bf16"
_COMPILERS: Final[dict[str, Callable[[ImageBackbone, int], Engine]]] = {
    "openvino": _openvino_engine,
    HALF: partial(_openvino_engine, precision="bf16"),
    "onnxruntime": _onnxruntime_engine,
}
ENGINES: Final = ("auto", "torch", *_COMPILERS)
