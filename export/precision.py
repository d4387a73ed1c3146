"""A network's graph -> the same with its weights in fewer bits; what flows through it stays float32.

    fp16, bf16    W = Cast(half(W)): half the file, and computed in float32 as before
    int8, uint8   x W = s r (q - z)(Q - Z): x as uint8 by its own range at every call, each column of W by
                  its own range too; every other weight is kept as fp16
    w8, w4        W = s q in `blocks`, made float32 again by nodes that read constants only: the file is what
                  gets smaller, not the time; every other weight is kept as fp16

A rewrite is applied to the network before a form grows around it, so solver, state and tableau are
never touched; the unrolled graph alone is rewritten when it is there. Standard operators only. Signed
numbers of int8 have 7 bits: processors with AVX2 alone add two products u8 x s8 in 16 bits, and
255 (127 + 127) overflows there without a word; 255 (63 + 63) cannot.

The nodes of w8 and w4 are worked out by ONNX Runtime when it opens a file, and by `runtimes.widen`. One
DequantizeLinear would say the same, but with blocks it needs opset 21, which DirectML lacks, and ONNX
Runtime makes of it and the product one that rounds x to 8 bits as well.
"""

import math
from collections.abc import Callable
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper

from runtimes.choices import choose

from .blocks import PAIRS, Blocks, bfloat16, eight, four
from .nodes import Nodes

SMALL = 256  # numbers: a constant of fewer is not worth its Cast
NARROW = 8  # inputs: a layer that sums fewer products loses more than it saves
Array = NDArray[Any]
Halve = Callable[[Array, str], onnx.TensorProto]
Whole = Callable[[Array], tuple[Array, Array, Array]]  # W -> numbers, scale, zero
Cut = Callable[[Array], Blocks | None]


def known(precision: str) -> str:
    """The name itself. Raises ValueError for one that is none of `PRECISIONS`, or refused."""
    if precision in REFUSED:
        raise ValueError(
            f"precision: expected one of {', '.join(PRECISIONS)}, got {precision!r}; {REFUSED[precision]}"
        )
    return choose("precision", precision, PRECISIONS)


def rewritten(network: onnx.ModelProto, precision: str) -> onnx.ModelProto:
    """The network in one of `PRECISIONS`; the one given is not changed.

    Raises ValueError for an unknown precision, a network without weights that it could shrink, and
    weights that it cannot hold.
    """
    rewrite = PRECISIONS[known(precision)]
    copy = onnx.ModelProto()
    copy.CopyFrom(network)
    _lift(copy.graph)
    rewrite(copy.graph)
    return copy


def in_one_piece(unrolled: onnx.ModelProto, precision: str) -> onnx.ModelProto:
    """The same for an unrolled graph, where a weight stands once for all calls. Raises as `rewritten`.

    Those of `IN_CALLS` are refused: they add nodes to every call that no phone's processor takes.
    """
    if known(precision) in IN_CALLS:
        raise ValueError(
            f"precision: expected one that keeps the form unrolled in one piece, got {precision!r}; take "
            "fp16, or w8"
        )
    return rewritten(unrolled, precision)


def fp32(graph: onnx.GraphProto) -> None:
    """Weights as they are."""


def fp16(graph: onnx.GraphProto) -> None:
    """Weights as float16: 11 bits of every number up to 65504."""
    _halve(graph, _float16)


def bf16(graph: onnx.GraphProto) -> None:
    """Weights as bfloat16: 8 bits of every number that float32 has."""
    _halve(graph, _bfloat16)


def int8(graph: onnx.GraphProto) -> None:
    """Matrix products with weights of -63 to 63: the fastest, on every processor that has been tried."""
    _quantise(graph, _signed)


def uint8(graph: onnx.GraphProto) -> None:
    """Matrix products with weights of 0 to 255: a little closer than int8, and slower."""
    _quantise(graph, _unsigned)


def w8(graph: onnx.GraphProto) -> None:
    """Matrices in blocks of 8 bits: nearer than int8, and not faster."""
    _block(graph, eight)


def w4(graph: onnx.GraphProto) -> None:
    """Matrices in blocks of 4 bits: the smallest file."""
    _block(graph, four)


def _quantise(graph: onnx.GraphProto, whole: Whole) -> None:
    """Matrix products in whole numbers, the other weights as fp16.

    x's range is that of the whole batch: a sample depends, to the rounding, on those beside it.
    """
    weights, g = _weights(graph), Nodes("q8.")
    inputs, matrices = dict[str, list[str]](), dict[str, list[onnx.TensorProto]]()
    for node in graph.node:
        weight = _matrix(node, weights)
        if weight is None:
            g.nodes.append(node)
            continue
        x, key = node.input[0], _key(node)
        if key not in matrices:
            parts = zip(("numbers", "scale", "zero"), whole(weight), strict=True)
            matrices[key] = [numpy_helper.from_array(a, f"{key}.{word}") for word, a in parts]
        if x not in inputs:
            inputs[x] = g.ops("DynamicQuantizeLinear", 3, x)
        _product(g, node, inputs[x], [tensor.name for tensor in matrices[key]])
    if not matrices:
        raise _nothing("8 bits", f"a matrix of {SMALL} weights or more")
    _replace(graph, g.nodes, [*graph.initializer, *(t for ts in matrices.values() for t in ts)])
    if _weights(graph):
        _halve(graph, _float16)


def _product(g: Nodes, node: onnx.NodeProto, x: list[str], weight: list[str]) -> None:
    """x W (+ b) under the name of the node's output, from (numbers, scale, zero) of x and of W."""
    sums = g.op("MatMulInteger", x[0], weight[0], x[2], weight[2])
    scale = g.op("Mul", x[1], weight[1])
    last = "Mul", g.op("Cast", sums, to=TensorProto.FLOAT), scale
    if node.op_type == "Gemm" and len(node.input) > 2 and node.input[2]:
        last = "Add", g.op(*last), node.input[2]
    g.nodes.append(helper.make_node(last[0], last[1:], list(node.output)))


def _block(graph: onnx.GraphProto, cut: Cut) -> None:
    """Matrices in blocks, each made float32 once for all who read it, and the other weights as fp16."""
    weights, g = _weights(graph), Nodes("wide.")
    tensors, matrices = list(graph.initializer), dict[str, str]()
    for node in graph.node:
        weight = _matrix(node, weights)
        if weight is not None:
            key = _key(node)
            if key not in matrices and (blocks := cut(weight)) is not None:
                numbers = numpy_helper.from_array(blocks.numbers, f"{key}.numbers")
                scale = _bfloat16(blocks.scale, f"{key}.scale")
                tensors += [numbers, scale]
                matrices[key] = _float(g, numbers, scale, weight.shape)
            if key in matrices:
                node.input[1] = matrices[key]
                for turned in (a for a in node.attribute if a.name == "transB"):
                    turned.i = 0
        g.nodes.append(node)
    if not matrices:
        raise _nothing("blocks", "a matrix of 32 outputs or more and inputs that 8 to 32 divide")
    _replace(graph, g.nodes, [*tensors, *g.constants.values()])
    if _weights(graph):
        _halve(graph, _float16)


def _float(
    g: Nodes, numbers: onnx.TensorProto, scale: onnx.TensorProto, shape: tuple[int, ...]
) -> str:
    """The matrix of these blocks."""
    whole = numbers.name
    if numbers.data_type == TensorProto.UINT8:
        whole = g.op("Gather", g.array(PAIRS), g.op("Cast", whole, to=TensorProto.INT32))
    whole, wide = (g.op("Cast", name, to=TensorProto.FLOAT) for name in (whole, scale.name))
    return g.op("Reshape", g.op("Mul", whole, wide), g.ints(*shape))


def _key(node: onnx.NodeProto) -> str:
    """One name for a matrix and another for the same one turned."""
    turned = any(a.name == "transB" and a.i for a in node.attribute)
    return f"{node.input[1]}.turned" if turned else node.input[1]


def _matrix(node: onnx.NodeProto, weights: dict[str, Array]) -> Array | None:
    """W (inputs, outputs) of a node that is x W (+ b), or None."""
    if node.op_type not in ("MatMul", "Gemm") or node.input[1] not in weights:
        return None
    weight, given = weights[node.input[1]], {a.name: a for a in node.attribute}
    if node.op_type == "Gemm":
        if any(given[name].f != 1.0 for name in ("alpha", "beta") if name in given):
            return None
        if "transA" in given and given["transA"].i:
            return None
        if "transB" in given and given["transB"].i:
            weight = weight.T
    return weight if weight.ndim == 2 and len(weight) >= NARROW else None


def _signed(weight: Array) -> tuple[Array, Array, Array]:
    """Q, r and Z = 0 of each column of W = r Q: its largest is 63."""
    largest = np.abs(weight).max(0)
    scale = np.where(largest > 0.0, largest / 63.0, 1.0).astype(np.float32)
    return np.round(weight / scale).astype(np.int8), scale, np.zeros(len(scale), np.int8)


def _unsigned(weight: Array) -> tuple[Array, Array, Array]:
    """Q, r and Z of each column of W = r (Q - Z): from its range, which is made to hold 0."""
    low, high = np.minimum(weight.min(0), 0.0), np.maximum(weight.max(0), 0.0)
    scale = np.where(high > low, (high - low) / 255.0, 1.0).astype(np.float32)
    zero = np.round(-low / scale)
    numbers = np.clip(np.round(weight / scale) + zero, 0, 255)
    return numbers.astype(np.uint8), scale, zero.astype(np.uint8)


def _halve(graph: onnx.GraphProto, halve: Halve) -> None:
    """Every weight in 16 bits, and cast back where it is read; of a table only the rows looked up."""
    weights = _weights(graph)
    if not weights:
        raise _nothing("16 bits", f"float32 weights of {SMALL} numbers or more")
    nodes, read = list[onnx.NodeProto](), set[str]()
    for node in graph.node:
        if node.op_type == "Gather" and node.input[0] in weights:
            (out,) = node.output
            node.input[0], node.output[0] = _half(node.input[0]), _half(out)
            nodes += [node, _cast(out)]
        else:
            read |= weights.keys() & set(node.input)
            nodes.append(node)
    tensors = [
        halve(weights[t.name], _half(t.name)) if t.name in weights else t
        for t in graph.initializer
    ]
    _replace(graph, [*(_cast(name) for name in weights if name in read), *nodes], tensors)


def _float16(weight: Array, name: str) -> onnx.TensorProto:
    largest = float(np.abs(weight).max())
    if not largest <= float(np.finfo(np.float16).max):
        raise ValueError(
            f"precision: expected weights up to 65504 for fp16, got {largest:.3g} in {name!r}; use bf16"
        )
    return numpy_helper.from_array(weight.astype(np.float16), name)


def _bfloat16(weight: Array, name: str) -> onnx.TensorProto:
    """The upper 16 of 32 bits, rounded."""
    upper = (bfloat16(weight).view(np.uint32) >> 16).astype("<u2")
    return TensorProto(
        name=name, data_type=TensorProto.BFLOAT16, dims=weight.shape, raw_data=upper.tobytes()
    )


def _cast(name: str) -> onnx.NodeProto:
    return helper.make_node("Cast", [_half(name)], [name], to=TensorProto.FLOAT)


def _half(name: str) -> str:
    return f"{name}.half"


def _weights(graph: onnx.GraphProto) -> dict[str, Array]:
    """The large constants by name; no vectors: biases and scales are many, and weigh nothing."""
    return {
        tensor.name: numpy_helper.to_array(tensor)
        for tensor in graph.initializer
        if tensor.data_type == TensorProto.FLOAT
        and len(tensor.dims) > 1
        and math.prod(tensor.dims) >= SMALL
    }


def _lift(graph: onnx.GraphProto) -> None:
    """Tensors of Constant nodes among the initializers, where weights are looked for."""
    nodes = list[onnx.NodeProto]()
    for node in graph.node:
        if node.op_type == "Constant" and node.attribute[0].name == "value":
            graph.initializer.append(node.attribute[0].t)
            graph.initializer[-1].name = node.output[0]
        else:
            nodes.append(node)
    _replace(graph, nodes, list(graph.initializer))


def _replace(
    graph: onnx.GraphProto, nodes: list[onnx.NodeProto], tensors: list[onnx.TensorProto]
) -> None:
    """These nodes, and of the tensors those that one of them still reads."""
    nodes, read = [*nodes], {name for node in nodes for name in node.input}
    tensors = [tensor for tensor in tensors if tensor.name in read]
    made = helper.make_graph(nodes, graph.name, graph.input, graph.output, tensors)
    graph.CopyFrom(made)


def _nothing(precision: str, wanted: str) -> ValueError:
    return ValueError(
        f"precision: expected a network with {wanted}, got none to keep in {precision}; leave it at fp32"
    )


# what is no precision, and why
REFUSED = {
    "qint8": "signed weights of 8 bits are wrong by a fifth where the processor has AVX2 alone; int8 has 7",
}
# those that are computed in, at every call
IN_CALLS = ("int8", "uint8")
# precision -> what it makes of a network's graph, in place
PRECISIONS: dict[str, Callable[[onnx.GraphProto], None]] = {
    "fp32": fp32,
    "fp16": fp16,
    "bf16": bf16,
    "int8": int8,
    "uint8": uint8,
    "w8": w8,
    "w4": w4,
}
