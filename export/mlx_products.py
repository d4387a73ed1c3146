"""MLX products and convolutions, and the calls that `mlx_marks` keeps whole -> ONNX nodes."""

from typing import Any

import mlx.core as mx
import numpy as np
from numpy.typing import NDArray
from onnx import TensorProto

from .mlx_arithmetic import BOOL, FLOAT, Write
from .mlx_sums import last_softmax, take, unsupported
from .mlx_trace import Step
from .mlx_values import (
    Value,
    broadcast,
    channels_first,
    constant,
    elementwise,
    expanded,
    form,
    is_fixed,
    joined,
    made,
    number,
    reshape,
    transpose,
)
from .sheet import Sheet
from .sizes import Size

HIDDEN = float(np.finfo(np.float32).min)  # what MLX puts where a mask is False


def matmul(sheet: Sheet, step: Step, a: Value, b: Value) -> Value:
    """a b."""
    return reshape(sheet, product(sheet, a, b), step.outputs[0][1])


def product(sheet: Sheet, a: Value, b: Value) -> Value:
    """a b over the last two axes; rows that MLX has flattened are taken as they were before."""
    a = _unflattened(a) if b.rank == 2 else a
    a, b = (expanded(sheet, v, [v.rank - 2, v.rank - 1]) for v in (a, b))
    name = sheet.one("MatMul", form(sheet, a), form(sheet, b))
    sides = (a.shape[-2], b.shape[-1])
    shape = (*joined([a.shape[:-2], b.shape[:-2]]), *sides)
    real = (*joined([a.real[:-2], b.real[:-2]]), *sides)
    return Value(shape, FLOAT, real, {tuple(range(len(shape))): name})


def _unflattened(a: Value) -> Value:
    """The (..., rows, n) that a pending (all rows, n) is a reshape of, or a itself."""
    before = a.origin
    if a.forms or before is None or a.rank != 2 or before.rank < 3:
        return a
    whole = a.real == a.shape and before.real == before.shape
    long = sum(size != 1 for size in before.shape[:-1])
    return before if whole and long > 1 and before.shape[-1] == a.shape[-1] else a


def add_matmul(sheet: Sheet, step: Step, a: Value, b: Value, c: Value) -> Value:
    """alpha a b + beta c: Gemm for matrices, MatMul and Add for more axes."""
    alpha, beta = step.arguments
    shape = step.outputs[0][1]
    if a.rank == 2 and _unflattened(a) is a:
        a, b = expanded(sheet, a), expanded(sheet, b)
        rows = form(sheet, c, loose=True)
        numbers = {k: v for k, v in (("alpha", alpha), ("beta", beta)) if v != 1.0}
        name = sheet.one("Gemm", form(sheet, a), form(sheet, b), rows, **numbers)
        return made(shape, FLOAT, name)
    out = product(sheet, a, b)
    if alpha != 1.0:
        out = elementwise(sheet, "Mul", out, number(sheet, alpha))
    if all(size == 1 for size in c.real[:-1]):
        base = Value(c.real, c.dtype, c.real, c.forms, c.origin)
        c = reshape(sheet, base, c.real[-1:])
    else:
        c = reshape(sheet, c, out.shape)
    if beta != 1.0:
        c = elementwise(sheet, "Mul", c, number(sheet, beta))
    return reshape(sheet, elementwise(sheet, "Add", out, c), shape)


def convolution(sheet: Sheet, step: Step, x: Value, weight: Value) -> Value:
    """A convolution, or where the input is dilated its transpose; kernels (out, space, in)."""
    stride, low, high, dilation, spread, groups, flip = step.arguments
    x, weight = expanded(sheet, x), expanded(sheet, weight)
    back = any(n != 1 for n in spread)
    if bool(flip) != back:
        weight = _flipped(sheet, weight)
    order, shape = channels_first(x.rank), step.outputs[0][1]
    kernel = list(weight.shape[1:-1])
    common: dict[str, Any] = {"kernel_shape": kernel}
    for word, numbers, idle in (("dilations", dilation, 1), ("group", groups, 1)):
        if any(n != idle for n in np.atleast_1d(numbers)):
            common[word] = list(numbers) if word == "dilations" else int(numbers)
    if not back:
        if any(n != 1 for n in stride):
            common["strides"] = list(stride)
        if any((*low, *high)):
            common["pads"] = [*low, *high]
        name = sheet.one("Conv", form(sheet, x, order), form(sheet, weight, order), **common)
    else:
        if any(n != 1 for n in stride):
            raise unsupported(step, "a convolution that is strided or transposed, not both")
        reach = [d * (k - 1) for d, k in zip(dilation, kernel, strict=True)]
        ends = [r - h for r, h in zip(reach, high, strict=True)]
        starts = [r - n for r, n in zip(reach, low, strict=True)]
        if min(starts) < 0:
            raise unsupported(step, "a transposed convolution without padding inside")
        common |= {"strides": list(spread), "pads": [*starts, *(max(e, 0) for e in ends)]}
        if min(ends) < 0:
            common["output_padding"] = [max(-e, 0) for e in ends]
        kernels = _transposed(sheet, weight, int(groups))
        name = sheet.one("ConvTranspose", form(sheet, x, order), kernels, **common)
    value = made(shape, FLOAT, name, order)
    value.node = sheet.nodes[-1]
    return value


def _flipped(sheet: Sheet, weight: Value) -> Value:
    """The kernel from its other end along every axis of space."""
    axes = range(1, weight.rank - 1)
    numbers = [[-1] * len(axes), [-(1 << 62)] * len(axes), [*axes], [-1] * len(axes)]
    parts = [sheet.constant(np.array(n, np.int64)) for n in numbers]
    return made(weight.shape, FLOAT, sheet.one("Slice", form(sheet, weight), *parts))


def _transposed(sheet: Sheet, weight: Value, groups: int) -> str:
    """(groups out, space, in) -> (groups in, out, space)."""
    out, *space, inner = weight.shape
    assert isinstance(out, int)
    split = reshape(sheet, weight, (groups, out // groups, *space, inner))
    last = split.rank - 1
    turned = transpose(sheet, split, (0, last, 1, *range(2, last)))
    joint = reshape(sheet, turned, (groups * _whole(inner), out // groups, *space))
    return form(sheet, joint)


def _whole(size: int | Size) -> int:
    assert isinstance(size, int)
    return size


def quantized_matmul(
    sheet: Sheet, step: Step, x: Value, packed: Value, scales: Value, *rest: Value
) -> Value:
    """x W: 8-bit affine weights as DequantizeLinear of groups, others dequantised here."""
    group, bits, mode, turned = step.arguments
    arrays = [value.array for value in (packed, scales, *rest)]
    if any(array is None for array in arrays) or int(mode) != 0:
        raise unsupported(step, "affine quantised weights that are constants")
    weight = _blocks(sheet, arrays, int(group), int(bits))
    if weight is None:
        words = [mx.array(array.astype(np.uint32) if k == 0 else array)  # type: ignore[union-attr]
                 for k, array in enumerate(arrays)]  # fmt: skip
        table = mx.dequantize(*words, group_size=int(group), bits=int(bits))
        weight = constant(sheet, np.array(table.astype(mx.float32)), "weight")
    if turned:
        weight = transpose(sheet, weight, (1, 0))
    return reshape(sheet, product(sheet, x, weight), step.outputs[0][1])


def _blocks(
    sheet: Sheet, arrays: list[NDArray[Any] | None], group: int, bits: int
) -> Value | None:
    """scale (q - zero) by groups, where MLX's bias is a whole number of scales and q fills bytes."""
    packed, scales, bias = (np.asarray(array) for array in arrays)
    if bits not in (4, 8):
        return None
    zero = -bias / np.where(scales == 0.0, 1.0, scales)
    whole = np.rint(zero)
    if np.abs(zero - whole).max() > 1e-3 or whole.min() < 0 or whole.max() > 255:
        return None
    shifts = np.arange(0, 32, bits, dtype=np.uint32)
    codes = (packed.astype(np.uint32)[..., None] >> shifts) & np.uint32((1 << bits) - 1)
    rows, columns = packed.shape[0], packed.shape[1] * len(shifts)
    if columns == group:  # without a Reshape ONNX Runtime would round the activations to 8 bits
        group //= 2
        scales, whole = np.repeat(scales, 2), np.repeat(whole, 2)
    name = sheet.one(
        "DequantizeLinear",
        sheet.constant(codes.reshape(-1, group).astype(np.uint8), "codes"),
        sheet.constant(scales.reshape(-1).astype(np.float32), "scales"),
        sheet.constant(whole.reshape(-1).astype(np.uint8), "zeros"),
        axis=0,
    )
    return reshape(sheet, made((rows * columns // group, group), FLOAT, name), (rows, columns))


def layer_norm(sheet: Sheet, step: Step, x: Value, *rest: Value) -> Value:
    """(x - mean) / sqrt(variance + eps) weight + bias over the last axis."""
    numbers, width = step.arguments, x.shape[-1]
    x = expanded(sheet, x, [x.rank - 1])
    weight = rest[0] if numbers["weight"] else _ones(sheet, width)
    bias = rest[-1:] if numbers["bias"] else ()
    names = [form(sheet, expanded(sheet, value)) for value in (weight, *bias)]
    name = sheet.one("LayerNormalization", form(sheet, x), *names, axis=-1, epsilon=numbers["eps"])
    return Value(x.shape, FLOAT, x.real, {tuple(range(x.rank)): name})


def _ones(sheet: Sheet, width: int | Size, value: float = 1.0) -> Value:
    return constant(sheet, np.full(_whole(width), value, np.float32))


def rms_norm(sheet: Sheet, step: Step, x: Value, *weight: Value) -> Value:
    """x / sqrt(mean x^2 + eps) weight; written in the form that ONNX Runtime fuses."""
    x = expanded(sheet, x, [x.rank - 1])
    powers = sheet.one("Pow", form(sheet, x), sheet.number(2.0))
    axes = sheet.constant(np.array([-1], np.int64))
    mean = sheet.one("ReduceMean", powers, axes, keepdims=1)
    floor = sheet.one("Add", mean, sheet.number(step.arguments["eps"]))
    name = sheet.one("Div", form(sheet, x), sheet.one("Sqrt", floor))
    out = Value(x.shape, FLOAT, x.real, {tuple(range(x.rank)): name})
    return elementwise(sheet, "Mul", out, *weight) if weight else out


def attention(
    sheet: Sheet, step: Step, q: Value, k: Value, v: Value, *mask: Value
) -> Value:
    """softmax(scale q k^T, hidden where the mask says so) v on (batch, heads, tokens, width)."""
    numbers, heads = step.arguments, q.shape[1]
    k, v = (_repeated(sheet, value, _whole(heads)) for value in (k, v))
    scores = product(sheet, q, transpose(sheet, k, (0, 1, 3, 2)))
    scores = elementwise(sheet, "Mul", scores, number(sheet, numbers["scale"]))
    if numbers["causal"]:
        rows, columns = _whole(scores.shape[2]), _whole(scores.shape[3])
        seen = np.tri(rows, columns, columns - rows, dtype=bool)
        mask = (constant(sheet, seen),)
    for hidden in mask:
        if hidden.dtype == BOOL:
            least = number(sheet, HIDDEN)
            scores = elementwise(sheet, "Where", hidden, scores, least, dtype=FLOAT)
        else:
            scores = elementwise(sheet, "Add", scores, hidden)
    return product(sheet, last_softmax(sheet, scores), v)


def _repeated(sheet: Sheet, value: Value, heads: int) -> Value:
    """Every head of k or v once for each head of q that shares it."""
    batch, there, tokens, width = value.shape
    if there == heads:
        return value
    times = heads // _whole(there)
    wide = broadcast(
        reshape(sheet, value, (batch, there, 1, tokens, width)),
        (batch, there, times, tokens, width),
    )
    return reshape(sheet, wide, (batch, heads, tokens, width))


def gelu(sheet: Sheet, step: Step, x: Value) -> Value:
    """x F(x), F the normal distribution, or its approximation by tanh."""
    word = step.arguments["approximate"]
    return elementwise(sheet, "Gelu", x, **({} if word == "none" else {"approximate": word}))


def group_norm(sheet: Sheet, step: Step, x: Value, *affine: Value) -> Value:
    """Every group of channels of every row to mean 0 and variance 1, then weight and bias."""
    groups, eps = step.arguments["groups"], step.arguments["eps"]
    x = expanded(sheet, x)
    order, channels = channels_first(x.rank), _whole(x.shape[-1])
    whole = groups == channels
    scale, shift = affine if affine and whole else (_ones(sheet, groups), _ones(sheet, groups, 0.0))
    first = transpose(sheet, x, order)
    parts = first if whole else reshape(sheet, first, (x.shape[0], groups, _rest(x, groups)))
    name = sheet.one(
        "InstanceNormalization",
        form(sheet, parts),
        *(form(sheet, expanded(sheet, value)) for value in (scale, shift)),
        epsilon=eps,
    )
    out = reshape(sheet, made(parts.shape, FLOAT, name), first.shape)
    form(sheet, out)  # channels first, so that it is in no other order that the rest is written
    back = transpose(sheet, out, tuple(order.index(k) for k in range(x.rank)))
    if not affine or whole:
        return back
    scaled = elementwise(sheet, "Mul", back, affine[0])
    return elementwise(sheet, "Add", scaled, affine[1])


def _rest(x: Value, groups: int) -> int:
    """How many numbers of a row are in one group."""
    total = 1
    for size in x.shape[1:]:
        total *= _whole(size)
    return total // groups


def batch_norm(
    sheet: Sheet, step: Step, x: Value, mean: Value, variance: Value, *affine: Value
) -> Value:
    """(x - mean) / sqrt(variance + eps) weight + bias, mean and variance constants per channel."""
    x, order, width = expanded(sheet, x), channels_first(x.rank), x.shape[-1]
    weight, bias = affine or (_ones(sheet, width), _ones(sheet, width, 0.0))
    rows = [form(sheet, expanded(sheet, value)) for value in (weight, bias, mean, variance)]
    first = form(sheet, x, order)
    name = sheet.one("BatchNormalization", first, *rows, epsilon=step.arguments["eps"])
    return made(x.shape, FLOAT, name, order)


def upsample(sheet: Sheet, step: Step, x: Value) -> Value:
    """More points along every axis of space, the nearest or between them."""
    numbers, order = step.arguments, channels_first(x.rank)
    x = expanded(sheet, x)
    scales = sheet.constant(np.array([1, 1, *numbers["scales"]], np.float32))
    ways: dict[str, Any] = {"mode": numbers["mode"]}
    if numbers["mode"] == "nearest":
        ways |= {"coordinate_transformation_mode": "asymmetric", "nearest_mode": "floor"}
    elif numbers["corners"]:
        ways |= {"coordinate_transformation_mode": "align_corners"}
    name = sheet.one("Resize", form(sheet, x, order), "", scales, **ways)
    return made(step.outputs[0][1], FLOAT, name, order)


def pool(sheet: Sheet, step: Step, x: Value) -> Value:
    """The largest number or the mean of every window; the mean counts the zeros of the padding."""
    numbers, order = step.arguments, channels_first(x.rank)
    x = expanded(sheet, x)
    pads = [[pair[side] for pair in numbers["pads"]] for side in (0, 1)]
    ways: dict[str, Any] = {
        "kernel_shape": list(numbers["kernel"]),
        "strides": list(numbers["stride"]),
        "pads": [*pads[0], *pads[1]],
    }
    kind = "MaxPool" if numbers["maximum"] else "AveragePool"
    if kind == "AveragePool":
        ways["count_include_pad"] = 1
    return made(step.outputs[0][1], FLOAT, sheet.one(kind, form(sheet, x, order), **ways), order)


def embedding(sheet: Sheet, step: Step, index: Value, table: Value) -> Value:
    """Rows of a table."""
    return take(sheet, table, 0, index)


PRODUCTS: dict[str, Write] = {
    "AddMM": add_matmul,
    "Convolution": convolution,
    "Matmul": matmul,
    "QuantizedMatmul": quantized_matmul,
    # the calls of mlx_marks
    "attention": attention,
    "batch_norm": batch_norm,
    "embedding": embedding,
    "gelu": gelu,
    "group_norm": group_norm,
    "layer_norm": layer_norm,
    "pool": pool,
    "rms_norm": rms_norm,
    "upsample": upsample,
}
