"""The graph inside a model file, walked before ONNX Runtime sees it.

Allowed: standard operators (`operators.OPERATORS`) in one flat list, and weights whose declared size
is the size of the data beside them; in a sampler also one Scan and one If at the top, each around a
flat list, for both end by construction. Refused: everything that could run without end, read another
file, or mean one thing here and another to ONNX Runtime.
"""

import math
from dataclasses import dataclass, field

import numpy as np

from .operators import OPERATORS
from .protobuf import Budget, Bytes, Value, layout, messages, number, numbers, once, read, text

MOST_NODES = 20_000
MOST_FIELDS = 1_000_000
MOST_AXES, LONGEST_AXIS = 32, 2**31 - 1

# onnx.proto, messages Graph, Node, Attribute and Tensor.
GRAPH = layout(
    "1 bytes node*",
    "2 bytes name",
    "5 bytes initializer*",
    "10 bytes doc_string",
    "11 bytes input*",
    "12 bytes output*",
    "13 bytes value_info*",
    "14 bytes quantization_annotation*",
    "15 bytes sparse_initializer*",
    "16 bytes metadata_props*",
)
NODE = layout(
    "1 bytes input*",
    "2 bytes output*",
    "3 bytes name",
    "4 bytes op_type",
    "5 bytes attribute*",
    "6 bytes doc_string",
    "7 bytes domain",
    "8 bytes overload",
    "9 bytes metadata_props*",
)
ATTRIBUTE = layout(
    "1 bytes name",
    "2 float f",
    "3 int i",
    "4 bytes s",
    "5 bytes t",
    "6 bytes g*",
    "7 float floats*",
    "7 bytes floats*",
    "8 int ints*",
    "8 bytes ints*",
    "9 bytes strings*",
    "10 bytes tensors*",
    "11 bytes graphs*",
    "13 bytes doc_string",
    "20 int type",
    "21 bytes ref_attr_name*",
    "22 bytes sparse_tensor*",
    "23 bytes sparse_tensors*",
)
TENSOR = layout(
    "1 int dims*",
    "1 bytes dims*",
    "2 int data_type",
    "4 float float_data*",
    "4 bytes float_data*",
    "5 int int32_data*",
    "5 bytes int32_data*",
    "7 int int64_data*",
    "7 bytes int64_data*",
    "8 bytes name",
    "9 bytes raw_data",
    "10 double double_data*",
    "10 bytes double_data*",
    "11 int uint64_data*",
    "11 bytes uint64_data*",
    "12 bytes doc_string",
    "13 bytes external_data*",
    "14 int data_location",
    "16 bytes metadata_props*",
)
NESTED = ("g*", "graphs*", "sparse_tensor*", "sparse_tensors*", "ref_attr_name*")
BLOCKS = ("Scan", "If")  # of a sampler: over the tableau's rows, and around the making of noise
LABELS = (b"label", b"network.label", b"condition.label")  # wherever a sampler may look them up
DATA = ("raw_data", "float_data*", "int32_data*", "int64_data*", "double_data*", "uint64_data*")

# element type -> its word, its bits, and the field that may hold it instead of raw_data
TYPES = {
    1: ("float32", 32, "float_data*"),
    2: ("uint8", 8, "int32_data*"),
    3: ("int8", 8, "int32_data*"),
    4: ("uint16", 16, "int32_data*"),
    5: ("int16", 16, "int32_data*"),
    6: ("int32", 32, "int32_data*"),
    7: ("int64", 64, "int64_data*"),
    9: ("bool", 8, "int32_data*"),
    10: ("float16", 16, "int32_data*"),
    11: ("float64", 64, "double_data*"),
    12: ("uint32", 32, "uint64_data*"),
    13: ("uint64", 64, "uint64_data*"),
    16: ("bfloat16", 16, "int32_data*"),
    **{kind: ("float8", 8, "int32_data*") for kind in (17, 18, 19, 20)},
    21: ("uint4", 4, ""),
    22: ("int4", 4, ""),
}


class ModelError(ValueError):
    """This file is not a model of ours, or not whole, or not safe to open.

    Its words may quote the file, so they are kept to one line of printable characters.
    """

    def __init__(self, text: str) -> None:
        super().__init__("".join(c if c.isprintable() else "?" for c in text[:2000]))


@dataclass
class Graph:
    """What a walk has met: operators with their counts, weights by name, and tables `label` looks in.

    blocks: which of `BLOCKS` may still come. slices: what each Slice outside them was cut from.
    """

    blocks: tuple[str, ...] = ()
    slices: dict[str, str] = field(default_factory=dict)
    operators: dict[str, int] = field(default_factory=dict)
    sizes: dict[str, tuple[int, ...]] = field(default_factory=dict)
    tables: list[str] = field(default_factory=list)

    @property
    def label_rows(self) -> tuple[int, ...]:
        """The rows of every weight that the input `label` looks up a row of."""
        return tuple(self.sizes[name][0] for name in self.tables if self.sizes.get(name))


def walk(message: Bytes, budget: Budget, into: Graph) -> None:
    """Check one graph message. Raises ModelError or `protobuf.Broken`."""
    found = read(message, GRAPH, budget)
    if found.get("sparse_initializer*"):
        raise ModelError("expected dense weights, got a sparse tensor; export again")
    nodes = messages(found, "node*")
    if len(nodes) + sum(into.operators.values()) > MOST_NODES:
        raise ModelError(f"expected at most {MOST_NODES} nodes, got more; export a smaller one")
    for tensor in messages(found, "initializer*"):
        name, size = _tensor(tensor, budget)
        if name in into.sizes:
            raise ModelError(f"weight {name!r}: expected it once, got it twice; export again")
        into.sizes[name] = size
    for node in nodes:
        _node(node, budget, into)
    once(found)


def _node(message: Bytes, budget: Budget, into: Graph) -> None:
    found = read(message, NODE, budget)
    once(found)
    operator, domain = text(found, "op_type"), text(found, "domain")
    block = operator in into.blocks
    if domain not in ("", "ai.onnx") or not (block or operator in OPERATORS):
        name = f"{domain}.{operator}" if domain else operator
        raise ModelError(
            "expected standard operators without control flow or random draws, "
            f"got {name[:80]!r}; export the network alone"
        )
    scanned: list[tuple[str, int]] = []
    for attribute in messages(found, "attribute*"):
        parts = read(attribute, ATTRIBUTE, budget)
        if operator == "Scan":
            scanned.append((text(parts, "name"), number(parts, "i")))
        if block and "g*" in parts:
            _inside(parts["g*"], budget, into)
        elif any(word in parts for word in NESTED):
            raise ModelError(
                f"expected plain nodes, got one with a nested graph or sparse tensor ({operator}); "
                "a network has no control flow"
            )
        for tensor in (*messages(parts, "t"), *messages(parts, "tensors*")):
            _tensor(tensor, budget)
        once(parts)
    inputs = [bytes(name).decode() for name in messages(found, "input*")]
    if operator == "Scan":
        _rows_of_the_tableau(inputs, scanned, into)
    elif operator == "Slice" and into.blocks and inputs:
        into.slices[bytes(messages(found, "output*")[0]).decode()] = inputs[0]
    into.blocks = tuple(word for word in into.blocks if word != operator)
    looked_in = [name.encode() for name in inputs[1:]]
    if operator == "Gather" and len(looked_in) == 1 and looked_in[0] in LABELS:
        into.tables.append(bytes(messages(found, "input*")[0]).decode())
    into.operators[operator] = into.operators.get(operator, 0) + 1


def _rows_of_the_tableau(
    inputs: list[str], attributes: list[tuple[str, int]], into: Graph
) -> None:
    """A Scan goes as often as the tableau has rows: its one state, then scanned inputs along axis 0.

    ONNX Runtime refuses inputs of unequal length, and cutting makes none longer; so one that is cut from
    the tableau holds them all.
    """
    numbers = dict(attributes)
    known = sorted(name for name, _ in attributes) == ["body", "num_scan_inputs"]
    start = inputs[1] if len(inputs) > 1 else ""
    for _ in range(len(into.slices)):
        start = into.slices.get(start, start)
    if not known or numbers["num_scan_inputs"] != len(inputs) - 1 or start != "tableau":
        raise ModelError(
            "expected a Scan over the rows of the tableau, got another one; export the sampler again"
        )


def _inside(graphs: list[Value], budget: Budget, into: Graph) -> None:
    """The body of a Scan or the branches of an If: flat again."""
    later, into.blocks = into.blocks, ()
    for message in messages({"g*": graphs}, "g*"):
        walk(message, budget, into)
    into.blocks = later


def _tensor(message: Bytes, budget: Budget) -> tuple[str, tuple[int, ...]]:
    """(name, size) of weights that are here, whole, and written down once."""
    found = read(message, TENSOR, budget)
    if "external_data*" in found or any(found.get("data_location", ())):
        raise ModelError(
            "expected all weights inside, got a tensor stored in another file; "
            "export with the weights inside"
        )
    once(found)
    name, kind = text(found, "name"), number(found, "data_type")
    size = tuple(numbers(found.get("dims*", []), MOST_AXES))
    if kind not in TYPES or any(axis > LONGEST_AXIS for axis in size):
        what = f"type {kind}" if kind not in TYPES else f"axes {size} (negative or too long)"
        raise ModelError(f"weight {name!r}: expected numbers, got {what}; export again")
    word, bits, typed = TYPES[kind]
    present = [slot for slot in DATA if slot in found]
    if len(present) > 1 or not set(present) <= {"raw_data", typed}:
        slots = " and ".join(slot.rstrip("*") for slot in present)
        raise ModelError(f"weight {name!r}: expected {word} data once, got {slots}; export again")
    count = math.prod(size)
    if present == [typed]:
        expected, got, unit = count, _count(typed, found[typed]), "numbers"
    else:
        raw = messages(found, "raw_data")
        expected, got, unit = (count * bits + 7) // 8, sum(map(len, raw)), "bytes"
    if got != expected:
        raise ModelError(
            f"weight {name!r}: expected {expected} {unit} for {word} {size}, got {got}; export again"
        )
    return name, size


def _count(slot: str, values: list[Value]) -> int:
    """How many numbers a typed data field holds, packed or one by one."""
    width = {"float_data*": 4, "double_data*": 8}.get(slot)
    if width is not None:
        lengths = [len(value) for value in values if not isinstance(value, int)]
        return sum(length // width if length % width == 0 else -1 for length in lengths)
    return sum(
        1 if isinstance(value, int) else int((np.frombuffer(value, np.uint8) < 128).sum())
        for value in values
    )
