"""ONNX nodes being written, for the graphs that `export` makes itself."""

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import onnx
from onnx import helper, numpy_helper


@dataclass
class Nodes:
    """A list of nodes and the constants they read; every name starts with `prefix`, so none can clash."""

    prefix: str
    nodes: list[onnx.NodeProto] = field(default_factory=list)
    constants: dict[str, onnx.TensorProto] = field(default_factory=dict)

    def op(self, kind: str, *inputs: str, **attributes: Any) -> str:
        """A new node with one output; the output's name."""
        (name,) = self.ops(kind, 1, *inputs, **attributes)
        return name

    def ops(self, kind: str, count: int, *inputs: str, **attributes: Any) -> list[str]:
        """A new node with `count` outputs; their names."""
        stem = f"{self.prefix}{len(self.nodes)}"
        names = [stem if k == 0 else f"{stem}_{k}" for k in range(count)]
        self.nodes.append(helper.make_node(kind, list(inputs), names, **attributes))
        return names

    def again(self, node: onnx.NodeProto, rename: Callable[[str], str]) -> None:
        """The same node under other names."""
        copy = onnx.NodeProto()
        copy.CopyFrom(node)
        del copy.input[:], copy.output[:], copy.metadata_props[:]
        copy.name = copy.doc_string = ""
        copy.input.extend(map(rename, node.input))
        copy.output.extend(map(rename, node.output))
        self.nodes.append(copy)

    def named(self, name: str, value: str) -> None:
        """Give a value the name under which a graph returns it."""
        self.nodes.append(helper.make_node("Identity", [value], [name]))

    def ints(self, *values: int) -> str:
        """int64 (len(values),)."""
        return self.array(np.array(values, np.int64))

    def floats(self, *values: float) -> str:
        """float32 (len(values),)."""
        return self.array(np.array(values, np.float32))

    def array(self, value: Any) -> str:
        """A constant; equal ones are kept once."""
        key = (
            f"{value.dtype}{value.shape}{value.tobytes().hex() if value.size < 64 else id(value)}"
        )
        if key not in self.constants:
            name = f"{self.prefix}c{len(self.constants)}"
            self.constants[key] = numpy_helper.from_array(value, name)
        return self.constants[key].name

    def part(self, x: str, axis: int, start: int | str, end: int | str) -> str:
        """x[start:end] along an axis; the ends may be int64 (1,) values."""
        ends = [self.ints(end) if isinstance(end, int) else end for end in (start, end)]
        return self.op("Slice", x, *ends, self.ints(axis))

    def size(self, x: str, axis: int) -> str:
        """The length of x along an axis, int64 (1,)."""
        return self.op("Shape", x, start=axis, end=axis + 1)
