"""The bytes of a model file, checked before ONNX Runtime sees them.

A model file is an ONNX protobuf whose metadata holds the spec and whose last entry, the seal, is the
SHA-256 of every byte before it. A changed byte anywhere is therefore refused. Somebody who writes a
file of their own can seal it too, so the graph is walked as well (`graph`): no control flow, no
functions, no foreign operator domains, no weights in other files, nothing that does not add up.
"""

import hashlib
import math
import os
import stat
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

from .graph import BLOCKS, MOST_FIELDS, Graph, ModelError, walk
from .protobuf import Broken, Budget, Bytes, layout, messages, number, once, text
from .protobuf import read as fields

__all__ = ["ModelError", "ModelFile", "check", "read", "seal"]

SPEC_KEY, REPORT_KEY, SEAL_KEY = "toolkit.spec", "toolkit.parity", "toolkit.sha256"
FORM_KEY = "toolkit.form"  # absent: the network alone
TABLEAUS_KEY = "toolkit.tableaus"
PRECISION_KEY = "toolkit.precision"  # absent: float32
FORMS = ("network", "likelihood", "sampler", "seeded", "unrolled")
SAMPLERS = ("sampler", "seeded")  # those with a loop inside
LARGEST_FILE = 2**31 - 1  # protobuf's own limit
LARGE = 256 << 20  # bytes: beyond it even a look at what is wrong costs too much memory

# onnx.proto, messages Model, StringStringEntry and OperatorSetId.
MODEL = layout(
    "1 int ir_version",
    "2 bytes producer_name",
    "3 bytes producer_version",
    "4 bytes domain",
    "5 int model_version",
    "6 bytes doc_string",
    "7 bytes graph",
    "8 bytes opset_import*",
    "14 bytes metadata_props*",
    "20 bytes training_info*",
    "25 bytes functions*",
)
ENTRY = layout("1 bytes key", "2 bytes value")
OPSET = layout("1 bytes domain", "2 int version")


@dataclass(frozen=True)
class ModelFile:
    """A file that passed: its bytes, metadata, digest, opset and operators with their counts.

    label_rows: the rows of every table that the input `label` picks a row of. tableau: the size of the
    one baked into a sampler. largest: the numbers in its largest weight.
    """

    path: Path
    content: bytes
    metadata: dict[str, str]
    digest: str
    opset: int
    operators: dict[str, int]
    label_rows: tuple[int, ...] = ()
    tableau: tuple[int, ...] = ()
    largest: int = 0

    @property
    def form(self) -> str:
        """What the graph returns: one of `FORMS`. Raises ModelError for one this version does not know."""
        form = self.metadata.get(FORM_KEY, FORMS[0])
        if form not in FORMS:
            raise ModelError(
                f"{self.path}: expected the form {', '.join(FORMS)}, got {form[:40]!r}; update this toolkit"
            )
        return form


def seal(body: bytes) -> bytes:
    """body + one metadata entry (SEAL_KEY, SHA-256 of body in hex): still the same ONNX model."""
    return body + _seal_of(body)


def read(path: str | os.PathLike[str]) -> ModelFile:
    """The model file at `path`. Raises FileNotFoundError, or ModelError saying what is wrong."""
    path = Path(path)
    if not path.is_file():
        what = "a folder" if path.is_dir() else "nothing there" if not path.exists() else "no file"
        raise FileNotFoundError(f"{path}: expected a model file, got {what}; check the path")
    # not blocking: what was a file a moment ago may be a pipe now
    with open(path, "rb", opener=_open_unblocked) as file:
        status = os.fstat(file.fileno())
        if status.st_size > LARGEST_FILE or not stat.S_ISREG(status.st_mode):
            raise ModelError(
                f"{path}: expected at most 2 GiB, got {status.st_size} bytes; split it"
            )
        _require_seal(path, file, status.st_size)
        return check(path, file.read(status.st_size))


def check(path: Path, content: bytes) -> ModelFile:
    """The model file these bytes are; `path` names it in errors. Raises ModelError."""
    view, size = memoryview(content), len(_seal_of(b""))
    body, tail = view[:-size], view[-size:]
    if not body or tail != _seal_of(body):
        raise ModelError(f"{path}: {_why_unsealed(content)}")
    try:
        return _walk(path, content, bytes(tail[-64:]).decode())
    except ModelError as error:
        raise ModelError(f"{path}: {error}") from None
    except (Broken, IndexError, UnicodeDecodeError) as error:
        reason = str(error) if isinstance(error, Broken) else "cut short or no text"
        raise ModelError(
            f"{path}: expected an ONNX protobuf, got broken fields ({reason}); export again"
        ) from None


def _require_seal(path: Path, file: BinaryIO, size: int) -> None:
    """A large file whose end is no seal is refused for the price of its last bytes."""
    tail = len(_seal_of(b""))
    if size > LARGE:
        file.seek(size - tail)
        if not file.read(tail).startswith(_seal_of(b"")[:-64]):
            raise ModelError(
                f"{path}: expected a seal at the end, got none: truncated, changed or not of "
                "'toolkit export'; copy or export it again"
            )
        file.seek(0)


def _open_unblocked(path: str, flags: int) -> int:
    return os.open(path, flags | getattr(os, "O_NONBLOCK", 0))


def _seal_of(body: Bytes) -> bytes:
    key, value = SEAL_KEY.encode(), hashlib.sha256(body).hexdigest().encode()
    entry = bytes([0x0A, len(key)]) + key + bytes([0x12, len(value)]) + value
    return bytes([14 << 3 | 2, len(entry)]) + entry


def _why_unsealed(content: bytes) -> str:
    """Whose fault a wrong seal is: an empty file, a changed one of ours, a stranger's, or no ONNX."""
    if not content:
        return "expected a model file, got an empty one; copy or export it again"
    damaged = "truncated or changed: SHA-256 differs from the file's own; copy or export it again"
    if SPEC_KEY.encode() in content:
        return damaged
    try:
        known = fields(memoryview(content), MODEL, Budget(MOST_FIELDS))
    except (Broken, IndexError):
        # our metadata stands at the end, so a file cut short is known by its first fields only
        if content[:1] == b"\x08" and content[2:3] in (b"\x12", b"\x3a"):
            return damaged
        known = {}
    if "graph" in known:
        return (
            f"expected metadata {SPEC_KEY!r} and {SEAL_KEY!r}, got a plain ONNX file; "
            "write it with 'toolkit export'"
        )
    return "expected an ONNX model file, got something else; write it with 'toolkit export'"


def _walk(path: Path, content: bytes, digest: str) -> ModelFile:
    budget = Budget(MOST_FIELDS)
    found = fields(memoryview(content), MODEL, budget)
    if "functions*" in found or "training_info*" in found:
        raise ModelError("expected no model functions, got one; inline them first")
    metadata: dict[str, str] = {}
    for entry in messages(found, "metadata_props*"):
        parts = fields(entry, ENTRY, budget)
        once(parts)
        key = text(parts, "key")
        if key in metadata:
            raise ModelError(f"expected metadata {key!r} once, got it twice; export again")
        metadata[key] = text(parts, "value")
    graph = Graph(BLOCKS if metadata.get(FORM_KEY) in SAMPLERS else ())
    for message in messages(found, "graph"):  # protobuf would merge two, so both are walked
        walk(message, budget, graph)
    once(found)
    if SPEC_KEY not in metadata:
        raise ModelError(
            f"expected metadata {SPEC_KEY!r}, got none; write it with 'toolkit export'"
        )
    opset = _opset(messages(found, "opset_import*"), budget)
    return ModelFile(
        path,
        content,
        metadata,
        digest,
        opset,
        graph.operators,
        graph.label_rows,
        graph.sizes.get("tableau", ()),
        max(map(math.prod, graph.sizes.values()), default=0),
    )


def _opset(imports: list[Bytes], budget: Budget) -> int:
    """The version of the standard operators, the only ones a model may import."""
    found = [fields(message, OPSET, budget) for message in imports]
    for parts in found:
        once(parts)
    domains = [text(parts, "domain") for parts in found]
    if domains not in ([""], ["ai.onnx"]):
        raise ModelError(
            f"expected the standard operators alone, got domains {domains[:5]}; export again"
        )
    return number(found[0], "version")
