"""Weights of few bits -> float32, in the bytes of a model, before ONNX Runtime sees them.

    Cast(W)                                                 W of 16 bits
    Reshape(Mul(Cast(Q), Cast(s)), sizes)                   Q of 8 bits, s of 16
    Reshape(Mul(Cast(Gather(P, Cast(Q))), Cast(s)), sizes)  Q of 4 bits, P the two numbers of each byte

ONNX Runtime would do it when it folds constants, but that is off here (see `session`), and these nodes
would be paid at every call: a Cast is up to a third of it for a small network. Those of float16 outside a
loop, with one reader, it does itself, with less memory, so they stay. So does what is not written above. A
weight is cast once, what was made of it is used once, and no node makes more than two numbers of one: all
that is made is at most eight times the bytes that stand in the file, and a little more than as much again
while the new bytes are put together.
"""

import math
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from .graph import ATTRIBUTE, BLOCKS, GRAPH, MOST_AXES, MOST_FIELDS, NODE, TENSOR
from .protobuf import Budget, Bytes, Value, layout, messages, number, numbers, read, text, varint

MODEL_GRAPH, GRAPH_NODE, GRAPH_WEIGHT, *GRAPH_ENDS = (n << 3 | 2 for n in (7, 1, 5, 11, 12))
VALUE = layout("1 bytes name", "2 bytes type", "3 bytes doc_string", "4 bytes metadata_props*")
NODE_ATTRIBUTE, ATTRIBUTE_GRAPH = (field << 3 | 2 for field in (5, 6))
FLOAT, INT32, FLOAT16 = 1, 6, 10  # element types
# element type of a weight -> its numbers here; a bfloat16 is the upper half of a float32
NUMBERS = {2: "u1", 3: "i1", 7: "<i8", FLOAT16: "<f2", 16: "<u2"}
MADE = {"float32": FLOAT, "int32": INT32, "int8": 3}  # what nodes make -> its element type
FIXED = {1: 8, 5: 4}  # kind of a field -> its bytes
Array = NDArray[Any]
Found = dict[str, list[Value]]
Parts = list[Bytes]  # of a message, put together once: weights are large


def widened(content: bytes) -> bytes:
    """The same model without the nodes that widen a weight. content: of a file that has passed `check`."""
    return b"".join(_changed(memoryview(content), MODEL_GRAPH, _outside))


def _outside(message: Bytes) -> Parts:
    return _graph(message, inside=False)


def _inside(message: Bytes) -> Parts:
    return _graph(message, inside=True)


def _graph(message: Bytes, *, inside: bool) -> Parts:
    """A graph, in a loop or not, with float32 weights in place of the nodes that make them."""
    fields = list(_fields(message))
    nodes = {at: _read(one, NODE) for at, (tag, _, one) in enumerate(fields) if tag == GRAPH_NODE}
    tensors = [_read(one, TENSOR) for tag, _, one in fields if tag == GRAPH_WEIGHT]
    ends = {
        text(_read(one, VALUE), "name").encode() for tag, _, one in fields if tag in GRAPH_ENDS
    }
    weights = {
        name: _weight(one)
        for one in tensors
        if number(one, "data_type") in NUMBERS
        and any(map(len, messages(one, "raw_data")))
        # an input with a default is no constant
        and (name := text(one, "name").encode()) not in ends
    }
    reads = Counter(bytes(name) for node in nodes.values() for name in messages(node, "input*"))
    reads.update({name: 2 for name in (*ends, *_read_inside(nodes.values()))})  # never used up
    known, parts = Known(weights, reads, inside), Parts()
    for at, (_, whole, payload) in enumerate(fields):
        if at in nodes and text(nodes[at], "op_type") in BLOCKS:
            parts += _field(GRAPH_NODE, _changed(payload, NODE_ATTRIBUTE, _attribute))
        elif at not in nodes or not known.takes(nodes[at]):
            parts.append(whole)
    for name, value in known.made.items():
        parts += _field(GRAPH_WEIGHT, _tensor(name, value))
    return parts


def _read_inside(nodes: Iterable[Found]) -> Iterator[bytes]:
    """The names that are read in the graphs of blocks."""
    for node in nodes:
        for attribute in messages(node, "attribute*") if text(node, "op_type") in BLOCKS else ():
            for graph in messages(_read(attribute, ATTRIBUTE), "g*"):
                for inner in messages(_read(graph, GRAPH), "node*"):
                    yield from map(bytes, messages(_read(inner, NODE), "input*"))


def _attribute(message: Bytes) -> Parts:
    return _changed(message, ATTRIBUTE_GRAPH, _inside)


@dataclass
class Known:
    """What a graph knows before a call, by name.

    weights: of few bits, as they stand there. reads: how many inputs a name is. inside: a loop. made: by
    nodes, and not used up by another.
    """

    weights: dict[bytes, Array]
    reads: Counter[bytes]
    inside: bool
    made: dict[bytes, Array] = field(default_factory=dict)

    def takes(self, node: Found) -> bool:
        """Work a node out, if all that it reads is known and a rule says how; whether it did."""
        names, outputs, attributes = (
            [bytes(one) for one in messages(node, f"{word}*")]
            for word in ("input", "output", "attribute")
        )
        to = sum(number(_read(one, ATTRIBUTE), "i") for one in attributes)
        rule = RULES.get((text(node, "op_type"), len(names), to))
        values = [value for name in names if (value := self._value(name)) is not None]
        if rule is None or len(values) < len(names) or len(outputs) != 1 or len(attributes) > 1:
            return False
        if values[0].dtype == np.float16 and not self.inside and self.reads[outputs[0]] == 1:
            return False
        made = rule(*values)
        if made is None:
            return False
        for name in names:
            self.made.pop(name, None)
        if len(names) == 1:  # many Casts of one weight would be many weights
            self.weights.pop(names[0], None)
        self.made[outputs[0]] = made
        return True

    def _value(self, name: bytes) -> Array | None:
        """A weight, or what was made for this one reader."""
        made = self.made.get(name) if self.reads[name] == 1 else None
        return self.weights.get(name) if made is None else made


def _float(value: Array) -> Array:
    """Cast to float32."""
    if value.dtype == np.uint16:
        return (value.astype(np.uint32) << 16).view(np.float32)
    return value.astype(np.float32)


def _index(value: Array) -> Array | None:
    """Cast of bytes to int32."""
    return value.astype(np.int32) if value.dtype == np.uint8 else None


def _pairs(pairs: Array, index: Array) -> Array | None:
    """Gather: the two numbers of each byte; only bytes become int32 here."""
    fits = pairs.dtype == np.int8 and pairs.shape == (256, 2) and index.dtype == np.int32
    return pairs[index] if fits else None


def _product(a: Array, b: Array) -> Array | None:
    """Mul of float32, in the shape of a."""
    fits = a.dtype == b.dtype == np.float32 and a.ndim == b.ndim
    if not fits or any(m not in (1, n) for n, m in zip(a.shape, b.shape, strict=True)):
        return None
    with np.errstate(over="ignore", invalid="ignore"):
        product: Array = a * b
    return product


def _reshaped(value: Array, sizes: Array) -> Array | None:
    """Reshape of float32 to sizes that are all there."""
    fits = value.dtype == np.float32 and sizes.dtype == np.int64 and sizes.shape <= (MOST_AXES,)
    shape = sizes.tolist() if fits and sizes.ndim == 1 else []
    whole = shape and min(shape) > 0 and math.prod(shape) == value.size
    return value.reshape(shape) if whole else None


def _weight(tensor: Found) -> Array:
    """The numbers of a tensor whose element type is one of `NUMBERS`."""
    (raw,) = messages(tensor, "raw_data")
    shape = numbers(tensor.get("dims*", []), MOST_AXES)
    return np.frombuffer(raw, NUMBERS[number(tensor, "data_type")]).reshape(shape)


def _tensor(name: bytes, value: Array) -> Parts:
    """The message of a weight."""
    flat = np.ascontiguousarray(value, value.dtype.newbyteorder("<")).reshape(-1)
    return [
        *(_count(1 << 3) + _count(size) for size in value.shape),
        _count(2 << 3) + _count(MADE[value.dtype.name]),
        *_field(8 << 3 | 2, [name]),
        *_field(9 << 3 | 2, [flat.data.cast("B")]),
    ]


def _read(message: Bytes, fields: dict[int, str]) -> Found:
    return read(message, fields, Budget(MOST_FIELDS))


def _changed(message: Bytes, field: int, change: Callable[[Bytes], Parts]) -> Parts:
    """The message with that field changed wherever it stands."""
    parts: Parts = []
    for tag, whole, payload in _fields(message):
        parts += _field(tag, change(payload)) if tag == field else [whole]
    return parts


def _fields(message: Bytes) -> Iterator[tuple[int, Bytes, Bytes]]:
    """(tag, the whole field, what it holds) one after the other."""
    at = 0
    while at < len(message):
        start = at
        tag, at = varint(message, at)
        size, begin = FIXED.get(tag & 7, 0), at
        if tag & 7 in (0, 2):
            size, at = varint(message, at)
            begin, size = (at, size) if tag & 7 == 2 else (start, at - start)
        at = begin + size
        yield tag, message[start:at], message[begin:at]


def _field(tag: int, parts: Parts) -> Parts:
    return [_count(tag) + _count(sum(map(len, parts))), *parts]


def _count(value: int) -> bytes:
    """A number in seven bits a byte, low ones first."""
    found = bytearray()
    while value > 127:
        found.append(value & 127 | 128)
        value >>= 7
    return bytes(found) + bytes([value])


# (operator, inputs, its only attribute, 0 without one) -> what it makes of known values, or None
RULES: dict[tuple[str, int, int], Callable[..., Array | None]] = {
    ("Cast", 1, FLOAT): _float,
    ("Cast", 1, INT32): _index,
    ("Gather", 2, 0): _pairs,
    ("Mul", 2, 0): _product,
    ("Reshape", 2, 0): _reshaped,
}
