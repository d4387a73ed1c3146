"""MLX products and convolutions -> ONNX nodes."""

from typing import Any

import mlx.core as mx
import numpy as np
from numpy.typing import NDArray

from .mlx_arithmetic import FLOAT, Write
from .mlx_sums import unsupported
from .mlx_trace import Step
from .mlx_values import (
    Value,
    channels_first,
    constant,
    elementwise,
    expanded,
    form,
    joined,
    made,
    number,
    reshape,
    transpose,
)
from .sheet import Sheet
from .sizes import Number, Size


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
    full = a.real == a.shape and before.real == before.shape
    long = sum(size != 1 for size in before.shape[:-1])
    return before if full and long > 1 and before.shape[-1] == a.shape[-1] else a


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
    kernel = [whole(size) for size in weight.shape[1:-1]]
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
    out, *space, inner = (whole(size) for size in weight.shape)
    split = reshape(sheet, weight, (groups, out // groups, *space, inner))
    last = split.rank - 1
    turned = transpose(sheet, split, (0, last, 1, *range(2, last)))
    joint = reshape(sheet, turned, (groups * inner, out // groups, *space))
    return form(sheet, joint)


def whole(size: Number) -> int:
    """A size that does not move with the batch."""
    if isinstance(size, Size):
        raise ValueError(
            f"module: expected channels, heads and kernels of fixed sizes, got {size}; "
            "move the batch to the first axis"
        )
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
        words, scale, bias = (np.asarray(array) for array in arrays)
        table = mx.dequantize(
            mx.array(words.astype(np.uint32)),
            mx.array(scale),
            mx.array(bias),
            group_size=int(group),
            bits=int(bits),
        )
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


PRODUCTS: dict[str, Write] = {
    "AddMM": add_matmul,
    "Convolution": convolution,
    "Matmul": matmul,
    "QuantizedMatmul": quantized_matmul,
}
