"""A convolutional backbone → a small ONNX graph in about a second, for inference engines that read ONNX.

PyTorch's own exporter takes ten times as long, more than a few hundred pictures' features are worth. This one
traces the ATen operators of one fixed batch and translates the three dozen that convolutional networks use.
Whatever else occurs raises `UntranslatableError`; callers stay with PyTorch then. What comes out is compared
with PyTorch before it is used.
"""

from __future__ import annotations

import operator
from collections.abc import Callable, Sequence
from typing import Any, Final

import torch
from torch import Tensor
from torch.fx import GraphModule, Node
from torch.fx.experimental.proxy_tensor import make_fx

from regraft.core.errors import RegraftError
from regraft.images.backbones.base import ImageBackbone

OPSET: Final = 20
IR_VERSION: Final = 10
_ONNX_FLOAT: Final = 1


class UntranslatableError(RegraftError):
    """A network with an operator that this translation does not know."""


def trace_onnx(backbone: ImageBackbone, batch_size: int) -> bytes:
    """Serialised ONNX of a backbone on the CPU in evaluation mode.

    Input `images` uint8 (batch_size, 3, h, w), output `features` float32 (batch_size, D). Raises
    UntranslatableError.
    """
    from onnx import TensorProto, helper

    shape = (batch_size, *backbone.input_spec.shape)
    try:
        with torch.no_grad():
            traced = make_fx(lambda x: backbone(x).pooled, tracing_mode="fake", _allow_non_fake_inputs=True)(
                torch.empty(shape, dtype=torch.uint8)
            )
    except Exception as error:  # tracing raises many kinds, and all of them mean: stay with PyTorch
        first = (str(error).strip().splitlines() or [type(error).__name__])[0]
        raise UntranslatableError(f"The network cannot be traced: {first}") from error
    traced.graph.eliminate_dead_code()
    translation = _Translation(traced)
    features = translation.run()
    graph = helper.make_graph(
        translation.nodes,
        "backbone",
        [helper.make_tensor_value_info("images", TensorProto.UINT8, shape)],
        [helper.make_tensor_value_info(features, TensorProto.FLOAT, (batch_size, backbone.feature_dim))],
        translation.constants,
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", OPSET)], ir_version=IR_VERSION)
    serialised: bytes = model.SerializeToString()
    return serialised


class _Translation:
    """One walk over the traced graph; every ATen operator becomes one or two ONNX nodes."""

    def __init__(self, traced: GraphModule) -> None:
        self.traced = traced
        self.nodes: list[Any] = []
        self.constants: list[Any] = []
        self.names: dict[Node, str] = {}

    def run(self) -> str:
        """Translate; the name of the graph's one output."""
        for node in self.traced.graph.nodes:
            if node.op == "placeholder":
                self.names[node] = "images"
            elif node.op == "get_attr":
                self.names[node] = self.constant(operator.attrgetter(str(node.target))(self.traced), node.name)
            elif node.op == "call_function":
                self.names[node] = self._translate(node)
            elif node.op == "output":
                result = node.args[0]
                return self.names[result[0] if isinstance(result, (tuple, list)) else result]
        raise UntranslatableError("The traced network has no output.")

    def _translate(self, node: Node) -> str:
        if node.target is operator.getitem:  # only the first of several results is ever a feature
            if node.args[1] != 0:
                raise UntranslatableError(f"The network uses result {node.args[1]} of {node.args[0]}.")
            return self.names[node.args[0]]  # type: ignore[index]
        name = str(getattr(node.target, "overloadpacket", node.target)).removesuffix("_")
        if name not in _OPERATORS:
            raise UntranslatableError(f"The network uses {name}, which has no translation here.")
        return _OPERATORS[name](self, node, *node.args, **node.kwargs)

    def add(self, kind: str, inputs: Sequence[Any], **attributes: Any) -> str:
        """Append a node, return its result's name; inputs are graph nodes, names, numbers, or None (left out)."""
        from onnx import helper

        name = f"v{len(self.nodes)}"
        self.nodes.append(helper.make_node(kind, [self.value(i) for i in inputs], [name], **attributes))
        return name

    def value(self, item: Any) -> str:
        if item is None:
            return ""
        if isinstance(item, str):
            return item
        if isinstance(item, Node):
            return self.names[item]
        return self.constant(torch.tensor(float(item)), "number")

    def integers(self, values: Sequence[int]) -> str:
        return self.constant(torch.tensor([int(v) for v in values], dtype=torch.int64), "integers")

    def constant(self, tensor: Any, hint: str) -> str:
        from onnx import numpy_helper

        if not isinstance(tensor, Tensor):
            raise UntranslatableError(f"The traced network holds a {type(tensor).__name__} as {hint}.")
        name = f"{hint}_{len(self.constants)}"
        self.constants.append(numpy_helper.from_array(tensor.detach().cpu().contiguous().numpy(), name))
        return name


def _shape(node: Any) -> list[int]:
    return [int(n) for n in node.meta["val"].shape]


def _pair(values: Any) -> list[int]:
    pair = [values] * 2 if isinstance(values, int) else [int(v) for v in values]
    return pair * 2 if len(pair) == 1 else pair


def _convolution(t: _Translation, node: Node, x: Any, weight: Any, bias: Any, *geometry: Any) -> str:
    """geometry: stride, padding, dilation, transposed, output padding and groups, in the operator's order."""
    stride, padding, dilation, transposed, _, groups = geometry
    if transposed or len(_shape(x)) != 4:
        raise UntranslatableError("The network uses a transposed or other than two-dimensional convolution.")
    inputs = [x, weight] if bias is None else [x, weight, bias]
    return t.add(
        "Conv",
        inputs,
        strides=_pair(stride),
        pads=_pair(padding) * 2,
        dilations=_pair(dilation),
        group=groups,
    )


def _batch_norm(t: _Translation, node: Node, x: Any, weight: Any, bias: Any, mean: Any, var: Any, *rest: Any) -> str:
    channels = _shape(x)[1]
    weight = t.constant(torch.ones(channels), "ones") if weight is None else weight
    bias = t.constant(torch.zeros(channels), "zeros") if bias is None else bias
    if len(rest) == 3 and rest[0]:
        raise UntranslatableError("A normalisation layer is in training mode.")
    return t.add("BatchNormalization", [x, weight, bias, mean, var], epsilon=float(rest[-1]))


def _max_pool(
    t: _Translation, node: Node, x: Any, kernel: Any, stride: Any = (), padding: Any = 0, dilation: Any = 1,
    ceil_mode: bool = False,
) -> str:  # fmt: skip
    return t.add(
        "MaxPool", [x], kernel_shape=_pair(kernel), strides=_pair(stride or kernel), pads=_pair(padding) * 2,
        dilations=_pair(dilation), ceil_mode=int(ceil_mode),
    )  # fmt: skip


def _average_pool(
    t: _Translation, node: Node, x: Any, kernel: Any, stride: Any = (), padding: Any = 0, *how: Any
) -> str:
    """how: ceil_mode, count_include_pad and divisor_override, in the operator's order, as far as they are given."""
    given = (*how, False, True, None)[: len(how)] + (False, True, None)[len(how) :]
    ceil_mode, count_include_pad, divisor = given
    if divisor is not None:
        raise UntranslatableError("The network averages with a divisor of its own.")
    return t.add(
        "AveragePool", [x], kernel_shape=_pair(kernel), strides=_pair(stride or kernel), pads=_pair(padding) * 2,
        ceil_mode=int(ceil_mode), count_include_pad=int(count_include_pad),
    )  # fmt: skip


def _adaptive_pool(t: _Translation, node: Node, x: Any, size: Any) -> str:
    height, width = _shape(x)[-2:]
    rows, columns = _pair(size)
    if height % rows or width % columns:
        raise UntranslatableError(f"The network pools {height} × {width} px into {rows} × {columns}.")
    kernel = [height // rows, width // columns]
    return t.add("AveragePool", [x], kernel_shape=kernel, strides=kernel)


def _mean(t: _Translation, node: Node, x: Any, dims: Any = None, keepdim: bool = False, **_: Any) -> str:
    axes = range(len(_shape(x))) if dims is None else dims
    return t.add("ReduceMean", [x, t.integers(list(axes))], keepdims=int(keepdim))


def _largest(t: _Translation, node: Node, x: Any, dims: Sequence[int] = (), keepdim: bool = False) -> str:
    return t.add("ReduceMax", [x, t.integers(list(dims or range(len(_shape(x)))))], keepdims=int(keepdim))


def _add(kind: str) -> Callable[..., str]:
    def translate(t: _Translation, node: Node, x: Any, y: Any, alpha: float = 1) -> str:
        return t.add(kind, [x, y if alpha == 1 else t.add("Mul", [y, alpha])])

    return translate


def _pad(t: _Translation, node: Node, x: Any, pads: Sequence[int], value: float = 0.0) -> str:
    ends = [[0, 0] for _ in _shape(x)]
    for index in range(0, len(pads), 2):  # the last dimension comes first
        ends[-1 - index // 2] = [int(pads[index]), int(pads[index + 1])]
    return t.add("Pad", [x, t.integers([a for a, _ in ends] + [b for _, b in ends]), value])


def _clip(t: _Translation, node: Node, x: Any, low: Any = None, high: Any = None) -> str:
    return t.add("Clip", [x, low, high])


def _simple(kind: str, **attributes: Any) -> Callable[..., str]:
    def translate(t: _Translation, node: Node, *inputs: Any, **_: Any) -> str:
        return t.add(kind, inputs, **attributes)

    return translate


def _reshape(t: _Translation, node: Node, x: Any, *_: Any, **__: Any) -> str:
    return t.add("Reshape", [x, t.integers(_shape(node))])


def _permute(t: _Translation, node: Node, x: Any, dims: Sequence[int] = (1, 0)) -> str:
    rank = len(_shape(x))
    return t.add("Transpose", [x], perm=[int(d) % rank for d in dims])


def _addmm(t: _Translation, node: Node, bias: Any, x: Any, weight: Any) -> str:
    return t.add("Add", [t.add("MatMul", [x, weight]), bias])


def _layer_norm(t: _Translation, node: Node, x: Any, size: Sequence[int], weight: Any, bias: Any, eps: float) -> str:
    if weight is None:
        raise UntranslatableError("The network uses a layer normalisation without weights.")
    inputs = [x, weight] if bias is None else [x, weight, bias]
    return t.add("LayerNormalization", inputs, axis=-len(size), epsilon=float(eps))


_OPERATORS: Final[dict[str, Callable[..., str]]] = {
    "aten._to_copy": lambda t, node, x, **_: t.add("Cast", [x], to=_ONNX_FLOAT),
    "aten.convolution": _convolution,
    "aten.native_batch_norm": _batch_norm,
    "aten._native_batch_norm_legit_no_training": _batch_norm,
    "aten.native_layer_norm": _layer_norm,
    "aten.max_pool2d_with_indices": _max_pool,
    "aten.avg_pool2d": _average_pool,
    "aten._adaptive_avg_pool2d": _adaptive_pool,
    "aten.mean": _mean,
    "aten.amax": _largest,
    "aten.sqrt": _simple("Sqrt"),
    "aten.add": _add("Add"),
    "aten.sub": _add("Sub"),
    "aten.mul": _simple("Mul"),
    "aten.div": _simple("Div"),
    "aten.relu": _simple("Relu"),
    "aten.sigmoid": _simple("Sigmoid"),
    "aten.silu": lambda t, node, x: t.add("Mul", [x, t.add("Sigmoid", [x])]),
    "aten.hardswish": _simple("HardSwish"),
    "aten.hardsigmoid": _simple("HardSigmoid", alpha=1 / 6, beta=0.5),
    "aten.hardtanh": lambda t, node, x, low=-1.0, high=1.0: _clip(t, node, x, low, high),
    "aten.clamp": _clip,
    "aten.clamp_min": _clip,
    "aten.gelu": lambda t, node, x, approximate="none": t.add("Gelu", [x], approximate=approximate),
    "aten.cat": lambda t, node, parts, dim=0: t.add("Concat", parts, axis=int(dim)),
    "aten.constant_pad_nd": _pad,
    "aten.view": _reshape,
    "aten._unsafe_view": _reshape,
    "aten.permute": _permute,
    "aten.t": _permute,
    "aten.mm": _simple("MatMul"),
    "aten.addmm": _addmm,
    "aten.clone": lambda t, node, x, **_: t.add("Identity", [x]),
}
