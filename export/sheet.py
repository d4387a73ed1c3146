"""A sheet of ONNX nodes being written: nodes and constants go on, a model comes off.

Equal nodes are written once. When the sheet is finished, nodes that nothing needs are left out and
those that depend on constants alone are run once and replaced by their results.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import helper, numpy_helper

from .sizes import BATCH, Number, Size

IR_VERSION = 10  # what onnxruntime 1.18 and its contemporaries read
LARGEST_FOLD = 1 << 16  # numbers in a result that is larger than every constant it could come from
UNFOLDED = ("DequantizeLinear",)  # its whole point is that the file holds the small integers
ALONE = ("Conv", "ConvTranspose")  # may still get a bias, so never shared

Name = str


@dataclass
class Sheet:
    """The nodes written so far, the constants they use, and the name of an input with the batch."""

    batch_of: Name
    nodes: list[onnx.NodeProto] = field(default_factory=list)
    constants: dict[Name, NDArray[Any] | onnx.TensorProto] = field(default_factory=dict)
    written: dict[Any, list[Name]] = field(default_factory=dict)
    fixed: set[Name] = field(default_factory=set)  # what depends on constants alone
    opset: int = 20

    def op(self, kind: str, *inputs: Name, outputs: int = 1, **attributes: Any) -> list[Name]:
        """The outputs of a node, written unless the same one is there."""
        key = (kind, inputs, outputs, repr(sorted(attributes.items())))
        if key not in self.written or kind in ALONE:
            base = f"{kind.lower()}_{len(self.nodes)}"
            names = [base] if outputs == 1 else [f"{base}_{k}" for k in range(outputs)]
            self.nodes.append(helper.make_node(kind, list(inputs), names, name=base, **attributes))
            self.written[key] = names
            if all(name in self.fixed for name in inputs if name):
                self.fixed.update(names)
        return self.written[key]

    def one(self, kind: str, *inputs: Name, **attributes: Any) -> Name:
        """The output of a node that has one."""
        return self.op(kind, *inputs, **attributes)[0]

    def constant(self, array: NDArray[Any] | onnx.TensorProto, label: str = "constant") -> Name:
        """A constant; small ones are shared by their value."""
        if isinstance(array, onnx.TensorProto):
            key: Any = array.SerializeToString()
        else:
            key = (array.dtype.str, array.shape, array.tobytes()) if array.size <= 64 else None
        found = self.written.get(("constant", key)) if key is not None else None
        if found is None:
            name = f"{label}_{len(self.constants)}"
            self.constants[name] = array
            self.fixed.add(name)
            found = [name]
            if key is not None:
                self.written["constant", key] = found
        return found[0]

    def number(self, value: float, dtype: Any = np.float32) -> Name:
        """A scalar constant."""
        return self.constant(np.array(value, dtype))

    def sizes(self, sizes: Sequence[Number]) -> Name:
        """int64 (n,): these sizes, those with the batch computed from the input's shape."""
        if not any(isinstance(size, Size) for size in sizes):
            return self.constant(np.array(sizes, np.int64))
        parts: list[Name] = []
        run: list[int] = []
        for size in sizes:
            if not isinstance(size, Size):
                run.append(size)
                continue
            if run:
                parts.append(self.constant(np.array(run, np.int64)))
                run = []
            parts.append(self._size(size))
        if run:
            parts.append(self.constant(np.array(run, np.int64)))
        return parts[0] if len(parts) == 1 else self.one("Concat", *parts, axis=0)

    def _size(self, size: Size) -> Name:
        """int64 (1,): (numerator * batch + offset) / denominator, exact in whole numbers."""
        batch = self.one("Shape", self.batch_of, start=0, end=1)
        if size == BATCH:
            return batch
        below = size.a.denominator * size.b.denominator
        times, plus = int(size.b * below), int(size.a * below)
        name = batch
        for kind, number, idle in (("Mul", times, 1), ("Add", plus, 0), ("Div", below, 1)):
            if number != idle:
                name = self.one(kind, name, self.constant(np.array([number], np.int64)))
        return name

    def model(
        self, inputs: Sequence[onnx.ValueInfoProto], output: onnx.ValueInfoProto, last: Name
    ) -> onnx.ModelProto:
        """The finished model, whose only output is the value `last`."""
        nodes, constants = _live(self.nodes, self.constants, last)
        nodes, constants = self._folded(nodes, constants, last)
        nodes = _named(nodes, {value.name for value in inputs} | set(constants), last, output.name)
        initializers = [
            array
            if isinstance(array, onnx.TensorProto)
            else numpy_helper.from_array(np.ascontiguousarray(array).reshape(array.shape), name)
            for name, array in constants.items()
        ]
        for tensor, name in zip(initializers, constants, strict=True):
            tensor.name = name
        graph = helper.make_graph(nodes, "network", list(inputs), [output], initializers)
        return helper.make_model(
            graph, opset_imports=[helper.make_opsetid("", self.opset)], ir_version=IR_VERSION
        )

    def _folded(
        self, nodes: list[onnx.NodeProto], constants: dict[Name, Any], last: Name
    ) -> tuple[list[onnx.NodeProto], dict[Name, Any]]:
        """Without the nodes that depend on constants alone: their results are constants."""
        fixed = set(constants)
        early: list[onnx.NodeProto] = []
        late: list[onnx.NodeProto] = []
        for node in nodes:
            idle = node.op_type in UNFOLDED or not all(
                name in fixed for name in node.input if name
            )
            (late if idle else early).append(node)
            if not idle:
                fixed.update(node.output)
        if not early:
            return nodes, constants
        needed = {name for node in late for name in node.input} | {last}
        made = [name for node in early for name in node.output if name in needed]
        results = dict(zip(made, _run(early, constants, made, self.opset), strict=True))
        most = max(LARGEST_FOLD, *(np.size(array) for array in constants.values()))
        large = {name for name, result in results.items() if result.size > most}
        if large:
            kept = _live(early, constants, *large)[0]
            late = [*kept, *late]
            results = {name: result for name, result in results.items() if name not in large}
        late, constants = _live(late, {**constants, **results}, last)
        return late, constants


def _live(
    nodes: Sequence[onnx.NodeProto], constants: dict[Name, Any], *last: Name
) -> tuple[list[onnx.NodeProto], dict[Name, Any]]:
    """The nodes and constants that the values `last` need, in their order."""
    needed, kept = set(last), []
    for node in reversed(nodes):
        if needed & set(node.output):
            kept.append(node)
            needed.update(node.input)
    order = {name: None for node in reversed(kept) for name in node.input} | dict.fromkeys(last)
    return kept[::-1], {name: constants[name] for name in order if name in constants}


def _run(
    nodes: Sequence[onnx.NodeProto], constants: dict[Name, Any], made: Sequence[Name], opset: int
) -> list[NDArray[Any]]:
    """The values `made` by nodes that need no input."""
    import onnxruntime

    used, arrays = _live(nodes, constants, *made)
    tensors = []
    for name, array in arrays.items():
        tensors.append(
            array if isinstance(array, onnx.TensorProto) else numpy_helper.from_array(array, name)
        )
        tensors[-1].name = name
    outputs = [onnx.ValueInfoProto(name=name) for name in made]
    graph = helper.make_graph(list(used), "constants", [], outputs, tensors)
    model = helper.make_model(
        graph, opset_imports=[helper.make_opsetid("", opset)], ir_version=IR_VERSION
    )
    options = onnxruntime.SessionOptions()
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    options.intra_op_num_threads = 1
    options.log_severity_level = 4
    session = onnxruntime.InferenceSession(
        model.SerializeToString(), options, providers=["CPUExecutionProvider"]
    )
    return list(session.run(list(made), {}))


def _named(
    nodes: list[onnx.NodeProto], taken: set[Name], last: Name, name: Name
) -> list[onnx.NodeProto]:
    """The value `last` under its public name; an input or a constant needs a node for that."""
    if last in taken:
        return [*nodes, helper.make_node("Identity", [last], [name], name=name)]
    for node in nodes:
        for slots in (node.input, node.output):
            slots[:] = [name if slot == last else slot for slot in slots]
    return nodes
