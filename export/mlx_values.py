"""A value of a traced MLX program and the tensors that hold it on a sheet of ONNX nodes.

MLX is channels last and broadcasts, reshapes and transposes at no cost; ONNX convolutions are channels
first and every Transpose, Expand and Reshape is a node. So a value remembers

    forms   permutation -> tensor whose axes are the value's axes in that order; any one will do
    real    its sizes, 1 where MLX has broadcast an axis and no tensor holds the copies
    origin  the value it is a reshape of, while no node does that yet

and a node is written when an operator asks for a form that is not there.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray
from onnx import TensorProto

from .sheet import Name, Sheet
from .sizes import Number, Size, count

Sizes = tuple[Number, ...]
Order = tuple[int, ...]
# halves are written as float32, and every whole number as int64
TYPES: dict[str, int] = {
    **dict.fromkeys(("float16", "bfloat16", "float32"), TensorProto.FLOAT),
    **dict.fromkeys(("int8", "int16", "int32", "int64"), TensorProto.INT64),
    **dict.fromkeys(("uint8", "uint16", "uint32", "uint64"), TensorProto.INT64),
    "bool": TensorProto.BOOL,
}
NUMPY: dict[int, Any] = {
    TensorProto.FLOAT: np.float32,
    TensorProto.INT64: np.int64,
    TensorProto.BOOL: np.bool_,
}


@dataclass(eq=False)
class Value:
    """Sizes as MLX sees them, the ONNX element type, and where the numbers are.

    array: the numbers of a constant. summed: (what, axes) where the value is a sum over axes.
    node: the convolution that made it, while it may still take a bias.
    """

    shape: Sizes
    dtype: int
    real: Sizes
    forms: dict[Order, Name] = field(default_factory=dict)
    origin: "Value | None" = None
    array: NDArray[Any] | None = None
    summed: "tuple[Value, Order] | None" = None
    node: Any = None

    @property
    def rank(self) -> int:
        """How many axes it has."""
        return len(self.shape)

    @property
    def order(self) -> Order:
        """The order of axes it is to be had in for nothing, as MLX has them if possible."""
        plain = tuple(range(self.rank))
        return plain if plain in self.forms else next(iter(self.forms), plain)


def channels_first(rank: int) -> Order:
    """(batch, channels, space ...) of a value (batch, space ..., channels)."""
    return (0, rank - 1, *range(1, rank - 1))


def made(shape: Sizes, dtype: int, name: Name, order: Order | None = None) -> Value:
    """The value that a tensor holds in full."""
    return Value(shape, dtype, shape, {order or tuple(range(len(shape))): name})


def constant(sheet: Sheet, array: NDArray[Any], label: str = "constant") -> Value:
    """A constant of MLX in the type it is written in."""
    kind = TYPES[array.dtype.name]
    array = array.astype(NUMPY[kind], copy=False)
    value = made(array.shape, kind, sheet.constant(array, label))
    value.array = array
    return value


def number(sheet: Sheet, value: float, dtype: int = TensorProto.FLOAT) -> Value:
    """A scalar constant."""
    return constant(sheet, np.array(value, NUMPY[dtype]))


def is_fixed(sheet: Sheet, value: Value) -> bool:
    """Whether a value depends on constants alone."""
    if not value.forms and value.origin is not None:
        return is_fixed(sheet, value.origin)
    return any(name in sheet.fixed for name in value.forms.values())


def form(sheet: Sheet, value: Value, order: Order | None = None, loose: bool = False) -> Name:
    """The tensor that holds a value with its axes in an order; loose: leading 1s may be missing."""
    order = tuple(range(value.rank)) if order is None else order
    if order in value.forms:
        return value.forms[order]
    if value.origin is not None:
        name = _relabelled(sheet, value, order, loose)
        if name is not None and loose:
            return name  # it may have fewer axes, so it is no form of the value
        if name is None and not value.forms:
            plain = tuple(range(value.rank))
            source = value.origin
            while not source.forms and source.origin is not None:
                source = source.origin
            name = _reshape(sheet, form(sheet, source), source.real, value.real)
            value.forms[plain] = name
            return form(sheet, value, order)
        if name is not None:
            value.forms[order] = name
            return name
    have, name = next(iter(value.forms.items()))
    name = sheet.one("Transpose", name, perm=[have.index(axis) for axis in order])
    value.forms[order] = name
    return name


def _relabelled(sheet: Sheet, value: Value, order: Order, loose: bool) -> Name | None:
    """The form of a value that differs from its origin only in axes of one number."""
    origin = value.origin
    assert origin is not None
    mine, theirs = _long(value.real), _long(origin.real)
    if [value.real[k] for k in mine] != [origin.real[k] for k in theirs]:
        return None
    pairs = dict(zip(mine, theirs, strict=True))
    wanted = [pairs[axis] for axis in order if axis in pairs]
    rest = [axis for axis in range(origin.rank) if axis not in theirs]
    orders = [*origin.forms, tuple(range(origin.rank)), (*rest, *wanted)]
    have = next(o for o in orders if [axis for axis in o if axis in theirs] == wanted)
    sizes, target = [origin.real[axis] for axis in have], [value.real[axis] for axis in order]
    if loose and len(sizes) <= len(target) and [1] * (len(target) - len(sizes)) + sizes == target:
        return form(sheet, origin, have)
    if loose and _stripped(sizes) == _stripped(target) and origin.rank <= value.rank:
        return form(sheet, origin, have)
    return _reshape(sheet, form(sheet, origin, have), sizes, target)


def _long(sizes: Sequence[Number]) -> list[int]:
    return [axis for axis, size in enumerate(sizes) if size != 1]


def _stripped(sizes: Sequence[Number]) -> list[Number]:
    first = next(iter(_long(sizes)), len(sizes))
    return list(sizes[first:])


def _reshape(sheet: Sheet, name: Name, have: Sequence[Number], want: Sequence[Number]) -> Name:
    """A tensor in other sizes: 0 copies a size, -1 is what is left, two unknown ones are computed."""
    if tuple(have) == tuple(want):
        return name
    kept = [size == other for size, other in zip(have, want, strict=False)]
    kept += [False] * (len(want) - len(kept))
    moving = [isinstance(size, Size) for size in want]
    free = [k for k in range(len(want)) if moving[k] and not kept[k]]
    if len(free) > 1 or 0 in want:
        return sheet.one("Reshape", name, sheet.sizes(want), allowzero=1)
    target = [-1 if k in free else 0 if moving[k] else size for k, size in enumerate(want)]
    return sheet.one("Reshape", name, sheet.constant(np.array(target, np.int64)))


def reshape(sheet: Sheet, value: Value, shape: Sizes) -> Value:
    """The same numbers in other sizes; written when somebody needs them."""
    if shape == value.shape:
        return value
    mine, theirs = _long(shape), _long(value.shape)
    if [shape[k] for k in mine] == [value.shape[k] for k in theirs]:
        real: list[Number] = [1] * len(shape)
        for k, other in zip(mine, theirs, strict=True):
            real[k] = value.real[other]
        out = _pending(shape, value, tuple(real))
        return replace(out, summed=value.summed) if out.summed is not value.summed else out
    whole = expanded(sheet, value)
    before: Value | None = whole
    while before is not None:
        if before.shape == before.real == shape:
            return before
        before = before.origin
    return Value(shape, value.dtype, shape, origin=whole)


def _pending(shape: Sizes, value: Value, real: Sizes) -> Value:
    """A value with other axes of one number than another has."""
    origin = value
    if not value.forms and value.origin is not None:
        first = value.origin
        if [value.real[k] for k in _long(value.real)] == [
            first.real[k] for k in _long(first.real)
        ]:
            origin = first
    if origin.shape == shape and origin.real == real:
        return origin
    return Value(shape, value.dtype, real, origin=origin, array=value.array)


def transpose(sheet: Sheet, value: Value, axes: Order) -> Value:
    """result[i] = axis axes[i] of the value; costs nothing until a form is asked for."""
    if axes == tuple(range(value.rank)):
        return value
    if not value.forms:
        name = _relabelled(sheet, value, axes, loose=False)
        if name is None:
            form(sheet, value)
        else:
            value.forms[axes] = name
    forms = {
        tuple(axes.index(axis) for axis in order): name for order, name in value.forms.items()
    }
    shape, real = (tuple(sizes[axis] for axis in axes) for sizes in (value.shape, value.real))
    return Value(shape, value.dtype, real, forms)


def broadcast(value: Value, shape: Sizes) -> Value:
    """The value copied along axes, without any copies."""
    if shape == value.shape:
        return value
    if len(shape) == value.rank:
        return Value(shape, value.dtype, value.real, value.forms, value.origin, value.array)
    return _pending(shape, value, (1,) * (len(shape) - value.rank) + value.real)


def expanded(sheet: Sheet, value: Value, axes: Sequence[int] | None = None) -> Value:
    """The value with the copies that MLX's broadcasting meant, along all axes or along these."""
    chosen = range(value.rank) if axes is None else axes
    short = [axis for axis in chosen if value.real[axis] != value.shape[axis]]
    if not short:
        return value
    order = value.order
    target = [value.shape[axis] if axis in short else 1 for axis in order]
    name = sheet.one("Expand", form(sheet, value, order, loose=True), sheet.sizes(target))
    real = tuple(
        value.shape[axis] if axis in short else value.real[axis] for axis in range(value.rank)
    )
    return Value(value.shape, value.dtype, real, {order: name})


def joined(shapes: Sequence[Sizes]) -> Sizes:
    """The sizes that arrays of these sizes broadcast to."""
    rank = max(len(shape) for shape in shapes)
    wide = [(1,) * (rank - len(shape)) + shape for shape in shapes]
    return tuple(next((s for s in sizes if s != 1), 1) for sizes in zip(*wide, strict=True))


def together(sheet: Sheet, *values: Value) -> tuple[Order, list[Name], Sizes, Sizes]:
    """(order, tensors, sizes, real sizes): operands in the order of the largest of them."""
    shape = joined([value.shape for value in values])
    wide = [broadcast(value, (1,) * (len(shape) - value.rank) + value.shape) for value in values]
    largest = max(wide, key=lambda value: (not is_fixed(sheet, value), count(value.real)))
    order = largest.order
    names = [form(sheet, value, order, loose=value is not largest) for value in wide]
    return order, names, shape, joined([value.real for value in wide])


def elementwise(
    sheet: Sheet, kind: str, *values: Value, dtype: int | None = None, **attributes: Any
) -> Value:
    """A node that works number by number and broadcasts."""
    order, names, shape, real = together(sheet, *values)
    name = sheet.one(kind, *names, **attributes)
    return Value(shape, values[0].dtype if dtype is None else dtype, real, {order: name})


def along(
    sheet: Sheet, value: Value, write: Callable[[Name, Order], Name], shape: Sizes | None = None
) -> Value:
    """A node with axes as attributes, on the form that is there: write(tensor, order) -> tensor."""
    order = value.order
    name = write(form(sheet, value, order), order)
    return made(value.shape if shape is None else shape, value.dtype, name, order)
