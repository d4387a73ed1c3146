"""A sheet of ONNX nodes: what the rules in `rewrites` read of a graph, and write in its place."""

import hashlib
import math
from collections.abc import Sequence
from typing import Any

import numpy as np
import onnx
from onnx import helper

from .flat import Array, Flat, Types

MOST_AXES = 5  # CoreML takes no more


class Writer:
    """Nodes and constants written so far; `names`: what a value of the old graph is called in the new one."""

    def __init__(self, flat: Flat, types: Types) -> None:
        self.old, self.types = flat, types
        self.names: dict[str, str] = {}
        self.nodes: list[onnx.NodeProto] = []
        self.constants: dict[str, Array] = {}
        self.inputs = dict(flat.inputs)

    def at(self, name: str) -> str:
        """What a value of the old graph is called now; a constant comes along."""
        sizes = self.types.get(name, (0, ()))[1]
        if len(sizes) > MOST_AXES:
            raise refused(f"arithmetic on {len(sizes)} axes")
        return self.view(name)

    def view(self, name: str) -> str:
        """The same for those who know its shape: a value of too many axes is here in another one."""
        if name in self.old.constants:
            self.constants[name] = self.old.constants[name]
        return self.names.get(name, name)

    def value(self, name: str) -> Array | None:
        """A constant's value."""
        return self.old.constants.get(name)

    def kind(self, name: str) -> int:
        """A value's element type."""
        return self.types.get(name, (0, ()))[0]

    def shape(self, name: str) -> tuple[int, ...]:
        """A value's sizes. Raises ValueError where one is not known."""
        sizes = self.types.get(name, (0, (None,)))[1]
        known = tuple(size for size in sizes if size is not None)
        if len(known) < len(sizes):
            raise refused(f"a value {name!r} whose size depends on numbers")
        return known

    def integers(self, node: onnx.NodeProto, index: int) -> list[int] | None:
        """The whole numbers of an argument, or None where there is none."""
        name = node.input[index] if index < len(node.input) else ""
        found = self.value(name)
        if name and found is None:
            raise refused(f"{node.op_type} with arguments that are computed")
        return None if found is None else [int(number) for number in found.ravel()]

    def required(self, node: onnx.NodeProto, index: int) -> list[int]:
        """The same of an argument that has to be there."""
        return self.integers(node, index) or []

    def op(self, kind: str, *inputs: str, **attributes: Any) -> str:
        """A new node with one output; its name."""
        name = self._new()
        self.nodes.append(helper.make_node(kind, list(inputs), [name], name=name, **attributes))
        return name

    def again(self, node: onnx.NodeProto, *inputs: str) -> list[str]:
        """The same operator with the same attributes on other inputs."""
        copy = onnx.NodeProto(op_type=node.op_type, name=self._new())
        copy.attribute.extend(node.attribute)
        copy.input.extend(inputs)
        copy.output.extend(
            copy.name if k == 0 else f"{copy.name}_{k}" for k in range(len(node.output))
        )
        self.nodes.append(copy)
        return list(copy.output)

    def _new(self) -> str:
        name = f"value_{len(self.nodes)}"
        return f"{name}_" if name in self.old.constants or name in self.old.inputs else name

    def constant(self, value: Array) -> str:
        """A constant, named after what it holds."""
        value = np.asarray(value)
        digest = hashlib.sha256(value.tobytes()).hexdigest()[:16]
        numbers = "_".join(map(str, value.ravel().tolist())) if value.size <= 8 else digest
        name = f"{value.dtype}_{'x'.join(map(str, value.shape)) or 'number'}_{numbers}"
        self.constants[name] = value
        return name

    def number(self, value: float) -> str:
        """A float32 constant."""
        return self.constant(np.array(value, np.float32))

    def axes(self, *values: int) -> str:
        """An int64 constant."""
        return self.constant(np.array(values, np.int64))

    def scaled(self, a: str, by: float) -> str:
        """a * number; a itself if that is 1."""
        return a if by == 1.0 else self.op("Mul", a, self.number(by))

    def chain(self, kind: str, parts: Sequence[str]) -> str:
        """f(f(a, b), c) ..."""
        first = parts[0]
        for part in parts[1:]:
            first = self.op(kind, first, part)
        return first

    def absolute(self, a: str) -> str:
        """|a| = max(a, -a)."""
        return self.op("Max", a, self.scaled(a, -1.0))

    def reshaped(self, a: str, shape: Sequence[int]) -> str:
        """a in another shape; one of too many axes is left to who reads it."""
        return a if len(shape) > MOST_AXES else self.op("Reshape", a, self.axes(*shape))

    def transposed(self, a: str, shape: Sequence[int], order: Sequence[int]) -> str:
        """The axes of a, of that shape, in another order; too many go one by one past those before."""
        if list(order) == sorted(order):
            return a
        if len(shape) <= MOST_AXES:
            return self.op("Transpose", a, perm=list(order))
        at = list(range(len(shape)))
        for place, axis in enumerate(order):
            now = at.index(axis)
            sizes = [shape[k] for k in at]
            parts = [sizes[:place], sizes[place:now], sizes[now : now + 1], sizes[now + 1 :]]
            at.insert(place, at.pop(now))
            if now != place:
                view = self.reshaped(a, [math.prod(part) for part in parts])
                a = self.op("Transpose", view, perm=[0, 2, 1, 3])
        return a

    def sliced(self, a: str, axis: int, start: int, count: int) -> str:
        """a[start : start + count] along an axis."""
        ends = [self.axes(number) for number in (start, start + count, axis)]
        return self.op("Slice", a, *ends)

    def split(self, a: str, sizes: Sequence[int]) -> list[str]:
        """The parts of a along its first axis."""
        first = self.op("Split", a, self.axes(*sizes), axis=0)
        self.nodes[-1].output.extend(f"{first}_{k}" for k in range(1, len(sizes)))
        return list(self.nodes[-1].output)

    def normalised(self, a: str, over: Sequence[int], epsilon: float) -> str:
        """(a - mean) / sqrt(mean((a - mean)^2) + epsilon) over the axes."""
        axes = self.axes(*over)
        away = self.op("Sub", a, self.op("ReduceMean", a, axes, keepdims=1))
        variance = self.op("ReduceMean", self.op("Mul", away, away), axes, keepdims=1)
        floor = self.op("Add", variance, self.number(epsilon))
        return self.op("Div", away, self.op("Sqrt", floor))

    def affine(self, a: str, scale: str, bias: str = "", *, trailing: int = 0) -> str:
        """a * scale + bias, each with so many axes of 1 behind; ones and zeros are left out."""
        for kind, name, nothing in (("Mul", scale, 1.0), ("Add", bias, 0.0)):
            value = self.value(name) if name else None
            if not name or (value is not None and (value == nothing).all()):
                continue
            shape = (*self.shape(name), *[1] * trailing)
            wide = (
                self.at(name)
                if not trailing
                else self.reshaped(self.at(name), shape)
                if value is None
                else self.constant(value.reshape(shape))
            )
            a = self.op(kind, a, wide)
        return a

    def onehot(self, name: str, rows: int) -> str:
        """An input of one whole number per sample becomes float32 (B, rows), a 1 among zeros."""
        value = self.old.inputs.get(name)
        kind, (batch, *more) = self.types.get(name, (0, (None,)))
        if value is None or kind != onnx.TensorProto.INT64 or more:
            raise refused("Gather at places that are computed")
        wide = helper.make_tensor_value_info(name, onnx.TensorProto.FLOAT, [batch, rows])
        if self.inputs[name] not in (value, wide):
            raise refused(f"two tables of different lengths for {name!r}")
        self.inputs[name] = wide
        return name

    def flat(self) -> Flat:
        """The graph written, its outputs called as before."""
        for name in self.old.outputs:
            made = {output for node in self.nodes for output in node.output}
            now = self.at(name)
            if now not in made:  # an input or a constant, passed on
                now = self.op("Identity", now)
            for node in self.nodes:
                for names in (node.input, node.output):
                    names[:] = [name if item == now else item for item in names]
        return Flat(
            tuple(self.nodes), self.constants, self.inputs, self.old.outputs, self.old.opset
        )


def refused(what: str) -> ValueError:
    """What to raise for an operator, or a use of one, that no rule can make portable."""
    return ValueError(
        f"network: expected operators that can be made portable, got {what}; write the network without it, "
        "or add a rule to export/rewrites.py"
    )
