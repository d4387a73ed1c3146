"""prediction(x) -> prediction(x) and J probe, J = d prediction / d x: forward differentiation of a graph.

Every value that depends on x gets a tangent, its derivative along `probe`, from the tangents of the
node's inputs: a rule per operator (Griewank & Walther 2008, section 3.1). The network's own nodes
stay as they are. Values that do not depend on x have none, so time and condition cost nothing. To
allow another operator, write its rule and its line in `RULES`.
"""

import math
from collections.abc import Callable

import onnx
from onnx import helper

from .tangent import Tape, attribute, shapes, without_rule

Rule = Callable[[Tape, onnx.NodeProto], list[str | None]]


def with_product(proto: onnx.ModelProto) -> onnx.ModelProto:
    """The model with one more input, `probe` like x, and one more output, `product` = J probe.

    Raises ValueError for an operator without a rule.
    """
    model = onnx.ModelProto()
    model.CopyFrom(proto)
    graph = model.graph
    tape = Tape(shapes(proto))
    for node in graph.node:
        for name, tangent in zip(node.output, _tangents(tape, node), strict=False):
            if tangent is not None:
                tape.tangents[name] = tangent
    x = next(value for value in graph.input if value.name == "x")
    out = next(value for value in graph.output if value.name == "prediction")
    last = tape.tangents.get("prediction") or tape.op("Mul", "probe", tape.number(0.0))
    tape.nodes.append(helper.make_node("Identity", [last], ["product"], name="product"))
    graph.node.extend(tape.nodes)
    graph.initializer.extend(tape.constants.values())
    for values, like, name in ((graph.input, x, "probe"), (graph.output, out, "product")):
        values.add().CopyFrom(like)
        values[-1].name = name
    return model


def _tangents(tape: Tape, node: onnx.NodeProto) -> list[str | None]:
    """The tangent of every output of a node, None where it does not depend on x."""
    if node.op_type in FLAT or not any(name in tape.tangents for name in node.input):
        return [None] * len(node.output)
    if node.op_type not in RULES:
        raise without_rule(node.op_type)
    return RULES[node.op_type](tape, node)


def linear(tape: Tape, node: onnx.NodeProto) -> list[str | None]:
    """d f(a, ...) = f(da, ...): linear in the first input, and the others do not depend on x."""
    first = tape.of(node.input[0])
    if first is None:
        raise without_rule(f"{node.op_type} with sizes or places that depend on x")
    return [*tape.again(node, first, *node.input[1:])]


def cast(tape: Tape, node: onnx.NodeProto) -> list[str | None]:
    """d float(a) = float(da); a whole number has no tangent."""
    floats = (onnx.TensorProto.FLOAT, onnx.TensorProto.FLOAT16, onnx.TensorProto.DOUBLE)
    return linear(tape, node) if attribute(node, "to", 0) in floats else [None]


def pad(tape: Tape, node: onnx.NodeProto) -> list[str | None]:
    """d pad(a, c) = pad(da, 0)."""
    rest = [name if k != 1 else "" for k, name in enumerate(node.input[1:])]
    return [*tape.again(node, str(tape.of(node.input[0])), *rest)]


def add(tape: Tape, node: onnx.NodeProto) -> list[str | None]:
    """d (a + b + ...) = da + db + ..."""
    terms = [tape.of(name) for name in node.input]
    if None not in terms:
        return [tape.plus(*terms)]
    wide = [
        tape.fitted(term, name, node.output[0])
        for term, name in zip(terms, node.input, strict=True)
    ]
    return [tape.plus(*wide)]


def subtract(tape: Tape, node: onnx.NodeProto) -> list[str | None]:
    """d (a - b) = da - db."""
    (a, b), out = node.input, node.output[0]
    da, db = tape.of(a), tape.of(b)
    if da is not None and db is not None:
        return [tape.op("Sub", da, db)]
    minus = None if db is None else tape.op("Neg", db)
    return [tape.plus(tape.fitted(da, a, out), tape.fitted(minus, b, out))]


def multiply(tape: Tape, node: onnx.NodeProto) -> list[str | None]:
    """d (a b) = da b + a db."""
    a, b = node.input
    return [tape.plus(tape.times(tape.of(a), b), tape.times(tape.of(b), a))]


def divide(tape: Tape, node: onnx.NodeProto) -> list[str | None]:
    """d (a / b) = (da - (a / b) db) / b."""
    (a, b), y = node.input, node.output[0]
    da, moved = tape.of(a), tape.times(tape.of(b), y)
    if moved is None:
        return [tape.op("Div", str(da), b)]
    top = tape.op("Neg", moved) if da is None else tape.op("Sub", da, moved)
    return [tape.op("Div", top, b)]


def bilinear(tape: Tape, node: onnx.NodeProto) -> list[str | None]:
    """d f(a, b, bias) = f(da, b) + f(a, db): products of two, and convolutions."""
    a, b = node.input[:2]
    da, db = tape.of(a), tape.of(b)
    first = None if da is None else tape.again(node, da, b)[0]
    second = None if db is None else tape.again(node, a, db)[0]
    if len(node.input) > 2 and tape.of(node.input[2]) is not None:
        raise without_rule(f"{node.op_type} with a bias that depends on x")
    return [tape.plus(first, second)]


def power(tape: Tape, node: onnx.NodeProto) -> list[str | None]:
    """d a^b = b a^(b - 1) da, b without x."""
    a, b = node.input
    if tape.of(b) is not None:
        raise without_rule("Pow with an exponent that depends on x")
    below = tape.op("Pow", a, tape.op("Sub", b, tape.number(1.0)))
    return [tape.times(tape.of(a), tape.op("Mul", b, below))]


def concatenate(tape: Tape, node: onnx.NodeProto) -> list[str | None]:
    """d [a, b] = [da, db], zeros where there is none."""
    return [*tape.again(node, *(tape.of(name) or tape.zeros(name) for name in node.input))]


def where(tape: Tape, node: onnx.NodeProto) -> list[str | None]:
    """d (c ? a : b) = c ? da : db."""
    c, a, b = node.input
    da, db = (tape.of(name) or tape.zeros(name) for name in (a, b))
    return [tape.op("Where", c, da, db)]


def larger(tape: Tape, node: onnx.NodeProto) -> list[str | None]:
    """d max(a, b) = a >= b ? da : db, and min the other way."""
    if len(node.input) != 2:
        raise without_rule(f"{node.op_type} of {len(node.input)}")
    a, b = node.input
    da, db = (tape.of(name) or tape.zeros(name) for name in (a, b))
    test = "GreaterOrEqual" if node.op_type == "Max" else "LessOrEqual"
    return [tape.op("Where", tape.op(test, a, b), da, db)]


def clipped(tape: Tape, node: onnx.NodeProto) -> list[str | None]:
    """d clip(a) = da where clip(a) = a, else 0."""
    a, y = node.input[0], node.output[0]
    inside = tape.op("Equal", a, y)
    return [tape.op("Where", inside, str(tape.of(a)), tape.number(0.0))]


def softmax(tape: Tape, node: onnx.NodeProto) -> list[str | None]:
    """d softmax(a) = y (da - sum(y da)) along the axis."""
    y, da = node.output[0], str(tape.of(node.input[0]))
    axes = tape.axes(attribute(node, "axis", -1))
    mean = tape.op("ReduceSum", tape.op("Mul", y, da), axes, keepdims=1)
    return [tape.op("Mul", y, tape.op("Sub", da, mean))]


def layer_norm(tape: Tape, node: onnx.NodeProto) -> list[str | None]:
    """d (n scale + bias) = dn scale, n = (a - mean) / deviation over the last axes."""
    if any(node.output[1:]):
        raise without_rule("LayerNormalization with several outputs")
    axis, rank = attribute(node, "axis", -1), len(tape.shapes.get(node.input[0], ()))
    first = axis if axis < 0 else axis - rank
    return [tape.times(_normalised(tape, node, list(range(first, 0))), node.input[1])]


def instance_norm(tape: Tape, node: onnx.NodeProto) -> list[str | None]:
    """The same over all axes but batch and channels, with a scale per channel."""
    rank = len(tape.shapes.get(node.input[0], ()))
    if rank < 3:
        raise without_rule("InstanceNormalization of an unknown shape")
    scale = tape.op("Reshape", node.input[1], tape.axes(-1, *[1] * (rank - 2)))
    return [tape.times(_normalised(tape, node, list(range(2 - rank, 0))), scale)]


def _normalised(tape: Tape, node: onnx.NodeProto, over: list[int]) -> str:
    """dn = (dc - n mean(n dc)) / deviation, c = a - mean(a), n = c / deviation."""
    a, da, axes = node.input[0], str(tape.of(node.input[0])), tape.axes(*over)

    def mean(value: str) -> str:
        return tape.op("ReduceMean", value, axes, keepdims=1)

    c, dc = tape.op("Sub", a, mean(a)), tape.op("Sub", da, mean(da))
    floor = tape.number(attribute(node, "epsilon", 1e-5))
    deviation = tape.op("Sqrt", tape.op("Add", mean(tape.op("Mul", c, c)), floor))
    n = tape.op("Div", c, deviation)
    along = tape.op("Mul", n, mean(tape.op("Mul", n, dc)))
    return tape.op("Div", tape.op("Sub", dc, along), deviation)


# Elementwise y = f(a): the value of f'(a), written from a and y.


def _one_less_square(tape: Tape, a: str, y: str) -> str:
    """tanh' = 1 - y^2."""
    return tape.op("Sub", tape.number(1.0), tape.op("Mul", y, y))


def _sigmoid(tape: Tape, a: str, y: str) -> str:
    """sigmoid' = y (1 - y)."""
    return tape.op("Mul", y, tape.op("Sub", tape.number(1.0), y))


def _bell(tape: Tape, a: str, y: str) -> str:
    """erf' = 2 / sqrt(pi) exp(-a^2)."""
    falls = tape.op("Exp", tape.op("Neg", tape.op("Mul", a, a)))
    return tape.op("Mul", falls, tape.number(2.0 / math.pi**0.5))


def gelu(tape: Tape, node: onnx.NodeProto) -> list[str | None]:
    """d (a F(a)) = (F + a F') da, F the normal distribution or its approximation by tanh."""
    a, number = node.input[0], tape.number

    def scaled(value: str, by: float) -> str:
        return tape.op("Mul", value, number(by))

    if attribute(node, "approximate", b"none") == b"tanh":
        c, square = math.sqrt(2.0 / math.pi), tape.op("Mul", a, a)
        inner = tape.op("Mul", a, tape.op("Add", scaled(square, 0.044715 * c), number(c)))
        t = tape.op("Tanh", inner)
        rise = tape.op("Add", scaled(square, 3.0 * 0.044715 * c), number(c))
        steep = scaled(tape.op("Mul", _one_less_square(tape, inner, t), rise), 0.5)
        whole = tape.op("Add", scaled(t, 0.5), number(0.5))
    else:
        whole = tape.op("Add", scaled(tape.op("Erf", scaled(a, 0.5**0.5)), 0.5), number(0.5))
        falls = tape.op("Exp", scaled(tape.op("Mul", a, a), -0.5))
        steep = scaled(falls, (2.0 * math.pi) ** -0.5)
    factor = tape.op("Add", whole, tape.op("Mul", a, steep))
    return [tape.times(tape.of(a), factor)]


def elementwise(derivative: Callable[[Tape, str, str], str]) -> Rule:
    """The rule d f(a) = f'(a) da."""

    def rule(tape: Tape, node: onnx.NodeProto) -> list[str | None]:
        a = node.input[0]
        return [tape.times(tape.of(a), derivative(tape, a, node.output[0]))]

    return rule


# Constant between jumps, or made of whole numbers: no tangent.
_FLAT = (
    "And Ceil Equal Floor Greater GreaterOrEqual IsInf IsNaN Less LessOrEqual Not Or Round Shape Sign "
    "Size Xor"
)
FLAT = frozenset(_FLAT.split())
_LINEAR = (
    "AveragePool DepthToSpace Expand Flatten Gather GlobalAveragePool Identity Neg ReduceMean ReduceSum "
    "Reshape Resize Slice SpaceToDepth Split Squeeze Tile Transpose Unsqueeze"
)
RULES: dict[str, Rule] = {
    **dict.fromkeys(_LINEAR.split(), linear),
    **dict.fromkeys(("Conv", "ConvTranspose", "Einsum", "Gemm", "MatMul"), bilinear),
    "Abs": elementwise(lambda tape, a, y: tape.op("Sign", a)),
    "Add": add,
    "Cast": cast,
    "Clip": clipped,
    "Concat": concatenate,
    "Cos": elementwise(lambda tape, a, y: tape.op("Neg", tape.op("Sin", a))),
    "Div": divide,
    "Erf": elementwise(_bell),
    "Exp": elementwise(lambda tape, a, y: y),
    "Gelu": gelu,
    "InstanceNormalization": instance_norm,
    "LayerNormalization": layer_norm,
    "Log": elementwise(lambda tape, a, y: tape.op("Reciprocal", a)),
    "Max": larger,
    "Min": larger,
    "Mul": multiply,
    "Pad": pad,
    "Pow": power,
    "Reciprocal": elementwise(lambda tape, a, y: tape.op("Neg", tape.op("Mul", y, y))),
    "Relu": clipped,
    "Sigmoid": elementwise(_sigmoid),
    "Sin": elementwise(lambda tape, a, y: tape.op("Cos", a)),
    "Softmax": softmax,
    "Softplus": elementwise(lambda tape, a, y: tape.op("Sigmoid", a)),
    "Sqrt": elementwise(lambda tape, a, y: tape.op("Div", tape.number(0.5), y)),
    "Sub": subtract,
    "Sum": add,
    "Tanh": elementwise(_one_less_square),
    "Where": where,
}
