"""The evaluation transform as ONNX operators, so that an exported file takes pictures of any size.

It follows `regraft.images.transform.EvalTransform` operator by operator. ONNX's antialiased Resize on uint8
stays within two grey levels of torchvision's once samples outside the picture carry no weight, as Pillow has
it. Measured on noise, the worst case: 0.1–0.7 % of the pixels differ at usual sizes, up to 6 % of a 32 px
picture, nearly all of them by one.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from torchvision.transforms.v2 import InterpolationMode

from regraft.images.spec import ImageSpec
from regraft.images.transform import EvalTransform

if TYPE_CHECKING:
    from onnx import ModelProto

#: ONNX's words for the interpolations; cubic −0.5 is Pillow's and torchvision's antialiased coefficient (Keys
#: 1981).
_RESIZE = {
    InterpolationMode.BILINEAR: 'mode = "linear", antialias = 1, exclude_outside = 1',
    InterpolationMode.BICUBIC: 'mode = "cubic", antialias = 1, exclude_outside = 1, cubic_coeff_a = -0.5',
    InterpolationMode.NEAREST_EXACT: 'mode = "nearest", nearest_mode = "round_prefer_ceil"',
}

_CUT_FAR_ENDS = """
    pre_limit_h = Mul (pre_sixteen, pre_full_w)
    pre_limit_w = Mul (pre_sixteen, pre_full_h)
    pre_h = Min (pre_full_h, pre_limit_h)
    pre_w = Min (pre_full_w, pre_limit_w)
    pre_full = Concat <axis = 0> (pre_full_h, pre_full_w)
    pre_kept = Concat <axis = 0> (pre_h, pre_w)
    pre_surplus = Sub (pre_full, pre_kept)
    pre_surplus_f = Cast <to = 1> (pre_surplus)
    pre_surplus_half = Mul (pre_surplus_f, pre_half)
    pre_surplus_round = Round (pre_surplus_half)
    pre_begin = Cast <to = 7> (pre_surplus_round)
    pre_end = Add (pre_begin, pre_kept)
    pre_cut = Slice (pre_planes, pre_begin, pre_end, pre_axes)
"""

#: Integer division gives what int(a · b / c) gives in floating point: the quotient is never nearer to an
#: integer than 1 / c.
_SQUARE_SIZE = """
    pre_short = Min (pre_h, pre_w)
    pre_h_times = Mul (pre_scaled_h, pre_h)
    pre_w_times = Mul (pre_scaled_w, pre_w)
    pre_new_h = Div (pre_h_times, pre_short)
    pre_new_w = Div (pre_w_times, pre_short)
    pre_new = Concat <axis = 0> (pre_new_h, pre_new_w)
"""

_OBLONG_SIZE = """
    pre_size = Concat <axis = 0> (pre_h, pre_w)
    pre_size_f = Cast <to = 11> (pre_size)
    pre_scaled = Concat <axis = 0> (pre_scaled_h, pre_scaled_w)
    pre_scaled_f = Cast <to = 11> (pre_scaled)
    pre_ratios = Div (pre_size_f, pre_scaled_f)
    pre_ratio = ReduceMin <keepdims = 1> (pre_ratios)
    pre_exact = Div (pre_size_f, pre_ratio)
    pre_rounded = Round (pre_exact)
    pre_new = Cast <to = 7> (pre_rounded)
"""

_SQUASHED_SIZE = """
    pre_cut = Identity (pre_planes)
    pre_new = Concat <axis = 0> (pre_scaled_h, pre_scaled_w)
"""

#: Only where crop_pct > 1: the picture is smaller than the crop, and black fills the rest.
_PAD = """
    pre_lack = Sub (pre_crop, pre_new)
    pre_missing = Max (pre_lack, pre_zero)
    pre_before = Div (pre_missing, pre_two)
    pre_after = Sub (pre_missing, pre_before)
    pre_pads = Concat <axis = 0> (pre_before, pre_after)
    pre_padded = Pad (pre_resized, pre_pads, pre_black, pre_axes)
    pre_room = Add (pre_new, pre_missing)
"""

_NO_PAD = """
    pre_padded = Identity (pre_resized)
    pre_room = Identity (pre_new)
"""


def preprocessing(spec: ImageSpec, *, opset: int, ir_version: int) -> ModelProto:
    """A model: `images` uint8 (N, H, W, 3), N, H and W free → `pixels` float (N, 3, h, w) in [0, 1]."""
    from onnx import parser

    transform = EvalTransform(spec)
    height, width = transform.height_px, transform.width_px
    scaled_height, scaled_width = transform.scaled_px
    if transform.crop_mode == "squash":
        size = _SQUASHED_SIZE
    else:
        size = _CUT_FAR_ENDS + (_SQUARE_SIZE if scaled_height == scaled_width else _OBLONG_SIZE)
    smaller = scaled_height < height or scaled_width < width
    model = parser.parse_model(f"""
<ir_version: {ir_version}, opset_import: ["" : {opset}]>
preprocessing (uint8[N, H, W, 3] images) => (float[N, 3, {height}, {width}] pixels)
<
    int64[1] pre_scaled_h = {{{scaled_height}}}, int64[1] pre_scaled_w = {{{scaled_width}}},
    int64[2] pre_crop = {{{height}, {width}}}, int64[2] pre_axes = {{2, 3}},
    int64[1] pre_sixteen = {{16}}, int64[1] pre_two = {{2}}, int64[1] pre_zero = {{0}}, uint8 pre_black = {{0}},
    float[1] pre_half = {{0.5}}, float[1] pre_white = {{255.0}}
>
{{
    pre_planes = Transpose <perm = [0, 3, 1, 2]> (images)
    pre_batch = Shape <start = 0, end = 2> (pre_planes)
    pre_full_h = Shape <start = 2, end = 3> (pre_planes)
    pre_full_w = Shape <start = 3, end = 4> (pre_planes)
    {size}
    pre_sizes = Concat <axis = 0> (pre_batch, pre_new)
    pre_resized = Resize <{_RESIZE[transform.interpolation]}, coordinate_transformation_mode = "half_pixel">
        (pre_cut, , , pre_sizes)
    {_PAD if smaller else _NO_PAD}
    pre_margin = Sub (pre_room, pre_crop)
    pre_margin_f = Cast <to = 1> (pre_margin)
    pre_margin_half = Mul (pre_margin_f, pre_half)
    pre_margin_round = Round (pre_margin_half)
    pre_first = Cast <to = 7> (pre_margin_round)
    pre_last = Add (pre_first, pre_crop)
    pre_cropped = Slice (pre_padded, pre_first, pre_last, pre_axes)
    pre_float = Cast <to = 1> (pre_cropped)
    pixels = Div (pre_float, pre_white)
}}
""")
    used = {name for node in model.graph.node for name in node.input}
    for constant in [c for c in model.graph.initializer if c.name not in used]:
        model.graph.initializer.remove(constant)
    return model
