"""The calls that `mlx_marks` keeps whole -> ONNX nodes, in the forms that ONNX Runtime runs best."""

from typing import Any

import numpy as np

from .mlx_arithmetic import BOOL, FLOAT, Write
from .mlx_products import product, whole
from .mlx_sums import last_softmax, take
from .mlx_trace import Step
from .mlx_values import (
    Value,
    broadcast,
    channels_first,
    constant,
    elementwise,
    expanded,
    form,
    made,
    number,
    reshape,
    transpose,
)
from .sheet import Sheet
from .sizes import Number, Size, total

HIDDEN = float(np.finfo(np.float32).min)  # what MLX puts where a mask is False


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
    return constant(sheet, np.full(whole(width), value, np.float32))


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


def attention(sheet: Sheet, step: Step, q: Value, k: Value, v: Value, *mask: Value) -> Value:
    """softmax(scale q k^T, hidden where the mask says so) v on (batch, heads, tokens, width)."""
    numbers, heads = step.arguments, q.shape[1]
    k, v = (_repeated(sheet, value, heads) for value in (k, v))
    scores = product(sheet, q, transpose(sheet, k, (0, 1, 3, 2)))
    scores = elementwise(sheet, "Mul", scores, number(sheet, numbers["scale"]))
    if numbers["causal"]:
        rows, columns = whole(scores.shape[2]), whole(scores.shape[3])
        seen = np.tri(rows, columns, columns - rows, dtype=bool)
        mask = (constant(sheet, seen),)
    for hidden in mask:
        if hidden.dtype == BOOL:
            least = number(sheet, HIDDEN)
            scores = elementwise(sheet, "Where", hidden, scores, least, dtype=FLOAT)
        else:
            scores = elementwise(sheet, "Add", scores, hidden)
    return product(sheet, last_softmax(sheet, scores), v)


def _repeated(sheet: Sheet, value: Value, heads: Number) -> Value:
    """Every head of k or v once for each head of q that shares it."""
    batch, there, tokens, width = value.shape
    if there == heads:
        return value
    times = whole(heads) // whole(there)
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
    order, channels = channels_first(x.rank), whole(x.shape[-1])
    single = groups == channels
    numbers = total((channels // groups, *x.shape[1:-1]))  # of a row that are in one group
    scale, shift = (
        affine if affine and single else (_ones(sheet, groups), _ones(sheet, groups, 0.0))
    )
    first = transpose(sheet, x, order)
    parts = first if single else reshape(sheet, first, (x.shape[0], groups, numbers))
    name = sheet.one(
        "InstanceNormalization",
        form(sheet, parts),
        *(form(sheet, expanded(sheet, value)) for value in (scale, shift)),
        epsilon=eps,
    )
    out = reshape(sheet, made(parts.shape, FLOAT, name), first.shape)
    form(sheet, out)  # channels first, so that it is in no other order that the rest is written
    back = transpose(sheet, out, tuple(order.index(k) for k in range(x.rank)))
    if not affine or single:
        return back
    scaled = elementwise(sheet, "Mul", back, affine[0])
    return elementwise(sheet, "Add", scaled, affine[1])


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


LAYERS: dict[str, Write] = {
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
