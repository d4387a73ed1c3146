"""MLX primitives that move numbers without computing with them -> ONNX nodes."""

from typing import Any

import numpy as np

from .mlx_arithmetic import BOOL, FLOAT, INT64, Write, cast, dtype_of
from .mlx_trace import Step
from .mlx_values import (
    NUMPY,
    Sizes,
    Value,
    along,
    broadcast,
    constant,
    elementwise,
    expanded,
    form,
    made,
    number,
    reshape,
    transpose,
)
from .sheet import Name, Sheet
from .sizes import Number, Size


def reshaped(sheet: Sheet, step: Step, value: Value, *_: Value) -> Value:
    """Reshape, Flatten, Unflatten, Squeeze and ExpandDims: the output's sizes say it all."""
    return reshape(sheet, value, step.outputs[0][1])


def transposed(sheet: Sheet, step: Step, value: Value) -> Value:
    """Axes in another order."""
    return transpose(sheet, value, tuple(step.arguments[0]))


def spread(sheet: Sheet, step: Step, value: Value, *_: Value) -> Value:
    """Broadcast: remembered, not written."""
    return broadcast(value, step.outputs[0][1])


def cut(sheet: Sheet, step: Step, value: Value) -> Value:
    """Slice: from, to and step of every axis; those that are kept whole are left out."""
    starts, ends, steps = step.arguments
    shape = step.outputs[0][1]
    axes = [
        axis
        for axis in range(value.rank)
        if (shape[axis] != value.shape[axis] or steps[axis] < 0)
        and (value.real[axis] == value.shape[axis] or shape[axis] == 0)
    ]
    real = tuple(shape[k] if k in axes or value.real[k] != 1 else 1 for k in range(value.rank))
    if not axes:
        return Value(shape, value.dtype, real, value.forms, value.origin, value.array)
    order = value.order
    bounds = [sheet.sizes([numbers[axis] for axis in axes]) for numbers in (starts, ends)]
    places, strides = (
        sheet.constant(np.array(numbers, np.int64))
        for numbers in ([order.index(axis) for axis in axes], [steps[axis] for axis in axes])
    )
    name = sheet.one("Slice", form(sheet, value, order), *bounds, places, strides)
    return Value(shape, value.dtype, real, {order: name})


def cut_at(sheet: Sheet, step: Step, value: Value, start: Value) -> Value:
    """DynamicSlice: pieces of given sizes from places that are values."""
    axes, sizes = step.arguments
    value = expanded(sheet, value)
    first = cast(sheet, start, INT64)
    length = Value(start.shape, INT64, start.shape, {(0,): sheet.sizes([sizes[k] for k in axes])})
    last = elementwise(sheet, "Add", first, length)

    def write(name: Name, order: tuple[int, ...]) -> Name:
        places = sheet.constant(np.array([order.index(axis) for axis in axes], np.int64))
        return sheet.one("Slice", name, form(sheet, first), form(sheet, last), places)

    return along(sheet, value, write, step.outputs[0][1])


def concatenated(sheet: Sheet, step: Step, *values: Value) -> Value:
    """One after the other along an axis; axes that all have broadcast stay so."""
    axis = step.arguments[0]
    values = tuple(value for value in values if value.shape[axis] != 0) or values[:1]
    if len(values) == 1:
        return values[0]
    shared = [
        k
        for k in range(values[0].rank)
        if k == axis or any(value.real[k] != 1 for value in values)
    ]
    whole = [expanded(sheet, value, shared) for value in values]
    order = max(whole, key=_weight).order
    names = [form(sheet, value, order) for value in whole]
    name = sheet.one("Concat", *names, axis=order.index(axis))
    shape = step.outputs[0][1]
    real = tuple(shape[k] if k in shared else 1 for k in range(len(shape)))
    return Value(shape, values[0].dtype, real, {order: name})


def _weight(value: Value) -> tuple[bool, int]:
    """A value whose form is there goes before one that is only pending."""
    return bool(value.forms), sum(size != 1 for size in value.real)


def split(sheet: Sheet, step: Step, value: Value) -> list[Value]:
    """Pieces of an axis; they are of the sizes that the outputs have."""
    axis = step.arguments[1]
    value = expanded(sheet, value, [axis])
    order, shapes = value.order, [shape for _, shape, _ in step.outputs]
    if len(shapes) == 1:
        return [value]
    names = sheet.op(
        "Split",
        form(sheet, value, order),
        sheet.sizes([shape[axis] for shape in shapes]),
        outputs=len(shapes),
        axis=order.index(axis),
    )
    return [
        Value(shape, value.dtype, _with(value.real, axis, shape[axis]), {order: name})
        for shape, name in zip(shapes, names, strict=True)
    ]


def _with(sizes: Sizes, axis: int, size: Number) -> Sizes:
    return (*sizes[:axis], size, *sizes[axis + 1 :])


def padded(sheet: Sheet, step: Step, value: Value, filling: Value) -> Value:
    """A constant around the numbers. Pads of every axis: a shorter list breaks in ONNX Runtime."""
    axes, low, high = step.arguments
    moving = [k for k, axis in enumerate(axes) if low[k] or high[k]]
    if not moving:
        return value
    value = expanded(sheet, value, [axes[k] for k in moving])
    before: list[Any] = [0] * value.rank
    after: list[Any] = [0] * value.rank
    for k in moving:
        before[axes[k]], after[axes[k]] = low[k], high[k]
    order, shape = value.order, step.outputs[0][1]
    pads = [before[axis] for axis in order] + [after[axis] for axis in order]
    kind = FLOAT if value.dtype == BOOL else value.dtype  # ONNX Runtime has no padding of bools
    inner, filler = cast(sheet, value, kind), cast(sheet, filling, kind)
    name = sheet.one(
        "Pad",
        form(sheet, inner, order),
        sheet.sizes(pads),
        form(sheet, reshape(sheet, filler, ())),
        mode="constant",
    )
    moved = [axes[k] for k in moving]
    real = tuple(shape[k] if k in moved else value.real[k] for k in range(value.rank))
    return cast(sheet, Value(shape, kind, real, {order: name}), value.dtype)


def counted(sheet: Sheet, step: Step) -> Value:
    """Arange: start + k step."""
    start, _, stride = step.arguments
    (size,), dtype = step.outputs[0][1], dtype_of(step)
    if not isinstance(size, Size) and not isinstance(start, Size) and not isinstance(stride, Size):
        return constant(sheet, (start + np.arange(size) * stride).astype(NUMPY[dtype]))
    if isinstance(stride, Size):
        raise ValueError(
            f"module: expected a step that does not depend on the batch, got {stride} in Arange; "
            "scale a plain one"
        )
    zero, one = sheet.number(0, np.int64), sheet.number(1, np.int64)
    end = sheet.one("Squeeze", sheet.sizes([size]))
    name = sheet.one("Range", zero, end, one)
    value = cast(sheet, made((size,), INT64, name), dtype)
    if stride != 1:
        value = elementwise(sheet, "Mul", value, number(sheet, stride, dtype))
    first = (
        cast(sheet, made((1,), INT64, sheet.sizes([start])), dtype)
        if isinstance(start, Size)
        else number(sheet, start, dtype)
    )
    return value if start == 0 else elementwise(sheet, "Add", value, first)


LAYOUTS: dict[str, Write] = {
    **dict.fromkeys(("ExpandDims", "Flatten", "Reshape", "Squeeze", "Unflatten"), reshaped),
    "Arange": counted,
    "Broadcast": spread,
    "Concatenate": concatenated,
    "DynamicSlice": cut_at,
    "Pad": padded,
    "Slice": cut,
    "Split": split,
    "Transpose": transposed,
}
