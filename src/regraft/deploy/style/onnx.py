"""A style student → one `.onnx` model for pictures of any size, its batch norm folded.

Two forms of the same network: of uint8 pictures (N, H, W, 3), as files and cameras give them, with everything inside;
and of float pictures (N, 3, H, W) in [0, 1]. Both give pictures of the same form and size back. `docs/formats.md`.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Final

import numpy as np
import torch
from torch import Tensor, nn

from regraft.compress.folding import Folded, bias_moved, folded
from regraft.core.errors import MissingExtraError, UsageError
from regraft.style.networks.model_file import StyleModel
from regraft.style.networks.transfer_net import (
    LEAST_VARIANCE,
    SEEN_EVERY,
    STUDENT_MULTIPLE_PX,
    DepthwiseBlock,
    StudentNet,
)

if TYPE_CHECKING:
    from onnx import ModelProto

FORMAT: Final = "regraft.style-onnx/1"
READABLE: Final = (FORMAT,)
INPUT, OUTPUT = "images", "styled"
#: Pad takes edges of several axes, Split its number of parts, since this one.
OPSET: Final = 18
IR_VERSION: Final = 10
#: The layers by name, in order; blocks are b0, b1, … with the parts depth, inner, second and last.
FIRST, LAST = "enter", "paint"
#: The picture's values in cells, which 8 bits hold exactly where their range is the whole of [0, white].
CELLS: Final = "cells"
#: Steps that stay in full precision: the picture itself goes past the network through them.
UNQUANTISED: Final = ("add", "cut", "lay", "colour", CELLS)
CANVAS: Final = "canvas"
#: A small canvas has so many steps to each side of 0: below what can be seen, and half of the bytes after deflate.
CANVAS_LEVELS: Final = 15
#: The end of every axis.
_FAR: Final = np.iinfo(np.int64).max
WHITE: Final = {"uint8": 255.0, "float": 1.0}


def student_graph(model: StyleModel, *, pixels: str = "uint8", small: bool = False) -> ModelProto:
    """The student as an ONNX model, unchecked against it.

    pixels: uint8 or float. small: the canvas in few steps, before anything else is. Raises UsageError for another kind
    of model or form, MissingExtraError without onnx.
    """
    if not isinstance(model.net, StudentNet):
        raise UsageError(f"A {model.kind} is not exported; a student is: distil one, or name the student's file.")
    if pixels not in WHITE:
        raise UsageError(f"Pictures as {pixels!r} came; a student takes {' or '.join(WHITE)}.")
    try:
        from onnx import TensorProto, checker, helper
    except ImportError as error:
        raise MissingExtraError("ONNX export of a style", "onnx") from error
    graph = _Graph()
    network = model.net
    whole = pixels == "uint8"
    white = WHITE[pixels]
    bands = graph.recoloured(network, graph.bands(whole), whole, white)
    inside = []
    for number, (band, painted) in enumerate(zip(bands, _network(graph, network, bands, white, small), strict=True)):
        added = graph.add("Add", [band, painted], f"add.{number}")
        inside.append(graph.add("Clip", [added, graph.number(0.0), graph.number(white)], f"cut.{number}"))
    graph.pictures(inside, whole)
    kind = TensorProto.UINT8 if whole else TensorProto.FLOAT
    shape: list[str | int | None] = ["N", "H", "W", 3] if whole else ["N", 3, "H", "W"]
    found = helper.make_model(
        helper.make_graph(
            graph.nodes,
            "student",
            [helper.make_tensor_value_info(INPUT, kind, shape)],
            [helper.make_tensor_value_info(OUTPUT, kind, shape)],
            graph.constants,
        ),
        opset_imports=[helper.make_opsetid("", OPSET)],
        ir_version=IR_VERSION,
        producer_name="regraft",
    )
    helper.set_model_props(found, metadata(model, pixels, "fp32"))
    checker.check_model(found)
    return found


def metadata(model: StyleModel, pixels: str, precision: str) -> dict[str, str]:
    values = {
        "format": FORMAT,
        "style": json.dumps(list(model.styles), ensure_ascii=False),
        "pixels": pixels,
        "precision": precision,
        "licence": str(model.card.get("licence", "unknown")),
    }
    return {f"regraft.{key}": value for key, value in values.items()}


def _network(graph: _Graph, net: StudentNet, bands: Sequence[str], white: float, small: bool) -> list[str]:
    """What the network paints on cells of 2 × 2 px, given and returned in bands of their rows: one (N, 12, H/2, W/2),
    or two (N, 6, H/2, W/2), with values up to `white`."""
    cells = bands[0] if len(bands) == 1 else graph.add("Concat", bands, CELLS, axis=1)
    order = _cell_order()
    enter = folded(*_pair(net.enter))
    # The network was trained on values up to 1 in torch's order of a cell's channels.
    enter = Folded(enter.weight[:, order] / white, enter.bias, enter.stride, enter.padding)
    entered = graph.laid(net, graph.convolution(enter, cells, FIRST, relu=True), small)
    x = graph.convolution(folded(*_pair(net.down)), entered, "down", relu=True)
    for number, block in enumerate(net.blocks):
        assert isinstance(block, DepthwiseBlock)
        depth, inner, second, last = _block(block)
        y = graph.convolution(depth, x, f"b{number}.depth")
        y = graph.convolution(inner, y, f"b{number}.inner", relu=True)
        y = graph.convolution(second, y, f"b{number}.second")
        y = graph.convolution(last, y, f"b{number}.last")
        x = graph.add("Relu", [graph.add("Add", [x, y], f"b{number}.sum")], f"b{number}.out")
    x = graph.convolution(_by_place(folded(*_pair(net.up))), x, "up")
    x = graph.add("DepthToSpace", [x], "up.shuffle", blocksize=2, mode="DCR")
    x = graph.convolution(Folded(net.even, torch.zeros(1), 1, 1, net.widths[1]), x, "up.even")
    x = graph.add("Relu", [graph.add("Add", [x, entered], "up.sum")], "up.out")
    x = graph.convolution(_by_place(folded(*_pair(net.widen))), x, "widen", relu=True)
    x = graph.add("DepthToSpace", [x], "widen.shuffle", blocksize=2, mode="DCR")
    paint = folded(net.paint)
    paint = Folded(paint.weight * white, paint.bias * white, paint.stride, paint.padding)
    x = graph.add(
        "Pad", [graph.convolution(paint, x, LAST), graph.integers(0, 0, 2, 2, 0, 0, 2, 2)], "edges", mode="edge"
    )
    down, across = _enlarging(net)
    x = graph.convolution(down, x, "enlarged.down")
    return [
        graph.convolution(Folded(part, torch.zeros(len(part)), 1, 0), x, f"enlarged.{number}")
        for number, part in enumerate(across.chunk(len(bands)))
    ]


def _enlarging(net: StudentNet) -> tuple[Folded, Tensor]:
    """The student's 5 × 5 enlargement as a 5 × 1 and then a 1 × 5 one, weights (12, 6, 1, 5) in order of the cells.

    Dense convolutions, since a cell holds the colours of a pixel together. As a single one it took a fifth of the
    whole run.
    """
    lines = net.enlarged[[0, 2], 0].sum(dim=2)  # (a cell's row, taps); each line's taps sum to 1
    down, across = torch.zeros(6, 3, 5, 1), torch.zeros(12, 6, 1, 5)
    for row in range(2):
        for colour in range(3):
            down[3 * row + colour, colour, :, 0] = lines[row]
            for column in range(2):
                across[6 * row + 3 * column + colour, 3 * row + colour, 0] = lines[column]
    return Folded(down, torch.zeros(6), 1, 0), across


def _by_place(layer: Folded) -> Folded:
    """The outputs of a 1 × 1 layer, torch's cells, with those of one place in the cell together: runtimes that keep a
    pixel's channels side by side then shuffle by copying whole rows of them."""
    order = torch.arange(len(layer.weight)).view(-1, 4).mT.reshape(-1)
    return Folded(layer.weight[order], layer.bias[order], layer.stride, layer.padding, layer.groups)


def _block(block: DepthwiseBlock) -> tuple[Folded, Folded, Folded, Folded]:
    """A block's four convolutions; the depthwise ones' biases, which nothing but a 1 × 1 sees, are moved into it."""
    parts = list(block.body)
    depth, inner = bias_moved(folded(parts[0], parts[1]), folded(parts[2], parts[3]))
    second, last = bias_moved(folded(parts[5], parts[6]), folded(parts[7], parts[8]))
    return depth, inner, second, last


def _pair(layers: nn.Sequential) -> tuple[nn.Module, nn.Module]:
    return layers[0], layers[1]


def _cell_order() -> list[int]:
    """Which of torch's channels (colour, row, column) stands at each of ONNX's (row, column, colour)."""
    return [colour * 4 + row * 2 + column for row in range(2) for column in range(2) for colour in range(3)]


class _Graph:
    """Nodes and constants in the making. Every node and its result have one short name."""

    def __init__(self) -> None:
        self.nodes: list[Any] = []
        self.constants: list[Any] = []

    def add(self, kind: str, inputs: Sequence[str], name: str, **attributes: Any) -> str:
        from onnx import helper

        self.nodes.append(helper.make_node(kind, list(inputs), [name], name=name, **attributes))
        return name

    def constant(self, values: np.ndarray, name: str = "") -> str:
        from onnx import numpy_helper

        name = name or f"c{len(self.constants)}"
        self.constants.append(numpy_helper.from_array(values, name))
        return name

    def number(self, value: float) -> str:
        return self.constant(np.array(value, dtype=np.float32))

    def integers(self, *values: int) -> str:
        return self.constant(np.array(values, dtype=np.int64))

    def convolution(self, layer: Folded, x: str, name: str, *, relu: bool = False) -> str:
        inputs = [x, self.constant(_floats(layer.weight), f"{name}.w")]
        if layer.bias.any():
            inputs.append(self.constant(_floats(layer.bias), f"{name}.b"))
        sides = list(layer.weight.shape[2:])
        found = self.add(
            "Conv", inputs, f"{name}.sum" if relu else name, kernel_shape=sides, strides=[layer.stride] * 2,
            pads=[layer.padding] * 4, group=layer.groups,
        )  # fmt: skip
        return self.add("Relu", [found], name) if relu else found

    def bands(self, whole: bool) -> list[str]:
        """Cells of 2 × 2 px of pictures padded by repeating their edge, as floats.

        One (N, 12, H/2, W/2), rows × columns × colours; or of whole pictures two, (N, 6, H/2, W/2), a cell's upper and
        lower row: in a picture whose pixels' colours lie side by side these are its even and odd rows as they are.
        """
        height, width = (1, 2) if whole else (2, 3)
        ends = []
        for name, axis in (("h", height), ("w", width)):
            self.add("Shape", [INPUT], name, start=axis, end=axis + 1)
            negative = self.add("Neg", [name], f"{name}.neg")
            ends.append(self.add("Mod", [negative, self.integers(STUDENT_MULTIPLE_PX)], f"{name}.more"))
        before, after = self.integers(*[0] * (4 + height)), [self.integers(0)] if whole else []
        pads = self.add("Concat", [before, *ends, *after], "pads", axis=0)
        padded = self.add("Pad", [INPUT, pads], "padded", mode="edge")
        if not whole:
            return [self.add("SpaceToDepth", [padded], "colour.cells", blocksize=2)]
        self.add("Add", ["w", "w.more"], "w.padded")
        found = []
        for number in range(2):
            ends = [self.integers(number), self.integers(_FAR), self.integers(height), self.integers(2)]
            rows = self.add("Slice", [padded, *ends], f"rows.{number}")
            rows = self.add("Reshape", [rows, self.integers(0, 0, -1, 6)], f"rows.{number}.cells")
            # Turned as bytes, which are a quarter of the memory of floats.
            planes = self.add("Transpose", [rows], f"rows.{number}.planes", perm=[0, 3, 1, 2])
            found.append(self.add("Cast", [planes], f"colour.rows.{number}", to=1))
        return found

    def recoloured(self, net: StudentNet, bands: Sequence[str], whole: bool, white: float) -> list[str]:
        """Bands of cells whose colours have the style's mean and deviation."""
        axes = (1, 2) if whole else (2, 3)
        seen = self.add(
            "Slice",
            [
                INPUT,
                self.integers(0, 0),
                self.integers(_FAR, _FAR),
                self.integers(*axes),
                self.integers(*[SEEN_EVERY] * 2),
            ],
            "colour.seen",
        )
        if whole:
            seen = self.add("Cast", [seen], "colour.floats", to=1)
        mean = self.add("ReduceMean", [seen, self.integers(*axes)], "colour.mean")
        squares = self.add(
            "ReduceMean", [self.add("Mul", [seen, seen], "colour.sq"), self.integers(*axes)], "colour.sqs"
        )
        variance = self.add("Sub", [squares, self.add("Mul", [mean, mean], "colour.own")], "colour.var")
        floor = self.add("Max", [variance, self.number(LEAST_VARIANCE * white**2)], "colour.floor")
        wanted = [_floats(part.detach() * white) for part in (net.colour_std, net.colour_mean)]
        shape = (1, 1, 1, 3) if whole else (1, 3, 1, 1)
        std, middle = (self.constant(part.reshape(shape)) for part in wanted)
        scale = self.add("Div", [std, self.add("Sqrt", [floor], "colour.std")], "colour.scale")
        shift = self.add("Sub", [middle, self.add("Mul", [mean, scale], "colour.moved")], "colour.shift")
        if whole:
            scale, shift = (self.add("Transpose", [part], f"{part}.t", perm=[0, 3, 1, 2]) for part in (scale, shift))
        # A cell holds four pixels, the colours of each together.
        times = 4 // len(bands)
        scale, shift = (self.add("Concat", [part] * times, f"{part}.all", axis=1) for part in (scale, shift))
        found = []
        for number, band in enumerate(bands):
            scaled = self.add("Mul", [band, scale], f"colour.scaled.{number}")
            moved = self.add("Add", [scaled, shift], f"colour.added.{number}")
            name = CELLS if len(bands) == 1 else f"{CELLS}.{number}"
            found.append(self.add("Clip", [moved, self.number(0.0), self.number(white)], name))
        return found

    def laid(self, net: StudentNet, entered: str, small: bool) -> str:
        """The canvas, repeated as often as needed, added. Where sizes are known all of it is folded to a constant."""
        period = net.canvas.shape[-1]
        values = _floats(net.canvas[None].detach())
        if small:
            step = float(np.abs(values).max()) / CANVAS_LEVELS or 1.0
            canvas = self.constant(np.rint(values / step).astype(np.int8), CANVAS)
            canvas = self.add("Mul", [self.add("Cast", [canvas], "lay.floats", to=1), self.number(step)], "lay.canvas")
        else:
            canvas = self.constant(values, CANVAS)
        canvas = self.convolution(Folded(net.lay.weight.detach(), torch.zeros(1)), canvas, "lay")
        self.add("Shape", [entered], "lay.size", start=2, end=4)
        more = self.add("Add", ["lay.size", self.integers(period - 1, period - 1)], "lay.more")
        times = self.add("Div", [more, self.integers(period, period)], "lay.times")
        repeats = self.add("Concat", [self.integers(1, 1), times], "lay.repeats", axis=0)
        tiled = self.add("Tile", [canvas, repeats], "lay.tiled")
        cut = self.add("Slice", [tiled, self.integers(0, 0), "lay.size", self.integers(2, 3)], "lay.cut")
        return self.add("Add", [entered, cut], "lay.sum")

    def pictures(self, bands: Sequence[str], whole: bool) -> None:
        """Bands of cells back to pictures of the input's size and form."""
        if whole:
            rows = []
            for number, band in enumerate(bands):
                found = self.add("Cast", [self.add("Round", [band], f"round.{number}")], f"bytes.{number}", to=2)
                found = self.add("Transpose", [found], f"row.{number}.bytes", perm=[0, 2, 3, 1])
                rows.append(self.add("Reshape", [found, self.integers(0, 0, 1, -1)], f"row.{number}"))
            pairs = self.add("Concat", rows, "row.pairs", axis=2)
            shape = self.add("Concat", [self.integers(0, -1), "w.padded", self.integers(3)], "row.shape", axis=0)
            found = self.add("Reshape", [pairs, shape], "joined")
        else:
            found = self.add("DepthToSpace", [*bands], "joined", blocksize=2, mode="DCR")
        size = self.add("Concat", ["h", "w"], "size", axis=0)
        axes = self.integers(1, 2) if whole else self.integers(2, 3)
        self.add("Slice", [found, self.integers(0, 0), size, axes], OUTPUT)


def _floats(values: Tensor) -> np.ndarray:
    return values.float().contiguous().numpy()
