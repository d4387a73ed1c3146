"""Fewer bits: exact where the numbers allow it, near where they do not, refused where they are not near."""

import json
import tempfile
import tracemalloc
from collections import Counter
from dataclasses import replace

import numpy as np
import onnx
import pytest
import torch
from onnx import TensorProto, helper, numpy_helper

import runtimes
from export import ParityError, TorchModel, blocks, fidelity, forms, precision
from export.placement import placement
from export.torch_export import _trace
from runtimes import modelfile
from runtimes.spec import Condition, Sampler, Spec
from runtimes.widen import widened
from toolkit import metrics
from toolkit.cli import main

from .problems import MIXTURE, graph, mixture_graph, mixture_spec, proto

SMALLER = [name for name in precision.PRECISIONS if name != "fp32"]
WIDTH = 128
# of the file in float32, weights being nearly all of it
SIZES = {"fp16": 0.55, "bf16": 0.55, "int8": 0.32, "uint8": 0.32, "w8": 0.35, "w4": 0.23}


class Net(torch.nn.Module):
    """A velocity of the eight labelled modes, by a table and three layers."""

    def __init__(self):
        super().__init__()
        self.table = torch.nn.Embedding(9, WIDTH)
        self.first = torch.nn.Linear(3, WIDTH)
        self.hidden = torch.nn.ModuleList(torch.nn.Linear(WIDTH, WIDTH) for _ in range(2))
        self.last = torch.nn.Linear(WIDTH, 2)

    def forward(self, x, time, label):
        h = self.first(torch.cat([x, time[:, None]], 1)) + self.table(label)
        for layer in self.hidden:
            h = layer(torch.nn.functional.silu(h))
        return self.last(torch.nn.functional.silu(h))


@pytest.fixture(scope="module")
def trained():
    """(reference, graph): flow matching on the mixture, a label left out now and then."""
    torch.manual_seed(0)
    net, rng = Net(), np.random.default_rng(0)
    optimiser = torch.optim.Adam(net.parameters(), 3e-3)
    for _ in range(250):
        label = rng.integers(0, 8, 256)
        data = MIXTURE.means[label] + np.sqrt(MIXTURE.variance) * rng.standard_normal((256, 2))
        noise, t = rng.standard_normal((256, 2)), rng.uniform(size=(256, 1))
        x, target = t * data + (1 - t) * noise, data - noise
        label[rng.uniform(size=256) < 0.1] = 8
        x, target, time = (torch.from_numpy(np.float32(a)) for a in (x, target, t[:, 0]))
        loss = ((net(x, time, torch.from_numpy(label)) - target) ** 2).mean()
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
    spec = mixture_spec(labelled=True, sampler=Sampler("heun", 6, guidance=2.0))
    net = net.requires_grad_(False).eval()
    return TorchModel(spec, net), _trace(net, spec, forms.example(spec, 3))


def write(trained, path, form="network", **changes):
    reference, network = trained
    words = {"framework": "torch", "overwrite": False, "tolerance": 1e-4, **changes}
    return forms.write(network, reference.spec, path, form=form, reference=reference, **words)


@pytest.fixture(scope="module")
def exact(trained, tmp_path_factory):
    path = tmp_path_factory.mktemp("exact") / "fp32.onnx"
    assert write(trained, path).fidelity is None
    return runtimes.load(path, threads=1)


@pytest.mark.parametrize("name", SMALLER)
def test_samples_end_near_those_of_float32_and_the_file_is_smaller(name, trained, exact, tmp_path):
    report = write(trained, tmp_path / "a.onnx", precision=name)
    small = runtimes.load(tmp_path / "a.onnx", threads=1)
    request = {"label": list(range(8)), "seed": 77}
    x, x32 = (runtimes.sample(model, 96, **request) for model in (small, exact))
    apart = np.median(np.linalg.norm(x - x32, axis=1)) / np.median(np.linalg.norm(x32, axis=1))
    assert 0.0 < apart < fidelity.TOLERANCES[name]
    assert report.fidelity.passes
    assert apart / 3 < report.fidelity.end_error < apart * 3  # the same thing on other seeds
    assert len(small.file.content) < SIZES[name] * len(exact.file.content)
    kept = fidelity.from_json(small.file.metadata[modelfile.PRECISION_KEY])
    assert kept == replace(report.fidelity, time=None)
    assert f"{name} against fp32" in report.table()
    assert modelfile.PRECISION_KEY not in exact.file.metadata


@pytest.mark.parametrize("name", ["fp16", "bf16", "int8", "w8", "w4"])
@pytest.mark.parametrize("form", ["sampler", "seeded", "likelihood"])
def test_every_form_has_the_same_network_inside(name, form, trained, exact, tmp_path):
    if (form, name) == ("likelihood", "int8"):  # steps have no derivative
        with pytest.raises(ValueError, match="derivative rule, got DynamicQuantizeLinear"):
            write(trained, tmp_path / "a.onnx", form, precision=name)
        return
    write(trained, tmp_path / "a.onnx", form, precision=name)
    small = runtimes.load(tmp_path / "a.onnx", threads=1)
    assert small.form == form
    x, x32 = (runtimes.sample(m, 8, label=list(range(8)), seed=3) for m in (small, exact))
    limit = fidelity.TOLERANCES[name] * np.abs(x32).max()
    assert 0.0 < np.median(np.abs(x - x32)) < limit


def single(weight, kind="MatMul", **attributes):
    """prediction = x W (+ b), with no more around it."""
    inputs, outputs = weight.shape[::-1] if attributes.get("transB") else weight.shape
    tensors = [numpy_helper.from_array(weight.astype(np.float32), "w")]
    names = ["x", "w"]
    if kind == "Gemm":
        tensors.append(numpy_helper.from_array(np.arange(outputs, dtype=np.float32), "b"))
        names.append("b")
    node = helper.make_node(kind, names, ["prediction"], **attributes)
    value = [("x", TensorProto.FLOAT, ["B", inputs]), ("time", TensorProto.FLOAT, ["B"])]
    return proto(graph([node], value, ["B", outputs], tensors), Spec("line", (inputs,)))


def run(model, x):
    import onnxruntime

    onnx.checker.check_model(model, full_check=True)
    session = onnxruntime.InferenceSession(model.SerializeToString())
    (out,) = session.run(None, {"x": x, "time": np.zeros(len(x), np.float32)})
    return out


RNG = np.random.default_rng(1)


def whole_weight(low, high):
    """(16, 32) whole numbers, both ends in every column."""
    weight = RNG.integers(low, high + 1, (16, 32))
    weight[0], weight[1] = low, high
    return weight


@pytest.mark.parametrize(
    ("name", "weight"),
    [
        ("fp16", RNG.integers(-2048, 2049, (16, 24)) / 1024),
        ("bf16", RNG.integers(-256, 257, (16, 24)) * 2.0**40),
        ("int8", whole_weight(-63, 63)),
        ("uint8", whole_weight(0, 255)),
        ("uint8", whole_weight(-100, 155)),
        ("w8", whole_weight(-127, 127)),
        ("w4", whole_weight(-8, 7)),
        ("w4", -whole_weight(-8, 7)),
    ],
)
@pytest.mark.parametrize("kind", ["MatMul", "Gemm", "Gemm transposed"])
def test_numbers_that_fit_are_exact(name, weight, kind):
    """Whole x over all of 0..255 too, so that its scale is 1."""
    x = np.float32(RNG.integers(0, 256, (5, 16)))
    x[0, 0], x[0, 1] = 0, 255
    kind, *turned = kind.split()
    network = single(weight.T if turned else weight, kind, **({"transB": 1} if turned else {}))
    exact = x.astype(np.float64) @ weight + (np.arange(weight.shape[1]) if kind == "Gemm" else 0)
    np.testing.assert_array_equal(run(precision.rewritten(network, name), x), np.float32(exact))


@pytest.mark.parametrize("name", ["int8", "uint8"])
def test_a_product_errs_by_half_a_step_of_each_number_at_most(name):
    weight, x = RNG.standard_normal((64, 32)), np.float32(RNG.standard_normal((9, 64)))
    got = run(precision.rewritten(single(weight), name), x)
    step_x = (max(x.max(), 0) - min(x.min(), 0)) / 255
    step_w = np.abs(weight).max(0) / 63 if name == "int8" else np.ptp(weight, axis=0) / 255
    far = np.abs(x).sum(1)[:, None] * step_w / 2 + step_x / 2 * np.abs(weight).sum(0)
    far = far + 64 * step_x * step_w / 4 + 64 * step_x * step_w  # their product, and the zeros'
    assert (np.abs(got - x @ weight) <= far).all()


def kept(weight, name):
    """What a precision makes of a matrix: its product with the identity."""
    return run(precision.rewritten(single(weight), name), np.eye(len(weight), dtype=np.float32))


BITS = {"w8": (-127, 127), "w4": (-8, 7)}


@pytest.mark.parametrize("name", BITS)
@pytest.mark.parametrize("inputs", [8, 32, 64, 96, 100, 200, 66, 31])
def test_every_block_has_a_scale_of_its_own(name, inputs):
    """Whole numbers times a power of two of each block's own are met exactly, whatever its size."""
    low, high = BITS[name]
    size = max(n for n in range(8, 33) if inputs % n == 0)
    weight = RNG.integers(low, high + 1, (inputs // size, size, 32))
    weight[:, 0] = low * RNG.choice([-1, 1], (inputs // size, 32)) if name == "w8" else low
    powers = 2.0 ** RNG.integers(-90, 90, (inputs // size, 1, 32))
    weight = (weight * powers).reshape(inputs, 32)
    np.testing.assert_array_equal(kept(weight, name), np.float32(weight))


@pytest.mark.parametrize("name", BITS)
def test_a_weight_in_a_block_is_off_by_half_a_step(name):
    """But in 4 bits at the end that has one number less: by a step."""
    weight = np.float32(RNG.standard_normal((320, 64)) * np.exp(RNG.normal(size=(1, 64))))
    weight[32:64] = 0.0  # blocks of nothing
    weight[64:96] *= 1e-30
    weight[96:128] *= 1e30
    largest = np.abs(weight.reshape(10, 32, 64)).max(1, keepdims=True)
    step = np.repeat(largest / (127 if name == "w8" else 8), 32, 1).reshape(320, 64)
    off = np.abs(kept(weight, name) - weight) / np.where(step > 0, step, 1)
    assert (off[32:64] == 0).all()
    assert off.max() < (0.75 if name == "w8" else 1.05)  # a rounded scale: 127 / 256 of a step
    assert np.median(off[:32]) < 0.3
    assert 0.2 < off[64:].mean() < 0.3  # of uniform errors: a quarter


@pytest.mark.parametrize(
    ("name", "shape"), [("w8", (67, 32)), ("w4", (67, 32)), ("w8", (64, 31)), ("w4", (64, 33))]
)
def test_a_matrix_that_cannot_be_cut_is_kept_as_fp16(name, shape):
    """67 is a prime, 31 outputs are few, and 33 make no pairs."""
    weight = RNG.integers(-9, 9, shape)
    with pytest.raises(ValueError, match="32 outputs or more and inputs that 8 to 32 divide, got"):
        precision.rewritten(single(weight), name)
    behind = numpy_helper.from_array(np.zeros((shape[1], 64), np.float32), "behind")
    network = single(weight)
    network.graph.node[0].output[0] = "between"
    network.graph.initializer.append(behind)
    network.graph.node.add(op_type="MatMul", input=["between", "behind"], output=["prediction"])
    made = precision.rewritten(network, name)
    kinds = {t.name: t.data_type for t in made.graph.initializer}
    assert kinds["w.half"] == TensorProto.FLOAT16
    assert kinds["behind.numbers"] == (TensorProto.UINT8 if name == "w4" else TensorProto.INT8)


@pytest.mark.parametrize("name", BITS)
@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_weights_that_are_not_finite_are_refused(name, bad):
    weight = RNG.standard_normal((64, 32))
    weight[40, 3] = bad
    with pytest.raises(ValueError, match=r"^precision: expected finite weights, got NaN or inf"):
        precision.rewritten(single(weight), name)


@pytest.mark.parametrize("name", SMALLER)
def test_a_matrix_read_as_it_is_and_turned(name):
    weight = RNG.standard_normal((48, 48))
    network = single(weight, "Gemm", transB=1)
    network.graph.node[0].output[0] = "between"
    network.graph.node.append(helper.make_node("Gemm", ["between", "w", "b"], ["prediction"]))
    x = np.float32(RNG.standard_normal((5, 48)))
    exact = run(network, x)
    apart = np.abs(run(precision.rewritten(network, name), x) - exact).max()
    assert 0.0 < apart < 2 * fidelity.TOLERANCES[name] * np.abs(exact).max()


def test_every_precision_has_a_gate():
    assert list(fidelity.TOLERANCES) == SMALLER


def test_bfloat16_is_torchs_on_ties_too():
    bits = np.random.default_rng(0).integers(0, 2**32, 20_000, dtype=np.uint32)
    bits[:5000] = bits[:5000] & 0xFFFF0000 | 0x8000  # just between two neighbours
    values = bits.view(np.float32)
    values = values[np.isfinite(values) & (np.abs(values) < 3e38)].reshape(-1, 1)
    stored = numpy_helper.to_array(precision._bfloat16(values, "a")).astype(np.float32)
    np.testing.assert_array_equal(
        stored, torch.from_numpy(values.copy()).to(torch.bfloat16).float().numpy()
    )


def test_two_products_never_overflow_16_bits(trained):
    """What AVX2 adds up in 16 bits: u8 x s8 + u8 x s8."""
    made = precision.rewritten(trained[1], "int8")
    found = [numpy_helper.to_array(t) for t in made.graph.initializer if t.data_type == 3]
    matrices = [array.astype(int) for array in found if array.ndim == 2]
    assert len(matrices) == 3  # the first layer is narrow
    for matrix in matrices:
        pairs = np.abs(matrix[0::2]) + np.abs(matrix[1::2])
        assert 255 * pairs.max() < 2**15
        assert (np.abs(matrix).max(0) == 63).all()  # and no bit is wasted


def test_unsigned_is_unsigned_and_signed_of_8_bits_is_refused(trained):
    made = precision.rewritten(trained[1], "uint8")
    assert TensorProto.INT8 not in {tensor.data_type for tensor in made.graph.initializer}
    with pytest.raises(ValueError, match=r"expected one of fp32, .*, got 'qint8'; signed weights"):
        precision.rewritten(trained[1], "qint8")


def test_what_is_small_or_no_weight_stays_as_it_is(trained):
    before = {t.name: t for t in trained[1].graph.initializer}
    for name in SMALLER:
        made = {t.name: t for t in precision.rewritten(trained[1], name).graph.initializer}
        for key, tensor in before.items():
            if len(tensor.dims) < 2 or np.prod(tensor.dims) < precision.SMALL:
                assert made[key] == tensor
        table = [t for t in made.values() if list(t.dims) == [9, WIDTH]]
        assert [t.data_type for t in table] == [
            TensorProto.BFLOAT16 if name == "bf16" else TensorProto.FLOAT16
        ]
    assert {t.name: t for t in trained[1].graph.initializer} == before  # a copy was changed


@pytest.mark.parametrize("name", SMALLER)
def test_a_weight_read_in_two_ways_is_kept_in_both(name, monkeypatch):
    """The mixture's means: factors in one place, a matrix in another."""
    spec = mixture_spec()
    with pytest.raises(ValueError, match=r"got none to keep in .*; leave it at fp32"):
        precision.rewritten(proto(mixture_graph(), spec), name)
    monkeypatch.setattr(precision, "SMALL", 16)
    monkeypatch.setattr(blocks, "FEW", 2)
    made = precision.rewritten(proto(mixture_graph(), spec), name)
    x, times = np.float32(np.random.default_rng(0).normal(size=(64, 2))), np.full(64, 0.6, "f4")
    import onnxruntime

    (out,) = onnxruntime.InferenceSession(made.SerializeToString()).run(
        None, {"x": x, "time": times}
    )
    exact = MIXTURE.velocity(x, runtimes.schedules.named("linear")(0.6))
    apart = np.abs(out - exact).max() / np.abs(exact).max()
    assert 0.0 < apart < fidelity.TOLERANCES[name]
    halves = [t.name for t in made.graph.initializer if t.name.endswith(".half")]
    assert halves == ["means.half"]


def test_what_no_half_can_hold_is_refused():
    network = single(np.full((16, 24), 1e5))
    with pytest.raises(
        ValueError, match=r"up to 65504 for fp16, got 1e\+05 in 'w.half'; use bf16"
    ):
        precision.rewritten(network, "fp16")
    assert np.isfinite(run(precision.rewritten(network, "bf16"), np.ones((2, 16), "f4"))).all()


def test_constants_in_nodes_are_weights_too():
    network = single(RNG.integers(-9, 9, (16, 24)))
    (weight,) = network.graph.initializer
    node = helper.make_node("Constant", [], ["w"], value=weight)
    network.graph.node.insert(0, node)
    del network.graph.initializer[:]
    x = np.float32(RNG.integers(0, 9, (3, 16)))
    made = precision.rewritten(network, "fp16")
    assert [t.data_type for t in made.graph.initializer] == [TensorProto.FLOAT16]
    np.testing.assert_array_equal(run(made, x), run(network, x))


def test_a_precision_that_fails_is_not_written_unless_accepted(trained, tmp_path, monkeypatch):
    monkeypatch.setitem(fidelity.TOLERANCES, "bf16", 1e-9)
    path = tmp_path / "a.onnx"
    with pytest.raises(
        ParityError, match=r"^bf16: expected an end error of at most 1e-09"
    ) as caught:
        write(trained, path, precision="bf16")
    assert "--accept" in str(caught.value)
    assert "BEYOND the tolerance of bf16" in caught.value.report.table()
    assert not path.exists()
    write(trained, path, precision="bf16", accept=True)
    kept = fidelity.from_json(runtimes.load(path).file.metadata[modelfile.PRECISION_KEY])
    assert kept.end_error > kept.tolerance == 1e-9


def test_accept_does_not_open_the_other_gate(trained, tmp_path):
    with pytest.raises(ParityError, match="relative error of at most 1e-12"):
        write(trained, tmp_path / "a.onnx", precision="fp16", accept=True, tolerance=1e-12)


GOOD = fidelity.Fidelity("fp16", 64, 1e-3, 1e-4, 0.01, 0.1, 0.5)


@pytest.mark.parametrize(
    ("change", "passes"),
    [
        ({}, True),
        ({"end_error": 2e-3}, False),
        ({"end_error": float("nan")}, False),
        ({"sliced": 0.2}, False),  # the median sample is right, and the law is not
        ({"sliced": float("nan")}, False),
    ],
)
def test_both_distances_have_to_hold(change, passes):
    assert replace(GOOD, **change).passes is passes


def test_the_sliced_distance_is_that_of_the_metrics():
    rng = np.random.default_rng(0)
    a, b = rng.normal(size=(50, 1)), rng.gamma(2.0, size=(50, 1))
    assert fidelity.sliced(a, b) == pytest.approx(
        metrics.sliced_wasserstein(a, b, rng=rng), rel=1e-12
    )
    rows = rng.normal(size=(50, 3))  # moved along each axis: |d . e|^2 of unit d add up to 1
    moved = [fidelity.sliced(rows, rows + axis) ** 2 for axis in np.eye(3)]
    assert sum(moved) == pytest.approx(1.0, rel=1e-12)


def test_a_strangers_words_are_refused():
    for text in ("{}", "[]", "fp16", "3", json.dumps({**json.loads(GOOD.to_json()), "size": "a"})):
        with pytest.raises(ValueError, match=r"^precision: expected what toolkit export writes"):
            fidelity.from_json(text)
    assert fidelity.from_json(GOOD.to_json()) == GOOD


def casts(model):
    """The Casts of a weight anywhere in a graph, and the float32 weights."""
    graphs = [model.graph]
    for node in model.graph.node:
        graphs += [a.g for a in node.attribute if a.HasField("g")]
    kinds = {t.name: t.data_type for g in graphs for t in g.initializer}
    return [n for g in graphs for n in g.node if n.op_type == "Cast" and n.input[0] in kinds], {
        t.name: numpy_helper.to_array(t)
        for g in graphs
        for t in g.initializer
        if t.data_type == TensorProto.FLOAT
    }


@pytest.mark.parametrize(
    ("name", "form"), [("fp16", "sampler"), ("bf16", "sampler"), ("bf16", "network")]
)
def test_casts_of_weights_are_done_once_before_a_session(name, form, trained):
    grown = forms.GROW[form](precision.rewritten(trained[1], name), trained[0].spec, 1)
    wide = onnx.ModelProto.FromString(widened(grown.SerializeToString()))
    onnx.checker.check_model(wide, full_check=True)
    before, after = casts(grown), casts(wide)
    assert len(before[0]) == 4  # the layers; of the table rows are cast
    assert after[0] == []
    halves = {
        t.name: numpy_helper.to_array(t)
        for t in precision.rewritten(trained[1], name).graph.initializer
    }
    for node in before[0]:
        stem = node.input[0].removeprefix("network.")
        np.testing.assert_array_equal(after[1][node.output[0]], halves[stem].astype(np.float32))


UNFOLDED = ["ConstantFolding"]  # as in a session of ours


def operators(content, **options):
    """(in a loop or not, operator) of a graph as ONNX Runtime runs it, counted."""
    import onnxruntime

    with tempfile.TemporaryDirectory() as folder:
        settings = onnxruntime.SessionOptions()
        settings.log_severity_level = 4
        settings.optimized_model_filepath = f"{folder}/a.onnx"
        onnxruntime.InferenceSession(content, settings, **options)
        graphs = [onnx.load(f"{folder}/a.onnx").graph]
    for one in graphs:
        graphs += [a.g for node in one.node for a in node.attribute if a.HasField("g")]
    return Counter((k > 0, node.op_type) for k, one in enumerate(graphs) for node in one.node)


@pytest.mark.parametrize("form", ["network", "sampler", "seeded"])
@pytest.mark.parametrize("name", BITS)
def test_blocks_cost_a_call_nothing(name, form, trained):
    """Neither where ONNX Runtime folds constants, as it does by itself, nor in a session of ours."""
    spec, network = trained[0].spec, trained[1]
    exact, small = (
        forms.GROW[form](one, spec, 1).SerializeToString()
        for one in (network, precision.rewritten(network, name))
    )
    unfolded = {"disabled_optimizers": UNFOLDED}
    rows = Counter([(False, "Cast")])  # of those looked up in the table, which is fp16
    ours = operators(exact) + rows
    assert operators(small) == ours
    assert operators(widened(small), **unfolded) == operators(exact, **unfolded) + rows
    assert operators(small, **unfolded).total() > ours.total() + 7


def test_the_gate_times_the_file_as_it_will_be_opened(trained, tmp_path, monkeypatch):
    """Widened: the nodes of w4 at every call take several times as long, and a session goes by this key."""
    opened = []

    def judge(exact, small, name):
        opened.extend((exact.file.metadata, small.file.metadata))
        return fidelity.judge(exact, small, name)

    monkeypatch.setattr(forms, "judge", judge)
    write(trained, tmp_path / "a.onnx", precision="w4")
    assert [modelfile.PRECISION_KEY in one for one in opened] == [False, True]


@pytest.mark.parametrize("name", BITS)
def test_blocks_widened_are_what_onnxruntime_makes_of_them(name):
    weight = RNG.standard_normal((96, 64)) * 10.0 ** RNG.integers(-6, 6, (96, 64))
    made = precision.rewritten(single(weight, "Gemm", transB=1), name)
    content = widened(made.SerializeToString())
    assert len(content) < made.ByteSize() + 4 * 96 * 64  # the matrix, for nodes that are gone
    wide = onnx.ModelProto.FromString(content)
    assert [node.op_type for node in wide.graph.node] == ["Gemm"]
    x = np.eye(64, dtype=np.float32)
    np.testing.assert_array_equal(run(wide, x), run(made, x))


def test_casts_of_float16_outside_a_loop_are_left_to_onnxruntime(trained, tmp_path):
    """Which does them without folding constants; if it ever stops to, they belong into `widen`."""
    import onnxruntime

    made = precision.rewritten(trained[1], "fp16").SerializeToString()
    assert widened(made) == made
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 4
    options.optimized_model_filepath = str(tmp_path / "a.onnx")
    onnxruntime.InferenceSession(made, options, disabled_optimizers=["ConstantFolding"])
    seen = onnx.ModelProto.FromString((tmp_path / "a.onnx").read_bytes())
    assert len(casts(onnx.ModelProto.FromString(made))[0]) == 4
    assert casts(seen)[0] == []


def test_other_models_are_not_touched(exact):
    assert widened(exact.file.content) == exact.file.content


def test_one_weight_does_not_become_many():
    """A stranger may cast one weight twenty thousand times."""
    model = precision.rewritten(single(np.ones((64, 64))), "bf16")
    (cast, product) = model.graph.node
    for k in range(50):
        again = helper.make_node("Cast", list(cast.input), [f"more{k}"], to=TensorProto.FLOAT)
        model.graph.node.insert(0, again)
    size = len(model.SerializeToString())
    assert len(widened(model.SerializeToString())) < size + 4 * 64 * 64 + 100
    del product, cast


def test_a_cast_that_is_none_of_ours_is_left_alone():
    model = precision.rewritten(single(np.ones((64, 64))), "bf16")
    for change in ({"to": TensorProto.DOUBLE}, {}):
        model.graph.node[0].CopyFrom(helper.make_node("Cast", ["w.half"], ["w"], **change))
        assert widened(model.SerializeToString()) == model.SerializeToString()


def read_by_another(graph, nodes):
    graph.node.add(op_type="Identity", input=nodes["Mul"].output, output=["more"])


def turned(graph, nodes):
    nodes["Mul"].input[:] = nodes["Mul"].input[::-1]


def open_size(graph, nodes):
    (sizes,) = (t for t in graph.initializer if t.name == nodes["Reshape"].input[1])
    sizes.raw_data = np.array([-1, 64], "<i8").tobytes()


def half_pairs(graph, nodes):
    (pairs,) = (t for t in graph.initializer if t.name == nodes["Gather"].input[0])
    pairs.CopyFrom(numpy_helper.from_array(blocks.PAIRS.astype(np.float16), pairs.name))
    graph.node.add(op_type="Identity", input=nodes["Gather"].output, output=["more"])


def over_16_bits(graph, nodes):
    at = next(k for k, n in enumerate(graph.node) if n.input[0] == nodes["Gather"].output[0])
    cast = helper.make_node("Cast", nodes["Gather"].output, ["half"], to=TensorProto.FLOAT16)
    graph.node[at].input[0] = "half"
    graph.node.insert(at, cast)


@pytest.mark.parametrize("form", ["network", "sampler"])
@pytest.mark.parametrize("change", [read_by_another, turned, open_size, half_pairs, over_16_bits])
def test_a_node_that_is_none_of_ours_is_left_to_onnxruntime(change, form):
    """Whatever stands around blocks, the bytes that a session gets compute what those of the file do."""
    import onnxruntime

    made = precision.rewritten(single(RNG.standard_normal((64, 64))), "w4")
    change(made.graph, {node.op_type: node for node in made.graph.node})
    content = forms.GROW[form](made, Spec("line", (64,)), 1).SerializeToString()
    assert widened(content) != content
    x = np.float32(RNG.standard_normal((3, 64)))
    feeds = {"x": x[None]} if form == "sampler" else {"x": x, "time": np.ones(3, np.float32)}
    name = "sample" if form == "sampler" else "prediction"
    ours, theirs = (
        onnxruntime.InferenceSession(one).run([name], feeds) for one in (widened(content), content)
    )
    np.testing.assert_array_equal(ours, theirs)


def test_an_input_with_a_default_is_no_constant():
    nodes = [
        helper.make_node("Cast", ["k"], ["y"], to=TensorProto.FLOAT),
        helper.make_node("Mul", ["x", "y"], ["prediction"]),
    ]
    default = numpy_helper.from_array(np.array([2]), "k")
    default.raw_data = np.array([2], "<i8").tobytes()
    assert of_one(nodes, [default], {"k": np.array([5])}) == 5.0


def test_what_a_graph_inside_reads_stays():
    """A value used up at the top, and once more in the branches of an If."""
    branches = {
        f"{word}_branch": helper.make_graph(
            [helper.make_node(kind, ["y"], [word])], word, [],
            [helper.make_tensor_value_info(word, TensorProto.FLOAT, None)],
        )
        for word, kind in (("then", "Identity"), ("else", "Neg"))
    }  # fmt: skip
    nodes = [
        helper.make_node("Cast", ["k"], ["y"], to=TensorProto.FLOAT),
        helper.make_node("Cast", ["l"], ["s"], to=TensorProto.FLOAT),
        helper.make_node("Mul", ["y", "s"], ["q"]),
        helper.make_node("If", ["yes"], ["r"], **branches),
        helper.make_node("Add", ["q", "r"], ["w"]),
        helper.make_node("Mul", ["x", "w"], ["prediction"]),
    ]
    numbers = {"k": np.int8([2]), "l": np.int8([3]), "yes": np.array(True)}
    tensors = [numpy_helper.from_array(value, name) for name, value in numbers.items()]
    assert of_one(nodes, tensors, {}) == 8.0


def of_one(nodes, tensors, feeds):
    """What a graph makes of x = 1, the same after widening."""
    import onnxruntime

    def value(name, kind, sizes):
        return helper.make_tensor_value_info(name, kind, sizes)

    takes = [value("x", TensorProto.FLOAT, [1])]
    takes += [value(name, TensorProto.INT64, [1]) for name in feeds]
    gives = [value("prediction", TensorProto.FLOAT, [1])]
    made = helper.make_graph(nodes, "g", takes, gives, tensors)
    model = helper.make_model(
        made, opset_imports=[helper.make_opsetid("", 20)], ir_version=10
    ).SerializeToString()
    mine, theirs = (
        onnxruntime.InferenceSession(one).run(None, {"x": np.ones(1, np.float32), **feeds})[0]
        for one in (widened(model), model)
    )
    assert mine == theirs
    return float(mine[0])


@pytest.mark.parametrize("axes", [[0, 2**31 - 1, 2**31 - 1, 2**31 - 1], [2**31 - 1, 0]])
def test_a_weight_of_no_numbers_is_left_to_onnxruntime(axes):
    model = precision.rewritten(single(np.ones((64, 64))), "bf16")
    model.graph.initializer.add(name="none", data_type=TensorProto.INT8, dims=axes, raw_data=b"")
    model.graph.node.add(op_type="Cast", input=["none"], output=["y"]).attribute.add(
        name="to", type=onnx.AttributeProto.INT, i=TensorProto.FLOAT
    )
    wide = onnx.ModelProto.FromString(widened(model.SerializeToString()))
    assert [node.op_type for node in wide.graph.node] == ["MatMul", "Cast"]


def test_widening_holds_little_more_than_the_new_bytes_twice():
    numbers = np.ones((1024, 1024))
    model = precision.rewritten(single(numbers), "bf16").SerializeToString()
    tracemalloc.start()
    widened(model)
    _, most = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert most < 2.7 * 4 * numbers.size


@pytest.mark.parametrize("sizes", [[64, 65], [0, 64], [-64, -64]])
def test_sizes_that_are_wrong_are_left_to_onnxruntime(sizes):
    made = precision.rewritten(single(RNG.standard_normal((64, 64))), "w4")
    (reshape,) = (node for node in made.graph.node if node.op_type == "Reshape")
    (tensor,) = (t for t in made.graph.initializer if t.name == reshape.input[1])
    tensor.raw_data = np.array(sizes, "<i8").tobytes()
    wide = onnx.ModelProto.FromString(widened(made.SerializeToString()))
    assert [node.op_type for node in wide.graph.node] == ["Reshape", "MatMul"]


@pytest.mark.parametrize("name", precision.PRECISIONS)
def test_unrolled_in_fewer_bits_is_one_piece_still(name, trained, exact, tmp_path):
    if name in precision.IN_CALLS:
        with pytest.raises(ValueError, match=f"form unrolled in one piece, got '{name}'; take fp"):
            write(trained, tmp_path / "a.onnx", "unrolled", precision=name)
        return
    found = write(trained, tmp_path / "a.onnx", "unrolled", precision=name).fidelity
    small = runtimes.load(tmp_path / "a.onnx", threads=1)
    taken = {row.provider: row for row in placement(small.file.content)}
    assert taken["coreml"].whole
    assert taken["nnapi"].whole
    x, x32 = (runtimes.sample(m, 8, label=list(range(8)), seed=3) for m in (small, exact))
    apart = np.median(np.abs(x - x32)) / np.abs(x32).max()
    if name == "fp32":
        assert apart < 1e-6
        assert found is None
        return
    assert 1e-6 < apart < fidelity.TOLERANCES[name]
    assert found.passes
    assert found.size < SIZES[name] + 0.15  # the nodes of twelve calls
    graph = onnx.load(tmp_path / "a.onnx").graph
    casts = [node for node in graph.node if node.op_type == "Cast"]
    products = [node for node in graph.node if node.op_type in ("Gemm", "MatMul")]
    assert len(casts) < 12 < 40 < len(products)  # a weight once, and read by each of twelve calls
    wide = operators(widened(small.file.content), disabled_optimizers=UNFOLDED)
    assert (False, "Cast") not in wide


def test_images_with_convolutions_in_half():
    """Kernels are weights of four axes, and are cast like any other."""
    kernel = RNG.integers(-8, 8, (8, 8, 3, 3)) / 8
    node = helper.make_node("Conv", ["x", "k"], ["prediction"], pads=[1, 1, 1, 1])
    values = [("x", TensorProto.FLOAT, ["B", 8, 4, 4]), ("time", TensorProto.FLOAT, ["B"])]
    tensors = [numpy_helper.from_array(np.float32(kernel), "k")]
    network = proto(graph([node], values, ["B", 8, 4, 4], tensors), Spec("c", (8, 4, 4)))
    x = np.float32(RNG.normal(size=(2, 8, 4, 4)))
    np.testing.assert_array_equal(run(precision.rewritten(network, "fp16"), x), run(network, x))
    with pytest.raises(ValueError, match="a matrix of 256 weights or more, got none"):
        precision.rewritten(network, "int8")


def test_inspect_says_the_precision_and_export_knows_its_names(trained, tmp_path, capfd):
    write(trained, tmp_path / "a.onnx", "sampler", precision="int8")
    capfd.readouterr()
    with pytest.raises(SystemExit) as stop:
        main(["inspect", str(tmp_path / "a.onnx")])
    out = capfd.readouterr().out
    assert not stop.value.code
    assert "\nprecision      int8: end error " in out
    with pytest.raises(SystemExit) as stop:
        main(["inspect", str(tmp_path / "a.onnx"), "--json"])
    assert json.loads(capfd.readouterr().out)["precision"]["precision"] == "int8"
    for word, says in (("fp61", "did you mean 'fp16'"), ("qint8", "AVX2 alone; int8 has 7")):
        with pytest.raises(SystemExit) as stop:
            main(["export", "absent", "-o", str(tmp_path / "b.onnx"), "--precision", word])
        err = capfd.readouterr().err
        assert (stop.value.code, err.count("\n")) == (2, 1)
        assert says in err


def test_the_condition_may_be_a_context(tmp_path):
    torch.manual_seed(0)

    class Told(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.first, self.last = torch.nn.Linear(21, 32), torch.nn.Linear(32, 16)

        def forward(self, x, time, context):
            return self.last(torch.tanh(self.first(torch.cat([x, time[:, None], context], 1))))

    spec = Spec(
        "told", (16,), condition=Condition("context", shape=(4,)), sampler=Sampler("euler", 3)
    )
    net = Told().requires_grad_(False)
    pair = TorchModel(spec, net), _trace(net, spec, forms.example(spec, 3))
    assert write(pair, tmp_path / "a.onnx", "seeded", precision="fp16").fidelity.passes
