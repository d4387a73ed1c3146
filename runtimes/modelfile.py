"""The bytes of a model file, checked before ONNX Runtime sees them.

A model file is an ONNX protobuf whose metadata holds the spec and whose last entry, the seal, is the
SHA-256 of every byte before it. A changed byte anywhere is therefore refused. Somebody who writes a
file of their own can seal it too, so the graph is walked as well: no control flow, no functions, no
foreign operator domains, no weights in other files.
"""

import hashlib
import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

SPEC_KEY, REPORT_KEY, SEAL_KEY = "toolkit.spec", "toolkit.parity", "toolkit.sha256"
LARGEST_FILE = 2**31 - 1  # protobuf's own limit
MOST_NODES = 100_000
CONTROL_FLOW = {"If", "Loop", "Scan", "SequenceMap"}
RANDOM = {"RandomNormal", "RandomNormalLike", "RandomUniform", "RandomUniformLike", "Bernoulli"}
RANDOM |= {"Multinomial", "Dropout"}

# Field numbers of onnx.proto: Model, Graph, Node, Attribute, Tensor, StringStringEntry, OperatorSet.
MODEL_GRAPH, MODEL_OPSET, MODEL_METADATA, MODEL_FUNCTIONS = 7, 8, 14, 25
GRAPH_NODE, GRAPH_INITIALIZER, GRAPH_SPARSE = 1, 5, 15
NODE_OP, NODE_ATTRIBUTE, NODE_DOMAIN = 4, 5, 7
ATTRIBUTE_TENSORS, ATTRIBUTE_GRAPHS, ATTRIBUTE_SPARSE = (5, 10), (6, 11), (22, 23)
TENSOR_EXTERNAL, TENSOR_LOCATION = 13, 14
Value = int | memoryview


class ModelError(ValueError):
    """This file is not a model of ours, or not whole, or not safe to open."""


@dataclass(frozen=True)
class ModelFile:
    """A file that passed: its bytes, metadata, digest, opset and operators with their counts."""

    path: Path
    content: bytes
    metadata: dict[str, str]
    digest: str
    opset: int
    operators: dict[str, int]


def seal(body: bytes) -> bytes:
    """body + one metadata entry (SEAL_KEY, SHA-256 of body in hex): still the same ONNX model."""
    return body + _seal_of(body)


def read(path: str | os.PathLike[str]) -> ModelFile:
    """The model file at `path`. Raises FileNotFoundError, or ModelError saying what is wrong."""
    path = Path(path)
    if not path.is_file():
        what = "a folder" if path.is_dir() else "nothing there" if not path.exists() else "no file"
        raise FileNotFoundError(f"{path}: expected a model file, got {what}; check the path")
    if path.stat().st_size > LARGEST_FILE:
        raise ModelError(
            f"{path}: expected at most 2 GiB, got {path.stat().st_size} bytes; split it"
        )
    return check(path, path.read_bytes())


def check(path: Path, content: bytes) -> ModelFile:
    """The model file these bytes are; `path` names it in errors. Raises ModelError."""
    body, tail = content[: -len(_seal_of(b""))], content[-len(_seal_of(b"")) :]
    if not body or tail != _seal_of(body):
        raise ModelError(f"{path}: {_why_unsealed(content)}")
    try:
        return _walk(path, content, hashlib.sha256(body).hexdigest())
    except (IndexError, UnicodeDecodeError, RecursionError):
        raise ModelError(
            f"{path}: expected an ONNX protobuf, got broken fields; export again"
        ) from None


def _seal_of(body: bytes) -> bytes:
    key, value = SEAL_KEY.encode(), hashlib.sha256(body).hexdigest().encode()
    entry = bytes([0x0A, len(key)]) + key + bytes([0x12, len(value)]) + value
    return bytes([MODEL_METADATA << 3 | 2, len(entry)]) + entry


def _why_unsealed(content: bytes) -> str:
    """Whose fault a wrong seal is: an empty file, a changed one of ours, a stranger's, or no ONNX."""
    if not content:
        return "expected a model file, got an empty one; copy or export it again"
    if SPEC_KEY.encode() in content:
        return "truncated or changed: SHA-256 differs from the file's own; copy or export it again"
    try:
        known = {number for number, _ in _fields(memoryview(content))}
    except (IndexError, ModelError):
        known = set()
    if MODEL_GRAPH in known:
        return (
            f"expected metadata {SPEC_KEY!r} and {SEAL_KEY!r}, got a plain ONNX file; "
            "write it with 'toolkit export'"
        )
    return "expected an ONNX model file, got something else; write it with 'toolkit export'"


def _walk(path: Path, content: bytes, digest: str) -> ModelFile:
    metadata: dict[str, str] = {}
    opsets: dict[str, int] = {}
    operators: dict[str, int] = {}
    for number, value in _fields(memoryview(content)):
        if number == MODEL_METADATA:
            key, text = _texts(value, 1, 2)
            if key in metadata:
                raise ModelError(
                    f"{path}: expected metadata {key!r} once, got it twice; export again"
                )
            metadata[key] = text
        elif number == MODEL_OPSET:
            domain, version = "", 0
            for part, item in _fields(_view(value)):
                if part == 1:
                    domain = bytes(_view(item)).decode()
                elif isinstance(item, int):
                    version = item
            opsets[domain] = version
        elif number == MODEL_FUNCTIONS:
            raise ModelError(f"{path}: expected no model functions, got one; inline them first")
        elif number == MODEL_GRAPH:
            _walk_graph(path, _view(value), operators)
    if SPEC_KEY not in metadata:
        raise ModelError(
            f"{path}: expected metadata {SPEC_KEY!r}, got none; write it with 'toolkit export'"
        )
    return ModelFile(path, content, metadata, digest, opsets.get("", 0), operators)


def _walk_graph(path: Path, graph: memoryview, operators: dict[str, int]) -> None:
    for number, value in _fields(graph):
        if number == GRAPH_INITIALIZER:
            _check_tensor(path, _view(value))
        elif number == GRAPH_SPARSE:
            raise ModelError(f"{path}: expected dense weights, got a sparse tensor; export again")
        elif number == GRAPH_NODE:
            _walk_node(path, _view(value), operators)


def _walk_node(path: Path, node: memoryview, operators: dict[str, int]) -> None:
    operator, domain = "", ""
    for number, value in _fields(node):
        if number == NODE_OP:
            operator = bytes(_view(value)).decode()
        elif number == NODE_DOMAIN:
            domain = bytes(_view(value)).decode()
        elif number == NODE_ATTRIBUTE:
            for part, item in _fields(_view(value)):
                if part in ATTRIBUTE_TENSORS:
                    _check_tensor(path, _view(item))
                elif part in (*ATTRIBUTE_GRAPHS, *ATTRIBUTE_SPARSE):
                    raise ModelError(
                        f"{path}: expected plain nodes, got one with a nested graph or sparse tensor "
                        f"({operator or 'operator'}); a network has no control flow"
                    )
    if domain not in ("", "ai.onnx") or operator in CONTROL_FLOW | RANDOM:
        name = f"{domain}.{operator}" if domain else operator
        raise ModelError(
            f"{path}: expected standard operators without control flow or random draws, got {name}; "
            "export the network alone"
        )
    operators[operator] = operators.get(operator, 0) + 1
    if sum(operators.values()) > MOST_NODES:
        raise ModelError(
            f"{path}: expected at most {MOST_NODES} nodes, got more; export a smaller one"
        )


def _check_tensor(path: Path, tensor: memoryview) -> None:
    for number, value in _fields(tensor):
        if number == TENSOR_EXTERNAL or (number == TENSOR_LOCATION and value != 0):
            raise ModelError(
                f"{path}: expected all weights inside, got a tensor stored in another file; "
                "export with the weights inside"
            )


def _texts(value: Value, *numbers: int) -> list[str]:
    parts = {number: bytes(_view(item)).decode() for number, item in _fields(_view(value))}
    return [parts.get(number, "") for number in numbers]


def _view(value: Value) -> memoryview:
    if isinstance(value, int):
        raise IndexError("a number where a message belongs")
    return value


def _fields(message: memoryview) -> Iterator[tuple[int, Value]]:
    """(field number, value) of one protobuf message; IndexError where it ends too early."""
    at, end = 0, len(message)
    while at < end:
        tag, at = _varint(message, at)
        kind = tag & 7
        if kind == 0:
            value, at = _varint(message, at)
            yield tag >> 3, value
            continue
        size, at = _varint(message, at) if kind == 2 else ({1: 8, 5: 4}.get(kind, end), at)
        if size > end - at:
            raise IndexError("a field longer than its message")
        yield tag >> 3, message[at : at + size]
        at += size


def _varint(message: memoryview, at: int) -> tuple[int, int]:
    value = 0
    for shift in range(0, 70, 7):
        byte = message[at]
        at += 1
        value |= (byte & 127) << shift
        if byte < 128:
            return value, at
    raise IndexError("a number of more than ten bytes")
