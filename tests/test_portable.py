"""Every rule keeps the numbers, and what it writes is taken whole where phones would run it."""

import numpy as np
import onnxruntime
import pytest
from onnx import TensorProto, helper, numpy_helper

from export.flat import Flat, fixed, folded, proto, pruned, read
from export.placement import placement
from export.portable import portable
from export.rewrites import RULES
from runtimes.operators import OPERATORS

F, INT = np.float32, np.int64
W = np.random.default_rng(1).standard_normal((3, 3)).astype(F)
B = np.array([0.5, -1.0, 2.0], F)
THREE = {"w": W, "b": B}


def ints(*values):
    return np.array(values, INT)


# name: (shape of x with its batch, nodes "Op in in -> out", weights, attributes of the node tested)
CASES = {
    "Abs": ((4, 3), "Abs x -> y", {}, {}),
    "Cast": ((4, 3), "Cast x -> y", {}, {"to": TensorProto.FLOAT}),
    "Cos": ((4, 3), "Mul x c -> a; Cos a -> y", {"c": F(300)}, {}),
    "Einsum": ((4, 2, 3), "Sin x -> a; Einsum x a -> y", {}, {"equation": "bid,bjd->bij"}),
    "Einsum weight": ((4, 2, 3), "Einsum x w -> y", THREE, {"equation": "b i d, d e -> b e i"}),
    "Einsum order": ((4, 2, 3), "Einsum x -> y", {}, {"equation": "bij->bji"}),
    "Einsum patches": (
        (2, 6, 4, 2),
        "Reshape x i -> a; Einsum a -> c; Reshape c j -> y",
        {"i": ints(-1, 3, 2, 2, 2, 2), "j": ints(-1, 2, 6, 4)},
        {"equation": "bhwpqc->bchpwq"},
    ),
    "Erf": ((4, 300), "Mul x c -> a; Erf a -> y", {"c": F(2)}, {}),
    "Expand": ((4, 1), "Expand x s -> y", {"s": ints(4, 3)}, {}),
    "Expand axes": ((4, 1), "Expand x s -> y", {"s": ints(2, 1, 3)}, {}),
    "Expand nothing": ((4, 3), "Expand x s -> y", {"s": ints(1, 3)}, {}),
    "Flatten": ((4, 3, 2), "Flatten x -> y", {}, {}),
    "Gather": ((4, 3), "Gather x i -> y", {"i": ints(2, 0)}, {"axis": 1}),
    "Gather one": ((4, 3, 2), "Gather x i -> y", {"i": ints(-1)[0]}, {"axis": -1}),
    "Gelu": ((4, 300), "Mul x c -> a; Gelu a -> y", {"c": F(2)}, {}),
    "Gelu tanh": ((4, 300), "Gelu x -> y", {}, {"approximate": "tanh"}),
    "GroupNormalization": (
        (4, 6, 3),
        "GroupNormalization x s t -> y",
        {"s": np.arange(6, dtype=F), "t": np.arange(6, dtype=F)},
        {"num_groups": 2},
    ),
    "Identity": ((4, 3), "Identity x -> y", {}, {}),
    "InstanceNormalization": ((4, 3, 5), "InstanceNormalization x b b -> y", THREE, {}),
    "LayerNormalization": ((4, 3), "LayerNormalization x b b -> y", THREE, {"epsilon": 1e-2}),
    "LayerNormalization axes": ((4, 3, 3), "LayerNormalization x w -> y", THREE, {"axis": 1}),
    "LayerNormalization plain": (
        (4, 3),
        "LayerNormalization x o z -> y",
        {"o": np.ones(3, F), "z": np.zeros(3, F)},
        {},
    ),
    "Min": ((4, 3), "Sin x -> a; Min a x b -> y", THREE, {}),
    "Neg": ((4, 3), "Neg x -> y", {}, {}),
    "Pad": ((4, 3, 2), "Pad x p c -> y", {"p": ints(0, 1, 0, 0, 2, 1), "c": F(7)}, {}),
    "Reciprocal": ((4, 3), "Exp x -> a; Reciprocal a -> y", {}, {}),
    "ReduceSum": ((4, 3, 2), "ReduceSum x i -> y", {"i": ints(1, 2)}, {"keepdims": 0}),
    "ReduceSum all": ((4, 3), "ReduceSum x -> a; Add a b -> y", THREE, {}),
    "Reshape": ((4, 3, 2), "Reshape x i -> y", {"i": ints(0, -1)}, {}),
    "Resize": (
        (2, 1, 3, 3),
        "Resize x _ s -> y",
        {"s": np.array([1, 1, 2, 2], F)},
        {"mode": "linear"},
    ),
    "Resize to sizes": (
        (2, 1, 3, 3),
        "Resize x _ _ s -> y",
        {"s": ints(2, 1, 7, 5)},
        {"mode": "nearest"},
    ),
    "Squeeze": ((4, 1, 3), "Squeeze x i -> y", {"i": ints(1)}, {}),
    "Sum": ((4, 3), "Sin x -> a; Sum a b x -> y", THREE, {}),
    "Tile": ((4, 3), "Tile x i -> y", {"i": ints(1, 2)}, {}),
    "Transpose": ((4, 3, 2), "Transpose x -> y", {}, {"perm": [0, 2, 1]}),
    "Transpose patches": (
        (2, 6, 4, 2),
        "Reshape x i -> a; Transpose a -> c; Reshape c j -> y",
        {"i": ints(-1, 3, 2, 2, 2, 2), "j": ints(-1, 6, 8)},
        {"perm": [0, 1, 3, 2, 4, 5]},
    ),
    "Transpose all axes": (
        (2, 6, 4, 2),
        "Reshape x i -> a; Transpose a -> c; Reshape c j -> y",
        {"i": ints(-1, 3, 2, 2, 2, 2), "j": ints(-1, 6, 8)},
        {"perm": [0, 5, 2, 4, 1, 3]},
    ),
    "Unsqueeze": ((4, 3), "Unsqueeze x i -> y", {"i": ints(1)}, {}),
    "Where": (
        (4, 3),
        "Where c x b -> y",
        {"c": np.array([True, False, True]), **THREE},
        {},
    ),
    "Where infinite": (
        (4, 3),
        "Where c m x -> a; Softmax a -> y",
        {"c": np.array([True, False, False]), "m": F(-np.inf)},
        {},
    ),
    # not operators with a rule: the arithmetic of a free batch, which is known once the batch is
    "shape arithmetic": (
        (4, 3, 2),
        "Shape x -> s; Gather s i -> n; Concat n j -> t; Reshape x t -> y",
        {"i": ints(0), "j": ints(6)},
        {},
    ),
    "Shape from one to two": (
        (4, 3, 2),
        "Shape x -> n; Concat i n -> t; Reshape x t -> y",
        {"i": ints(-1)},
        {"start": 1, "end": 2},
    ),
    "mask of a size": (
        (4, 3),
        "Shape x -> s; ConstantOfShape s -> z; Equal z o -> c; Not c -> d; Where d x b -> y",
        {"o": F(1), **THREE},
        {},
    ),
}


def model(name, kind=TensorProto.FLOAT):
    shape, text, weights, attributes = CASES[name]
    nodes = []
    for line in text.split(";"):
        left, right = line.split("->")
        op, *names = left.split()
        names = ["" if word == "_" else word for word in names]
        mine = attributes if op == name.split()[0] else {}
        mine = {"axis": 0} if op == "Concat" else mine
        nodes.append(helper.make_node(op, names, right.split(), **mine))
    nodes.append(helper.make_node("Add", ["y", "one"], ["prediction"]))
    return made(nodes, {"x": (kind, shape)}, {"one": F(1), **weights})


def made(nodes, inputs, weights, opset=21):
    graph = helper.make_graph(
        nodes,
        "case",
        [
            helper.make_tensor_value_info(name, kind, ["B", *shape[1:]])
            for name, (kind, shape) in inputs.items()
        ],
        [helper.make_tensor_value_info("prediction", TensorProto.FLOAT, None)],
        [numpy_helper.from_array(np.asarray(v), k) for k, v in weights.items()],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)], ir_version=10)


def run(proto, **feeds):
    session = onnxruntime.InferenceSession(proto.SerializeToString())
    (out,) = session.run(None, feeds)
    return out


@pytest.mark.parametrize("name", CASES)
def test_rule_keeps_the_numbers_and_is_taken_whole(name):
    before = model(name)
    shape = CASES[name][0]
    after = proto(portable(read(before), shape[0]))
    x = np.random.default_rng(4).standard_normal(shape).astype(F)
    want, got = run(before, x=x), run(after, x=x)
    assert got.shape == want.shape
    assert np.abs(want - want.mean()).max() > 0.1
    np.testing.assert_allclose(got, want, rtol=0, atol=2e-6 * np.abs(want).max())
    taken = {row.provider: row for row in placement(after.SerializeToString())}
    assert taken["coreml"].whole, taken["coreml"]
    assert taken["nnapi"].whole, taken["nnapi"]


def test_every_rule_has_a_case_and_is_an_operator_we_allow():
    assert {name.split()[0] for name in CASES} >= set(RULES)
    assert set(RULES) <= OPERATORS


def test_nothing_is_written_where_nothing_is_to_do():
    after = portable(read(model("LayerNormalization plain")), 4)
    assert [node.op_type for node in after.nodes] == [
        *("ReduceMean", "Sub", "Mul", "ReduceMean", "Add", "Sqrt", "Div", "Add")
    ]
    assert [node.op_type for node in portable(read(model("Expand nothing")), 4).nodes] == ["Add"]
    assert [node.op_type for node in portable(read(model("shape arithmetic")), 4).nodes] == [
        *("Reshape", "Add")
    ]


TABLE = np.random.default_rng(3).standard_normal((5, 3)).astype(F)


def labelled(text, **weights):
    nodes = [
        helper.make_node(left.split()[0], left.split()[1:], right.split())
        for left, right in (line.split("->") for line in text.split(";"))
    ]
    inputs = {"x": (TensorProto.FLOAT, (4, 3)), "label": (TensorProto.INT64, (4,))}
    return made(nodes, inputs, weights)


@pytest.mark.parametrize(
    "table", [TABLE, TABLE.reshape(5, 3, 1), TABLE[:, 0]], ids=["2", "3", "1"]
)
def test_label_becomes_one_of_zeros_times_the_table(table):
    """Exactly: every other term is 0."""
    before = labelled("Gather table label -> prediction", table=table)
    flat = portable(read(before), 4)
    assert [axis.dim_value for axis in flat.inputs["label"].type.tensor_type.shape.dim] == [4, 5]
    label = np.array([4, 0, 2, 2])
    got = onnxruntime.InferenceSession(proto(flat).SerializeToString()).run(
        None, {"label": np.eye(5, dtype=F)[label]} | unread(flat)
    )[0]
    np.testing.assert_array_equal(got, table[label])


def unread(flat):
    return {"x": np.zeros((4, 3), F)} if "x" in flat.inputs else {}


@pytest.mark.parametrize("rows", [1, 4])
def test_constants_that_depend_on_the_time_alone_are_kept_once(rows):
    """c = sin(time) repeats over the batch, and x * c repeats it again; as a state it has to be whole."""
    nodes = [
        helper.make_node("Unsqueeze", ["time", "axes"], ["t"]),
        helper.make_node("Mul", ["t", "frequencies"], ["a"]),
        helper.make_node("Sin", ["a"], ["c"]),
        helper.make_node("Mul", ["x", "c"], ["y"]),
        helper.make_node("Cos", ["a"], ["d"]),
        helper.make_node("Concat", ["y", "d"], ["prediction"], axis=1),
    ]
    weights = {"axes": ints(1), "frequencies": B}
    before = made(
        nodes, {"x": (TensorProto.FLOAT, (4, 3)), "time": (TensorProto.FLOAT, (4,))}, weights
    )
    times = np.full(rows, 0.3, F)
    flat = portable(read(before), rows, {"time": times})
    assert list(flat.inputs) == ["x"]
    assert [node.op_type for node in flat.nodes] == ["Mul", "Concat"]
    assert sorted(value.shape for value in flat.constants.values()) == [(1, 3), (rows, 3)]
    x = np.random.default_rng(0).standard_normal((rows, 3)).astype(F)
    np.testing.assert_array_equal(run(proto(flat), x=x), run(before, x=x, time=times))


@pytest.mark.parametrize(
    ("text", "word"),
    [
        ("Gather x label -> prediction", "Gather at places"),
        ("Cast label -> prediction", "Cast"),
        ("Gather table label -> c; Gather wide label -> d; Add c d -> prediction", "two tables"),
        ("Less x b -> c; Where c x b -> prediction", "Where on a condition"),
        ("Einsum x x x -> prediction", "Einsum of 3"),
        ("Reshape x six -> a; Add a b -> prediction", "arithmetic on 6 axes"),
        ("Equal label label -> prediction", "int64"),
        ("LayerNormalization x b b -> prediction mean", "several outputs"),
    ],
)
def test_what_no_rule_can_rewrite_is_one_line(text, word):
    six = ints(-1, 1, 1, 1, 1, 3)
    network = labelled(text, b=B, table=TABLE, wide=np.ones((6, 3), F), six=six)
    for node in network.graph.node:
        if node.op_type in ("Cast", "Einsum"):
            value = {"to": TensorProto.FLOAT, "equation": "ab,cb,cd->ad"}
            name = "to" if node.op_type == "Cast" else "equation"
            node.attribute.append(helper.make_attribute(name, value[name]))
    with pytest.raises(ValueError, match=f"got .*({word})") as caught:
        portable(read(network), 4)
    assert "\n" not in str(caught.value)


def test_read_refuses_what_is_not_flat_or_too_old():
    with pytest.raises(ValueError, match="opset 18 or newer, got 17"):
        read(made([], {}, {}, opset=17))
    branch = helper.make_graph([], "branch", [], [])
    loop = helper.make_node("Loop", ["", ""], ["prediction"], body=branch)
    with pytest.raises(ValueError, match="got Loop"):
        read(made([loop], {}, {}))


def test_folding_leaves_what_depends_on_an_input_and_takes_out_the_rest():
    nodes = [
        helper.make_node("Constant", [], ["k"], value_floats=[1.0, 2.0, 3.0]),
        helper.make_node("Constant", [], ["n"], value_int=2),
        helper.make_node("Size", ["x"], ["size"]),
        helper.make_node("Div", ["size", "n"], ["half"]),
        helper.make_node("Cast", ["half"], ["number"], to=TensorProto.FLOAT),
        helper.make_node("Mul", ["k", "number"], ["scaled"]),
        helper.make_node("Mul", ["x", "scaled"], ["prediction"]),
        helper.make_node("Neg", ["x"], ["unread"]),
    ]
    flat = fixed(read(made(nodes, {"x": (TensorProto.FLOAT, (4, 3))}, {})), 4)
    assert len(folded(replace_inputs(flat, batch=None)).nodes) > 2  # a free size is not known
    done = pruned(folded(flat))
    assert [node.op_type for node in done.nodes] == ["Mul"]
    np.testing.assert_array_equal(done.constants["scaled"], [6.0, 12.0, 18.0])


def replace_inputs(flat: Flat, batch):
    value = helper.make_tensor_value_info("x", TensorProto.FLOAT, [batch, 3])
    return Flat(flat.nodes, flat.constants, {"x": value}, flat.outputs, flat.opset)
