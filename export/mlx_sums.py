"""MLX primitives that go along axes, or look numbers up by their place -> ONNX nodes."""

from typing import Any

import numpy as np

from .mlx_arithmetic import BOOL, FLOAT, INT64, Write, cast, dtype_of, reduced
from .mlx_trace import Step
from .mlx_values import (
    Order,
    Value,
    along,
    elementwise,
    expanded,
    form,
    joined,
    made,
    reshape,
)
from .sheet import Name, Sheet
from .sizes import Size, total

REDUCTIONS = ("ReduceMin", "ReduceMax", "ReduceSum", "ReduceProd", "ReduceMin", "ReduceMax")
SCATTERS = {0: "max", 1: "min", 2: "add", 3: "mul", 4: "none"}  # MLX's numbers for them


def unsupported(step: Step, what: str) -> ValueError:
    """What to raise for a use of a primitive that its function does not write."""
    sizes = ", ".join(str(n) for n in step.outputs[0][1])
    return ValueError(
        f"module: expected {what}, got {step.name} to ({sizes}); write the network without it"
    )


def reduce(sheet: Sheet, step: Step, value: Value) -> Value:
    """and, or, sum, product, min, max over axes, which are kept."""
    kind, axes = int(step.arguments[0]), tuple(step.arguments[1])
    dtype = dtype_of(step)
    value = expanded(sheet, cast(sheet, value, INT64 if dtype == BOOL else dtype), axes)
    out = reduced(sheet, REDUCTIONS[kind], value, axes)
    if kind == 2 and dtype == FLOAT:
        out.summed = (value, axes)
    return cast(sheet, out, dtype)


def arg_reduce(sheet: Sheet, step: Step, value: Value) -> Value:
    """Where the smallest or the largest number of an axis is, the first of equal ones."""
    kind, axis = step.arguments[0], step.arguments[1]
    value = expanded(
        sheet, cast(sheet, value, INT64 if value.dtype == BOOL else value.dtype), [axis]
    )
    order = value.order
    name = sheet.one(
        ("ArgMin", "ArgMax")[int(kind)], form(sheet, value, order), axis=order.index(axis)
    )
    real = tuple(1 if k == axis else size for k, size in enumerate(value.real))
    return Value(step.outputs[0][1], INT64, real, {order: name})


def scan(sheet: Sheet, step: Step, value: Value) -> Value:
    """The running sum of an axis."""
    kind, axis, reverse, inclusive = step.arguments
    if int(kind) != 2:
        raise unsupported(step, "running sums alone (cumsum)")
    value = expanded(sheet, cast(sheet, value, dtype_of(step)))

    def write(name: Name, order: Order) -> Name:
        place = sheet.number(order.index(axis), np.int64)
        return sheet.one("CumSum", name, place, reverse=int(reverse), exclusive=int(not inclusive))

    return along(sheet, value, write)


def sorted_pair(sheet: Sheet, value: Value, axis: int) -> tuple[Value, Value]:
    """(numbers, places) of an axis from small to large."""
    value = expanded(sheet, value)
    axis %= value.rank
    order = value.order
    names = sheet.op(
        "TopK",
        form(sheet, value, order),
        sheet.sizes([value.shape[axis]]),
        outputs=2,
        axis=order.index(axis),
        largest=0,
        sorted=1,
    )
    return made(value.shape, value.dtype, names[0], order), made(
        value.shape, INT64, names[1], order
    )


def sort(sheet: Sheet, step: Step, value: Value) -> Value:
    """From small to large; a partition is sorted as well."""
    return sorted_pair(sheet, value, step.arguments[-1])[0]


def arg_sort(sheet: Sheet, step: Step, value: Value) -> Value:
    """The places that sort."""
    return sorted_pair(sheet, value, step.arguments[-1])[1]


def softmax(sheet: Sheet, step: Step, value: Value) -> Value:
    """exp(a) / sum exp(a) of the last axis."""
    return last_softmax(sheet, value)


def last_softmax(sheet: Sheet, value: Value) -> Value:
    """Softmax of the last axis."""
    last = value.rank - 1
    value = expanded(sheet, value, [last])
    order = value.order
    name = sheet.one("Softmax", form(sheet, value, order), axis=order.index(last))
    return Value(value.shape, value.dtype, value.real, {order: name})


def log_sum_exp(sheet: Sheet, step: Step, value: Value) -> Value:
    """ln sum exp(a) of the last axis, which is kept."""
    last = value.rank - 1
    value = expanded(sheet, value, [last])
    top = reduced(sheet, "ReduceMax", value, (last,))
    parts = elementwise(sheet, "Exp", elementwise(sheet, "Sub", value, top))
    total = elementwise(sheet, "Log", reduced(sheet, "ReduceSum", parts, (last,)))
    return elementwise(sheet, "Add", total, top)


def gather(sheet: Sheet, step: Step, value: Value, *indices: Value) -> Value:
    """Rows by their numbers along one axis or several; sizes: index axes, then the value's."""
    axes, sizes = step.arguments
    rest = [k for k in range(value.rank) if k not in axes]
    if any(sizes[k] != value.shape[k] for k in rest) or any(sizes[k] != 1 for k in axes):
        raise unsupported(step, "whole rows to gather")
    shape = step.outputs[0][1]
    if len(axes) == 1:
        return reshape(sheet, take(sheet, value, axes[0], indices[0]), shape)
    value = expanded(sheet, value)
    places = _stacked(sheet, indices)
    name = sheet.one("GatherND", form(sheet, value, (*axes, *rest)), form(sheet, places))
    sizes = places.shape[:-1] + tuple(value.shape[k] for k in rest)
    return reshape(sheet, made(sizes, value.dtype, name), shape)


def take(sheet: Sheet, value: Value, axis: int, index: Value) -> Value:
    """(index axes, the other axes): rows of one axis."""
    value, index = expanded(sheet, value, [axis]), expanded(sheet, index)
    order = value.order
    place = order.index(axis)
    name = sheet.one("Gather", form(sheet, value, order), form(sheet, index), axis=place)
    rest = [k for k in range(value.rank) if k != axis]
    new = {k: index.rank + i for i, k in enumerate(rest)}
    back = (
        *(new[k] for k in order[:place]),
        *range(index.rank),
        *(new[k] for k in order[place + 1 :]),
    )
    shape, real = (
        index.shape + tuple(sizes[k] for k in rest) for sizes in (value.shape, value.real)
    )
    return Value(shape, value.dtype, real, {back: name})


def strided(sheet: Sheet, step: Step, value: Value) -> Value:
    """as_strided within each row: numbers of a row by their places in it."""
    shape, strides, offset = step.arguments
    row = total((*value.shape, 1))
    first, *rest = shape
    fixed = [size for size in (*rest, *strides, offset) if not isinstance(size, Size)]
    rows = isinstance(row, Size) and row == total((first, strides[0]))
    if len(fixed) != len(rest) + len(strides) + 1 or not rows:
        raise unsupported(step, "windows that lie within a row (as_strided)")
    grids = np.meshgrid(*(np.arange(size) for size in rest), indexing="ij")
    places = offset + sum(grid * n for grid, n in zip(grids, strides[1:], strict=True))
    flat = reshape(sheet, value, (first, strides[0]))
    index = made(tuple(rest), INT64, sheet.constant(np.asarray(places, np.int64)))
    name = sheet.one("Gather", form(sheet, expanded(sheet, flat)), form(sheet, index), axis=1)
    return made(step.outputs[0][1], value.dtype, name)


def _stacked(sheet: Sheet, indices: tuple[Value, ...]) -> Value:
    """(index axes, how many): the numbers of one element side by side."""
    shape = joined([index.shape for index in indices])
    wide = [
        expanded(sheet, reshape(sheet, cast(sheet, index, INT64), (*index.shape, 1)))
        for index in indices
    ]
    name = sheet.one("Concat", *(form(sheet, index) for index in wide), axis=len(shape))
    return made((*shape, len(indices)), INT64, name)


def gather_axis(sheet: Sheet, step: Step, value: Value, index: Value) -> Value:
    """take_along_axis."""
    axis = step.arguments[0]
    value, index = expanded(sheet, value), expanded(sheet, index)

    def write(name: Name, order: Order) -> Name:
        places = form(sheet, index, order)
        return sheet.one("GatherElements", name, places, axis=order.index(axis))

    return along(sheet, value, write, step.outputs[0][1])


def scatter_axis(sheet: Sheet, step: Step, value: Value, index: Value, new: Value) -> Value:
    """put_along_axis; the argument 0 adds."""
    kind, axis = step.arguments
    value, index, new = (expanded(sheet, part) for part in (value, index, new))

    def write(name: Name, order: Order) -> Name:
        places, numbers = form(sheet, index, order), form(sheet, new, order)
        return sheet.one(
            "ScatterElements",
            name,
            places,
            numbers,
            axis=order.index(axis),
            reduction=("add", "none")[int(kind)],
        )

    return along(sheet, value, write)


def scatter(sheet: Sheet, step: Step, value: Value, *rest: Value) -> Value:
    """Rows put, or added, at numbered places."""
    kind, axes = step.arguments
    *indices, new = rest
    others = [k for k in range(value.rank) if k not in axes]
    where = joined([index.shape for index in indices])
    piece = new.shape[len(where) :]
    if any(piece[k] != value.shape[k] for k in others):
        raise unsupported(step, "whole rows to put")
    sizes = where + tuple(value.shape[k] for k in others)
    return _put(
        sheet,
        value,
        (*axes, *others),
        _stacked(sheet, tuple(indices)),
        reshape(sheet, new, sizes),
        SCATTERS[int(kind)],
    )


def _put(sheet: Sheet, value: Value, order: Order, places: Value, new: Value, kind: str) -> Value:
    """ScatterND on a value whose axes are in an order, those that are numbered first."""
    value, new = expanded(sheet, value), expanded(sheet, new)
    name = sheet.one(
        "ScatterND",
        form(sheet, value, order),
        form(sheet, places),
        form(sheet, new),
        reduction=kind,
    )
    return made(value.shape, value.dtype, name, order)


def slice_update(sheet: Sheet, step: Step, value: Value, new: Value) -> Value:
    """A piece put, or added, where a slice is."""
    kind, starts, _, strides = step.arguments
    axes = [k for k in range(value.rank) if new.shape[k] != value.shape[k] or strides[k] != 1]
    if not axes and int(kind) == 4:
        return new
    axes = axes or [value.rank - 1]
    others = [k for k in range(value.rank) if k not in axes]
    ranges: list[Any] = []
    for k in axes:
        width = new.shape[k]
        if isinstance(starts[k], Size) or isinstance(width, Size):
            raise unsupported(step, "a slice whose place does not depend on the batch")
        ranges.append(starts[k] % _length(value, k) + np.arange(width) * strides[k])
    grid = np.stack(np.meshgrid(*ranges, indexing="ij"), -1).astype(np.int64)
    places = made(grid.shape, INT64, sheet.constant(grid))
    order = (*axes, *others)
    piece = made(
        tuple(new.shape[k] for k in order), new.dtype, form(sheet, expanded(sheet, new), order)
    )
    return _put(sheet, value, order, places, piece, SCATTERS[int(kind)])


def _length(value: Value, axis: int) -> int:
    """A size by which a negative place is counted from the end."""
    size = value.shape[axis]
    return 1 << 62 if isinstance(size, Size) else size


SUMS: dict[str, Write] = {
    **dict.fromkeys(("ArgPartition", "ArgSort"), arg_sort),
    **dict.fromkeys(("Partition", "Sort"), sort),
    "ArgReduce": arg_reduce,
    "AsStrided": strided,
    "Gather": gather,
    "GatherAxis": gather_axis,
    "LogSumExp": log_sum_exp,
    "Reduce": reduce,
    "Scan": scan,
    "Scatter": scatter,
    "ScatterAxis": scatter_axis,
    "SliceUpdate": slice_update,
    "Softmax": softmax,
}
