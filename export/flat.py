"""A graph as a list of nodes and a table of constants, and everything in it that is known before a call.

    fixed(flat, batch)      every size is a number
    folded(flat, given)     a node whose inputs are all constants is one too

Shapes of values with known sizes are constants, so the arithmetic that a tracer writes to follow a free
batch disappears. What has to be computed is computed by ONNX Runtime, so it is what a session would have.
"""

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import helper, numpy_helper

from runtimes.session import onnxruntime

from .tangent import attribute

Array = NDArray[Any]
Types = dict[str, tuple[int, tuple[int | None, ...]]]  # name -> (element type, sizes)
LARGE = 256  # numbers: a constant above it is a weight, and no size is computed from its values


@dataclass(frozen=True)
class Flat:
    """Nodes in order, constants by name, and what comes in and goes out (type and shape by name)."""

    nodes: tuple[onnx.NodeProto, ...]
    constants: Mapping[str, Array]
    inputs: Mapping[str, onnx.ValueInfoProto]
    outputs: Mapping[str, onnx.ValueInfoProto]
    opset: int


def read(model: onnx.ModelProto) -> Flat:
    """The graph of a model. Raises ValueError for one that is not flat or older than opset 18."""
    graph = model.graph
    (opset,) = (item.version for item in model.opset_import if item.domain in ("", "ai.onnx"))
    if opset < 18:
        raise ValueError(f"network: expected opset 18 or newer, got {opset}; export it again")
    for node in graph.node:
        if node.domain not in ("", "ai.onnx") or any(
            item.HasField("g") for item in node.attribute
        ):
            raise ValueError(
                f"network: expected standard operators without control flow, got {node.op_type}; "
                "write the network without it"
            )
    constants = {tensor.name: numpy_helper.to_array(tensor) for tensor in graph.initializer}
    inputs = {value.name: value for value in graph.input if value.name not in constants}
    outputs = {value.name: value for value in graph.output}
    return Flat(tuple(graph.node), constants, inputs, outputs, opset)


def proto(flat: Flat, name: str = "network") -> onnx.ModelProto:
    """The model of a flat graph, with the constants that its nodes read."""
    read_by = {item for node in flat.nodes for item in node.input} | set(flat.outputs)
    graph = helper.make_graph(
        flat.nodes,
        name,
        list(flat.inputs.values()),
        list(flat.outputs.values()),
        [numpy_helper.from_array(v, k) for k, v in flat.constants.items() if k in read_by],
    )
    opset = helper.make_opsetid("", flat.opset)
    return helper.make_model(graph, opset_imports=[opset], ir_version=10)


def fixed(flat: Flat, batch: int) -> Flat:
    """The same with `batch` rows in every input and output."""

    def sized(value: onnx.ValueInfoProto) -> onnx.ValueInfoProto:
        copy = onnx.ValueInfoProto()
        copy.CopyFrom(value)
        for axis in copy.type.tensor_type.shape.dim[:1]:
            axis.dim_value = batch  # a name gives way to a number
        return copy

    inputs = {name: sized(value) for name, value in flat.inputs.items()}
    outputs = {name: sized(value) for name, value in flat.outputs.items()}
    return replace(flat, inputs=inputs, outputs=outputs)


def types(flat: Flat) -> Types:
    """The element type and the sizes of every value, None for a size that is not known."""
    small = {name: value for name, value in flat.constants.items() if value.size <= LARGE}
    weights = {
        name: helper.make_tensor_value_info(
            name, helper.np_dtype_to_tensor_dtype(value.dtype), value.shape
        )
        for name, value in flat.constants.items()
        if name not in small
    }
    hollow = replace(flat, constants=small, inputs={**flat.inputs, **weights})
    graph = onnx.shape_inference.infer_shapes(proto(hollow), data_prop=True).graph
    found = {
        value.name: (value.type.tensor_type.elem_type, _sizes(value))
        for value in (*graph.value_info, *graph.input, *graph.output)
        if value.type.tensor_type.HasField("shape")
    }
    return found | {
        name: (helper.np_dtype_to_tensor_dtype(value.dtype), value.shape)
        for name, value in small.items()
    }


def _sizes(value: onnx.ValueInfoProto) -> tuple[int | None, ...]:
    axes = value.type.tensor_type.shape.dim
    return tuple(axis.dim_value if axis.HasField("dim_value") else None for axis in axes)


def folded(flat: Flat, given: Mapping[str, Array] | None = None) -> Flat:
    """The same with every known node taken out; given: inputs that are constants from now on."""
    given = {} if given is None else given
    inputs = {name: value for name, value in flat.inputs.items() if name not in given}
    flat = replace(flat, inputs=inputs, constants={**flat.constants, **given})
    while True:
        values = {**flat.constants, **known(flat)}
        nodes = [node for node in flat.nodes if node.output[0] not in values]
        early = []
        names = set(values)
        for node in nodes:
            if any(node.input) and all(name in names for name in node.input if name):
                early.append(node)
                names.update(node.output)
        late = tuple(node for node in nodes if node.output[0] not in names)
        wanted = {name for node in late for name in node.input} | set(flat.outputs)
        values |= computed(early, values, wanted, flat.opset)
        if len(late) == len(flat.nodes):
            return replace(flat, constants={k: v for k, v in values.items() if k in wanted})
        flat = replace(flat, nodes=late, constants=values)


def known(flat: Flat) -> dict[str, Array]:
    """What nodes without constants know all the same: constants, and shapes of what has known sizes."""
    found: dict[str, Array] = {}
    sizes = types(flat) if any(node.op_type in ("Shape", "Size") for node in flat.nodes) else {}
    for node in flat.nodes:
        if node.op_type == "Constant":
            (item,) = node.attribute
            value = helper.get_attribute_value(item)
            tensor = isinstance(value, onnx.TensorProto)
            whole = np.int64 if item.name in ("value_int", "value_ints") else np.float32
            found[node.output[0]] = (
                numpy_helper.to_array(value) if tensor else np.asarray(value, whole)
            )
        if node.op_type in ("Shape", "Size"):
            shape = sizes.get(node.input[0], (0, (None,)))[1]
            part = shape[attribute(node, "start", 0) : attribute(node, "end", len(shape))]
            if None not in part:
                shown = np.array(part, np.int64)
                found[node.output[0]] = (
                    shown
                    if node.op_type == "Shape"
                    else np.array(math.prod(shown.tolist()), np.int64)
                )
    return found


def pruned(flat: Flat) -> Flat:
    """The same without nodes that nobody reads."""
    wanted, kept = set(flat.outputs), []
    for node in reversed(flat.nodes):
        if wanted.intersection(node.output):
            kept.append(node)
            wanted.update(node.input)
    return replace(flat, nodes=tuple(reversed(kept)))


def computed(
    nodes: Iterable[onnx.NodeProto], constants: Mapping[str, Array], wanted: set[str], opset: int
) -> dict[str, Array]:
    """The values that these nodes make of constants, those wanted, by name."""
    nodes = tuple(nodes)
    names = [name for node in nodes for name in node.output if name in wanted]
    if not names:
        return {}
    outputs = {name: onnx.ValueInfoProto(name=name) for name in names}
    model = proto(Flat(nodes, constants, {}, outputs, opset))
    ort = onnxruntime()
    options = ort.SessionOptions()
    options.log_severity_level, options.intra_op_num_threads = 4, 1
    session = ort.InferenceSession(
        model.SerializeToString(), options, providers=["CPUExecutionProvider"]
    )
    return dict(zip(names, session.run(names, {}), strict=True))
