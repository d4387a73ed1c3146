"""J v of a graph against central differences of the graph itself, one case per rule."""

import numpy as np
import onnxruntime
import pytest
from onnx import TensorProto, helper, numpy_helper

from export.derivatives import FLAT, RULES, with_product
from runtimes.operators import OPERATORS

INT = np.int64
W = np.random.default_rng(1).standard_normal((3, 3)).astype(np.float32)
KERNEL = np.random.default_rng(2).standard_normal((3, 3, 3, 3)).astype(np.float32)
B = np.array([0.5, -1.0, 2.0], np.float32)
THREE = {"w": W, "b": B, "k": KERNEL}


def ints(*values):
    return np.array(values, INT)


# name: (shape of x, nodes "Op in in -> out", weights, attributes of the node that is tested)
CASES = {
    "Abs": ((4, 3), "Abs x -> y", {}, {}),
    "Add": ((4, 3), "Mul x x -> a; Add a x -> y", {}, {}),
    "Add one side": ((4, 1), "Add w x -> y", {"w": W[:1]}, {}),
    "Add same": ((1, 3), "Add x b -> y", THREE, {}),
    "AveragePool": ((2, 3, 4, 4), "AveragePool x -> y", {}, {"kernel_shape": [2, 2]}),
    "Cast": ((4, 3), "Cast x -> y", {}, {"to": TensorProto.FLOAT}),
    "Cast whole": ((4, 3), "Cast x -> a; Mul x x -> y", {}, {"to": TensorProto.INT64}),
    "Clip": ((4, 3), "Clip x l h -> y", {"l": np.float32(-0.6), "h": np.float32(0.6)}, {}),
    "Concat": ((4, 3), "Sin x -> a; Concat a w x -> y", {"w": W[:1].repeat(4, 0)}, {"axis": 1}),
    "Conv": ((2, 3, 5, 5), "Conv x k b -> y", THREE, {"pads": [1, 1, 1, 1], "strides": [2, 2]}),
    "Conv kernel": ((3, 3, 3, 3), "Mul x x -> a; Conv k a -> y", THREE, {}),
    "ConvTranspose": ((2, 3, 4, 4), "ConvTranspose x k -> y", THREE, {"strides": [2, 2]}),
    "Cos": ((4, 3), "Cos x -> y", {}, {}),
    "DepthToSpace": ((2, 4, 3, 3), "DepthToSpace x -> y", {}, {"blocksize": 2}),
    "Div": ((4, 3), "Exp x -> a; Div x a -> y", {}, {}),
    "Div above": ((4, 1), "Div x b -> y", THREE, {}),
    "Div below": ((4, 3), "Exp x -> a; Div b a -> y", THREE, {}),
    "Einsum": ((4, 3), "Sin x -> a; Einsum x a -> y", {}, {"equation": "bi,bj->bij"}),
    "Erf": ((4, 3), "Erf x -> y", {}, {}),
    "Exp": ((4, 3), "Exp x -> y", {}, {}),
    "Expand": ((4, 1), "Expand x s -> y", {"s": ints(2, 4, 3)}, {}),
    "Flatten": ((4, 3, 2), "Flatten x -> y", {}, {"axis": 2}),
    "Gather": ((4, 3), "Gather x i -> y", {"i": ints(2, 0)}, {"axis": 1}),
    "Gelu": ((4, 3), "Gelu x -> y", {}, {}),
    "Gelu tanh": ((4, 3), "Gelu x -> y", {}, {"approximate": "tanh"}),
    "Gemm": ((4, 3), "Gemm x w b -> y", THREE, {"alpha": 0.5, "transB": 1}),
    "Gemm both": ((3, 3), "Sin x -> a; Gemm x a -> y", {}, {"transA": 1}),
    "GlobalAveragePool": ((2, 3, 4, 4), "GlobalAveragePool x -> y", {}, {}),
    "Identity": ((4, 3), "Identity x -> y", {}, {}),
    "InstanceNormalization": (
        (2, 3, 4, 4),
        "InstanceNormalization x b b -> y",
        THREE,
        {"epsilon": 1e-2},
    ),
    "LayerNormalization": ((4, 3), "LayerNormalization x b b -> y", THREE, {"epsilon": 1e-2}),
    "LayerNormalization two axes": (
        (4, 3, 3),
        "LayerNormalization x w -> y",
        THREE,
        {"axis": 1},
    ),
    "Log": ((4, 3), "Exp x -> a; Log a -> y", {}, {}),
    "MatMul": ((4, 3), "MatMul x w -> y", THREE, {}),
    "MatMul both": ((2, 3, 3), "Tanh x -> a; MatMul a x -> y", {}, {}),
    "Max": ((4, 3), "Max x b -> y", THREE, {}),
    "Min": ((4, 3), "Sin x -> a; Min a x -> y", {}, {}),
    "Mul": ((4, 1), "Sin x -> a; Mul a x -> c; Mul c b -> y", THREE, {}),
    "Neg": ((4, 3), "Neg x -> y", {}, {}),
    "Pad": ((2, 3), "Pad x p c -> y", {"p": ints(0, 1, 0, 2), "c": np.float32(7)}, {}),
    "Pow": ((4, 3), "Sigmoid x -> a; Pow a c -> y", {"c": np.float32(2.5)}, {}),
    "Reciprocal": ((4, 3), "Exp x -> a; Reciprocal a -> y", {}, {}),
    "ReduceMean": ((4, 3), "ReduceMean x i -> y", {"i": ints(1)}, {"keepdims": 0}),
    "ReduceSum": ((4, 3), "ReduceSum x i -> y", {"i": ints(0)}, {}),
    "Relu": ((4, 3), "Relu x -> y", {}, {}),
    "Reshape": ((4, 3), "Reshape x i -> y", {"i": ints(2, -1)}, {}),
    "Resize": (
        (1, 2, 3, 3),
        "Resize x _ s -> y",
        {"s": np.array([1, 1, 2, 2], np.float32)},
        {"mode": "linear"},
    ),
    "Sigmoid": ((4, 3), "Sigmoid x -> y", {}, {}),
    "Sin": ((4, 3), "Sin x -> y", {}, {}),
    "Slice": ((4, 3), "Slice x i j -> y", {"i": ints(0, 1), "j": ints(3, 3)}, {}),
    "Softmax": ((4, 3), "Softmax x -> y", {}, {"axis": 0}),
    "Softplus": ((4, 3), "Softplus x -> y", {}, {}),
    "SpaceToDepth": ((2, 1, 4, 4), "SpaceToDepth x -> y", {}, {"blocksize": 2}),
    "Split": ((4, 4), "Split x -> a c; Mul a c -> y", {}, {"axis": 1, "num_outputs": 2}),
    "Sqrt": ((4, 3), "Exp x -> a; Sqrt a -> y", {}, {}),
    "Squeeze": ((4, 1, 3), "Squeeze x i -> y", {"i": ints(1)}, {}),
    "Sub": ((4, 3), "Sin x -> a; Sub a x -> y", {}, {}),
    "Sub above": ((4, 1), "Sub x b -> y", THREE, {}),
    "Sub below": ((4, 3), "Sub b x -> y", THREE, {}),
    "Sum": ((4, 3), "Sin x -> a; Sum a b x -> y", THREE, {}),
    "Tanh": ((4, 3), "Tanh x -> y", {}, {}),
    "Tile": ((4, 3), "Tile x i -> y", {"i": ints(1, 2)}, {}),
    "Transpose": ((4, 3, 2), "Transpose x -> y", {}, {"perm": [2, 0, 1]}),
    "Unsqueeze": ((4, 3), "Unsqueeze x i -> y", {"i": ints(1)}, {}),
    "Where": ((4, 3), "Less x b -> c; Sin x -> a; Where c a b -> y", THREE, {}),
}


def model(name, case):
    """x -> prediction = cos(y) + y: the tangent has to be of y's shape and go on from there."""
    shape, text, weights, attributes = case
    nodes = []
    for line in text.split(";"):
        left, right = line.split("->")
        op, *names = left.split()
        names = ["" if word == "_" else word for word in names]
        mine = attributes if op == name.split()[0] else {}
        nodes.append(helper.make_node(op, names, right.split(), **mine))
    nodes += [
        helper.make_node("Cos", ["y"], ["z"]),
        helper.make_node("Add", ["z", "y"], ["prediction"]),
    ]
    graph = helper.make_graph(
        nodes,
        "case",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["B", *shape[1:]])],
        [helper.make_tensor_value_info("prediction", TensorProto.FLOAT, None)],
        [numpy_helper.from_array(np.asarray(v), k) for k, v in weights.items()],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=10)


@pytest.mark.parametrize("name", CASES)
def test_rule_against_central_differences(name):
    shape = CASES[name][0]
    grown = with_product(model(name, CASES[name]))
    session = onnxruntime.InferenceSession(grown.SerializeToString())
    rng = np.random.default_rng(4)
    x, probe = (rng.standard_normal(shape).astype(np.float32) for _ in range(2))
    out, product = session.run(["prediction", "product"], {"x": x, "probe": probe})
    h = np.float32(2.0**-8)
    above, below = (
        session.run(["prediction"], {"x": x + sign * h * probe, "probe": probe})[0]
        for sign in (1, -1)
    )
    slope = (above.astype(float) - below) / (2.0 * float(h))
    assert product.shape == out.shape
    assert np.abs(slope).max() > 0.1
    np.testing.assert_allclose(product, slope, rtol=2e-3, atol=2e-3 * np.abs(slope).max())


def test_every_rule_has_a_case_and_is_an_operator_we_allow():
    assert {name.split()[0] for name in CASES} == set(RULES)
    assert set(RULES) | FLAT <= OPERATORS
    assert not set(RULES) & FLAT


def test_the_network_itself_is_left_as_it_was():
    proto = model("LayerNormalization", CASES["LayerNormalization"])
    grown = with_product(proto)
    assert list(grown.graph.node)[: len(proto.graph.node)] == list(proto.graph.node)
    assert [value.name for value in grown.graph.input] == ["x", "probe"]
    assert [value.name for value in grown.graph.output] == ["prediction", "product"]


def test_what_does_not_depend_on_x_has_no_tangent():
    case = ((4, 3), "Sin b -> a; Exp a -> c; Mul c w -> d; Add x d -> y", {"b": B, "w": W[:1]}, {})
    grown = with_product(model("-", case))
    tangents = [node for node in grown.graph.node if node.name.startswith("tangent")]
    assert {node.op_type for node in tangents} <= {"Expand", "Shape", "Sin", "Neg", "Mul", "Add"}
    assert sum(node.op_type == "Mul" for node in tangents) == 1  # of the cosine at the end


def test_a_prediction_without_x_has_no_slope():
    nodes = [
        helper.make_node("Sub", ["b", "b"], ["c"]),
        helper.make_node("Add", ["c", "t"], ["prediction"]),
    ]
    values = [
        helper.make_tensor_value_info(name, TensorProto.FLOAT, ["B", 3])
        for name in ("x", "t", "prediction")
    ]
    graph = helper.make_graph(
        nodes, "constant", values[:2], values[2:], [numpy_helper.from_array(B, "b")]
    )
    proto = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=10)
    session = onnxruntime.InferenceSession(with_product(proto).SerializeToString())
    x = np.ones((2, 3), np.float32)
    _, product = session.run(None, {"x": x, "t": x, "probe": x})
    np.testing.assert_array_equal(product, np.zeros((2, 3)))


@pytest.mark.parametrize(
    ("text", "word"),
    [
        ("Hardmax x -> y", "Hardmax"),
        ("Pow b x -> y", "exponent"),
        ("Max x x b -> y", "Max of 3"),
        ("Gemm b2 w x -> y", "bias"),
    ],
)
def test_operator_without_a_rule_is_one_line(text, word):
    with pytest.raises(ValueError, match=f"got {word}|got .*{word}") as caught:
        with_product(model("-", ((1, 3), text, {**THREE, "b2": W[:1]}, {})))
    assert "\n" not in str(caught.value)
