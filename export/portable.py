"""The same network in operators that phones and their processors take whole: fixed batch, plain arithmetic.

    portable(flat, batch)      the same numbers, up to 2e-6 of their scale

What execution providers for CoreML and NNAPI take in one piece: known sizes, tensors of at most five
axes, float numbers only, constant arguments, and no operator that one of the two lacks. `folded` takes
out everything that is known once the batch is; then `rewrites` has a rule for every operator that is
not portable.
"""

from collections.abc import Mapping
from dataclasses import replace

from onnx import TensorProto

from .flat import Array, Flat, Types, fixed, folded, types
from .rewrites import FLOAT, RULES, kept
from .writer import MOST_AXES, Writer, refused

ARITHMETIC = ("Add", "Div", "Mul", "Sub")


def portable(flat: Flat, batch: int, given: Mapping[str, Array] | None = None) -> Flat:
    """The graph for `batch` rows; `given`: inputs that are constants from now on.

    An input `label` becomes float32 (B, rows of its table), one-hot. Raises ValueError for what no rule
    can rewrite.
    """
    early = folded(fixed(flat, batch), given)
    writer = Writer(early, types(early))
    for node in early.nodes:
        names = RULES.get(node.op_type, kept)(writer, node)
        writer.names.update(zip(node.output, names, strict=False))
    written = writer.flat()
    found = types(written)
    _check(written, found)
    return _thinned(written, found, {id(value) for value in flat.constants.values()})


def _thinned(flat: Flat, found: Types, weights: set[int]) -> Flat:
    """Computed constants that repeat along an axis are kept once, where arithmetic repeats them anyway."""

    def repeats(name: str) -> bool:
        for node in flat.nodes:
            if name in node.input:
                others = [found[other][1] for other in node.input if other != name]
                if node.op_type not in ARITHMETIC or others != [found[node.output[0]][1]]:
                    return False
        return True

    constants = dict(flat.constants)
    for name, value in constants.items():
        if id(value) not in weights and value.size > 1 and repeats(name):
            for axis in range(value.ndim):
                first = value.take([0], axis)
                value = first if (value == first).all() else value
            constants[name] = value
    return replace(flat, constants=constants)


def _check(flat: Flat, found: Types) -> None:
    """Raise ValueError unless every value that is not an argument is float32 and has few axes."""
    for node in flat.nodes:
        for name in (*node.input[:1], *node.output):
            kind, sizes = found.get(name, (0, (None,)))
            if name and (kind != FLOAT or None in sizes or len(sizes) > MOST_AXES):
                word = TensorProto.DataType.Name(kind).lower()
                raise refused(f"{node.op_type} on {word} {sizes}")
