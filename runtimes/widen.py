"""Cast(weight of 16 bits) -> the weight in float32, in the bytes of a model, before ONNX Runtime sees them.

ONNX Runtime would do it when it folds constants, but that is off here (see `session`), and the casts
would be paid at every call: up to a third of it for a small network. This does the casts and nothing
else, so what it makes is twice the bytes that stand in the file.
"""

from collections.abc import Callable, Iterator

import numpy as np
from numpy.typing import NDArray

from .graph import ATTRIBUTE, BLOCKS, MOST_AXES, MOST_FIELDS, NODE, TENSOR
from .protobuf import Budget, Bytes, Value, messages, number, numbers, read, text, varint

MODEL_GRAPH, GRAPH_NODE, GRAPH_WEIGHT = (field << 3 | 2 for field in (7, 1, 5))
NODE_ATTRIBUTE, ATTRIBUTE_GRAPH = (field << 3 | 2 for field in (5, 6))
FLOAT, FIXED = 1, {1: 8, 5: 4}  # an element type; the bytes of a field by its kind
Floats = NDArray[np.float32]
Found = dict[str, list[Value]]


def widened(content: bytes) -> bytes:
    """The same model without the Casts that widen a weight. content: of a file that has passed `check`."""
    return _changed(memoryview(content), MODEL_GRAPH, _graph)


def _graph(message: Bytes) -> bytes:
    weights: dict[bytes, Found] = {}
    for tag, _, payload in _fields(message):
        if tag == GRAPH_WEIGHT:
            tensor = read(payload, TENSOR, Budget(MOST_FIELDS))
            if number(tensor, "data_type") in WIDE and "raw_data" in tensor:
                weights[text(tensor, "name").encode()] = tensor
    parts = []
    for tag, whole, payload in _fields(message):
        if tag == GRAPH_NODE:
            parts.append(_node(payload, weights) or bytes(whole))
        else:
            parts.append(bytes(whole))
    return b"".join(parts)


def _node(message: Bytes, weights: dict[bytes, Found]) -> bytes:
    """The field of a graph that a node turns into; nothing if it stays as it is."""
    node = read(message, NODE, Budget(MOST_FIELDS))
    operator = text(node, "op_type")
    if operator in BLOCKS:
        return _field(GRAPH_NODE, _changed(message, NODE_ATTRIBUTE, _attribute))
    inputs, outputs, attributes = (
        messages(node, f"{word}*") for word in ("input", "output", "attribute")
    )
    if operator != "Cast" or not len(inputs) == len(outputs) == len(attributes) == 1:
        return b""
    if number(read(attributes[0], ATTRIBUTE, Budget(MOST_FIELDS)), "i") != FLOAT:
        return b""
    weight = weights.pop(
        bytes(inputs[0]), None
    )  # once: many Casts of one weight would be many weights
    return b"" if weight is None else _field(GRAPH_WEIGHT, _float(weight, outputs[0]))


def _attribute(message: Bytes) -> bytes:
    return _changed(message, ATTRIBUTE_GRAPH, _graph)


def _float(tensor: Found, name: Bytes) -> bytes:
    """A float32 tensor message of that name."""
    sizes = numbers(tensor.get("dims*", []), MOST_AXES)
    raw = b"".join(bytes(part) for part in messages(tensor, "raw_data"))
    return b"".join(
        [
            *(_count(1 << 3) + _count(size) for size in sizes),
            _count(2 << 3) + _count(FLOAT),
            _field(8 << 3 | 2, bytes(name)),
            _field(9 << 3 | 2, WIDE[number(tensor, "data_type")](raw).astype("<f4").tobytes()),
        ]
    )


def _float16(raw: bytes) -> Floats:
    return np.frombuffer(raw, "<f2").astype(np.float32)


def _bfloat16(raw: bytes) -> Floats:
    """The upper 16 of 32 bits."""
    return (np.frombuffer(raw, "<u2").astype(np.uint32) << 16).view(np.float32)


def _changed(message: Bytes, field: int, change: Callable[[Bytes], bytes]) -> bytes:
    """The message with that field changed wherever it stands."""
    return b"".join(
        _field(tag, change(payload)) if tag == field else bytes(whole)
        for tag, whole, payload in _fields(message)
    )


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


def _field(tag: int, payload: bytes) -> bytes:
    return _count(tag) + _count(len(payload)) + payload


def _count(value: int) -> bytes:
    """A number in seven bits a byte, low ones first."""
    found = bytearray()
    while value > 127:
        found.append(value & 127 | 128)
        value >>= 7
    return bytes(found) + bytes([value])


# element type -> its numbers in float32
WIDE: dict[int, Callable[[bytes], Floats]] = {10: _float16, 16: _bfloat16}
