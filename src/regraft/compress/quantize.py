"""A float ONNX model → the same in 8-bit integers, by ranges measured on examples (static quantisation after training).

Jacob et al. 2018, arXiv:1712.05877: x ≈ scale · (q − zero point), per tensor for what a layer gives and per output
channel for weights. The file says so in QuantizeLinear and DequantizeLinear pairs, which ONNX Runtime and OpenVINO both
turn into integer arithmetic.
"""

from __future__ import annotations

import contextlib
import logging
import tempfile
import zlib
from collections.abc import Collection, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Final

import numpy as np

from regraft.core.errors import ExportError, MissingExtraError, UsageError

if TYPE_CHECKING:
    from onnx import ModelProto

log = logging.getLogger(__name__)

#: Tensors of fewer values weigh nothing.
_LARGE: Final = 500
#: Rows of floats shorter than this weigh nothing either.
_ROW: Final = 16
#: Significant bits that stay of a float beside 8-bit weights, whose own error is far larger.
_SIGNIFICANT_BITS: Final = 9
#: What is computed in integers; everything else stays as it is.
KINDS: Final = ("Conv", "Relu", "Add", "DepthToSpace")


def quantized(
    model: ModelProto, examples: Sequence[Mapping[str, np.ndarray]], *, keep: Collection[str] = (),
    ranges: Mapping[str, tuple[float, float]] | None = None, kinds: Sequence[str] = KINDS,
) -> ModelProto:  # fmt: skip
    """`model` with activations as uint8 and weights as int8; `model` is left as it was.

    examples: inputs by name, whose smallest and largest values in every tensor are the ranges. keep: names of nodes
    that stay in floating point. ranges: of tensors whose range is known beforehand. Weights use 7 of the 8 bits:
    processors without a fused 8-bit product (before AVX-512 VNNI) add pairs of products in 16 bits, which 8 bits
    overflow. Raises UsageError without examples, MissingExtraError without onnxruntime, ExportError where the quantizer
    fails.
    """
    if not examples:
        raise UsageError("Integer ranges are measured on examples, and none came: give some pictures.")
    try:
        import onnx
        from onnxruntime.quantization import QuantFormat, QuantType, quantize_static
        from onnxruntime.quantization.quant_utils import add_pre_process_metadata
    except ImportError as error:
        raise MissingExtraError("8-bit quantisation", "onnx") from error
    unknown = set(keep) - {node.name for node in model.graph.node}
    if unknown:
        raise ValueError(f"there are no nodes {', '.join(sorted(unknown))} to keep in floating point")
    known = {
        name: [{"rmin": np.float32(low), "rmax": np.float32(high)}] for name, (low, high) in (ranges or {}).items()
    }
    prepared = onnx.ModelProto()
    prepared.CopyFrom(model)
    # The graph is folded already; this says so, and nothing is searched for again.
    add_pre_process_metadata(prepared)
    with tempfile.TemporaryDirectory(prefix="regraft-int8-") as folder, _forwarded():
        out = Path(folder) / "int8.onnx"
        try:
            quantize_static(
                prepared, out, _Reader(examples), quant_format=QuantFormat.QDQ, op_types_to_quantize=list(kinds),
                per_channel=True, reduce_range=True, activation_type=QuantType.QUInt8, weight_type=QuantType.QInt8,
                nodes_to_exclude=sorted(keep),
                # Biases stay floats: runtimes make integers of them when they load, and the file needs no second scale.
                extra_options={"TensorQuantOverrides": known, "QuantizeBias": False},
            )  # fmt: skip
        except Exception as error:  # the quantizer raises many kinds, none of which a caller can act upon differently
            first = (str(error).strip().splitlines() or [type(error).__name__])[0]
            raise ExportError(f"ONNX Runtime cannot quantise this model: {first}") from error
        found = onnx.load(out)
    del found.metadata_props[:]
    found.metadata_props.extend(model.metadata_props)
    found.producer_name, found.producer_version = model.producer_name, model.producer_version
    shorten(found)
    return found


def evened(model: ModelProto) -> None:
    """Round the large tensors of 8-bit weights to even numbers: the last bit says little about a picture, and without
    it the file deflates to an eighth less."""
    from onnx import TensorProto, numpy_helper

    for constant in model.graph.initializer:
        if constant.data_type == TensorProto.INT8 and np.prod(constant.dims) >= _LARGE:
            values = numpy_helper.to_array(constant).astype(np.int16)
            if np.abs(values).max() < 32:
                continue  # of few steps already
            rounded = (2 * np.rint(values / 2)).clip(-126, 126).astype(np.int8)
            constant.CopyFrom(numpy_helper.from_array(rounded, constant.name))


def rounded(model: ModelProto) -> None:
    """Round the rows of float constants, weights' scales and biases, to 9 significant bits (relative error ≤ 0.2 %):
    the last 15 say nothing beside 8-bit weights, and as random bits they do not deflate."""
    from onnx import TensorProto, numpy_helper

    for constant in model.graph.initializer:
        if constant.data_type == TensorProto.FLOAT and np.prod(constant.dims) >= _ROW:
            significand, exponent = np.frexp(numpy_helper.to_array(constant))
            short = np.ldexp(np.rint(np.ldexp(significand, _SIGNIFICANT_BITS)), exponent - _SIGNIFICANT_BITS)
            constant.CopyFrom(numpy_helper.from_array(short.astype(np.float32), constant.name))


def shorten(model: ModelProto) -> None:
    """Give every inner tensor a short name, and drop what no runtime needs: names weigh much in a small file."""
    graph = model.graph
    fixed = {value.name for value in (*graph.input, *graph.output)}
    short: dict[str, str] = {name: name for name in fixed}

    def renamed(name: str) -> str:
        return short.setdefault(name, _base36(len(short) - len(fixed))) if name else name

    for node in graph.node:
        node.input[:] = [renamed(name) for name in node.input]
        node.output[:] = [renamed(name) for name in node.output]
        node.ClearField("name")
        node.ClearField("doc_string")
    for constant in graph.initializer:
        constant.name = renamed(constant.name)
        constant.ClearField("doc_string")
    del graph.value_info[:]


def deflated_bytes(data: bytes) -> int:
    """Size after zlib at its best level: what a file weighs in an archive or a wheel."""
    return len(zlib.compress(data, 9))


class _Reader:
    """The examples in the form that the quantizer asks for."""

    def __init__(self, examples: Sequence[Mapping[str, np.ndarray]]) -> None:
        self._rest = iter(examples)

    def get_next(self) -> dict[str, np.ndarray] | None:
        found = next(self._rest, None)
        return None if found is None else dict(found)


class _ToDebug(logging.Handler):
    def emit(self, record: logging.LogRecord) -> None:
        log.debug("quantizer: %s", record.getMessage())


@contextlib.contextmanager
def _forwarded() -> Iterator[None]:
    """The quantizer logs to the root, which would set up logging for the whole process; it goes to this log instead."""
    handler, root = _ToDebug(), logging.getLogger()
    if root.handlers:
        yield
        return
    root.addHandler(handler)
    try:
        yield
    finally:
        root.removeHandler(handler)


def _base36(number: int) -> str:
    digits = "0123456789abcdefghijklmnopqrstuvwxyz"
    found = ""
    while True:
        number, digit = divmod(number, 36)
        found = digits[digit] + found
        if not number:
            return found
