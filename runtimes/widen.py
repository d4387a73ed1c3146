"""Cast(weight of 16 bits) -> the weight in float32, in the bytes of a model, before ONNX Runtime sees them.

ONNX Runtime would do it when it folds constants, but that is off here (see `session`), and the casts
would be paid at every call: up to a third of it for a small network. Those of float16 outside a loop it
does itself, with less memory, so they stay. This does the casts and nothing else, so what it makes is
twice the bytes that stand in the file.
"""

from collections.abc import Callable, Iterator

import numpy as np
from numpy.typing import NDArray

from .graph import ATTRIBUTE, BLOCKS, MOST_AXES, MOST_FIELDS, NODE, TENSOR
from .protobuf import Budget, Bytes, Value, messages, number, numbers, read, text, varint

MODEL_GRAPH, GRAPH_NODE, GRAPH_WEIGHT = (field << 3 | 2 for field in (7, 1, 5))
NODE_ATTRIBUTE, ATTRIBUTE_GRAPH = (field << 3 | 2 for field in (5, 6))
FLOAT, FLOAT16, BFLOAT16 = 1, 10, 16  # element types
FIXED = {1: 8, 5: 4}  # kind of a field -> its bytes
Floats = NDArray[np.float32]
Found = dict[str, list[Value]]
Parts = list[Bytes]  # of a message, put together once: weights are large


def widened(content: bytes) -> bytes:
    """The same model without the Casts that widen a weight. content: of a file that has passed `check`."""
    return b"".join(_changed(memoryview(content), MODEL_GRAPH, _outside))


def _outside(message: Bytes) -> Parts:
    return _graph(message, (BFLOAT16,))


def _inside(message: Bytes) -> Parts:
    return _graph(message, (FLOAT16, BFLOAT16))


def _graph(message: Bytes, kinds: tuple[int, ...]) -> Parts:
    weights: dict[bytes, Found] = {}
    for tag, _, payload in _fields(message):
        if tag == GRAPH_WEIGHT:
            tensor = read(payload, TENSOR, Budget(MOST_FIELDS))
            if number(tensor, "data_type") in kinds and "raw_data" in tensor:
                weights[text(tensor, "name").encode()] = tensor
    parts: Parts = []
    for tag, whole, payload in _fields(message):
        parts += (_node(payload, weights) if tag == GRAPH_NODE else []) or [whole]
    return parts


def _node(message: Bytes, weights: dict[bytes, Found]) -> Parts:
    """The field of a graph that a node turns into; nothing if it stays as it is."""
    node = read(message, NODE, Budget(MOST_FIELDS))
    operator = text(node, "op_type")
    if operator in BLOCKS:
        return _field(GRAPH_NODE, _changed(message, NODE_ATTRIBUTE, _attribute))
    inputs, outputs, attributes = (
        messages(node, f"{word}*") for word in ("input", "output", "attribute")
    )
    if operator != "Cast" or not len(inputs) == len(outputs) == len(attributes) == 1:
        return []
    if number(read(attributes[0], ATTRIBUTE, Budget(MOST_FIELDS)), "i") != FLOAT:
        return []
    weight = weights.pop(
        bytes(inputs[0]), None
    )  # once: many Casts of one weight would be many weights
    return [] if weight is None else _field(GRAPH_WEIGHT, _float(weight, outputs[0]))


def _attribute(message: Bytes) -> Parts:
    return _changed(message, ATTRIBUTE_GRAPH, _inside)


def _float(tensor: Found, name: Bytes) -> Parts:
    """A float32 tensor message of that name."""
    (raw,) = messages(tensor, "raw_data")
    numbers32 = np.ascontiguousarray(WIDE[number(tensor, "data_type")](raw), "<f4")
    return [
        *(_count(1 << 3) + _count(size) for size in numbers(tensor.get("dims*", []), MOST_AXES)),
        _count(2 << 3) + _count(FLOAT),
        *_field(8 << 3 | 2, [name]),
        *_field(9 << 3 | 2, [numbers32.tobytes()]),
    ]


def _float16(raw: Bytes) -> Floats:
    return np.frombuffer(raw, "<f2").astype(np.float32)


def _bfloat16(raw: Bytes) -> Floats:
    """The upper 16 of 32 bits."""
    return (np.frombuffer(raw, "<u2").astype(np.uint32) << 16).view(np.float32)


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


# element type -> its numbers in float32
WIDE: dict[int, Callable[[Bytes], Floats]] = {
    FLOAT16: _float16,
    BFLOAT16: _bfloat16,
}
