"""What does not look at x leaves the loop, and nothing that might mix rows does: a run stays the host's."""

import time
from collections import Counter

import numpy as np
import onnx
import pytest
import torch
from onnx import TensorProto, helper, numpy_helper

import runtimes
from export import export_torch, hoisting
from export.forms import example
from export.hoisting import ROWWISE, parted
from export.precision import PRECISIONS, rewritten
from export.sampler import sampler
from export.torch_export import _trace
from runtimes.spec import Condition, Spec
from toolkit.networks import Sizes, layers_torch
from toolkit.networks.dit import dit
from toolkit.networks.mlp import mlp

from .test_sampler import write

SPEC = Spec("rows", (6,), condition=Condition("context", shape=(6,)))
NEWER = {"RMSNormalization": 23, "Swish": 24}
LABELLED = ("mlp-label", "dit-label")
# of the graphs below; e is (B, 6) of time and context, e3 the same as (B, 2, 3)
CONSTANTS = {
    "rest": np.array([0, -1]),
    "cube": np.array([-1, 2, 3]),
    "wide": np.array([1, 5, 1, 1]),
    "tall": np.array([1, 1, 9000]),
    "beyond": np.array([-99]),
    "back": np.array([-1]),
    "zero": np.array([0]),
    "first": np.array(0),
    "no_axes": np.zeros(0, np.int64),
    "one": np.array([1]),
    "two": np.array([2]),
    "four": np.array([4]),
    "places": np.array([3, 1]),
    "six": np.array([-1, 6]),
    "w1": np.ones((1, 1), np.float32),
    "half1": np.full((1, 1), 0.5, np.float32),
    "w": np.random.default_rng(0).standard_normal((6, 4)).astype(np.float32),
    "low": np.float32(0.55),
    "high": np.float32(0.7),
    "half": np.full(6, 0.6, np.float32),
    "scale": np.arange(6, dtype=np.float32),
}
# operator -> a node that uses it row by row
GOES = {
    "Cast": "h = Cast <to = 6> (sum)",
    "Clip": "h = Clip (e, low, high)",
    "Concat": "h = Concat <axis = 1> (e, e)",
    "Expand": "e4 = Unsqueeze (e3, one); h = Expand (e4, wide)",
    "Flatten": "h = Flatten <axis = 1> (e3)",
    "Gather": "h = Gather <axis = 1> (e, places)",
    "Gemm": "h = Gemm (e, w)",
    "LayerNormalization": "h = LayerNormalization (e, scale)",
    "LogSoftmax": "h = LogSoftmax <axis = 1> (e)",
    "MatMul": "t = Transpose <perm = [0, 2, 1]> (e3); h = MatMul (e3, t)",
    "Mod": "h = Mod <fmod = 1> (e, half)",
    "RMSNormalization": "h = RMSNormalization (e, scale)",
    "ReduceMean": "h = ReduceMean (e3, back)",
    "ReduceSum": "h = ReduceSum (e3, two)",
    "Reshape": "h = Neg (e3)",
    "Slice": "h = Slice (e, one, four, one)",
    "Softmax": "h = Softmax (e)",
    "Split": "h, other = Split <axis = 1, num_outputs = 2> (e)",
    "Squeeze": "t = Unsqueeze (e, one); h = Squeeze (t, one)",
    "Transpose": "h = Transpose <perm = [0, 2, 1]> (e3)",
    "Unsqueeze": "h = Unsqueeze (e, one)",
    **{
        kind: f"m = Greater (e, half); l = Less (e, low); h = {kind} (m, l)"
        for kind in ("And", "Or")
    },
    "Not": "m = Greater (e, half); h = Not (m)",
    "Where": "m = Greater (e, half); h = Where (m, e, half)",
}
# what reaches across the rows of a batch, or might, and the operator that must stay for it
STAYS = {
    "softmax over the batch": ("h = Softmax <axis = 0> (e)", "Softmax"),
    "norm over the batch": (
        "t = Slice (e, one, two, one); h = LayerNormalization <axis = 0> (t, w1)",
        "LayerNormalization",
    ),
    "reversed rows": ("h = Slice (e, back, beyond, zero, back)", "Slice"),
    "twice the rows": (
        "t = Concat <axis = 0> (e, e); h, other = Split <axis = 0, num_outputs = 2> (t)",
        "Concat",
    ),
    "a mean over the batch": ("m = ReduceMean (e, zero); h = Sub (e, m)", "ReduceMean"),
    "a mean over everything": ("m = ReduceMean (e); h = Sub (e, m)", "ReduceMean"),
    "a mean over no axes": ("m = ReduceMean (e, no_axes); h = Sub (e, m)", "ReduceMean"),
    "rows times rows": ("m = Gemm <transB = 1> (e, e); h = MatMul (m, e)", "Gemm"),
    "rows turned": ("t = Transpose (e); h = Reshape (t, six)", "Transpose"),
    "a sum of rows so far": ("h = CumSum (e, first)", "CumSum"),
    "how many rows": (
        "n = Shape (e); f = Cast <to = 1> (n); b = Slice (f, zero, one, zero); h = Mul (e, b)",
        "Shape",
    ),
    "the range of the batch": (
        "q, s, z = DynamicQuantizeLinear (e); h = DequantizeLinear (q, s, z)",
        "DynamicQuantizeLinear",
    ),
    "one row for all": ("t = Gather (e, zero); h = Sub (e, t)", "Gather"),
    "rows that rows ask for": (
        "r = Mul (column, half1); i = Cast <to = 7> (r); j = Squeeze (i, one); h = Gather (e, j)",
        "Gather",
    ),
    "every row with every other": (
        "c = Slice (e, zero, one, one); d = Squeeze (c, one); g = Mul (c, d); h = MatMul (g, e)",
        "Mul",
    ),
}


def graph(text, opset=20):
    """prediction = tanh(x * a number per row of h), where the text makes h of e or e3."""
    lines = [
        "column = Unsqueeze (time, one)",
        "wave = Sin (column)",
        "sum = Add (wave, context)",
        "e = Sigmoid (sum)",
        *(["e3 = Reshape (e, cube)"] if "e3" in text else []),
        *text.split("; "),
        "hf = Cast <to = 1> (h)",
        "flat = Reshape (hf, rest)",
        "number = ReduceSum (flat, one)",
        "scaled = Mul (x, number)",
        "prediction = Tanh (scaled)",
    ]
    nodes = [onnx.parser.parse_node(line) for line in lines]
    read = {name for node in nodes for name in node.input}
    values = {"x": ["B", 6], "time": ["B"], "context": ["B", 6], "prediction": ["B", 6]}
    *inputs, output = (
        helper.make_tensor_value_info(name, TensorProto.FLOAT, size)
        for name, size in values.items()
    )
    tensors = [
        numpy_helper.from_array(value, name) for name, value in CONSTANTS.items() if name in read
    ]
    made = helper.make_graph(nodes, "rows", inputs, [output], tensors)
    return helper.make_model(made, opset_imports=[helper.make_opsetid("", opset)], ir_version=10)


def elementwise(kind):
    """An operator of one, two or three inputs on e."""
    count = min(2, onnx.defs.get_schema(kind, 24, "").max_input)
    return f"h = {kind} ({', '.join(['e', 'half'][:count])})"


def contexts(n):
    return np.random.default_rng(1).standard_normal((n, 6)).astype(np.float32)


def loops_agree(tmp_path, network, spec=SPEC, n=3, **asked):
    """The same run by the host around the network and inside the graph."""
    told = {"context": contexts(n), "guidance": 2.0, "solver": "heun", "steps": 4, **asked}
    host = write(tmp_path / "host.onnx", "network", network, spec)
    inside = write(tmp_path / "inside.onnx", "sampler", network, spec)
    a, b = (runtimes.sample(model, n, **told) for model in (host, inside))
    np.testing.assert_allclose(b, a, rtol=0, atol=2e-6 * max(1, np.abs(a).max()))


def operators(nodes):
    return Counter(one.op_type for one in nodes)


@pytest.mark.parametrize("kind", ROWWISE)
def test_what_works_row_by_row_leaves_the_loop(tmp_path, kind):
    network = graph(GOES.get(kind) or elementwise(kind), NEWER.get(kind, 20))
    parts = parted(network)
    every = operators(network.graph.node)[kind]
    inside = operators(parts.late)[kind]
    assert inside == (1 if kind in ("Mul", "Tanh") else 0)  # what looks at x
    assert operators(one for some in parts.ahead.values() for one in some)[kind] == every - inside
    loops_agree(tmp_path, network)


@pytest.mark.parametrize("name", STAYS)
def test_what_reaches_across_rows_stays(tmp_path, name):
    text, kind = STAYS[name]
    network = graph(text)
    assert operators(parted(network).late)[kind] >= (
        2 if kind == "Mul" else 1
    )  # x * number is one
    loops_agree(tmp_path, network)


def test_a_value_that_is_no_row_of_floats_is_made_in_the_loop(tmp_path):
    """Bare numbers and whole numbers cannot be cut and spread: who reads them reads what made them."""
    network = graph(
        "square = Mul (time, time); column2 = Unsqueeze (square, one); whole = Round (sum); "
        "index = Cast <to = 7> (whole); x2 = Mul (x, column2); x3 = Cast <to = 7> (x2); h = Add (x3, index)"
    )
    crossing = {name for one in parted(network).crossings for name in one.names}
    assert crossing == {"column2", "whole"}
    loops_agree(tmp_path, network)


def network_of(design, condition, shape):
    """One of ours with random weights, traced, and its spec."""
    torch.manual_seed(0)
    sizes = Sizes(shape, condition, 32, 2, 2, (2, 2) if design is dit else ())
    module = design(layers_torch, sizes)
    for weight in module.parameters():
        torch.nn.init.normal_(weight, std=0.2)
    spec = Spec("net", shape, condition=condition)
    return _trace(module.eval(), spec, example(spec, 3)), spec


NETWORKS = {
    "mlp-none": (mlp, Condition(), (4,)),
    "mlp-label": (mlp, Condition("label", classes=5), (4,)),
    "mlp-context": (mlp, Condition("context", shape=(7,)), (4,)),
    "dit-label": (dit, Condition("label", classes=5), (4, 4, 2)),
    "dit-tokens": (dit, Condition("context", shape=(3, 7)), (4, 4, 2)),
}


@pytest.fixture(scope="module")
def traced():
    return {name: network_of(*words) for name, words in NETWORKS.items()}


def asked_of(spec, n):
    kind, shape = spec.condition.kind, (n, *spec.condition.shape)
    rng = np.random.default_rng(5)
    if kind == "label":
        return {"label": (np.arange(n) % 5).tolist(), "guidance": 2.5}
    if kind == "none":
        return {}
    return {"context": rng.standard_normal(shape).astype(np.float32), "guidance": 2.5}


@pytest.mark.parametrize("name", NETWORKS)
def test_no_network_of_ours_works_out_time_inside_its_loop(tmp_path, traced, name):
    network, spec = traced[name]
    late = operators(parted(network).late)
    assert not late["Sin"] + late["Cos"]
    assert late["Gemm"] == (
        6 if name.startswith("mlp") else 0
    )  # of its layers: in and out, two a block
    host = write(tmp_path / "host.onnx", "network", network, spec)
    inside = write(tmp_path / "inside.onnx", "sampler", network, spec)
    for n in (1, 7):
        asked = asked_of(spec, n)
        if asked:  # some rows guided, some not: calls of 2B rows and of B
            asked["interval"] = (0.3, 0.7)
        for solver in ("dpmpp_2m", "ancestral"):
            request = {"solver": solver, "steps": 6, "seed": 4, **asked}
            a = runtimes.sample(host, n, **request)
            for how in ("graph", "step"):
                b = runtimes.sample(inside, n, how=how, **request)
                np.testing.assert_allclose(b, a, rtol=0, atol=4e-6 * max(1, np.abs(a).max()))


def test_a_prompt_is_projected_once_a_run(traced):
    network, _ = traced["dit-tokens"]
    parts = parted(network)
    assert operators(parts.ahead["condition"])["MatMul"] == 1
    (once,) = (one for one in parts.crossings if one.source == "condition")
    assert once.numbers == 3 * 32  # tokens of the network's width


@pytest.mark.parametrize("name", LABELLED)
def test_too_much_of_both_leaves_what_it_is_made_of(tmp_path, traced, name, monkeypatch):
    network, spec = traced[name]
    kept = sum(one.numbers for one in parted(network).crossings)
    monkeypatch.setattr(hoisting, "MOST_AHEAD", kept - 1)
    parts = parted(network)
    assert [one.numbers for one in parts.crossings] == [32]  # what all modulations are made of
    assert operators(parts.late)["Gemm"]
    assert not operators(parts.late)["Sin"]
    loops_agree(tmp_path, network, spec, **{"context": None, **asked_of(spec, 3)})
    monkeypatch.setattr(hoisting, "MOST_AHEAD", 1)
    assert sum(one.numbers for one in parted(network).crossings if one.source != "condition") <= 1


def test_a_large_value_is_not_made_for_every_row_however_little_of_it_crosses(tmp_path):
    """(B, 9000) of both, and of the time alone, whose means are a number each."""
    for made in ("Add (wave, context)", "Sin (column)"):
        network = graph(
            f"a = {made}; many = Unsqueeze (a, two); large = Expand (many, tall); "
            "few = ReduceMean (large, two); h = Squeeze (few, two)"
        )
        late = operators(parted(network).late)
        assert late["Expand"] == 1
        assert late["ReduceMean"] == 1
    loops_agree(tmp_path, network)


def test_a_long_chain_of_bare_numbers_is_given_up_on():
    links = [f"t{k + 1} = Sin (t{k})" for k in range(3000)]
    text = "; ".join(["t0 = Neg (time)", *links, "u = Unsqueeze (t3000, one)", "h = Mul (x, u)"])
    started = time.process_time()
    parts = parted(graph(text))
    assert time.process_time() - started < 10.0
    assert len(parts.late) > 3000 or not operators(parts.late)["Sin"]


@pytest.mark.parametrize("precision", [name for name in PRECISIONS if name != "fp32"])
@pytest.mark.parametrize("name", ["mlp-label", "dit-tokens"])
def test_every_precision_leaves_the_loop_as_far_as_it_may(tmp_path, traced, name, precision):
    network, spec = traced[name]
    small = rewritten(network, precision)
    parts = parted(small)
    assert not operators(parts.late)["Sin"]
    ranges = operators(one for some in parts.ahead.values() for one in some)
    assert not ranges["DynamicQuantizeLinear"]  # its range is the batch's
    onnx.checker.check_model(sampler(small, spec), full_check=True)
    loops_agree(tmp_path, small, spec, **{"context": None, **asked_of(spec, 3)})


def test_each_weight_stands_on_one_side(traced):
    network, spec = traced["dit-label"]
    made = sampler(network, spec)
    (scan,) = (one for one in made.graph.node if one.op_type == "Scan")
    body = next(a.g for a in scan.attribute if a.name == "body")
    outside = sum(t.ByteSize() for t in made.graph.initializer if len(t.dims) == 2)
    inside = sum(t.ByteSize() for t in body.initializer if len(t.dims) == 2)
    whole = sum(t.ByteSize() for t in network.graph.initializer if len(t.dims) == 2)
    assert 0.2 * whole < outside < 0.6 * whole
    assert outside + inside < 1.02 * whole


def test_a_network_that_never_looks_at_x_still_samples(tmp_path):
    class Drift(torch.nn.Module):
        def forward(self, x, time):
            return torch.cos(3 * time)[:, None].expand(-1, 2) + 0.0 * x

    export_torch(Drift(), Spec("drift", (2,)), tmp_path / "d.onnx", form="sampler")
    model = runtimes.load(tmp_path / "d.onnx")
    x = runtimes.sample(model, 3, solver="rk4", steps=20, seed=1)
    start = runtimes.noise.noise(runtimes.noise.seed_rows(1, 3), (2,), 0)
    np.testing.assert_allclose(x - start, np.sin(3) / 3, atol=1e-5)
