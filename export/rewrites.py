"""An operator in simpler ones: a rule each, for those that CoreML or NNAPI lacks or takes only in part.

A rule reads a node of the old graph and writes others on the sheet; it returns what the outputs are
called there. To make another operator portable, write its rule and its line in `RULES`.
"""

import math
from collections.abc import Callable, Sequence

import numpy as np
import onnx

from .tangent import attribute
from .writer import Writer, refused

Rule = Callable[[Writer, onnx.NodeProto], list[str]]
FLOAT = onnx.TensorProto.FLOAT


def kept(writer: Writer, node: onnx.NodeProto) -> list[str]:
    """The node as it is."""
    return writer.again(node, *(writer.at(name) for name in node.input))


def same(writer: Writer, node: onnx.NodeProto) -> list[str]:
    """f(a) = a."""
    return [writer.at(node.input[0])]


def cast(writer: Writer, node: onnx.NodeProto) -> list[str]:
    """float(a) = a; labels and flags are not computed with."""
    if writer.kind(node.input[0]) != FLOAT or attribute(node, "to", 0) != FLOAT:
        raise refused("Cast to or from other than float32")
    return same(writer, node)


def absolute(writer: Writer, node: onnx.NodeProto) -> list[str]:
    """|a| = max(a, -a)."""
    return [writer.absolute(writer.at(node.input[0]))]


def cosine(writer: Writer, node: onnx.NodeProto) -> list[str]:
    """cos a = 1 - 2 sin(a / 2)^2: a / 2 is exact, a + pi / 2 is rounded by 2e-5 at a = 300."""
    sine = writer.op("Sin", writer.scaled(writer.at(node.input[0]), 0.5))
    square = writer.op("Mul", sine, sine)
    return [writer.op("Sub", writer.number(1.0), writer.scaled(square, 2.0))]


def negative(writer: Writer, node: onnx.NodeProto) -> list[str]:
    """-a = a * -1."""
    return [writer.scaled(writer.at(node.input[0]), -1.0)]


def reciprocal(writer: Writer, node: onnx.NodeProto) -> list[str]:
    """1 / a."""
    return [writer.op("Div", writer.number(1.0), writer.at(node.input[0]))]


def smaller(writer: Writer, node: onnx.NodeProto) -> list[str]:
    """min(a, b, ...) = -max(-a, -b, ...)."""
    parts = [writer.scaled(writer.at(name), -1.0) for name in node.input]
    return [writer.scaled(writer.chain("Max", parts), -1.0)]


def total(writer: Writer, node: onnx.NodeProto) -> list[str]:
    """a + b + ..."""
    return [writer.chain("Add", [writer.at(name) for name in node.input])]


def reduced_sum(writer: Writer, node: onnx.NodeProto) -> list[str]:
    """sum over the axes = mean * how many."""
    before, after = writer.shape(node.input[0]), writer.shape(node.output[0])
    axes = writer.integers(node, 1)
    mean = writer.op(
        "ReduceMean",
        writer.at(node.input[0]),
        *([] if axes is None else [writer.axes(*axes)]),
        keepdims=attribute(node, "keepdims", 1),
    )
    return [writer.scaled(mean, math.prod(before) / math.prod(after))]


def reshaped(writer: Writer, node: onnx.NodeProto) -> list[str]:
    """The same numbers in the shape of the output."""
    return [writer.reshaped(writer.view(node.input[0]), writer.shape(node.output[0]))]


def transposed(writer: Writer, node: onnx.NodeProto) -> list[str]:
    """Axes in another order."""
    shape = writer.shape(node.input[0])
    order = attribute(node, "perm", list(range(len(shape)))[::-1])
    return [writer.transposed(writer.view(node.input[0]), shape, order)]


def expanded(writer: Writer, node: onnx.NodeProto) -> list[str]:
    """a in a larger shape = a + zeros, along the axes that grow."""
    before, after = writer.shape(node.input[0]), writer.shape(node.output[0])
    if before == after:
        return same(writer, node)
    before = (1,) * (len(after) - len(before)) + before
    grows = [n if m != n else 1 for m, n in zip(before, after, strict=True)]
    return [
        writer.op("Add", writer.at(node.input[0]), writer.constant(np.zeros(grows, np.float32)))
    ]


def tiled(writer: Writer, node: onnx.NodeProto) -> list[str]:
    """a, a, ... along every axis."""
    a = writer.at(node.input[0])
    for axis, times in enumerate(writer.required(node, 1)):
        a = a if times == 1 else writer.op("Concat", *[a] * times, axis=axis)
    return [a]


def padded(writer: Writer, node: onnx.NodeProto) -> list[str]:
    """constants beside a, one axis after another."""
    if attribute(node, "mode", b"constant") != b"constant" or any(node.input[3:]):
        raise refused("Pad of another mode than constant")
    a, sizes, pads = writer.at(node.input[0]), list(writer.shape(node.input[0])), []
    value = writer.value(node.input[2]) if any(node.input[2:]) else np.float32(0.0)
    pads = writer.required(node, 1)
    if value is None or min(pads) < 0:
        raise refused("Pad with less than nothing or a value that is computed")
    for axis, ends in enumerate(zip(pads[: len(sizes)], pads[len(sizes) :], strict=True)):
        sides = [
            [writer.constant(np.full([*sizes[:axis], n, *sizes[axis + 1 :]], value, np.float32))]
            if n
            else []
            for n in ends
        ]
        sizes[axis] += sum(ends)
        a = writer.op("Concat", *sides[0], a, *sides[1], axis=axis) if any(ends) else a
    return [a]


def gathered(writer: Writer, node: onnx.NodeProto) -> list[str]:
    """table[label] = onehot(label) @ table; entries at known places of a value are cut out of it."""
    table, places = writer.value(node.input[0]), writer.value(node.input[1])
    axis = attribute(node, "axis", 0)
    if places is None:
        if table is None or axis != 0:
            raise refused("Gather at places that are computed")
        onehot = writer.onehot(node.input[1], len(table))
        rows = table.reshape(len(table), -1)
        flat = writer.at(node.input[0]) if table.ndim == 2 else writer.constant(rows)
        found = writer.op("MatMul", onehot, flat)
        return [found if table.ndim == 2 else writer.reshaped(found, writer.shape(node.output[0]))]
    sizes = writer.shape(node.input[0])
    parts = [
        writer.sliced(writer.at(node.input[0]), axis % len(sizes), place % sizes[axis], 1)
        for place in places.ravel().tolist()
    ]
    whole = writer.op("Concat", *parts, axis=axis) if len(parts) > 1 else parts[0]
    return [writer.reshaped(whole, writer.shape(node.output[0]))]


def chosen(writer: Writer, node: onnx.NodeProto) -> list[str]:
    """c ? a : b = a m + b (1 - m), m = 1 where c, for a c that is known."""
    c = writer.value(node.input[0])
    if c is None:
        raise refused("Where on a condition that is computed")
    terms = []
    for name, mask in ((node.input[1], c), (node.input[2], ~c)):
        value = writer.value(name)
        # a constant may be infinite, and infinity times 0 is not a number
        terms.append(
            writer.op("Mul", writer.at(name), writer.constant(mask.astype(np.float32)))
            if value is None
            else writer.constant(np.where(mask, value, 0.0).astype(np.float32))
        )
    return [writer.op("Add", *terms)]


def resized(writer: Writer, node: onnx.NodeProto) -> list[str]:
    """The node as it is, with empty arguments in place of none: a checker of sizes wants them all."""
    empty = writer.constant(np.zeros(0, np.float32))
    return writer.again(node, *(writer.at(name) if name else empty for name in node.input))


def layer_norm(writer: Writer, node: onnx.NodeProto) -> list[str]:
    """(a - mean) / deviation * scale + bias over the last axes."""
    rank, axis = len(writer.shape(node.input[0])), attribute(node, "axis", -1)
    if any(node.output[1:]):
        raise refused("LayerNormalization with several outputs")
    over = list(range(axis % rank, rank))
    n = writer.normalised(writer.at(node.input[0]), over, attribute(node, "epsilon", 1e-5))
    return [writer.affine(n, *node.input[1:])]


def instance_norm(writer: Writer, node: onnx.NodeProto) -> list[str]:
    """The same over all axes but batch and channels, a scale and a bias per channel."""
    rank = len(writer.shape(node.input[0]))
    epsilon = attribute(node, "epsilon", 1e-5)
    n = writer.normalised(writer.at(node.input[0]), list(range(2, rank)), epsilon)
    return [writer.affine(n, *node.input[1:], trailing=rank - 2)]


def group_norm(writer: Writer, node: onnx.NodeProto) -> list[str]:
    """The same over each group of channels."""
    shape, groups = writer.shape(node.input[0]), attribute(node, "num_groups", 1)
    view = writer.reshaped(writer.at(node.input[0]), (shape[0], groups, -1))
    n = writer.normalised(view, [2], attribute(node, "epsilon", 1e-5))
    return [writer.affine(writer.reshaped(n, shape), *node.input[1:], trailing=len(shape) - 2)]


def error_function(writer: Writer, node: onnx.NodeProto) -> list[str]:
    """erf a = sign(a) erf |a|."""
    a = writer.at(node.input[0])
    size = writer.absolute(a)
    sign = writer.op("Div", a, writer.op("Max", size, writer.number(1e-6)))
    return [writer.op("Mul", sign, _rise(writer, size))]


def gelu(writer: Writer, node: onnx.NodeProto) -> list[str]:
    """a (1 + erf(a / sqrt 2)) / 2 = (a + |a| erf(|a| / sqrt 2)) / 2, or with tanh(c (a + 0.044715 a^3))."""
    a = writer.at(node.input[0])
    if attribute(node, "approximate", b"none") == b"tanh":
        c, square = math.sqrt(2.0 / math.pi), writer.op("Mul", a, a)
        slope = writer.op("Add", writer.scaled(square, 0.044715 * c), writer.number(c))
        rise = writer.op("Mul", a, writer.op("Tanh", writer.op("Mul", a, slope)))
    else:
        size = writer.absolute(a)
        rise = writer.op("Mul", size, _rise(writer, writer.scaled(size, 0.5**0.5)))
    return [writer.scaled(writer.op("Add", a, rise), 0.5)]


def _rise(writer: Writer, a: str) -> str:
    """erf a = 1 - (c1 t + ... + c5 t^5) exp(-a^2), t = 1 / (1 + p a), a >= 0, to 1.5e-7.

    Abramowitz & Stegun 1964, 7.1.26: NNAPI has no erf.
    """
    below = writer.op("Add", writer.scaled(a, 0.3275911), writer.number(1.0))
    t = writer.op("Div", writer.number(1.0), below)
    curve = writer.scaled(t, 1.061405429)
    for c in (-1.453152027, 1.421413741, -0.284496736, 0.254829592):
        curve = writer.op("Mul", writer.op("Add", curve, writer.number(c)), t)
    falls = writer.op("Exp", writer.scaled(writer.op("Mul", a, a), -1.0))
    return writer.op("Sub", writer.number(1.0), writer.op("Mul", curve, falls))


def einsum(writer: Writer, node: onnx.NodeProto) -> list[str]:
    """Letters in another order is a transpose; two factors are one product of matrices."""
    left, out = attribute(node, "equation", b"").decode().replace(" ", "").split("->")
    terms = left.split(",")
    if any(len(set(term)) < len(term) or "." in term for term in (*terms, out)):
        raise refused("Einsum with ... or a letter twice")
    sizes = dict(
        pair
        for term, name in zip(terms, node.input, strict=True)
        for pair in zip(term, writer.shape(name), strict=True)
    )

    def turned(name: str, term: str, order: Sequence[str]) -> str:
        return writer.transposed(name, [sizes[k] for k in term], [term.index(k) for k in order])

    def matrices(name: str, term: str, *groups: list[str]) -> str:
        order = [k for group in groups for k in group]
        shape = [math.prod(sizes[k] for k in group) for group in groups]
        return writer.reshaped(turned(writer.view(name), term, order), shape)

    if len(terms) == 1 and set(left) == set(out):
        return [turned(writer.view(node.input[0]), left, out)]
    if len(terms) != 2:
        raise refused(f"Einsum of {len(terms)} factors or a sum over one")
    first, second = terms
    both = [k for k in first if k in second and k in out]
    inner = [k for k in first if k in second and k not in out]
    rows = [k for k in first if k not in second]
    columns = [k for k in second if k not in first]
    if not {*rows, *columns} <= set(out):
        raise refused("Einsum with a sum over one factor")
    a = matrices(node.input[0], first, both, rows, inner)
    b = matrices(node.input[1], second, both, inner, columns)
    letters = "".join((*both, *rows, *columns))
    product = writer.reshaped(writer.op("MatMul", a, b), [sizes[k] for k in letters])
    return [turned(product, letters, out)]


RULES: dict[str, Rule] = {
    "Abs": absolute,
    "Cast": cast,
    "Cos": cosine,
    "Einsum": einsum,
    "Erf": error_function,
    "Expand": expanded,
    "Flatten": reshaped,
    "Gather": gathered,
    "Gelu": gelu,
    "GroupNormalization": group_norm,
    "Identity": same,
    "InstanceNormalization": instance_norm,
    "LayerNormalization": layer_norm,
    "Min": smaller,
    "Neg": negative,
    "Pad": padded,
    "Reciprocal": reciprocal,
    "ReduceSum": reduced_sum,
    "Reshape": reshaped,
    "Resize": resized,
    "Squeeze": reshaped,
    "Sum": total,
    "Tile": tiled,
    "Transpose": transposed,
    "Unsqueeze": reshaped,
    "Where": chosen,
}
