"""A tape of ONNX nodes, and which value carries whose tangent: what the rules in `derivatives` write on."""

from dataclasses import dataclass, field
from typing import Any

import numpy as np
import onnx
from onnx import helper, numpy_helper


@dataclass
class Tape:
    """The nodes written so far, and which value carries whose tangent."""

    shapes: dict[str, list[Any]]
    tangents: dict[str, str] = field(default_factory=lambda: {"x": "probe"})
    nodes: list[onnx.NodeProto] = field(default_factory=list)
    constants: dict[str, onnx.TensorProto] = field(default_factory=dict)

    def of(self, name: str) -> str | None:
        """The tangent of a value."""
        return self.tangents.get(name)

    def op(self, kind: str, *inputs: str, **attributes: Any) -> str:
        """A new node with one output; its name."""
        name = f"tangent_{len(self.nodes)}"
        self.nodes.append(helper.make_node(kind, list(inputs), [name], name=name, **attributes))
        return name

    def again(self, node: onnx.NodeProto, *inputs: str) -> list[str]:
        """The same operator with the same attributes on other inputs."""
        copy = onnx.NodeProto()
        copy.CopyFrom(node)
        copy.name = f"tangent_{len(self.nodes)}"
        names = [copy.name if k == 0 else f"{copy.name}_{k}" for k in range(len(node.output))]
        del copy.input[:], copy.output[:], copy.metadata_props[:]
        copy.input.extend(inputs)
        copy.output.extend(names)
        self.nodes.append(copy)
        return names

    def number(self, value: float) -> str:
        """A float32 constant."""
        return self._constant(np.float32(value), f"tangent_number_{value!r}")

    def axes(self, *values: int) -> str:
        """An int64 constant."""
        return self._constant(np.array(values, np.int64), f"tangent_axes_{values!r}")

    def _constant(self, value: Any, name: str) -> str:
        self.constants.setdefault(name, numpy_helper.from_array(np.asarray(value), name))
        return name

    def plus(self, *terms: str | None) -> str | None:
        """The sum of the tangents there are."""
        there = [term for term in terms if term is not None]
        total = there[0] if there else None
        for term in there[1:]:
            total = self.op("Add", str(total), term)
        return total

    def times(self, tangent: str | None, factor: str) -> str | None:
        """tangent * factor, where there is a tangent."""
        return None if tangent is None else self.op("Mul", tangent, factor)

    def zeros(self, like: str) -> str:
        """As many zeros as a value has numbers, whatever those are."""
        return self.op("Expand", self.number(0.0), self.op("Shape", like))

    def fitted(self, tangent: str | None, like: str, name: str) -> str | None:
        """The tangent of `like` in the shape of `name`, which a constant may have made larger."""
        known = self.shapes.get(like, [None])
        if tangent is None or (None not in known and known == self.shapes.get(name)):
            return tangent
        return self.op("Expand", tangent, self.op("Shape", name))


def shapes(proto: onnx.ModelProto) -> dict[str, list[Any]]:
    """The sizes of every value, numbers or names, as far as they are known."""
    graph = onnx.shape_inference.infer_shapes(proto, data_prop=True).graph
    found = {
        value.name: [
            axis.dim_value or axis.dim_param or None for axis in value.type.tensor_type.shape.dim
        ]
        for value in (*graph.value_info, *graph.input, *graph.output)
        if value.type.tensor_type.HasField("shape")
    }
    return found | {tensor.name: list(tensor.dims) for tensor in graph.initializer}


def attribute(node: onnx.NodeProto, name: str, default: Any) -> Any:
    """An attribute's value."""
    found = [helper.get_attribute_value(item) for item in node.attribute if item.name == name]
    return found[0] if found else default


def without_rule(what: str) -> ValueError:
    """What to raise for an operator, or a use of one, that `derivatives` cannot differentiate."""
    return ValueError(
        f"module: expected operators with a derivative rule, got {what}; write the network without it, "
        "or add its rule to export/derivatives.py"
    )
