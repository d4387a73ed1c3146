"""MLX primitives that work number by number -> ONNX nodes.

Every function here has the form f(sheet, step, *values) -> value, as have those of the files beside it.
"""

from collections.abc import Callable
from dataclasses import replace
from functools import partial
from typing import Any

import numpy as np
from onnx import TensorProto

from .mlx_trace import Step
from .mlx_values import TYPES, Value, elementwise, form, is_fixed, number, reshape
from .sheet import Sheet

Write = Callable[..., Any]  # (sheet, step, *values) -> a value, or one for each output
FLOAT, INT64, BOOL = TensorProto.FLOAT, TensorProto.INT64, TensorProto.BOOL
OF_BOOL = {"Add": "Or", "Mul": "And", "Max": "Or", "Min": "And"}


def dtype_of(step: Step) -> int:
    """The ONNX element type of a step's first output."""
    return TYPES[step.outputs[0][2]]


def plain(kind: str) -> Write:
    """One node of that kind."""
    return partial(_plain, kind)


def _plain(kind: str, sheet: Sheet, step: Step, *values: Value) -> Value:
    if values[0].dtype == BOOL and kind in OF_BOOL:
        return elementwise(sheet, OF_BOOL[kind], *values, dtype=BOOL)
    return elementwise(sheet, kind, *values, dtype=dtype_of(step))


def same(sheet: Sheet, step: Step, value: Value, *_: Value) -> Value:
    """The first input."""
    return value


def passed(sheet: Sheet, step: Step, *values: Value) -> list[Value]:
    """Somebody's own mx.depends: every output is its input."""
    return list(values)


def cast(sheet: Sheet, value: Value, dtype: int) -> Value:
    """The value as another ONNX type."""
    if value.dtype == dtype:
        return value
    return elementwise(sheet, "Cast", value, dtype=dtype, to=dtype)


def as_type(sheet: Sheet, step: Step, value: Value) -> Value:
    """A cast; between halves and float32, and between whole numbers, there is none."""
    return cast(sheet, value, dtype_of(step))


def known(value: Value) -> float | None:
    """The number a value has everywhere, if it is a constant of one number."""
    array = value.array
    return None if array is None or array.size != 1 else float(array.reshape(()))


def add(sheet: Sheet, step: Step, a: Value, b: Value) -> Value:
    """a + b; a vector added to the channels of a convolution becomes its bias."""
    for image, bias in ((a, b), (b, a)):
        row = bias.real[-1:] if bias.real else ()
        channels = image.shape[-1:] if image.shape else ()
        if image.node is None or not is_fixed(sheet, bias):
            continue
        if row == channels and all(size == 1 for size in bias.real[:-1]):
            base = Value(bias.real, bias.dtype, bias.real, bias.forms, bias.origin)
            image.node.input.append(form(sheet, reshape(sheet, base, row)))
            return replace(image, node=None)
    return _plain("Add", sheet, step, a, b)


def multiply(sheet: Sheet, step: Step, a: Value, b: Value) -> Value:
    """a b; a sum times 1 / n is a mean."""
    for total, share in ((a, b), (b, a)):
        part = known(share)
        if total.summed is None or part is None:
            continue
        value, axes = total.summed
        sizes = [value.shape[axis] for axis in axes]
        if all(isinstance(size, int) for size in sizes):
            n = float(np.prod(sizes))  # type: ignore[arg-type]
            if abs(part * n - 1.0) < 1e-6:
                return reshape(sheet, reduced(sheet, "ReduceMean", value, axes), total.shape)
    return _plain("Mul", sheet, step, a, b)


def reduced(sheet: Sheet, kind: str, value: Value, axes: tuple[int, ...]) -> Value:
    """A reduction that keeps its axes, on the form that is there."""
    order = value.order
    places = np.array(sorted(order.index(axis) for axis in axes), np.int64)
    name = sheet.one(kind, form(sheet, value, order), sheet.constant(places), keepdims=1)
    shape, real = (
        tuple(1 if axis in axes else size for axis, size in enumerate(sizes))
        for sizes in (value.shape, value.real)
    )
    return Value(shape, value.dtype, real, {order: name})


def divide(sheet: Sheet, step: Step, a: Value, b: Value) -> Value:
    """a / b."""
    return elementwise(sheet, "Div", a, b, dtype=dtype_of(step))


def maximum(sheet: Sheet, step: Step, a: Value, b: Value) -> Value:
    """max(a, b); with 0 it is Relu."""
    for value, floor in ((a, b), (b, a)):
        if known(floor) == 0.0 and value.dtype == FLOAT and known(value) is None:
            return elementwise(sheet, "Relu", value)
    return _plain("Max", sheet, step, a, b)


def square(sheet: Sheet, step: Step, value: Value) -> Value:
    """a a."""
    return elementwise(sheet, "Mul", value, value)


def root(sheet: Sheet, step: Step, value: Value) -> Value:
    """sqrt(a), or 1 / sqrt(a) where the argument says so."""
    out = elementwise(sheet, "Sqrt", value)
    return elementwise(sheet, "Reciprocal", out) if step.arguments[0] else out


def log(sheet: Sheet, step: Step, value: Value) -> Value:
    """log2, log10 or ln."""
    out = elementwise(sheet, "Log", value)
    base = (np.log(2.0), np.log(10.0), 1.0)[int(step.arguments[0])]
    return out if base == 1.0 else elementwise(sheet, "Mul", out, number(sheet, 1.0 / base))


def log1p(sheet: Sheet, step: Step, value: Value) -> Value:
    """ln(1 + a)."""
    return elementwise(sheet, "Log", elementwise(sheet, "Add", value, number(sheet, 1.0)))


def expm1(sheet: Sheet, step: Step, value: Value) -> Value:
    """exp(a) - 1."""
    return elementwise(sheet, "Sub", elementwise(sheet, "Exp", value), number(sheet, 1.0))


def log_add_exp(sheet: Sheet, step: Step, a: Value, b: Value) -> Value:
    """ln(exp(a) + exp(b)) = max + ln(1 + exp(-|a - b|)); with 0 it is Softplus."""
    if known(b) == 0.0 and a.shape == b.shape:
        return elementwise(sheet, "Softplus", a)
    gap = elementwise(sheet, "Neg", elementwise(sheet, "Abs", elementwise(sheet, "Sub", a, b)))
    rest = log1p(sheet, step, elementwise(sheet, "Exp", gap))
    return elementwise(sheet, "Add", elementwise(sheet, "Max", a, b), rest)


def floor_divide(sheet: Sheet, step: Step, a: Value, b: Value) -> Value:
    """floor(a / b); whole numbers by a - mod(a, b)."""
    if dtype_of(step) == INT64:
        rest = elementwise(sheet, "Mod", a, b)
        return elementwise(sheet, "Div", elementwise(sheet, "Sub", a, rest), b)
    return elementwise(sheet, "Floor", elementwise(sheet, "Div", a, b))


def remainder(sheet: Sheet, step: Step, a: Value, b: Value) -> Value:
    """a - floor(a / b) b."""
    if dtype_of(step) == INT64:
        return elementwise(sheet, "Mod", a, b)
    whole = floor_divide(sheet, step, a, b)
    return elementwise(sheet, "Sub", a, elementwise(sheet, "Mul", whole, b))


def div_mod(sheet: Sheet, step: Step, a: Value, b: Value) -> list[Value]:
    """Both."""
    return [floor_divide(sheet, step, a, b), remainder(sheet, step, a, b)]


def arc_tan2(sheet: Sheet, step: Step, y: Value, x: Value) -> Value:
    """atan(y / x), plus pi or -pi where x < 0, and 0 where both are."""
    zero, pi = number(sheet, 0.0), number(sheet, np.pi)
    left, below = (elementwise(sheet, "Less", v, zero, dtype=BOOL) for v in (x, y))
    turn = elementwise(sheet, "Where", below, number(sheet, -np.pi), pi, dtype=FLOAT)
    turn = elementwise(sheet, "Where", left, turn, zero, dtype=FLOAT)
    null = elementwise(sheet, "Equal", y, zero, dtype=BOOL)
    angle = elementwise(sheet, "Atan", elementwise(sheet, "Div", y, x))
    angle = elementwise(sheet, "Where", null, zero, angle, dtype=FLOAT)
    return elementwise(sheet, "Add", angle, turn)


def compare(kind: str) -> Write:
    """A comparison, whose result is a bool; of bools as of 0 and 1."""

    def write(sheet: Sheet, step: Step, *values: Value) -> Value:
        numbers = [cast(sheet, v, INT64 if v.dtype == BOOL else v.dtype) for v in values]
        return elementwise(sheet, kind, *numbers, dtype=BOOL)

    return write


def equal(sheet: Sheet, step: Step, a: Value, b: Value) -> Value:
    """a = b; where the argument says so NaN = NaN."""
    out = elementwise(sheet, "Equal", a, b, dtype=BOOL)
    if step.arguments and step.arguments[0] and a.dtype == FLOAT:
        nans = [elementwise(sheet, "IsNaN", v, dtype=BOOL) for v in (a, b)]
        out = elementwise(sheet, "Or", out, elementwise(sheet, "And", *nans))
    return out


def not_equal(sheet: Sheet, step: Step, a: Value, b: Value) -> Value:
    """not a = b."""
    return elementwise(sheet, "Not", elementwise(sheet, "Equal", a, b, dtype=BOOL))


def logical(kind: str) -> Write:
    """And, Or or Not of bools."""

    def write(sheet: Sheet, step: Step, *values: Value) -> Value:
        return elementwise(sheet, kind, *(cast(sheet, value, BOOL) for value in values))

    return write


def bitwise(sheet: Sheet, step: Step, a: Value, b: Value) -> Value:
    """and, or, xor, << and >> of whole numbers, the first three of bools too."""
    which = int(step.arguments[0])
    if a.dtype == BOOL:
        return elementwise(sheet, ("And", "Or", "Xor")[which], a, b)
    if which < 3:
        return elementwise(sheet, ("BitwiseAnd", "BitwiseOr", "BitwiseXor")[which], a, b)
    shift = elementwise(
        sheet,
        "BitShift",
        *(cast(sheet, value, TensorProto.UINT64) for value in (a, b)),
        direction=("LEFT", "RIGHT")[which - 3],
    )
    return cast(sheet, shift, INT64)


def select(sheet: Sheet, step: Step, condition: Value, a: Value, b: Value) -> Value:
    """condition ? a : b; of bools by And and Or, for ONNX Runtime has no other way."""
    if a.dtype == BOOL:
        other = elementwise(sheet, "And", elementwise(sheet, "Not", condition), b)
        return elementwise(sheet, "Or", elementwise(sheet, "And", condition, a), other)
    return elementwise(sheet, "Where", cast(sheet, condition, BOOL), a, b, dtype=dtype_of(step))


_SAME_NAME = "Abs Ceil Cos Cosh Erf Exp Floor Round Sigmoid Sign Sin Sinh Tan Tanh"
ARITHMETIC: dict[str, Write] = {
    **{name: plain(name) for name in _SAME_NAME.split()},
    "Add": add,
    "ArcCos": plain("Acos"),
    "ArcCosh": plain("Acosh"),
    "ArcSin": plain("Asin"),
    "ArcSinh": plain("Asinh"),
    "ArcTan": plain("Atan"),
    "ArcTan2": arc_tan2,
    "ArcTanh": plain("Atanh"),
    "AsType": as_type,
    "BitwiseBinary": bitwise,
    "Depends": passed,
    "DivMod": div_mod,
    "Divide": divide,
    "Equal": equal,
    "Expm1": expm1,
    "FloorDivide": floor_divide,
    "Full": same,
    "Greater": compare("Greater"),
    "GreaterEqual": compare("GreaterOrEqual"),
    "Less": compare("Less"),
    "LessEqual": compare("LessOrEqual"),
    "Log": log,
    "Log1p": log1p,
    "LogAddExp": log_add_exp,
    "LogicalAnd": logical("And"),
    "LogicalNot": logical("Not"),
    "LogicalOr": logical("Or"),
    "Maximum": maximum,
    "Minimum": plain("Min"),
    "Multiply": multiply,
    "Negative": plain("Neg"),
    "NotEqual": not_equal,
    "Power": plain("Pow"),
    "Remainder": remainder,
    "Select": select,
    "Sqrt": root,
    "Square": square,
    "Subtract": plain("Sub"),
}
